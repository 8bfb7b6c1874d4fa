"""`course grade`: a folder of submissions in, a folder of grades out.

OUT/STUDENT/grade.json      what the student earned, and why; report.html to be read
OUT/grades.csv              student, exercise, points, verdict, misconception
OUT/settings.json           chapter and seed, for the next run; keep the seed to yourself
OUT/.graded/                the grades by their hash: what is there is not graded again
"""

import json
import secrets
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from zipfile import BadZipFile, ZipFile

from tqdm import tqdm

from course_lib.classroom.files import find_source, lesson_sources
from course_lib.classroom.grading.executor import executor
from course_lib.classroom.grading.grade import Grade, from_json
from course_lib.classroom.grading.grade_files import (
    folder_name,
    write_csv,
    write_student,
    write_whole,
)
from course_lib.classroom.grading.gradebook import Terms, grade_all
from course_lib.classroom.release import SEEDS, assignment, check_seed
from course_lib.classroom.reports.grade_pages import IN_WORDS
from course_lib.classroom.submissions.submission import handed_in, own_stem, read_submissions

SETTINGS = "settings.json"
STUDENTS = "a folder, zip or notebook for each student"
MANY = 10_000  # files of a folder that are looked at for its chapter


@dataclass
class Summary:
    """What came of a run; `lost` names the students without a grade, and why."""

    out: Path
    tier: str
    graded: int = 0
    unread: Counter[str] = field(default_factory=Counter)  # by status
    lost: dict[str, str] = field(default_factory=dict)
    earlier: list[str] = field(default_factory=list)  # students of an earlier run
    odd: list[Path] = field(default_factory=list)  # files of an earlier run that hold no grade

    def __str__(self) -> str:
        lines = [f"{self.graded} submissions graded in a sandbox of the kind {self.tier}"]
        unread = sorted(self.unread.items())
        lines += [f"of these {count} {status}: {IN_WORDS[status]}" for status, count in unread]
        lines += [f"not handed in this time, kept: {name}" for name in self.earlier]
        lines += [f"not graded: {student}: {why}" for student, why in sorted(self.lost.items())]
        lines += [f"left out, for it holds no grade: {path}" for path in self.odd]
        lines += ["The same command again grades only these."] if self.lost else []
        return "\n".join([*lines, f"{self.out / 'grades.csv'} holds them all"])


@dataclass(frozen=True)
class Wishes:
    """The options of `course grade`."""

    chapter: str = ""
    seed: int | None = None
    jobs: int = 0
    scheduler: str = ""
    weak_too: bool = False
    gradescope: bool = False
    junit: bool = False


def grade_folder(folder: Path, out: Path, wishes: Wishes) -> Summary:
    """Grade all submissions of a folder; what was graded before and did not change is kept.

    Args:
        folder: submissions, as `read_submissions` reads them.
        out: where the grades go; made where it is not there.
        wishes: the command's options.

    Raises:
        LookupError: the folder, the chapter or the scheduler cannot be found.
        WeakSandbox: this machine has no strong sandbox, and a weak one was not asked for.
        ValueError: `out` lies among the submissions.
    """
    if not folder.is_dir():
        seen = "is a file; unpack what was downloaded" if folder.exists() else "is not there"
        raise LookupError(f"{folder} {seen}. Expected is a folder: {STUDENTS}")
    if not (students := handed_in(folder)):
        raise LookupError(f"{folder} holds no submission. Expected is in it {STUDENTS}")
    if out.resolve().is_relative_to(folder.resolve()):
        raise ValueError(f"{out} lies among the submissions; name a folder outside of {folder}")
    settings = _settings(folder, out, wishes)
    what = assignment(settings["chapter"])
    with executor(wishes.jobs, wishes.scheduler, wishes.weak_too) as (tier, jobs, call):
        terms = Terms(what, settings["seed"], tier)
        out.mkdir(parents=True, exist_ok=True)
        write_whole(out / SETTINGS, json.dumps(settings))
        summary = Summary(out, tier)
        submissions = read_submissions(folder, what)
        grades = grade_all(submissions, terms, out, jobs, call)
        # No bar where it would be written to a file.
        bar = tqdm(grades, "grading", len(students), unit=" submissions", disable=None)
        for student, made in bar:
            _record(summary, student, made, wishes)
    write_csv(out / "grades.csv", _all_grades(summary, students), what.points)
    return summary


