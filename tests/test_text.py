import re

import pytest

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
