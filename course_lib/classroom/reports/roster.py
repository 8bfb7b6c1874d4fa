"""Who a row of a gradebook file is about, and which student's grade belongs there.

A student is called as the submission was: by login, ID, e-mail address or name, or NAME_ID, as
Canvas and Moodle name what they hand out when all submissions are downloaded. Both leave out of the
NAME what a file's name may not hold; Canvas writes its letters only, and small ones.
"""

import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence

from course_lib.classroom.reports.csv_cells import Cell

NAMES = ("student", "full name", "firstname", "first name", "lastname", "last name", "surname")
IDS = ("sis login id", "username", "identifier", "id", "sis user id", "integration id", "id number")
HEADINGS = (*NAMES, *IDS, "email address")


def named(row: Sequence[Cell], names: Sequence[str], wanted: Iterable[str]) -> dict[str, str]:
    """The cells of a row under these headings that hold something, in the order of `wanted`."""
    values = {name: c.value.strip() for name, c in zip(names, row, strict=False) if c.value.strip()}
    return {name: values[name] for name in wanted if name in values}


def is_points_possible(row: Sequence[Cell]) -> bool:
    """Whether it is Canvas' row that says how many points a column has."""
    return bool(row) and row[0].value.strip() == "Points Possible"


def people(rows: Sequence[Sequence[Cell]], names: Sequence[str]) -> dict[int, str]:
    """Index -> all that a row says of its student; Canvas' rows about columns are left out."""
    labels = {i: " · ".join(named(row, names, HEADINGS).values()) for i, row in enumerate(rows)}
    return {i: text for i, text in labels.items() if text and not is_points_possible(rows[i])}


def match(
    students: Iterable[str], rows: Mapping[int, Sequence[Cell]], names: Sequence[str]
) -> tuple[dict[int, str], list[str]]:
    """Index -> the one student whom that row is about, and the students who have no such row.

    Args:
        students: how they are called.
        rows: of the file, by their index.
        names: the headings, in small letters.
    """
    sure: dict[str, set[int]] = {}
    likely: dict[str, set[int]] = {}
    for i, row in rows.items():
        ids = {*named(row, names, (*IDS, "email address")).values()}
        for key in ids:
            sure.setdefault(_normal(key), set()).add(i)
        for key in _likely(ids, list(named(row, names, NAMES).values())):
            likely.setdefault(_letters(key), set()).add(i)
    claims: dict[int, list[str]] = {}
    lost = []
    knows_ids = {"id", "identifier"} & {*names}  # else NAME is all that there is of NAME_ID
    for student in students:
        name = student if knows_ids else re.sub(r"_\d+$", "", student)
        fits = sure.get(_normal(student)) or likely.get(_letters(name), set())
        if len(fits) == 1:
            claims.setdefault(*fits, []).append(student)
        else:
            lost.append(f"{student} (fits {len(fits)} rows)" if fits else student)
    for several in claims.values():
        lost += [f"{student} (not alone in a row)" for student in several if several[1:]]
    return {i: claim[0] for i, claim in claims.items() if not claim[1:]}, lost


def _likely(ids: set[str], parts: list[str]) -> set[str]:
    """What follows from a row's IDs and its name, in one cell or in two: other ways to call it."""
    ids = {key.removeprefix("Participant ") for key in ids}
    local = {key.partition("@")[0] for key in ids if "@" in key}
    full = [" ".join(parts), ", ".join(parts[::-1])] if len(parts) == 2 else parts
    turned = [" ".join(name.split(", ")[::-1]) for name in full]
    names = {*full, *turned}
    both = {f"{name}_{key}" for name in names for key in ids}
    return {key for key in ids | local | names | both if _letters(key)}


def _normal(key: str) -> str:
    return unicodedata.normalize("NFKC", key).casefold().strip()


def _letters(key: str) -> str:
    """Letters, digits and underscores only."""
    return re.sub(r"\W", "", _normal(key))
