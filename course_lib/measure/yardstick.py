"""One text and one call for each of the course's language models, so that chapters can be compared.

TinyLM is measured on four held-out chapters of the King James Bible: every 14th of the 59, from the
8th on, on which it stands where it stands on all of them (1.173 against 1.174 bits per byte; other
stretches of this length give 1.08 to 1.26). SmolLM2 is measured on the beginning of the Wikipedia
articles, in windows of 512 tokens.
"""

from functools import cache

from tokenizers import Tokenizer
from torch import nn

from course_lib.data.text import bible_chapters, split, wikipedia_articles
from course_lib.measure.quality import Quality, quality

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
