"""`course export`: points into the gradebook file that Canvas or Moodle gave, all else untouched.

What the files hold is taken from the exporters' own code: Canvas' `gradebook_exporter.rb`, Moodle's
`mod/assign/feedback/offline` (the grading worksheet) and `grade/export/txt` (the gradebook).
"""

import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from course_lib.classroom.csv_cells import Cell, NotACsvFile, decode, encode, read_table
from course_lib.classroom.grade import Grade

SYSTEMS = ("canvas", "moodle")
KEYS = (
    "identifier",
    "id",
    "sis user id",
    "sis login id",
    "integration id",
    "id number",
    "username",
)
NAMES = ("student", "full name", "firstname", "first name", "lastname", "last name", "surname")
EMAIL = "email address"
KEPT = ("ex", "n/a")  # excused, and not set for this student
# The names of what Canvas and Moodle hand out when all submissions of an assignment are downloaded.
DOWNLOADED = (r"\w*?_(?:late_)?(\d+)_\d+_.+", r".+_(\d+)_assignsubmission_.+")


class NotAGradebook(NotACsvFile):
    """The file holds no column to fill; the message says what it holds and what would help."""


@dataclass(frozen=True)
class Filled:
    """The filled file, and who is not in it."""

    data: bytes
    column: str  # its heading
    written: int
    scaled: str = ""  # "14 points became 100", where the file counts otherwise
    no_row: tuple[str, ...] = ()  # students with a grade whom no row, or not just one, fits
    no_grade: tuple[str, ...] = ()  # rows that no grade fits
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
        NotACsvFile: it cannot be read, or (NotAGradebook) a column that it needs is not there.

    >>> from course_lib.classroom.grade import Grade, Result
    >>> grade = Grade("ada", "05_linear_quantization", (Result("to_uint8", 2, 2, "passed"),))
    >>> fill(b'Username,Grade\\r\\n"ada",-\\r\\n', [grade], "moodle").data
    b'Username,Grade\\r\\n"ada",2\\r\\n'
    """
    header, *rows = read_table(decode(data))
    headings = [cell.value.strip() for cell in header]
    names = [heading.casefold() for heading in headings]
    at = _find_column(headings, grades[0].chapter, system, column)
    people = {i: row for i, row in enumerate(rows) if _is_person(row, names)}
    matched, no_row = _match(grades, {i: _keys(row, names) for i, row in people.items()})
    written, kept, scaled = 0, [], set()
    for i, grade in matched.items():
        row = rows[i]
        if len(row) <= at:
            raise NotAGradebook(f"the row of {_label(row, names)} ends before {headings[at]}")
        if _is_kept(row, names, at):
            kept.append(_label(row, names))
            continue
        maximum = _maximum(rows, names, row, at) or grade.possible
        if maximum != grade.possible:
            scaled.add(f"{_number(grade.possible)} points became {_number(maximum)}")
        points = grade.points * (maximum / grade.possible if grade.possible else 1)
        row[at] = replace(row[at], text=_number(points))
        written += 1
    left = tuple(_label(row, names) for i, row in people.items() if i not in matched)
    return Filled(
        encode([header, *rows]),
        headings[at],
        written,
        ", ".join(sorted(scaled)),
        no_row,
        left,
        tuple(kept),
    )


def _find_column(headings: list[str], chapter: str, system: str, column: str) -> int:
    """Where the points go: the column that was named, else the one that names the chapter."""
    names = [heading.casefold() for heading in headings]
    if not set(names) & {*KEYS, EMAIL, *NAMES}:
        advice = " Set your language to English and export again." if system == "moodle" else ""
        raise NotAGradebook(f"no column says who a row is about; it has {headings}.{advice}")
    if system == "moodle" and "grade" in names and not column:
        return names.index("grade")  # the worksheet of one assignment
    known = r".+ \(\d+\)" if system == "canvas" else r".+ \(real\)"
    wanted = {"grade"} if system == "moodle" else set()
    offered = [i for i, name in enumerate(names) if name in wanted or re.fullmatch(known, name)]
    if column:
        fits = [i for i in offered if column.strip() in (headings[i], _title(headings[i]))]
    else:
        topic = _words(chapter.partition("_")[2])
        fits = [i for i in offered if topic in _words(headings[i])]
    if len(fits) != 1:
        which = column or chapter
        number = "no column fits" if not fits else f"{len(fits)} columns fit"
        columns = ", ".join(headings[i] for i in offered) or "no column for points"
        raise NotAGradebook(f"{number} {which}; name one with --column. The file has: {columns}")
    return fits[0]


def _title(heading: str) -> str:
    return heading.rpartition(" (")[0]


def _words(text: str) -> str:
    return " ".join(re.findall(r"[^\W_]+", text.casefold()))


def _named(row: list[Cell], names: list[str], wanted: Iterable[str]) -> dict[str, str]:
    """The cells of a row that stand below these headings and hold something, as they are wanted."""
    values = {name: c.value.strip() for name, c in zip(names, row, strict=False) if c.value.strip()}
    return {name: values[name] for name in wanted if name in values}


def _is_person(row: list[Cell], names: list[str]) -> bool:
    """Not Canvas' row of possible points, nor its row that says which grades are hidden."""
    first = row[0].value.strip() if row else ""
    return first != "Points Possible" and bool(_named(row, names, (*KEYS, EMAIL, *NAMES)))


