"""What a grade is in files: a folder for each student, grades.csv, and what other systems read."""

import csv
import hashlib
import json
import os
import re
import unicodedata
from collections.abc import Iterable
from pathlib import Path
from xml.etree import ElementTree

from course_lib.classroom.grading.grade import Grade, Result, as_json
from course_lib.classroom.reports.grade_pages import student_page
from course_lib.exercises.engine.judge import NOT_ATTEMPTED, PASSED

COLUMNS = ("student", "exercise", "points", "verdict", "misconception")
NOT_GRADED = "not graded"
FORMULA = re.compile(
    r"'*[=+\-@\t\r\n]"
)  # what a spreadsheet calculates, with our ' before it or not
NO_XML = re.compile(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
PLAIN_NAME = re.compile(r"\w[\w@-]*([. ][\w@-]+)*")
DEVICES = {"con", "prn", "aux", "nul", *(f"{d}{i}" for d in ("com", "lpt") for i in range(10))}
TAKEN = re.compile(r".*(-[0-9a-f]{8}|\.(csv|html|json|xml))")  # by other names made here
LONGEST = 40  # characters that are kept of an odd name


def folder_name(student: str) -> str:
    """A folder's name for a student: good on every system, and of no other student.

    A name in small letters stays as it is. Of any other, which some system may take for another
    student's, what is good is kept, and a part of its hash tells it apart.

    >>> folder_name("ada.lovelace"), folder_name("../Ada")
    ('ada.lovelace', 'Ada-4e4af216')
    """
    same = unicodedata.normalize("NFKC", student).casefold() == student
    plain = PLAIN_NAME.fullmatch(student) and not TAKEN.fullmatch(student)
    if same and plain and student.split(".")[0] not in DEVICES and len(student.encode()) <= 100:
        return student
    good = re.sub(r"[^\w-]+", "_", student)[:LONGEST].strip("_-") or "student"
    return f"{good}-{hashlib.sha256(student.encode('utf-8', 'surrogatepass')).hexdigest()[:8]}"


def write_whole(path: Path, text: str) -> None:
    """Write a text file whole or not at all, whatever happens meanwhile; UTF-8."""
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    part.write_text(text, "utf-8", errors="backslashreplace", newline="\n")
    os.replace(part, path)


def write_student(out: Path, grade: Grade, gradescope: bool = False, junit: bool = False) -> Path:
    """Write a student's reports into a folder of the student's own; returns it.

    Args:
        out: the folder of all students' folders.
        grade: what was earned.
        gradescope: also write results.json, as Gradescope reads it.
        junit: also write junit.xml, as CI systems read it.
    """
    folder = out / folder_name(grade.student)
    folder.mkdir(parents=True, exist_ok=True)
    if gradescope:
        write_whole(folder / "results.json", as_gradescope(grade))
    if junit:
        write_whole(folder / "junit.xml", as_junit(grade))
    write_whole(folder / "report.html", student_page(grade))
    write_whole(folder / "grade.json", as_json(grade))
    return folder


def neutral(cell: str) -> str:
    """A cell that a spreadsheet shows and does not calculate.

    >>> neutral("=1+1"), neutral("Ada")
    ("'=1+1", 'Ada')
    """
    return f"'{cell}" if FORMULA.match(cell) else cell


def original(cell: str) -> str:
    """What `neutral` made the cell of.

    >>> original("'=1+1"), original("'t Hooft")
    ('=1+1', "'t Hooft")
    """
    return cell[1:] if cell.startswith("'") and FORMULA.match(cell) else cell


def write_csv(path: Path, grades: Iterable[Grade], exercises: Iterable[str]) -> None:
    """Write a line for each student and exercise; with a mark by which Excel knows UTF-8.

    A grade without results, of a student who could not be graded, gets lines without points.
    """
    part, exercises = path.with_name(f"{path.name}.part"), list(exercises)
    with part.open("w", encoding="utf-8-sig", errors="backslashreplace", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        for grade in grades:
            blank = [(name, "", NOT_GRADED, "") for name in exercises if not grade.results]
            rows = blank or [
                (one.exercise, one.points, verdict(grade, one), one.misconception)
                for one in grade.results
            ]
            writer.writerows([neutral(str(cell)) for cell in (grade.student, *row)] for row in rows)
    os.replace(part, path)


def verdict(grade: Grade, result: Result) -> str:
    """The submission's status where it could not be read, else the exercise's."""
    return grade.status or result.status


def as_gradescope(grade: Grade) -> str:
    """The results.json of Gradescope's autograder: JSON in ASCII.

    >>> json.loads(as_gradescope(Grade("Ada", "05_linear_quantization", ())))["score"]
    0
    """
    tests = [
        {
            "name": one.exercise,
            "score": one.points,
            "max_score": one.possible,
            "status": "passed" if one.status == PASSED else "failed",
            "output": one.words,
            "output_format": "text",
        }
        for one in grade.results
    ]
    said = "\n".join([*filter(None, [grade.status]), *grade.notes])
    whole = {"score": grade.points, "output": said, "output_format": "text", "tests": tests}
    return json.dumps(whole, indent=1)


def as_junit(grade: Grade) -> str:
    """JUnit XML: a suite for the student, a test for each exercise; a blank one is skipped.

    >>> as_junit(Grade("Ada", "05_linear_quantization", ()))[-80:].count('tests="0"')
    1
    """
    failed = [r for r in grade.results if verdict(grade, r) not in (PASSED, NOT_ATTEMPTED)]
    blank = [r for r in grade.results if verdict(grade, r) == NOT_ATTEMPTED]
    numbers = {"tests": len(grade.results), "failures": len(failed), "skipped": len(blank)}
    numbers = {name: str(number) for name, number in numbers.items()} | {"errors": "0"}
    suite = ElementTree.Element("testsuite", name=_xml(grade.student), **numbers)
    for one in grade.results:
        case = ElementTree.SubElement(
            suite, "testcase", classname=grade.chapter, name=one.exercise, time="0"
        )
        if one in blank:
            ElementTree.SubElement(case, "skipped", message=NOT_ATTEMPTED)
        elif one in failed:
            said = verdict(grade, one)
            ElementTree.SubElement(case, "failure", message=said).text = _xml(one.words)
    return f'<?xml version="1.0" encoding="utf-8"?>\n{ElementTree.tostring(suite, "unicode")}'


def _xml(text: str) -> str:
    """Without the characters that XML cannot hold, such as those of a terminal's colours."""
    return NO_XML.sub("\ufffd", text)
