"""What came back: a folder of folders, zips and notebooks, read as one submission a student.

    DIR/STUDENT/05_linear_quantization.ipynb            also deeper, as in nbgrader's `submitted`
    DIR/STUDENT.zip, DIR/STUDENT.ipynb
    DIR/NAME_ID_assignsubmission_file/...               what Moodle gives to download, unpacked
    DIR/NAME_ID_SUBMISSION_05_linear_quantization.ipynb what Canvas gives; also NAME_LATE_ID_...

From Moodle and Canvas a student is called NAME_ID. The ID tells two of one name apart, and both
have it in the gradebook that they export.
"""

import os
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from unicodedata import normalize

from course_lib.classroom.release import CHECK, Assignment
from course_lib.classroom.submissions.answers import find_answers
from course_lib.classroom.submissions.archive import File, Rejected, files_in
from course_lib.classroom.submissions.cells import Malformed, parse_notebook

MALFORMED, REJECTED, MISSING = "MALFORMED", "REJECTED", "MISSING"
MOST_NOTEBOOKS = 20  # of one student, that are looked into
LONGEST_LIST = 200  # characters of a list of files
HANDED_IN = {".ipynb", ".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".7z", ".rar"}
MOODLE = re.compile(r"(?P<student>.+_\d+)_assignsubmission_(?:file|onlinetext)(?:_(?P<file>.*))?")
CANVAS = re.compile(r"(?P<name>[^_]+)(?:_LATE)?_(?P<id>\d+)_\d+_(?P<file>.+)")


@dataclass(frozen=True)
class Submission:
    """One student's answers; what is missing or untouched is absent.

    `status` is empty, or MALFORMED (no notebook can be read), REJECTED (a folder or zip that is not
    opened) or MISSING (no notebook of the chapter); `notes` say why, and what else was odd.
    `guesses` are those that the student agreed to hand in: question, guess and measured of each.
    """

    student: str
    answers: Mapping[str, str]  # exercise -> source
    status: str = ""
    notes: tuple[str, ...] = ()
    guesses: tuple[Mapping[str, str], ...] = ()


def read_submissions(folder: Path, assignment: Assignment) -> Iterator[Submission]:
    """One submission a student, sorted by the student's name, read one after the other.

    Args:
        folder: what came back; or one zip or notebook.
        assignment: what was set.

    Raises:
        OSError: there is no such folder. A bad submission raises nothing; it has a status.
    """
    paths = [folder] if folder.is_file() else [Path(entry.path) for entry in os.scandir(folder)]
    by_student = defaultdict(list)
    for path in sorted(paths):
        if not path.name.startswith((".", "__MACOSX")) and _is_handed_in(path):
            by_student[student_of(path.name)].append(path)
    for student in sorted(by_student):
        found = _submission(student, by_student[student], assignment)
        yield replace(found, notes=tuple(map(_as_text, found.notes)))


def student_of(name: str) -> str:
    """The student's name from that of a folder or file.

    >>> student_of("Ada Lovelace_12345_assignsubmission_file"), student_of("ada.zip")
    ('Ada Lovelace_12345', 'ada')
    >>> student_of("lovelaceada_LATE_12345_67890_05_linear_quantization-1.ipynb")
    'lovelaceada_12345'
    """
    name = normalize("NFC", _as_text(name))
    if found := MOODLE.fullmatch(name):
        return found["student"]
    if found := CANVAS.fullmatch(name):
        return f"{found['name']}_{found['id']}"
    stem, suffix = os.path.splitext(name)
    return stem if suffix.lower() in HANDED_IN and stem else name


def _as_text(name: str) -> str:
    """A file's name, or words with one in them, as text that can be written: Linux takes any bytes.

    >>> _as_text("ad\\udcff")
    'ad\\\\udcff'
    """
    return name.encode("utf-8", "backslashreplace").decode("utf-8")


def _is_handed_in(path: Path) -> bool:
    """Whether something beside the students' folders is a student's, and no list of grades."""
    sent = MOODLE.fullmatch(path.name) or CANVAS.fullmatch(path.name)
    return bool(sent) or path.suffix.lower() in HANDED_IN or path.is_dir() or path.is_symlink()


def _submission(student: str, paths: list[Path], assignment: Assignment) -> Submission:
    try:
        files = [file for path in paths for file in files_in(path)]
        notebooks = [file for file in files if file.path.suffix.lower() == ".ipynb"]
        notebooks.sort(
            key=lambda file: (_unlike(file, assignment), len(file.path.parts), file.path)
        )
        found = _read_first(student, notebooks, assignment)
    except Rejected as error:
        return Submission(student, {}, REJECTED, (str(error),))
    if not found:
        names = ", ".join(sorted(str(file.path) for file in files))[:LONGEST_LIST]
        there_is = f"; there is: {names}" if names else ""
        note = f"no notebook of {assignment.chapter} is there{there_is}"
        return Submission(student, {}, MISSING, (note,))
    return found


def _unlike(file: File, assignment: Assignment) -> int:
    """0 for the chapter's own name, 1 for one that holds it, 2 for any other."""
    stem = file.path.stem
    if found := MOODLE.fullmatch(stem) or CANVAS.fullmatch(stem):
        stem = re.sub(r"-\d+$", "", found["file"] or stem)  # Canvas counts what is handed in again
    return 0 if stem == assignment.chapter else 1 if assignment.chapter in stem else 2


def _read_first(student: str, notebooks: list[File], assignment: Assignment) -> Submission | None:
    """The first notebook with answers; else the first that is the chapter's."""
    untouched, broken = None, []
    for file in notebooks[:MOST_NOTEBOOKS]:
        own, place = _unlike(file, assignment), str(file.path)
        try:
            cells = parse_notebook(file.read())
        except Malformed as error:
            broken.append(f"{place}: {error}")
            continue
        answers, notes = find_answers(assignment, cells)
        if own:
            notes.insert(0, f"read from {place}")
        guesses = tuple(cell.guess for cell in cells if cell.guess)
        found = Submission(student, answers, "", (*broken, *notes), guesses)
        if answers:
            return found
        known = any(cell.grade_id.removeprefix(CHECK) in assignment.points for cell in cells)
        untouched = untouched or (found if known or not own else None)
    if untouched:
        return untouched
    if broken:
        return Submission(student, {}, MALFORMED, tuple(broken))
    return None
