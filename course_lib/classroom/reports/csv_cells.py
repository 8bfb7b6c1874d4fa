"""A CSV file as cells that keep the text they came from, so that all but a few stay byte for byte.

No row is written anew. The csv module reads the file one cell at a time, and a file is the texts of
its cells joined. So quotes, line ends, a byte order mark and the encoding stay as they are.
"""

import csv
import re
from collections.abc import Iterator
from dataclasses import dataclass

DELIMITERS = (",", ";", "\t")
MARK = "\ufeff"  # the byte order mark that Excel wants


class NotACsvFile(Exception):
    """The file cannot be read; the message says why and what would help."""


@dataclass(frozen=True)
class Cell:
    """How it stands in the file, the delimiter or line end behind it, and what it means."""

    text: str
    end: str
    value: str


def decode(data: bytes) -> str:
    """UTF-8, in which other bytes survive as surrogates: `encode` gives back the same bytes."""
    if b"\0" in data:
        raise NotACsvFile("this is no CSV file: it holds zero bytes. Export it as CSV, in UTF-8")
    return data.decode("utf-8", "surrogateescape")


def encode(rows: list[list[Cell]]) -> bytes:
    """The file that these cells make.

    >>> encode(cells('a,"b"\\r\\n', ","))
    b'a,"b"\\r\\n'
    """
    text = "".join(cell.text + cell.end for row in rows for cell in row)
    return text.encode("utf-8", "surrogateescape")


def read_table(text: str) -> list[list[Cell]]:
    """The rows, read with the delimiter that finds the most columns in the first of them.

    Raises:
        NotACsvFile: it is empty, has one column, or its quotes do not close.
    """
    found, reason = [], "it has one column"
    for delimiter in DELIMITERS:
        try:
            found.append(cells(text, delimiter))
        except csv.Error as error:
            reason = str(error)
    widest = max(found, key=lambda rows: len(rows[0]), default=[[]])
    if len(widest[0]) < 2:
        raise NotACsvFile(f"this is no CSV file: {reason if text.strip() else 'it is empty'}")
    return widest


def cells(text: str, delimiter: str) -> list[list[Cell]]:
    """Rows of cells, whose texts and ends, joined, are `text`.

    The reader takes what stands up to each delimiter for a line, and so each cell for a row; only
    within quotes it reads on.

    >>> [cell.value for cell in cells('a,"b,c"\\n', ",")[0]]
    ['a', 'b,c']
    """
    mark = MARK if text.startswith(MARK) else ""
    pieces = re.split(rf"(?<=[{delimiter}\n])|(?<=\r)(?!\n)", text.removeprefix(MARK))
    taken: list[str] = []

    def feed() -> Iterator[str]:
        for piece in pieces:
            taken.append(piece)
            yield piece

    rows: list[list[Cell]] = [[]]
    for values in csv.reader(feed(), delimiter=delimiter, strict=True):
        whole = mark + "".join(taken)
        end = re.search(rf"(?:\r?\n|\r|{delimiter})?\Z", whole)[0]
        rows[-1].append(Cell(whole.removesuffix(end), end, values[0] if values else ""))
        if end and end != delimiter:
            rows.append([])
        taken.clear()
        mark = ""
    return rows
