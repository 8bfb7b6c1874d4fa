"""Who a row of a gradebook file is about, and which student's grade belongs there.

A student is called as the submission was: by login, ID, e-mail address or name, or as Canvas and
Moodle name what they hand out when all submissions are downloaded.
"""

import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence

from course_lib.classroom.csv_cells import Cell

NAMES = ("student", "full name", "firstname", "first name", "lastname", "last name", "surname")
IDS = ("sis login id", "username", "identifier", "id", "sis user id", "integration id", "id number")
HEADINGS = (*NAMES, *IDS, "email address")
# LASTFIRST_ID_FILE_NAME (or LASTFIRST_LATE_ID_…) and FIRST LAST_ID_assignsubmission_file
DOWNLOADED = (r"\w*?_(?:late_)?(\d+)_\d+_.+", r".+_(\d+)_assignsubmission_.+")


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
    index: tuple[dict[str, set[int]], ...] = ({}, {})
    for i, row in rows.items():
        for where, keys in zip(index, _keys(row, names), strict=True):
            for key in keys:
                where.setdefault(_normal(key), set()).add(i)
    claims: dict[int, list[str]] = {}
    lost = []
    for student in students:
        keys = [_normal(student)]
        keys += [found[1] for form in DOWNLOADED if (found := re.fullmatch(form, keys[0]))]
        fits = next((where[key] for key in keys for where in index if key in where), set())
        if len(fits) == 1:
            claims.setdefault(*fits, []).append(student)
        else:
            lost.append(f"{student} (fits {len(fits)} rows)" if fits else student)
    for several in claims.values():
        lost += [f"{student} (not alone in a row)" for student in several if several[1:]]
    return {i: claim[0] for i, claim in claims.items() if not claim[1:]}, lost


def _keys(row: Sequence[Cell], names: Sequence[str]) -> tuple[set[str], set[str]]:
    """How a row's student may be called: in so many words, and what follows from them."""
    sure = {*named(row, names, (*IDS, "email address")).values()}
    likely = {key.removeprefix("Participant ") for key in sure}
    likely |= {key.partition("@")[0] for key in sure if "@" in key}
    parts = list(named(row, names, NAMES).values())
    if len(parts) == 2:
        parts = [" ".join(parts), ", ".join(parts[::-1])]
    turned = [" ".join(part.split(", ")[::-1]) for part in parts]
    return sure, likely | {*parts, *turned}


def _normal(key: str) -> str:
    return unicodedata.normalize("NFKC", key).casefold().strip()
