"""A compressed TinyLM's score: its bytes, and what it lost, on a text that is shown and on one that
a seed draws.

The file is a stranger's (`pipeline.compressed_file`): tensors and a recipe, never code. It is read
in a process of its own, with a limit of time and of memory; this one never opens it.

Two texts of held-out chapters, in windows of 256 tokens each:

    shown     the four chapters of `yardstick.held_out_sample`, which everybody tunes on
    second    six of the other 55, drawn by a seed that is given when all files are in

Whoever stores the shown text, or tunes on it by chance, gains nothing on the second. Files are
compared by second / dense second, the same chapters being as hard for the dense TinyLM.

What a score cannot see: all 59 chapters lie on every learner's disk. Whoever trains on all of them
is good on the second slice, too, whatever the seed. No file betrays that; a recipe that is run
again by another person does.
"""

import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import course_lib
from course_lib.pipeline.about import parse_json

SECONDS = 300
MEGABYTES = 4000
MOST_SEED = 2**53  # beyond it JSON of other programs loses digits
LONGEST_NAME = 60
LONGEST_ERROR = 300
LONGEST_LINE = 2_000_000  # characters: a recipe of other alphabets grows in ASCII
LARGEST_BITS = 1000.0  # a byte: a model that is worse is broken, and its score no number to draw


@dataclass(frozen=True)
class Score:
    """What was measured of a file; `score_file` makes it, `score_from_json` reads it.

    name: whose it is, or what it is called.
    sha256: of the file.
    bytes: of the file.
    share: bytes / those of TinyLM in float16.
    bits_per_byte: on the shown chapters.
    second: bits per byte on the chapters that the seed draws.
    dense_second: TinyLM's there.
    seed: of the second slice.
    recipe: what the file says was done.
    date: of the measurement, UTC.
    versions: of what measured.
    """

    name: str
    sha256: str
    bytes: int
    share: float
    bits_per_byte: float
    second: float
    dense_second: float
    seed: int
    recipe: list[dict[str, Any]]
    date: str
    versions: dict[str, str]

    @property
    def relative(self) -> float:
        """second / dense_second: 1 is as good as dense."""
        return self.second / self.dense_second


def score_file(
    path: Path, seed: int, name: str = "", seconds: float = SECONDS, megabytes: int = MEGABYTES
) -> Score:
    """Measure a file in a process of its own.

    Args:
        seed: of the second slice, from 0.
        name: by default, the file's.
        seconds: how long it may take.
        megabytes: of memory that it may take, beside the libraries; held on Linux alone.

    Raises:
        ValueError: what `load_compressed` refuses; a model of another vocabulary or of a context
            below 256; one whose loss is no number; a seed out of range.
        TimeoutError: it took longer.
        OSError: the file cannot be read.
        RuntimeError: the process ended without an answer, as it does where memory ends.
    """
    if not 0 <= seed <= MOST_SEED:
        raise ValueError(f"seed must be from 0 to {MOST_SEED}; got {seed}")
    path = Path(path)
    path.stat()  # says at once that there is none
    answer = _asked(path, seed, seconds, megabytes)
    if "error" in answer:
        raise ValueError(plain(answer["error"], LONGEST_ERROR))
    return score_from_json(json.dumps({"name": (name or path.name)[:LONGEST_NAME], **answer}))


def _asked(path: Path, seed: int, seconds: float, megabytes: int) -> Mapping[str, Any]:
    """What the worker says."""
    words = ["-s", "-P", "-m", "course_lib.challenge.worker"]
    command = [sys.executable, *words, str(path.resolve()), str(seed), str(megabytes)]
    here = str(Path(course_lib.__file__).parent.parent)
    ways = os.pathsep.join(filter(None, [here, os.environ.get("PYTHONPATH", "")]))
    environment = os.environ | {"PYTHONPATH": ways, "CUDA_VISIBLE_DEVICES": ""}
    try:
        done = subprocess.run(
            command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, timeout=seconds
        )
    except subprocess.TimeoutExpired:
        raise TimeoutError(f"the file took longer than {seconds:g} seconds") from None
    try:
        return json.loads(done.stdout)
    except ValueError:
        last = done.stderr.decode("utf-8", "replace").strip().splitlines()[-1:]
        raise RuntimeError(
            f"the process that read the file ended without an answer ({done.returncode}): "
            f"{plain(''.join(last), 200)}"
        ) from None


def score_from_json(line: str) -> Score:
    """The score that a line of a scoreboard holds; the line may be a stranger's.

    Raises:
        ValueError: it is no score.

    >>> score_from_json("[]")
    Traceback (most recent call last):
    ValueError: a score must be a JSON object with the fields of Score; got a list
    """
    found = parse_json(line, LONGEST_LINE)
    names = {one.name for one in fields(Score)}
    if type(found) is not dict or found.keys() != names:
        seen = sorted(found.keys() ^ names) if type(found) is dict else f"a {type(found).__name__}"
        seen = f"{ascii(seen)[:100]} too many or too few" if type(found) is dict else seen
        raise ValueError(f"a score must be a JSON object with the fields of Score; got {seen}")
    for name, fits in _FIELDS.items():
        if not fits(found[name]):
            raise ValueError(f"a score's {name} is not one: {ascii(found[name])[:80]}")
    return Score(**found)


def report_of(score: Score) -> str:
    """A score for whoever waits for it: three lines."""
    return (
        f"{plain(score.name)}: {score.bytes:,} bytes, {score.share:.1%} of TinyLM in float16\n"
        f"bits per byte: {score.bits_per_byte:.4f} on the shown chapters\n"
        f"               {score.second:.4f} on those of seed {score.seed}; dense TinyLM "
        f"{score.dense_second:.4f}: {score.relative - 1:+.1%}"
    )


def plain(text: str, most: int = LONGEST_NAME) -> str:
    r"""The text in one line for a console: control characters and their like escaped, and cut off.

    >>> plain("a\x1b[2J\u202eb\n")
    'a\\x1b[2J\\u202eb\\n'
    """
    shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    return shown if len(shown) <= most else shown[: most - 1] + "…"


def _is_number(value: Any, largest: float) -> bool:
    return type(value) in (int, float) and 0 < value <= largest


_FIELDS = {
    "name": lambda value: type(value) is str and 0 < len(value) <= LONGEST_NAME,
    "sha256": lambda value: type(value) is str and bool(re.fullmatch("[0-9a-f]{64}", value)),
    "bytes": lambda value: type(value) is int and _is_number(value, 10**12),
    "share": lambda value: _is_number(value, 1e6),
    "bits_per_byte": lambda value: _is_number(value, LARGEST_BITS),
    "second": lambda value: _is_number(value, LARGEST_BITS),
    "dense_second": lambda value: _is_number(value, LARGEST_BITS),
    "seed": lambda value: type(value) is int and 0 <= value <= MOST_SEED,
    "recipe": lambda value: type(value) is list and all(type(step) is dict for step in value),
    "date": lambda value: (
        type(value) is str
        and bool(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", value, re.ASCII))
    ),
    "versions": lambda value: (
        type(value) is dict
        and len(value) <= 20
        and all(type(one) is str and len(one) <= 100 for pair in value.items() for one in pair)
    ),
}
