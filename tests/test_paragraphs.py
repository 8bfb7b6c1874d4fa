import pytest

from course_lib.data.paragraphs import _fitting, paragraph_halves
from course_lib.data.text import wikipedia_articles


def test_halves_are_neighbours_in_one_paragraph():
    firsts, seconds = paragraph_halves(50)
    text = "\n".join(wikipedia_articles().values())
    assert all(f"{first}. {second}" in text for first, second in zip(firsts, seconds, strict=True))
    assert len(set(firsts)) == len(set(seconds)) == 50


def test_all_paragraphs_can_be_asked_for_and_no_more():
    most = len(_fitting())
    assert most > 300 and len(paragraph_halves(most)[0]) == most
    for count in (0, most + 1):
        with pytest.raises(ValueError, match=f"got {count}"):
            paragraph_halves(count)
