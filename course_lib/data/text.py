"""The course's texts; nothing is downloaded at run time.

- two translations of the Bible, from packages, as chapters with one verse a line: TinyLM learns
  from the first;
- 96 articles of the English Wikipedia, as plain prose, from `texts/`: text that TinyLM was not
  fitted to. `tools/wikipedia_text.py` made the file.
"""

import ast
import bz2
import json
import re
from collections.abc import Sequence
from functools import cache

from course_lib.data.packages import package_file

HELD_OUT_EVERY = 20
WIKIPEDIA = "data/texts/wikipedia.json.bz2"


@cache
def bible_verses(version: str = "kjv") -> dict[int, str]:
    """Verse number -> text. The number of book b, chapter c, verse v is 1000000·b + 1000·c + v.

    Args:
        version: "kjv" (King James, 1611/1769) or "asv" (American Standard, 1901).

    >>> bible_verses("kjv")[1_001_003]
    'And God said, Let there be light: and there was light.'
    """
    if version not in ("kjv", "asv"):
        raise ValueError(f'version must be "kjv" or "asv"; got {version!r}')
    source = package_file(f"pythonbible_{version}", "plain_text_bible.py").read_text("utf-8")
    call = ast.parse(source).body[-1].value  # bible = Bible(version, text, starts, ends, …)
    text, starts, ends = (ast.literal_eval(argument) for argument in call.args[1:4])
    return {verse: _clean_verse(text[starts[verse] : ends[verse]]) for verse in starts}


def _clean_verse(verse: str) -> str:
    """Without its number, the brackets of supplied words, and runs of white space."""
    return " ".join(re.sub(r"^\s*\d+\.|[\[\]]", "", verse).split())


@cache
def bible_chapters(version: str = "kjv") -> tuple[str, ...]:
    """The 1189 chapters, in order, each as lines of one verse.

    >>> len(bible_chapters("kjv")), bible_chapters("kjv")[0].splitlines()[2][:12]
    (1189, 'And God said')
    """
    chapters: dict[int, list[str]] = {}
    for verse, text in bible_verses(version).items():
        chapters.setdefault(verse // 1000, []).append(text)
    return tuple("\n".join(verses) for verses in chapters.values())


def split(documents: Sequence[str]) -> tuple[str, str]:
    """(train, held-out) text: every 20th document, beginning with the 11th, is held out.

    >>> train, held_out = split([f"document {i}" for i in range(40)])
    >>> held_out.split("\\n\\n")
    ['document 10', 'document 30']
    """
    chosen = [i % HELD_OUT_EVERY == HELD_OUT_EVERY // 2 for i in range(len(documents))]
    train = [text for text, held in zip(documents, chosen, strict=True) if not held]
    held_out = [text for text, held in zip(documents, chosen, strict=True) if held]
    return "\n\n".join(train), "\n\n".join(held_out)


@cache
def wikipedia_articles() -> dict[str, str]:
    """Title -> prose of each article (CC BY-SA 4.0; texts/wikipedia.md names its source).

    >>> len(wikipedia_articles()), wikipedia_articles()["Abacus"][:39]
    (96, 'The abacus (plural abaci or abacuses), ')
    """
    return json.loads(bz2.decompress(package_file("course_lib", WIKIPEDIA).read_bytes()))
