"""`course export`: points into the gradebook file that Canvas or Moodle gave, all else untouched.

What the files hold is taken from the exporters' own code: Canvas' `gradebook_exporter.rb`, Moodle's
`mod/assign/feedback/offline` (the grading worksheet) and `grade/export/txt` (the gradebook).
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from course_lib.classroom.grading.grade import Grade
from course_lib.classroom.reports.csv_cells import Cell, NotACsvFile, decode, encode, read_table
from course_lib.classroom.reports.report_html import number
from course_lib.classroom.reports.roster import HEADINGS, is_points_possible, match, named, people

# System -> how it writes the heading of a column for points.
COLUMNS = {"canvas": r"(.+) \(\d+\)", "moodle": r"(.+) \(real\)|grade"}
KEPT = ("ex", "n/a")  # excused, and not assigned to this student


class NotAGradebook(NotACsvFile):
    """A column that is needed is not there; the message says what is, and what would help."""


@dataclass(frozen=True)
class Filled:
    """The filled file, and who is not in it."""

    data: bytes
    column: str  # its heading
    written: int  # grades
    scaled: str = ""  # "14 points became 100", where the file counts otherwise
    no_row: tuple[str, ...] = ()  # students with a grade whom no row, or not just one, is about
    no_grade: tuple[str, ...] = ()  # rows about others
    kept: tuple[str, ...] = ()  # rows whose grade is not to be changed


def fill(data: bytes, grades: Sequence[Grade], system: str, column: str = "") -> Filled:
    """The bytes of an exported gradebook with the points of one chapter in one column.

    Where the column has a maximum of its own, points are scaled to it.

    Args:
        data: the file, as it was exported.
        grades: of one chapter, one for each student.
        system: "canvas" or "moodle".
        column: the heading; without it, the one that names the chapter.

    Raises:
        ValueError: `system` is another, or there is no grade.
        NotACsvFile: it cannot be read, or (NotAGradebook) a column that is needed is not there.

    >>> from course_lib.classroom.grading.grade import Grade, Result
    >>> grade = Grade("ada", "05_linear_quantization", (Result("to_uint8", 2, 2, "passed"),))
    >>> fill(b'Username,Grade\\r\\n"ada",-\\r\\n', [grade], "moodle").data
    b'Username,Grade\\r\\n"ada",2\\r\\n'
    """
    if system not in COLUMNS or not grades:
        raise ValueError(f"system must be one of {[*COLUMNS]}, and grades hold one; got {system}")
    header, *rows = read_table(decode(data))
    headings = [cell.value.strip() for cell in header]
    names = [heading.casefold() for heading in headings]
    at = _find_column(headings, grades[0].chapter, system, column)
    graded = {grade.student: grade for grade in grades if grade.results}
    labels = people(rows, names)
    matched, lost = match(graded, {i: rows[i] for i in labels}, names)
    kept, scaled = [], set()
    for i, student in matched.items():
        row = rows[i]
        if len(row) <= at:
            raise NotAGradebook(f"the row of {labels[i]} ends before the column {headings[at]}")
        if _is_kept(row, names, at):
            kept.append(labels[i])
            continue
        points, how = _scaled(graded[student], _maximum(rows, names, row, at))
        row[at] = replace(row[at], text=number(points))
        scaled.add(how)
    return Filled(
        encode([header, *rows]),
        headings[at],
        len(matched) - len(kept),
        ", ".join(sorted(scaled - {""})),
        tuple(lost),
        tuple(text for i, text in labels.items() if i not in matched),
        tuple(kept),
    )


def summary(filled: Filled, grades: Sequence[Grade]) -> str:
    """What was written and what was not, a line each; names without what steers a terminal."""
    unread = [f"{grade.student} ({grade.status})" for grade in grades if grade.status]
    lists = {
        "submissions that could not be read: no points": unread,
        "students with a grade, but without a row of their own": filled.no_row,
        "rows without a grade, left as they were": filled.no_grade,
        "rows that are excused, locked or not assigned, left as they were": filled.kept,
    }
    lines = [f"{filled.written} grades in the column {filled.column}"]
    lines += [f"the file counts otherwise: {filled.scaled}"] if filled.scaled else []
    for what, who in lists.items():
        lines += [f"{len(who)} {what}", *(f"    {one}" for one in who)] if who else []
    return "\n".join("".join(c if c.isprintable() else "?" for c in line) for line in lines)


def _find_column(headings: Sequence[str], chapter: str, system: str, column: str) -> int:
    """Where the points go: the column that was named, else the one that names the chapter."""
    there = ", ".join(headings)
    if not {heading.casefold() for heading in headings} & {*HEADINGS}:
        advice = {"moodle": "\nWith English as your language Moodle exports what is known here."}
        raise NotAGradebook(
            f"no column says who a row is about. It has: {there}{advice.get(system, '')}"
        )
    found = [re.fullmatch(COLUMNS[system], heading, re.IGNORECASE) for heading in headings]
    titles = {i: one[1] or one[0] for i, one in enumerate(found) if one}
    digits, _, topic = chapter.partition("_")
    own = rf"(assignment )?(chapter )?(0*{int(digits)} )?{_words(topic)}|grade"
    fits = [
        i
        for i, title in titles.items()
        if (column in (title, headings[i]) if column else re.fullmatch(own, _words(title)))
    ]
    if len(fits) != 1:
        offered = ", ".join(f'"{headings[i]}"' for i in titles) or f"none for points, but: {there}"
        raise NotAGradebook(
            f"{len(fits) or 'no'} columns are called {column or chapter}. Its columns: {offered}\n"
            'Say which one: --column "…"'
        )
    return fits[0]


def _words(text: str) -> str:
    return " ".join(re.findall(r"[^\W_]+", text.casefold()))


def _is_kept(row: Sequence[Cell], names: Sequence[str], at: int) -> bool:
    locked = "No" in named(row, names, ["grade can be changed"]).values()
    return locked or row[at].value.strip().casefold() in KEPT


def _maximum(rows, names: Sequence[str], row: Sequence[Cell], at: int) -> float | None:
    """What a column counts to: in Moodle's worksheet row by row, in Canvas' file in one row."""
    texts = [*named(row, names, ["maximum grade"]).values()]
    texts += [one[at].value.strip() for one in rows if is_points_possible(one) and len(one) > at]
    numbers = [text.replace(",", ".") for text in texts if re.fullmatch(r"\d+([.,]\d+)?", text)]
    return float(numbers[0]) if numbers else None


def _scaled(grade: Grade, maximum: float | None) -> tuple[float, str]:
    """The points as the file counts them, and where it counts otherwise, how."""
    if not maximum or maximum == grade.possible or not grade.possible:
        return grade.points, ""
    how = f"{number(grade.possible)} points became {number(maximum)}"
    return grade.points * maximum / grade.possible, how
