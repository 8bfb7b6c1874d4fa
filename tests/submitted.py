"""Notebooks as students hand them in: made from a released one, then spoiled."""

import json
from functools import cache
from pathlib import Path

from course_lib.classroom.files import SOLUTIONS
from course_lib.classroom.learner import untouched

CHAPTER = "00_start_here"
NAMES = ("count_parameters", "packed_bytes", "bits_per_byte")


@cache
def _text(answered: bool) -> str:
    released = untouched(SOLUTIONS / f"{CHAPTER}.py")
    if answered:
        right = json.loads((SOLUTIONS / f"{CHAPTER}.ipynb").read_text("utf-8"))
        for name in NAMES:
            cell(released, name)["source"] = "".join(cell(right, name)["source"])
    return json.dumps(released)


def notebook(answered: bool = True) -> dict:
    """The notebook of chapter 00 as JSON, with the model answers or untouched."""
    return json.loads(_text(answered))


def cell(content: dict, grade_id: str) -> dict:
    """The first cell of that name."""
    return next(c for c in content["cells"] if grade_id_of(c) == grade_id)


def grade_id_of(one: dict) -> str:
    return one.get("metadata", {}).get("nbgrader", {}).get("grade_id", "")


def code(source: str, **metadata) -> dict:
    return {"cell_type": "code", "source": source, "metadata": metadata, "outputs": [],
            "execution_count": None, "id": f"own-{abs(hash(source))}"}  # fmt: skip


def save(content: dict, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), "utf-8")
    return path
