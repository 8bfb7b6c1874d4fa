"""The scoreboard: a file of JSON lines, one a score, that a class can join.

It is only ever appended to. Two boards are merged by taking what is in either: a file under a seed
counts once. A board holds what its writers say; who wants to be sure scores the files again.

Scores of different seeds were taken on different chapters, so each seed has a table of its own.
There, files of about one size are ranked by what they lost against dense on the second slice.
"""

import json
import os
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import asdict
from itertools import groupby
from pathlib import Path

from course_lib.challenge.score import LONGEST_NAME, Score, plain, score_from_json
from course_lib.journal import append_line
from course_lib.measure.pareto import pareto_front

MOST_BYTES = 100_000_000  # of a board
CLASSES = (0.125, 0.25, 0.5, 1.0)  # of the float16 file's bytes; what is larger comes last
COLUMNS = "rank  name                      bytes    share   shown  second   loss  front"


def append_score(path: Path, score: Score) -> None:
    """Add a score to a board, or begin one; who appends at the same moment loses nothing.

    Raises:
        OSError: the board cannot be written.
    """
    append_line(path, _line(score))


def _line(score: Score) -> str:
    return json.dumps(asdict(score), allow_nan=False)


def merge(paths: Sequence[Path]) -> tuple[list[Score], list[str]]:
    """The scores of all boards, each once, and what was refused: file, line and why.

    Of the same file under the same seed the one that was measured first counts. The order of the
    boards, and of their lines, does not matter.

    Raises:
        OSError: a board cannot be read.
    """
    found: dict[tuple[int, str], Score] = {}
    refused: list[str] = []
    for path in map(Path, paths):
        for number, line in enumerate(_lines(path), 1):
            if not line.strip():
                continue
            try:
                score = score_from_json(line.decode())
            except ValueError as error:
                refused.append(f"{path}, line {number}: {plain(str(error), 200)}")
                continue
            key = (score.seed, score.sha256)
            found[key] = min(found.get(key, score), score, key=_order)
    return sorted(found.values(), key=_order), refused


def _lines(path: Path) -> list[bytes]:
    if path.stat().st_size > MOST_BYTES:
        raise OSError(27, f"a board has at most {MOST_BYTES:,} bytes", str(path))
    return path.read_bytes().split(b"\n")


def _order(score: Score) -> tuple:
    return score.seed, score.bytes, score.sha256, score.date, _line(score)


def write_board(path: Path, scores: Sequence[Score]) -> None:
    """Write a board anew; whoever reads meanwhile sees the old one or the new one.

    Raises:
        OSError: it cannot be written.
    """
    fresh = path.with_name(f"{path.name}.{os.getpid()}.new")
    fresh.write_text("".join(f"{_line(score)}\n" for score in scores), "utf-8")
    os.replace(fresh, path)


def byte_class(share: float) -> int:
    """Which files a file is compared with: the number of the first of `CLASSES` that it keeps to.

    >>> byte_class(0.24), byte_class(0.25), byte_class(1.5)
    (1, 1, 4)
    """
    return bisect_left(CLASSES, share)


def ranked(scores: Sequence[Score]) -> list[tuple[int, Score]]:
    """Each score's place among those given, which are of one seed: the less was lost the better.

    Equal losses share a place.
    """
    ordered = sorted(scores, key=lambda score: (score.relative, *_order(score)))
    losses = [score.relative for score in ordered]
    return [(losses.index(score.relative) + 1, score) for score in ordered]


def table(scores: Sequence[Score]) -> str:
    """All scores as text: a table for each seed, a part for each class of bytes.

    "shown" and "second" are bits per byte, "loss" is second / dense second − 1. On the front is
    what no other file of the same seed beats in bytes and on the second slice.

    >>> table([])
    'no scores yet'
    """
    parts = [
        _seed_table(seed, list(same))
        for seed, same in groupby(sorted(scores, key=_order), key=lambda score: score.seed)
    ]
    return "\n\n".join(parts) or "no scores yet"


def _seed_table(seed: int, scores: list[Score]) -> str:
    front = pareto_front([s.bytes for s in scores], [s.second for s in scores])
    best = {s.sha256 for s, on_front in zip(scores, front, strict=True) if on_front}
    lines = [f"seed {seed}: not to be compared with other seeds", COLUMNS]
    ordered = sorted(scores, key=lambda score: byte_class(score.share))
    for number, same in groupby(ordered, key=lambda score: byte_class(score.share)):
        at_most = [f"up to {100 * most:g} %" for most in CLASSES]
        lines.append(f"  {[*at_most, 'more than 100 %'][number]} of the float16 file")
        lines += [_row(rank, score, score.sha256 in best) for rank, score in ranked(list(same))]
    return "\n".join(lines)


def _row(rank: int, score: Score, on_front: bool) -> str:
    name = plain(score.name, LONGEST_NAME)
    name = name if len(name) <= 20 else name[:19] + "…"
    return (
        f"{rank:4}  {name:20} {score.bytes:10,}  {score.share:6.1%}  {score.bits_per_byte:6.3f}  "
        f"{score.second:6.3f} {score.relative - 1:+6.1%}  {'✔' if on_front else ''}"
    ).rstrip()
