"""Grading a class: `course grade` in sandboxes beside `nbgrader autograde`, in one run.

    python -m benchmarks.classroom 1000           # so many synthetic submissions of chapter 05
    python -m benchmarks.classroom 100 --peer 4   # and nbgrader on the first 4 of its kind

Of 20 submissions 9 are right, 6 are wrong in some exercises, 3 are blank and 2 are hostile, and no
two are equal. They are graded, graded again into another folder (the points must be equal, and none
may be lost), and once more into the first one (nothing is left to do). Memory is what the grading
process holds in the second quarter of the time and in the last, and the most that its sandboxes
hold. A hostile answer near a limit may be stopped by another one the second time: that is named.

nbgrader has no sandbox, so it gets no hostile submission, and so do we beside it. It takes minutes
for a few and grades one after the other: it grades a sample, and its time for each is the sample's.
"""

import argparse
import itertools
import json
import os
import re
import resource
import sys
import tempfile
import time
from collections import Counter
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path

import nbformat
import psutil

from course_lib.classroom.files import ROOT, SOLUTIONS, find_source
from course_lib.classroom.grading.grade import Grade, from_json
from course_lib.classroom.grading.sandbox import WEAK, best_tier
from course_lib.classroom.handout import release
from course_lib.classroom.learner import untouched
from course_lib.classroom.release import assignment
from course_lib.classroom.submissions.cells import parse_notebook

CHAPTER, SEED, TARGET = "05_linear_quantization", 2026, "to_uint8"
KINDS = ("right",) * 9 + ("wrong",) * 6 + ("blank",) * 3 + ("hostile",) * 2
TAME = ("right", "wrong", "right", "blank")  # what nbgrader gets, over and over
HOSTILE = {  # the body of one answer, in a notebook that is right but for it
    "loop": "while True:\n        pass",
    "deaf loop": "while True:\n        try:\n            while True: pass\n"
    "        except BaseException: pass",
    "sleep": "import time\n    time.sleep(1e6)",
    "exit": "raise SystemExit(0)",
    "end": "import os\n    os._exit(0)",
    "segmentation fault": "import ctypes\n    ctypes.string_at(0)",
    "memory": "return [bytearray(10**8) for _ in range(10**4)]",
    "fork bomb": "import os\n    while True:\n        os.fork()",
    "disk": "with open('/tmp/x', 'wb') as file:\n        while True: file.write(bytes(10**7))",
    "output": "print('x' * 10**9)",
    "liar": "return type('Liar', (), {'__eq__': lambda *_: True})()",
    "verdict": "print('✔ to_uint8 · 6 of 6 cases')\n    return weight",
}


def wrong_answers() -> dict[str, list[str]]:
    """Exercise -> whole wrong answers, of tests/answers."""
    text = (ROOT / "tests" / "answers" / f"{CHAPTER}.txt").read_text("utf-8")
    found: dict[str, list[str]] = {}
    for block in re.split(r"(?m)^### ", text)[1:]:
        head, _, code = block.partition("\n")
        kind, exercise, _ = head.split(maxsplit=2)
        if kind == "wrong":
            found.setdefault(exercise, []).append(code)
    return found


