"""The process that reads a stranger's file: `python -m course_lib.challenge.worker FILE SEED MB`.

It prints one line of JSON: a score without its name, or why there is none. Memory is limited by
RLIMIT_DATA, not by RLIMIT_AS: PyTorch for GPUs maps far more than it uses. Where there is no such
limit (Windows), or it is not held (macOS), that of time remains.
"""

import contextlib
import hashlib
import json
import platform
import random
import sys
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer

from course_lib.data.text import bible_chapters, split
from course_lib.measure.quality import quality
from course_lib.measure.size import size
from course_lib.measure.yardstick import held_out_sample
from course_lib.models.llama import Llama
from course_lib.models.pretrained import tiny
from course_lib.pipeline.compressed_file import load_compressed

LENGTH = 256  # tokens of a window
CHAPTERS = 6  # of the second slice
MOST_ERROR = 10_000  # characters; the parent cuts them further


@cache
def other_chapters() -> tuple[str, ...]:
    """The held-out chapters that are not in the shown sample: 55.

    >>> len(other_chapters())
    55
    """
    shown = set(held_out_sample().split("\n\n"))
    chapters = split(bible_chapters("kjv"))[1].split("\n\n")
    return tuple(chapter for chapter in chapters if chapter not in shown)


def second_slice(seed: int) -> str:
    """Six of the chapters that are not shown, drawn by the seed, in the Bible's order.

    >>> second_slice(7) == second_slice(7) != second_slice(8)
    True
    """
    drawn = random.Random(seed).sample(range(len(other_chapters())), CHAPTERS)
    return "\n\n".join(other_chapters()[number] for number in sorted(drawn))


def measured(path: Path, seed: int) -> dict[str, Any]:
    """A score's fields, but for its name.

    Raises:
        ValueError, OSError: as `score.score_file`.
    """
    dense, tokenizer = tiny()
    with open(path, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    found = load_compressed(path)
    _check_model(found.model, tokenizer)
    half = {name: weight.half() for name, weight in dense.state_dict().items()}
    text = second_slice(seed)
    return {
        "sha256": digest,
        "bytes": found.bytes,
        "share": found.bytes / size(half).bytes,
        "bits_per_byte": _bits(found.model, tokenizer, held_out_sample()),
        "second": _bits(found.model, tokenizer, text),
        "dense_second": _bits(dense, tokenizer, text),
        "seed": seed,
        "recipe": found.recipe,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": _versions(),
    }


def _check_model(model: Llama, tokenizer: Tokenizer) -> None:
    config, known = model.config, tokenizer.get_vocab_size()
    if config.vocabulary != known or config.context < LENGTH:
        raise ValueError(
            f"the model must read TinyLM's {known} tokens, {LENGTH} at a time or more; "
            f"it has {config.vocabulary}, and a context of {config.context}"
        )


def _bits(model: Llama, tokenizer: Tokenizer, text: str) -> float:
    """Bits per byte, which must be a number."""
    found = quality(model, tokenizer, text, LENGTH).bits_per_byte
    if not 0 < found < 1000:
        raise ValueError(f"the model's bits per byte must be above 0 and below 1000; got {found:g}")
    return found


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version(), "torch": torch.__version__}
    with contextlib.suppress(PackageNotFoundError):
        found["course"] = version("removing-redundancy")
    return found


def _limit_memory(megabytes: int) -> None:
    try:
        import resource
    except ImportError:  # Windows
        return
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_DATA, (megabytes * 10**6,) * 2)


def main(words: list[str]) -> int:
    """Print what was measured, or why it was not."""
    path, seed, megabytes = Path(words[0]), int(words[1]), int(words[2])
    _limit_memory(megabytes)
    try:
        answer = measured(path, seed)
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and "memory" not in str(error):
            raise
        answer = {"error": f"the file takes more than {megabytes} MB of memory"}
    except (ValueError, OSError) as error:
        answer = {"error": str(error)[:MOST_ERROR]}
    print(json.dumps(answer))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