def _record(summary: Summary, student: str, made: Grade | Exception, wishes: Wishes) -> None:
    """Write one grade's files; a student without one loses an older one."""
    if isinstance(made, Grade):
        write_student(summary.out, made, wishes.gradescope, wishes.junit)
        summary.graded += 1
        summary.unread.update(filter(None, [made.status]))
    else:
        for file in ("grade.json", "report.html"):
            (summary.out / folder_name(student) / file).unlink(missing_ok=True)
        summary.lost[student] = f"{type(made).__name__}: {made}".partition("\n")[0]


def _all_grades(summary: Summary, students: Iterable[str]) -> Iterator[Grade]:
    """All grades in the folder, by student, one after the other; without results where one is lost.

    Those of an earlier run are among them, as they are in the class's report.
    """
    paths = {}
    for path in sorted(summary.out.glob("*/grade.json")):
        try:
            paths[_read(path).student] = path
        except (OSError, ValueError):
            summary.odd.append(path)
    summary.earlier = sorted({*paths} - {*students})
    for student in sorted({*paths, *summary.lost}):
        yield _read(paths[student]) if student in paths else Grade(student, "", ())


def _read(path: Path) -> Grade:
    return from_json(path.read_text("ascii"))


def _settings(folder: Path, out: Path, wishes: Wishes) -> dict:
    """Chapter and seed: asked for, else the last run's, else found beside or in the submissions."""
    last = _read_settings(out / SETTINGS)
    named = wishes.chapter or last.get("chapter")
    chapter = find_source(named).stem if named else chapter_of(folder)
    if last.get("chapter", chapter) != chapter:
        raise ValueError(f"{out} holds grades of {last['chapter']}; name another folder")
    released = _read_settings(folder.resolve().parent / f"{chapter}.seed.json")  # course release
    drawn = secrets.choice(SEEDS)
    seed = next(
        seed
        for seed in (wishes.seed, last.get("seed"), released.get("seed"), drawn)
        if seed is not None
    )
    check_seed(seed)
    return {"chapter": chapter, "seed": seed}


def _read_settings(path: Path) -> dict:
    try:
        read = dict(json.loads(path.read_text("ascii")))
    except (OSError, ValueError, TypeError, RecursionError):
        return {}
    kinds = {"chapter": str, "seed": int}
    return {name: read[name] for name, kind in kinds.items() if isinstance(read.get(name), kind)}


def chapter_of(folder: Path) -> str:
    """The chapter of which a folder holds the most notebooks, by their names.

    Raises:
        LookupError: there is none, or as many of another.
    """
    chapters = {path.stem for path in lesson_sources()}
    found = Counter(stem for stem in _stems(folder) if stem in chapters).most_common(2)
    if not found or len(found) == 2 and found[0][1] == found[1][1]:
        seen = " and ".join(name for name, _ in found) or "no notebook of the course"
        raise LookupError(f"{folder} holds {seen}; say which chapter: --chapter 05")
    return found[0][0]


def _stems(folder: Path) -> Iterator[str]:
    """The names of the notebooks in a folder and in the archives that lie in it."""
    paths = [*folder.glob("*"), *folder.glob("*/*"), *folder.glob("*/*/*")]
    for path in sorted(paths)[:MANY]:
        if path.suffix == ".ipynb":
            yield own_stem(path.name)
        elif path.suffix == ".zip" and path.is_file():
            try:
                with ZipFile(path) as archive:
                    names = archive.namelist()[:MANY]
            except (BadZipFile, OSError, ValueError, NotImplementedError):
                continue
            yield from {own_stem(Path(name).name) for name in names if name.endswith(".ipynb")}