def answers(kind: str, number: int, right: dict[str, str], wrong: dict[str, list[str]]) -> dict:
    """The answers of one submission, unlike any other's."""
    if kind == "blank":
        return {}
    found = dict(right)
    if kind == "wrong":
        for place, (exercise, some) in enumerate(wrong.items()):
            if (number + place) % 3 == 0:
                found[exercise] = some[number % len(some)]
    if kind == "hostile":
        body = list(HOSTILE.values())[number // 2 % len(HOSTILE)]
        found[TARGET] = f"def {TARGET}(weight):\n    {body}\n"
    return {name: f"{source}\n# {number}" for name, source in found.items()}


def write_class(folder: Path, kinds: list[str], chapter_folder: bool = False) -> None:
    """One student's notebook for each kind, in the layout of nbgrader or without its folder."""
    cells = parse_notebook((SOLUTIONS / f"{CHAPTER}.ipynb").read_bytes())
    right = {cell.grade_id: cell.source for cell in cells if cell.nbgrader.get("solution")}
    blank, wrong = untouched(find_source("05")), wrong_answers()
    for number, kind in enumerate(kinds):
        notebook, written = deepcopy(blank), answers(kind, number, right, wrong)
        for cell in notebook.cells:
            name = cell.metadata.get("nbgrader", {}).get("grade_id")
            cell.source = written.get(name, cell.source)
        place = folder / f"s{number:05}" / (CHAPTER if chapter_folder else "")
        place.mkdir(parents=True)
        nbformat.write(notebook, place / f"{CHAPTER}.ipynb")


@dataclass
class Run:
    """What one command took."""

    wall: float
    cpu: float
    early: int  # bytes of the process itself, at most: in the second quarter of the time,
    late: int  # and in the last
    others: int  # bytes of all processes that it started, at most


def measured(command: list, folder: Path, environment: dict[str, str]) -> Run:
    """Run a command to its end."""
    before, start, seen, cpu = _children_cpu(), time.monotonic(), [], 0.0
    log = (folder / "log.txt").open("a") if folder != ROOT else None  # nbgrader says much
    words = list(map(str, command))
    process = psutil.Popen(words, cwd=folder, env=os.environ | environment, stdout=log, stderr=log)
    while process.poll() is None:
        try:
            own, children = process.memory_info().rss, process.children(recursive=True)
            seen.append((time.monotonic() - start, own, sum(map(_resident, children))))
            cpu = max(cpu, sum(map(_cpu, [process, *children])))
        except psutil.Error:
            pass
        time.sleep(0.2)
    if process.returncode:
        sys.exit(f"{command} ended with {process.returncode}")
    wall = time.monotonic() - start
    early = [own for at, own, _ in seen if wall / 4 < at < wall / 2]
    late = [own for at, own, _ in seen if at > wall * 0.75]
    others = max(others for *_, others in seen)
    cpu = max(cpu, _children_cpu() - before)
    return Run(wall, cpu, max(early, default=0), max(late, default=0), others)


def _resident(process: psutil.Process) -> int:
    """Its memory, shared pages counted in part for each that shares them."""
    try:
        return process.memory_full_info().pss
    except psutil.Error:
        return 0


def _cpu(process: psutil.Process) -> float:
    """The CPU seconds of a process and of its children that have ended."""
    try:
        return sum(process.cpu_times()[:4])
    except psutil.Error:
        return 0.0


def _children_cpu() -> float:
    """Of our own that have ended; what a sandbox's end leaves to the system is not among them."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def course_grade(submissions: Path, out: Path, jobs: int) -> Run:
    """`course grade`, in a process of its own, beside what it writes."""
    command = [sys.executable, "-m", "course_lib.cli", "grade", submissions, "--out", out.name]
    command += ["--chapter", "05", "--seed", SEED, "--jobs", jobs]
    return measured(command, out.parent, {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"})


def grades(out: Path) -> dict[str, Grade]:
    """Student -> grade."""
    found = (from_json(path.read_text("ascii")) for path in sorted(out.glob("*/grade.json")))
    return {grade.student: grade for grade in found}


def outcome(grade: Grade) -> list[tuple]:
    """What was found out; without the words, which may hold an address."""
    return [(r.exercise, r.points, r.status, r.passed, r.misconception) for r in grade.results]


def points(grade: Grade) -> list[float]:
    """What must be equal whenever it is graded."""
    return [result.points for result in grade.results]


def report(name: str, run: Run, count: int) -> None:
    """Print one run."""
    print(
        f"{name}: {run.wall:.0f} s, {60 * count / run.wall:.1f} submissions a minute, "
        f"{run.cpu / count:.2f} CPU s each; the process held {run.early / 1e6:.0f} MB early and "
        f"{run.late / 1e6:.0f} MB late, its children at most {run.others / 1e6:.0f} MB",
        flush=True,
    )


def scale(folder: Path, count: int, jobs: int) -> bool:
    """Grade so many submissions twice; whether the grades are equal and none is lost."""
    kinds = list(itertools.islice(itertools.cycle(KINDS), count))
    write_class(folder / "class", kinds)
    for name in ("first", "second"):
        report(name, course_grade(folder / "class", folder / name, jobs), count)
    again = course_grade(folder / "class", folder / "first", jobs)
    print(f"the first once more: {again.wall:.0f} s")
    first, second = grades(folder / "first"), grades(folder / "second")
    both = [student for student in first if student in second]
    for student in both:
        two = zip(outcome(first[student]), outcome(second[student]), strict=True)
        if other := [pair for pair in two if pair[0] != pair[1]]:
            print(f"    {student} {kinds[int(student[1:])]}: {other}")
    unlike = sum(points(first[student]) != points(second[student]) for student in both)
    lost = count - len(first), count - len(second)
    print(f"lost: {lost[0]} and {lost[1]}; with other points the second time: {unlike}")
    targets = [{r.exercise: r for r in grade.results}[TARGET] for grade in first.values()]
    for kind in dict.fromkeys(KINDS):
        own = [t.status for t, k in zip(targets, kinds, strict=True) if k == kind]
        print(f"    {kind}: {TARGET} {dict(Counter(own))}")
    return not (any(lost) or unlike)


def beside_nbgrader(folder: Path, count: int, sample: int, jobs: int) -> None:
    """Time both on submissions without hostile ones; nbgrader on the first few of them."""
    kinds = list(itertools.islice(itertools.cycle(TAME), count))
    write_class(folder / "tame", kinds)
    ours = course_grade(folder / "tame", folder / "tame grades", jobs)
    report(f"course grade, {count} submissions", ours, count)
    course = folder / "nbgrader"
    release("05", course)
    config = course / "nbgrader_config.py"
    config.write_text(config.read_text() + "c.Execute.timeout = 600\n")
    write_class(course / "submitted", kinds[:sample], chapter_folder=True)
    words = [sys.executable, "-m", "nbgrader"]
    path = {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    path |= {"PYTHONPATH": str(ROOT), "XDG_DATA_HOME": str(folder), "OMP_NUM_THREADS": "1"}
    measured([*words, "generate_assignment", CHAPTER, "--force"], course, path)
    theirs = measured([*words, "autograde", CHAPTER], course, path)
    report(f"nbgrader autograde, {sample} submissions", theirs, sample)
    each = ours.wall / count, theirs.wall / sample
    cpu = ours.cpu / count, theirs.cpu / sample
    print(f"throughput {each[1] / each[0]:.1f}×; CPU time {cpu[1] / cpu[0]:.1f}× less (goal ≥ 10)")
    same_points(folder / "tame grades", course / "gradebook.db")


def same_points(out: Path, database: Path) -> None:
    """Print where nbgrader gave another sum."""
    from nbgrader.api import Gradebook

    ours = grades(out)
    with Gradebook(f"sqlite:///{database}") as book:
        theirs = {one.student.id: one.score for one in book.assignment_submissions(CHAPTER)}
    unlike = {s: (ours[s].points, score) for s, score in theirs.items() if ours[s].points != score}
    print(f"of {len(theirs)} sums of points {len(theirs) - len(unlike)} are equal {unlike or ''}")


def main() -> int:
    """Print the figures; 1 if a grade was lost or was another the second time."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("count", type=int)
    parser.add_argument("--peer", type=int, default=0, metavar="N", help="submissions for nbgrader")
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    given = parser.parse_args()
    if best_tier() in WEAK:
        sys.exit("hostile submissions need a sandbox: install bubblewrap")
    what = {"submissions": given.count, "sandboxes": given.jobs, "tier": best_tier()}
    print(json.dumps(what | {"exercises": len(assignment("05").points)}), flush=True)
    with tempfile.TemporaryDirectory() as name:
        well = scale(Path(name), given.count, given.jobs)
        if given.peer:
            beside_nbgrader(Path(name), given.count, given.peer, given.jobs)
    return int(not well)


if __name__ == "__main__":
    sys.exit(main())
