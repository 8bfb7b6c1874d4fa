"""Make the course's Wikipedia text from a dump:

    python tools/wikipedia_text.py DUMP.xml.bz2

DUMP is MediaWiki's XML export, compressed with bzip2. The course's text was made from one in the
test data of gensim, `enwiki-latest-pages-articles1.xml-p000000010p000030302-shortened.bz2`, whose
hash is DUMP_SHA256.
"""

import bz2
import hashlib
import json
import re
import sys
import xml.etree.ElementTree as ElementTree
from html import unescape
from pathlib import Path

DUMP_SHA256 = "a53f4648dec40467ebdcbc7a1307eddb51fe6e28e9309f6ebde81ba0d04bea2d"
TEXT = Path(__file__).parent.parent / "course_lib/data/texts/wikipedia.json.bz2"


def articles(dump: Path) -> dict[str, str]:
    """Title -> prose of each article with more than 500 characters."""
    found: dict[str, str] = {}
    title = ""
    with bz2.open(dump) as file:
        for _, element in ElementTree.iterparse(file):
            tag = element.tag.rpartition("}")[2]
            if tag == "title":
                title = element.text or ""
            elif tag == "text" and ":" not in title:
                prose = plain_prose(element.text or "")
                if len(prose) > 500:
                    found[title] = prose
            if tag == "page":
                element.clear()
    return found


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


def compressed(texts: dict[str, str]) -> bytes:
    """The texts as a JSON object, compressed with bzip2; the same bytes on every machine."""
    return bz2.compress(json.dumps(texts, ensure_ascii=False, indent=0).encode())


if __name__ == "__main__":
    dump = Path(sys.argv[1])
    if hashlib.sha256(dump.read_bytes()).hexdigest() != DUMP_SHA256:
        print(f"{dump.name} is not the dump that the course was written with")
    TEXT.write_bytes(compressed(articles(dump)))
    print(f"{TEXT.name}: {TEXT.stat().st_size / 1e6:.2f} MB")
