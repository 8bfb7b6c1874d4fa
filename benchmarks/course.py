"""How quick and how large the course itself is.

    python -m benchmarks.course                feedback, open and sizes
    python -m benchmarks.course feedback       a check's answer, over all exercises
    python -m benchmarks.course open           the open tasks that may take 20 s and more
    python -m benchmarks.course sizes          repository, wheel, notebooks
    python -m benchmarks.course notebooks      every solved notebook under nbval: minutes
    python -m benchmarks.course setup          a fresh checkout set up: installs 1.7 GB twice
    python -m benchmarks.course test           make test, as long as that takes

Feedback is what `check` does for a learner, inputs, calls, verdict and words, in CPU seconds of the
process. Every exercise is asked with its reference, with each of its misconceptions, and with an
answer that nobody foresaw, for which all misconceptions are tried. Nothing is warmed up for it but
the imports, so the first check of an exercise pays for what it loads.
"""

import os
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout, suppress
from dataclasses import dataclass
from io import StringIO
from os import times
from pathlib import Path

import torch

from benchmarks.measuring import QUICK, run_tables
from course_lib.exercises.engine.catalogue import by_chapter
from course_lib.exercises.engine.notebook import CheckFailed, check
from course_lib.exercises.engine.run import _warm_up
from course_lib.exercises.engine.spec import Exercise

ROOT = Path(__file__).resolve().parent.parent
OPEN = 20.0  # an exercise whose calls may take so many seconds is an open task
MEDIAN, TAIL, MOST = 0.015, 0.080, 4.0  # the goals, in CPU seconds
SHOWN = 10
APART = 8 if QUICK else 1  # one exercise of so many is asked

# ---------------------------------------------------------------- feedback


@dataclass(frozen=True)
class Feedback:
    """One check: of which exercise, of what answer, and its CPU seconds."""

    chapter: str
    exercise: str
    answer: str
    seconds: float


def answers(exercise: Exercise) -> Iterator[tuple[str, Callable]]:
    """What learners hand in: the reference, each misconception, and something else."""
    yield "right", exercise.reference
    for known in exercise.misconceptions:
        yield known.name, known.function
    yield "unforeseen", lambda *_: "something else"


def check_seconds(exercise: Exercise, function: Callable) -> float:
    """CPU seconds of one check, those of child processes too."""

    def answer(*inputs: object) -> object:
        return function(*inputs)

    answer.__name__ = exercise.name
    start = _cpu()
    with redirect_stdout(StringIO()), suppress(CheckFailed):
        check(answer)
    return _cpu() - start


def _cpu() -> float:
    children = times()
    return time.process_time() + children.children_user + children.children_system


def all_feedback(wanted: Callable[[Exercise], bool]) -> list[Feedback]:
    """Every answer of the exercises that are wanted; nothing goes into anybody's journal."""
    _warm_up()
    found = []
    with tempfile.TemporaryDirectory() as folder:
        os.environ["XDG_DATA_HOME"] = folder
        for chapter, exercises in by_chapter().items():
            for exercise in filter(wanted, exercises):
                for name, function in answers(exercise):
                    taken = check_seconds(exercise, function)
                    found.append(Feedback(chapter, exercise.name, name, taken))
    return found