def _label(row: list[Cell], names: list[str]) -> str:
    return " · ".join(_named(row, names, (*NAMES, *KEYS, EMAIL)).values())


def _normal(key: str) -> str:
    return unicodedata.normalize("NFKC", key).casefold().strip()


def _keys(row: list[Cell], names: list[str]) -> tuple[set[str], set[str]]:
    """What a row's student may be called: in so many words, and what follows from them."""
    sure = {*_named(row, names, (*KEYS, EMAIL)).values()}
    likely = {re.sub(r"^Participant ", "", key) for key in sure}
    likely |= {key.partition("@")[0] for key in sure if "@" in key}
    parts = _named(row, names, NAMES)
    for name in (parts.get("student"), parts.get("full name")):
        last, comma, first = (name or "").partition(",")
        likely |= {name, f"{first} {last}" if comma else name} if name else set()
    if len(parts) > 1:
        first, last = list(parts.values())[:2]
        likely |= {f"{first} {last}", f"{last}, {first}"}
    return {_normal(key) for key in sure}, {_normal(key) for key in likely}


def _match(
    grades: Sequence[Grade], keys: dict[int, tuple[set[str], set[str]]]
) -> tuple[dict[int, Grade], tuple[str, ...]]:
    """Row -> the one grade that it fits, and the students whom no row, or not just one, fits."""
    index: tuple[dict, dict] = ({}, {})
    for i, both in keys.items():
        for where, found in zip(index, both, strict=True):
            for key in found:
                where.setdefault(key, set()).add(i)
    claims: dict[int, list[Grade]] = {}
    lost = []
    for grade in grades:
        named = [_normal(grade.student)]
        named += [m[1] for form in DOWNLOADED if (m := re.fullmatch(form, named[0]))]
        rows = next((w[key] for key in named for w in index if key in w), set())
        if len(rows) == 1:
            claims.setdefault(*rows, []).append(grade)
        else:
            lost.append(f"{grade.student} (fits {len(rows)} rows)" if rows else grade.student)
    for several in claims.values():
        if len(several) > 1:
            lost += [f"{grade.student} (not alone in its row)" for grade in several]
    return {i: of[0] for i, of in sorted(claims.items()) if len(of) == 1}, tuple(lost)


def _is_kept(row: list[Cell], names: list[str], at: int) -> bool:
    locked = _named(row, names, ["grade can be changed"]).get("grade can be changed") == "No"
    return locked or row[at].value.strip().casefold() in KEPT


def _maximum(rows: list[list[Cell]], names: list[str], row: list[Cell], at: int) -> float | None:
    """What the column counts to: in Moodle's worksheet row by row, in Canvas' file in a row."""
    texts = [_named(row, names, ["maximum grade"]).get("maximum grade", "")]
    texts += [r[at].value for r in rows if len(r) > at and r[0].value.strip() == "Points Possible"]
    numbers = [text for text in texts if re.fullmatch(r"\d+([.,]\d+)?", text.strip())]
    return float(numbers[0].replace(",", ".")) if numbers else None


def _number(points: float) -> str:
    """At most two decimals, which is what both systems show; never a formula."""
    return f"{float(points):.2f}".rstrip("0").rstrip(".")
