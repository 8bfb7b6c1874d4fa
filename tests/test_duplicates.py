from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from course_lib.data.text import bible_verses
from course_lib.redundancy.duplicates import cluster_heads, first_copies, repeated_tokens
from course_lib.redundancy.shingles import words


@given(st.lists(st.text(alphabet="ab", max_size=3)))
def test_first_copies_point_to_the_first_equal_text(texts):
    assert first_copies(texts).tolist() == [texts.index(text) for text in texts]


def test_what_counts_as_equal_is_the_callers_choice():
    texts = ["The cat sat on the mat", "the  cat sat on the mat", "the mat sat on the cat", "A dog"]
    assert first_copies(texts).tolist() == [0, 1, 2, 3]
    assert first_copies(" ".join(words(text)) for text in texts).tolist() == [0, 0, 2, 3]


def test_exact_duplicates_of_the_king_james_bible():
    heads = first_copies(" ".join(words(verse)) for verse in bible_verses().values())
    groups = [size for size in Counter(heads.tolist()).values() if size > 1]
    assert (len(heads), len(groups), sum(groups)) == (31_102, 153, 462)


def test_one_text_instead_of_a_collection():
    with pytest.raises(TypeError, match="got one text"):
        first_copies("a text")


@given(st.data())
@settings(deadline=None)
def test_clusters_are_those_of_union_find(data):
    count = data.draw(st.integers(1, 12))
    member = st.integers(0, count - 1)
    pairs = data.draw(st.lists(st.tuples(member, member), max_size=12))
    parent = list(range(count))
    for a, b in pairs:
        while parent[a] != a:
            a = parent[a]
        while parent[b] != b:
            b = parent[b]
        parent[max(a, b)] = min(a, b)
    for i in range(count):  # parents come before their children
        parent[i] = parent[parent[i]]
    assert cluster_heads(np.array(pairs, dtype=int).reshape(-1, 2), count).tolist() == parent


def plain_repeated(tokens, length):
    """The first occurrence must have ended before a repeat of it begins."""
    repeated, first = [False] * len(tokens), {}
    for i in range(len(tokens) - length + 1):
        window = tuple(tokens[i : i + length])
        if first.setdefault(window, i) + length <= i:
            repeated[i : i + length] = [True] * length
    return repeated


@given(st.lists(st.integers(0, 2), max_size=40), st.integers(1, 6))
def test_repeated_tokens_are_those_of_the_definition(tokens, length):
    found = repeated_tokens(np.array(tokens, dtype=np.int64), length)
    assert found.tolist() == plain_repeated(tokens, length)


def test_a_run_that_overlaps_itself_keeps_one_copy():
    tokens = np.array([1, 1, 1, 1, 2])
    assert tokens[~repeated_tokens(tokens, length=2)].tolist() == [1, 1, 2]


def test_a_planted_passage_is_found_and_nothing_else():
    generator = np.random.default_rng(0)
    tokens = generator.integers(2048, size=5000)
    tokens[4000:4060] = tokens[1000:1060]
    assert np.flatnonzero(repeated_tokens(tokens, length=50)).tolist() == list(range(4000, 4060))


def test_length_must_be_positive():
    with pytest.raises(ValueError, match="length must be at least 1"):
        repeated_tokens(np.arange(3), length=0)
