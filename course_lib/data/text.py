"""The course's texts. Each arrives with a package; nothing is downloaded at run time.

- two translations of the Bible, as chapters with one verse a line: TinyLM learns from the first;
- 96 articles of the English Wikipedia, as plain prose: text that TinyLM was not fitted to.
"""

import ast
import bz2
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from functools import cache
from html import unescape

from course_lib.data.packages import package_file

HELD_OUT_EVERY = 20
WIKIPEDIA_DUMP = "test/test_data/enwiki-latest-pages-articles1.xml-*-shortened.bz2"


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
    """Title -> prose of each article with more than 500 characters (text: CC BY-SA 4.0)."""
    articles: dict[str, str] = {}
    title = ""
    with bz2.open(package_file("gensim", WIKIPEDIA_DUMP)) as dump:
        for _, element in ElementTree.iterparse(dump):
            tag = element.tag.rpartition("}")[2]
            if tag == "title":
                title = element.text or ""
            elif tag == "text" and ":" not in title:
                prose = plain_prose(element.text or "")
                if len(prose) > 500:
                    articles[title] = prose
            if tag == "page":
                element.clear()
    return articles


def plain_prose(markup: str) -> str:
    """The paragraphs of an article's wiki markup, without tables, notes, lists and headings.

    >>> plain_prose("'''Ada Lovelace''' wrote a [[program (computing)|program]] for the [[engine]]"
    ...             "{{note|{{x}}}} that was never built.<ref>p. 3</ref>")
    'Ada Lovelace wrote a program for the engine that was never built.'
    """
    if markup.lower().startswith("#redirect"):
        return ""
    element = r"ref|math|gallery|timeline|source|code|pre|table|imagemap"
    text = re.sub(r"<!--.*?-->", "", markup, flags=re.S)
    text = re.sub(rf"<({element})\b[^>]*?/>", "", text)
    text = re.sub(rf"<({element})\b.*?</\1>", "", text, flags=re.S)
    text = _remove_nested(r"\{\{[^{}]*\}\}", text)  # {{templates}}
    text = _remove_nested(r"\{\|(?:(?!\{\||\|\}).)*\|\}", text)  # {| tables |}
    text = _remove_nested(
        r"\[\[(?:File|Image|Category|[a-z\-]{2,12}):(?:[^\[\]]|\[\[[^\[\]]*\]\])*\]\]", text
    )
    text = re.sub(r"\[\[(?:[^\[\]|]*\|)?([^\[\]|]*)\]\]", r"\1", text)  # [[page|shown]] -> shown
    text = re.sub(r"\[https?:\S+\s*([^\]]*)\]", r"\1", text)
    text = unescape(re.sub(r"<[^>]+>", "", re.sub(r"'{2,}", "", text)))
    paragraphs = (" ".join(line.split()) for line in text.splitlines())
    return "\n".join(p for p in paragraphs if _is_prose(p))


def _remove_nested(pattern: str, text: str) -> str:
    """Remove innermost matches until none is left."""
    while (shorter := re.sub(pattern, "", text, flags=re.S)) != text:
        text = shorter
    return text


def _is_prose(line: str) -> bool:
    return len(line) >= 60 and line[0] not in "*#:;|!{}=" and line[-1] in ".!?\"')"
