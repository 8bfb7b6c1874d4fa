"""A notebook file as plain data, whoever wrote it: its cells, or the reason why it is none.

Only what a grader needs is looked at, so outputs, widgets and other people's metadata may be
anything. nbformat's reader raises a dozen kinds of error, and takes 1.6 s to import.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field

LARGEST = 20_000_000  # bytes of a notebook
MOST_CODE = 1_000_000  # characters in the code cells of a notebook
KINDS = ("code", "markdown", "raw")
GUESS = "application/vnd.removing-redundancy.guess+json"  # the type of an output: plots/predict.py
GUESSED = ("question", "guess", "measured")  # its texts
LONGEST_GUESS = 1_000  # characters of each


class Malformed(ValueError):
    """A file that is no notebook of format 4; the message says why."""


@dataclass(frozen=True)
class Cell:
    """One cell: "code", "markdown" or "raw", its source, and nbgrader's metadata if it has any.

    `guess` is what a learner guessed there and agreed to hand in: question, guess and measured.
    """

    kind: str
    source: str
    nbgrader: Mapping = field(default_factory=dict)
    guess: Mapping[str, str] = field(default_factory=dict)

    @property
    def grade_id(self) -> str:
        """The name under which nbgrader knows the cell, else nothing."""
        name = self.nbgrader.get("grade_id")
        return name if isinstance(name, str) else ""


def parse_notebook(data: bytes) -> list[Cell]:
    """The cells of a notebook of format 4.

    Args:
        data: the file's bytes, UTF-8.

    Raises:
        Malformed: it is something else.

    >>> parse_notebook(b'{"nbformat": 4, "cells": [{"cell_type": "code", "source": ["1 + 1"]}]}')
    [Cell(kind='code', source='1 + 1', nbgrader={}, guess={})]
    """
    content = load_json(data)
    if not isinstance(content, dict):
        raise Malformed(f"a notebook is a JSON object; this is a {type(content).__name__}")
    version, cells = content.get("nbformat"), content.get("cells")
    if type(version) is not int or version != 4:
        raise Malformed(f"nbformat 4 is read; this says {str(version)[:20]}")
    if not isinstance(cells, list):
        raise Malformed("it has no list of cells")
    found = [_cell(number, cell) for number, cell in enumerate(cells, 1)]
    if sum(len(cell.source) for cell in found if cell.kind == "code") > MOST_CODE:
        raise Malformed(f"it holds more than {MOST_CODE:,} characters of code")
    return found


def load_json(data: bytes) -> object:
    """What JSON text in UTF-8 says.

    Raises:
        Malformed: it is too long, is no UTF-8, is no JSON, or nests too deeply.
    """
    if len(data) > LARGEST:
        raise Malformed(f"it is larger than {LARGEST // 10**6} MB")
    if not data.strip():
        raise Malformed("the file is empty")
    try:
        return json.loads(data.decode("utf-8"))
    except UnicodeDecodeError:
        raise Malformed("it is not text in UTF-8") from None
    except RecursionError:
        raise Malformed("its lists are nested too deeply") from None
    except ValueError as error:  # JSONDecodeError, and a number of thousands of digits
        raise Malformed(f"it is not JSON: {error}") from None


def _cell(number: int, cell: object) -> Cell:
    if not isinstance(cell, dict):
        raise Malformed(f"cell {number} is a {type(cell).__name__}")
    kind, source = cell.get("cell_type"), cell.get("source")
    if kind not in KINDS:
        raise Malformed(f"cell {number} has no type of a cell")
    if isinstance(source, list) and all(isinstance(line, str) for line in source):
        source = "".join(source)
    if not isinstance(source, str):
        raise Malformed(f"the source of cell {number} is no text")
    if not isinstance(cell.get("id", ""), str):
        raise Malformed(f"the id of cell {number} is no text")
    try:
        source.encode("utf-8")
    except UnicodeEncodeError:
        raise Malformed(f"cell {number} holds half a character") from None
    metadata = cell.get("metadata")
    nbgrader = metadata.get("nbgrader") if isinstance(metadata, dict) else None
    nbgrader = nbgrader if isinstance(nbgrader, dict) else {}
    return Cell(kind, source, nbgrader, _guess(cell.get("outputs")))


def _guess(outputs: object) -> dict[str, str]:
    """The guess among a cell's outputs; whoever hands it in may have written it."""
    for output in outputs if isinstance(outputs, list) else ():
        data = output.get("data") if isinstance(output, dict) else None
        entry = data.get(GUESS) if isinstance(data, dict) else None
        if isinstance(entry, dict) and all(isinstance(entry.get(key), str) for key in GUESSED):
            cut = {key: entry[key][:LONGEST_GUESS] for key in GUESSED}
            return {key: text.encode("utf-8", "replace").decode() for key, text in cut.items()}
    return {}
