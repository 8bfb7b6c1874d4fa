"""The edit distance, against its recursive definition."""

from functools import cache

import pytest
from hypothesis import given
from hypothesis import strategies as st

from course_lib.measure.edits import character_error_rate, edits

TEXT = st.text("abc", max_size=7)


def by_definition(a, b):
    @cache
    def least(i, j):
        if i == 0 or j == 0:
            return i + j
        change = least(i - 1, j - 1) + (a[i - 1] != b[j - 1])
        return min(change, least(i - 1, j) + 1, least(i, j - 1) + 1)

    return least(len(a), len(b))


@given(TEXT, TEXT)
def test_it_is_the_definition(a, b):
    assert edits(a, b) == by_definition(a, b) == edits(b, a)


@given(TEXT, TEXT, TEXT)
def test_it_is_a_distance(a, b, c):
    assert (edits(a, b) == 0) == (a == b)
    assert edits(a, c) <= edits(a, b) + edits(b, c)


def test_the_rate_is_of_all_letters_together():
    assert character_error_rate(["", "b"], ["aaa", "b"]) == 0.75
    assert character_error_rate(["abc"], ["a"]) == 2


def test_bad_input():
    with pytest.raises(ValueError, match="1 and 2"):
        character_error_rate(["a"], ["a", "b"])
    with pytest.raises(ValueError, match="0 letters"):
        character_error_rate(["a"], [""])