def quantile(numbers: list[float], share: float) -> float:
    """The smallest number that so large a share of the numbers does not exceed."""
    ordered = sorted(numbers)
    return ordered[max(0, -int(-share * len(ordered) // 1) - 1)]


def feedback_table() -> None:
    """Median, 95th percentile and largest, by kind of answer and by chapter; the slowest ones."""
    quick = [one for ones in by_chapter().values() for one in ones if one.seconds < OPEN][::APART]
    found = all_feedback(lambda exercise: exercise in quick)
    if QUICK:
        print(f"one exercise of {APART} alone")
    print(f"{'CPU milliseconds of a check':34} count   median      95 %   largest")
    by_kind: dict[str, list[float]] = {}
    for one in found:
        kind = one.answer if one.answer in {"right", "unforeseen"} else "a misconception"
        by_kind.setdefault(kind, []).append(one.seconds)
        by_kind.setdefault(f"chapter {one.chapter[:2]}", []).append(one.seconds)
    everything = [one.seconds for one in found]
    for name, numbers in {"all": everything, **dict(sorted(by_kind.items()))}.items():
        three = statistics.median(numbers), quantile(numbers, 0.95), max(numbers)
        cells = " ".join(f"{1000 * value:9.1f}" for value in three)
        print(f"{name:34} {len(numbers):5} {cells}")
    three = statistics.median(everything), quantile(everything, 0.95), max(everything)
    goals = zip(("median", "95 %", "largest"), three, (MEDIAN, TAIL, MOST), strict=True)
    said = [f"{n} ≤ {1000 * g:g} ms {'met' if v <= g else 'NOT MET'}" for n, v, g in goals]
    print("goals: " + ", ".join(said))
    print("the slowest:")
    for one in sorted(found, key=lambda one: -one.seconds)[:SHOWN]:
        print(f"    {one.chapter[:2]} {one.exercise:34} {one.answer[:44]:44} {one.seconds:7.3f} s")


def open_table() -> None:
    """The open tasks: CPU seconds of checking the reference."""
    print("open tasks, CPU seconds of a check of the reference, and the limit of one call")
    for chapter, exercises in by_chapter().items():
        for exercise in (one for one in exercises if one.seconds >= OPEN):
            taken = check_seconds(exercise, exercise.reference)
            print(
                f"    {chapter[:2]} {exercise.name:34} {taken:7.1f} s {exercise.seconds:7.0f} s",
                flush=True,
            )


# ---------------------------------------------------------------- sizes


def tracked() -> dict[str, int]:
    """Path -> bytes of every file that git tracks."""
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout
    paths = [name for name in listed.split("\0") if name and (ROOT / name).is_file()]
    return {name: (ROOT / name).stat().st_size for name in paths}


def sizes_table() -> None:
    """Megabytes of the repository by folder, of the notebooks, and of a wheel if one is built."""
    files = tracked()
    folders: dict[str, int] = {}
    for name, count in files.items():
        folder = name.partition("/")[0] if "/" in name else "(the root)"
        folders[folder] = folders.get(folder, 0) + count
    print(f"repository: {len(files):,} files, {sum(files.values()) / 1e6:.1f} MB")
    for folder, count in sorted(folders.items(), key=lambda item: -item[1])[:8]:
        print(f"    {folder:24} {count / 1e6:8.2f} MB")
    for folder in ("notebooks", "solutions"):
        own = {n: c for n, c in files.items() if n.startswith(folder) and n.endswith(".ipynb")}
        most = max(own, key=own.get, default="none")
        print(f"{folder}: {len(own)} notebooks, {sum(own.values()) / 1e6:.2f} MB; ", end="")
        print(f"the largest {most}, {own.get(most, 0) / 1e6:.2f} MB")
    wheels = sorted((ROOT / "dist").glob("*.whl"))
    for wheel in wheels:
        print(f"wheel: {wheel.name}, {wheel.stat().st_size / 1e6:.1f} MB")
    if not wheels:
        print("wheel: none is built; `make wheel` first")


# ---------------------------------------------------------------- what takes minutes


def timed(command: list[str], folder: Path, **more: str) -> tuple[float, str]:
    """Seconds on the wall, and the last line that was printed; as if `make bench` had not begun it.

    Args:
        more: of the environment.

    Raises:
        RuntimeError: the command failed; with its last lines.
    """
    told = ("MAKE", "MFLAGS", "ARGS", "QUICK", "BENCH")
    environment = {k: v for k, v in os.environ.items() if not k.startswith(told)} | more
    start = time.monotonic()
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    taken = time.monotonic() - start
    lines = (done.stdout + done.stderr).strip().splitlines() or [""]
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with {done.returncode}: {lines[-1]}")
    return taken, lines[-1]


def notebooks_table() -> None:
    """Seconds on the wall and of the CPU of every solved notebook under nbval, and of all."""
    from course_lib.classroom.check import run_nbval

    total = [0.0, 0.0]
    print("solved notebooks under nbval       on the wall       CPU   red cells")
    for path in sorted((ROOT / "solutions").glob("*.ipynb")):
        start = time.monotonic(), _cpu()
        red = [one for one in run_nbval([path], compare=True, record=False) if not one.passed]
        taken = time.monotonic() - start[0], _cpu() - start[1]
        total = [a + b for a, b in zip(total, taken, strict=True)]
        print(f"    {path.stem:28} {taken[0]:9.1f} s {taken[1]:9.1f} s   {len(red)}", flush=True)
    print(f"    {'all, one after the other':28} {total[0]:9.1f} s {total[1]:9.1f} s")


def setup_table() -> None:
    """A fresh checkout: set up without pip's cache, again with it, and when nothing is to do."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder, "course")
        subprocess.run(["git", "clone", "--quiet", str(ROOT), str(place)], check=True)
        make = ["make", ".venv/.lab"]
        print("set-up of JupyterLab and the course, seconds on the wall")
        print(
            f"    cold, nothing in pip's cache {timed(make, place, PIP_NO_CACHE_DIR='1')[0]:8.1f}"
        )
        timed(["rm", "-r", ".venv"], place)
        timed(make, place)  # fills the cache
        timed(["rm", "-r", ".venv"], place)
        print(f"    warm, all in pip's cache     {timed(make, place)[0]:8.1f}")
        print(f"    when all is there            {timed(make, place)[0]:8.1f}", flush=True)


def test_table() -> None:
    """make test, on the wall."""
    taken, last = timed(["make", "test"], ROOT)
    print(f"make test: {taken / 60:.1f} minutes on the wall; {last}")


if __name__ == "__main__":
    torch.set_num_threads(1)
    tables = {
        "feedback": feedback_table,
        "open": open_table,
        "sizes": sizes_table,
        "notebooks": notebooks_table,
        "setup": setup_table,
        "test": test_table,
    }
    run_tables(tables, ("feedback", "open", "sizes"))
