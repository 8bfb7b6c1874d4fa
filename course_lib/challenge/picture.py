"""The scoreboard's files on the front of the course: a picture, and the front that it stands on.

`front.json`, beside this file, holds what the course measured of TinyLM:

    {"measured": date, "machine": text, "command": text,
     "points": [{"chapter": "05", "method": text, "bytes": int, "bits_per_byte": float}, …]}
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from course_lib.challenge.score import LARGEST_BITS, LONGEST_LINE, Score, plain
from course_lib.pipeline.about import parse_json
from course_lib.plots.figure import new_figure
from course_lib.plots.front import draw_front

FRONT = Path(__file__).with_name("front.json")
KINDS = (".svg", ".png")
SHORT = 24  # characters of a name in the legend


@dataclass(frozen=True)
class FrontPoint:
    """What a chapter's method reached on TinyLM.

    bytes: of the file.
    bits_per_byte: on the shown chapters.
    """

    chapter: str
    method: str
    bytes: int
    bits_per_byte: float


@dataclass(frozen=True)
class Front:
    """The course's points, and where they come from."""

    measured: str
    machine: str
    command: str
    points: tuple[FrontPoint, ...]


def load_front(path: Path = FRONT) -> Front:
    """The stored front.

    Raises:
        ValueError: it is not of the form above, or has no point.
        OSError: it cannot be read.
    """
    found = parse_json(Path(path).read_text("utf-8"), LONGEST_LINE)
    texts = ("measured", "machine", "command")
    if (
        type(found) is not dict
        or found.keys() != {*texts, "points"}
        or not all(type(found[name]) is str and found[name] for name in texts)
        or type(found["points"]) is not list
        or not found["points"]
    ):
        raise ValueError(f"a front must be an object of {', '.join(texts)} and points")
    return Front(*(found[name] for name in texts), tuple(map(_point, found["points"])))


def stored_front() -> Front | None:
    """The course's own front, if it is there."""
    return load_front() if FRONT.exists() else None


def _point(found: Any) -> FrontPoint:
    kinds = {"chapter": str, "method": str, "bytes": int, "bits_per_byte": float}
    if (
        type(found) is not dict
        or found.keys() != kinds.keys()
        or not all(type(found[name]) is kind for name, kind in kinds.items())
        or not (found["bytes"] > 0 and 0 < found["bits_per_byte"] <= LARGEST_BITS)
    ):
        raise ValueError(
            "a point must have chapter, method, bytes > 0 and bits_per_byte > 0; "
            f"got {ascii(found)[:100]}"
        )
    return FrontPoint(**found)


def save_picture(path: Path, scores: Sequence[Score], front: Front | None = None) -> None:
    """Draw the files on the course's front; SVG or PNG, as the path ends.

    The shown chapters are the ones that the course's chapters are measured on, so files of
    different seeds may stand in one picture.

    Args:
        scores: the best stand first in the legend; at least one if there is no front.
        front: from `load_front`; without it the files stand alone.

    Raises:
        ValueError: another ending; nothing to draw.
        OSError: the picture cannot be written.
    """
    path = check_ending(Path(path))
    points = front.points if front else ()
    course = [(f"{p.chapter}: {p.method}", p.bytes, p.bits_per_byte) for p in points]
    ordered = sorted(scores, key=lambda score: (score.bits_per_byte, score.bytes, score.sha256))
    files = [(_label(score.name), score.bytes, score.bits_per_byte) for score in ordered]
    figure, (axes,) = new_figure(height=4.5)
    draw_front(axes, course, files)
    axes.set_title(_title(scores, front), fontsize=10)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")  # names in many alphabets
        figure.savefig(path, format=path.suffix[1:].lower(), metadata=_undated(path))


def check_ending(path: Path) -> Path:
    """The path, if it ends as a picture's.

    >>> check_ending(Path("mine.gif"))
    Traceback (most recent call last):
    ValueError: a picture's name must end in .svg or .png; got mine.gif
    """
    if path.suffix.lower() not in KINDS:
        raise ValueError(f"a picture's name must end in .svg or .png; got {plain(path.name)}")
    return path


def _label(name: str) -> str:
    """A name for the legend; one that begins with "_" would be left out there."""
    return "\u200b" * name.startswith("_") + plain(name, SHORT)


def _title(scores: Sequence[Score], front: Front | None) -> str:
    if front is None:
        return f"{len(scores)} file{'s' * (len(scores) != 1)}"
    below = sum(
        not any(p.bytes <= s.bytes and p.bits_per_byte <= s.bits_per_byte for p in front.points)
        for s in scores
    )
    files = f"file{'s' * (len(scores) != 1)}"
    return f"{below} of {len(scores)} {files} below the front of the course"


def _undated(path: Path) -> dict[str, None]:
    """Pictures of the same board are the same."""
    return {"Date": None} if path.suffix.lower() == ".svg" else {}
