import bz2
import hashlib
import json
import re

import pytest
import wikipedia_text

from course_lib.data.text import bible_chapters, bible_verses, split, wikipedia_articles


@pytest.mark.parametrize("version", ["kjv", "asv"])
def test_every_verse_of_the_bible_is_there_and_clean(version):
    verses = bible_verses(version)
    assert len(verses) == 31_102
    assert all(verse == " ".join(verse.split()) for verse in verses.values())
    assert not any(re.search(r"[\[\]]|^\d+\.", verse) for verse in verses.values())
    assert sum(not verse for verse in verses.values()) <= 20  # verses the ASV leaves out


def test_known_verses():
    assert bible_verses("kjv")[43_011_035] == "Jesus wept."
    assert bible_verses("asv")[19_023_001] == "Jehovah is my shepherd; I shall not want."


def test_train_and_held_out_text_share_no_chapter():
    chapters = bible_chapters("kjv")
    train, held_out = (set(part.split("\n\n")) for part in split(chapters))
    assert not train & held_out
    assert len(train | held_out) == len(set(chapters))
    assert len(held_out) == 59  # 1189 chapters: numbers 10, 30, …, 1170


def test_an_unknown_version_is_refused():
    with pytest.raises(ValueError, match="'niv'"):
        bible_verses("niv")


def test_wikipedia_is_prose_without_markup():
    articles = wikipedia_articles()
    prose = "\n".join(articles.values())
    assert len(articles) == 96 and 2_300_000 < len(prose) < 2_600_000
    for mark in ("[[", "]]", "{{", "<ref", "'''", "&nbsp;"):
        assert prose.count(mark) <= 3, mark


def test_wikipedia_is_the_text_that_the_lessons_figures_were_measured_on():
    text = json.dumps(wikipedia_articles(), ensure_ascii=False).encode()
    digest = hashlib.sha256(text).hexdigest()
    assert digest == "a8769f5045e9466c319677a87967bcbe9e67b5ff87d201ac71235176fcf6fc08"


def test_the_file_is_what_its_script_writes():
    file = wikipedia_text.TEXT
    assert file.read_bytes() == wikipedia_text.compressed(wikipedia_articles())
    assert file.stat().st_size < 1_500_000


def test_every_article_is_named_beside_the_file_with_its_licence():
    note = wikipedia_text.TEXT.with_name("wikipedia.md").read_text("utf-8")
    words = " ".join(note.split())
    named = words.partition("in the order of the file: ")[2].split(" · ")
    assert named == list(wikipedia_articles())
    assert "https://creativecommons.org/licenses/by-sa/4.0/" in words


def test_prose_is_read_from_a_dump(tmp_path):
    pages = {"Long": "'''Long''' has [[prose|words]].\n" * 3 + "x" * 600 + ".", "Short": "A stub."}
    pages |= {"Talk:Long": pages["Long"], "Same": f"#REDIRECT [[Long]]\n{pages['Long']}"}
    xml = "".join(
        f"<page><title>{title}</title><revision><text>{text}</text></revision></page>"
        for title, text in pages.items()
    )
    dump = tmp_path / "dump.xml.bz2"
    dump.write_bytes(bz2.compress(f'<mediawiki xmlns="x">{xml}</mediawiki>'.encode()))
    assert wikipedia_text.articles(dump) == {"Long": "x" * 600 + "."}
