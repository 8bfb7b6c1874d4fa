"""One text and one call for each of the course's language models, so that chapters can be compared.

TinyLM is measured on four held-out chapters of the King James Bible: every 14th of the 59, from the
8th on, on which it stands where it stands on all of them (1.173 against 1.174 bits per byte; other
stretches of this length give 1.08 to 1.26). SmolLM2 is measured on the beginning of the Wikipedia
articles, in windows of 512 tokens.

What is calibrated is calibrated on other text: TinyLM on chapters that it was trained on, SmolLM2
on the other articles.

Axes: B windows, T tokens of a window.
"""

from functools import cache

import torch
from tokenizers import Tokenizer
from torch import Tensor, nn

from course_lib.data.text import bible_chapters, split, wikipedia_articles
from course_lib.measure.quality import Quality, quality
from course_lib.models.tokenizer import tokens_of

EVERY, FIRST = 14, 7  # of the held-out chapters
WIKIPEDIA = 19_712  # characters: 4,097 tokens of SmolLM2


@cache
def held_out_sample() -> str:
    """Four chapters that TinyLM never saw, 12,731 characters.

    >>> len(held_out_sample())
    12731
    """
    _, held_out = split(bible_chapters("kjv"))
    return "\n\n".join(held_out.split("\n\n")[FIRST::EVERY])


@cache
def wikipedia_sample() -> str:
    """The first 19,712 characters of the Wikipedia articles."""
    return "\n\n".join(wikipedia_articles().values())[:WIKIPEDIA]


def tiny_quality(model: nn.Module, tokenizer: Tokenizer) -> Quality:
    """The quality of TinyLM, or of what was made of it, on `held_out_sample`.

    >>> from course_lib.models.pretrained import tiny
    >>> round(tiny_quality(*tiny()).bits_per_byte, 2)
    1.17
    """
    return quality(model, tokenizer, held_out_sample())


def smollm2_quality(model: nn.Module, tokenizer: Tokenizer) -> Quality:
    """The quality of SmolLM2, or of what was made of it, on `wikipedia_sample`."""
    return quality(model, tokenizer, wikipedia_sample(), length=512)


def spread_windows(tokenizer: Tokenizer, text: str, windows: int, length: int) -> Tensor:
    """Windows of a text, their beginnings spread evenly from its start to its end: (B, T).

    >>> from course_lib.models.pretrained import tiny
    >>> spread_windows(tiny()[1], "In the beginning God created the heaven", 2, 4).shape
    torch.Size([2, 4])
    """
    tokens = tokens_of(tokenizer, text)
    if not 1 <= length <= len(tokens) or windows < 1:
        raise ValueError(
            f"a text of {len(tokens)} tokens must hold windows of {length} ≥ 1; got {windows=}"
        )
    starts = torch.linspace(0, len(tokens) - length, windows).long()
    return tokens[starts[:, None] + torch.arange(length)]  # (B, 1) + (T,) -> (B, T)


def tiny_calibration(tokenizer: Tokenizer, windows: int = 32) -> Tensor:
    """Windows of 256 tokens, (B, 256), of the chapters that TinyLM was trained on."""
    return spread_windows(tokenizer, split(bible_chapters("kjv"))[0], windows, 256)


def smollm2_calibration(tokenizer: Tokenizer, windows: int = 16) -> Tensor:
    """Windows of 512 tokens, (B, 512), of all Wikipedia articles but the first."""
    text = "\n\n".join(list(wikipedia_articles().values())[1:])
    return spread_windows(tokenizer, text, windows, 512)
