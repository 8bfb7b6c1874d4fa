import unicodedata
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_array

from course_lib.data.text import bible_verses
from course_lib.redundancy.shingles import (
    jaccard,
    sequence_hashes,
    shingle_sets,
    similar_pairs,
    words,
)

TEXTS = st.lists(st.text(alphabet="abc  .É", max_size=14), max_size=12)


def plain_sets(documents, width=3):
    """The definition, with Python's own sets of tuples."""
    sets = []
    for document in documents:
        w = words(document)
        w += [""] * (width - len(w))
        sets.append({tuple(w[i : i + width]) for i in range(len(w) - width + 1)})
    return sets


def plain_pairs(documents, threshold):
    sets = plain_sets(documents)
    return [
        [i, j]
        for i, j in combinations(range(len(sets)), 2)
        if len(sets[i] & sets[j]) / len(sets[i] | sets[j]) >= threshold
    ]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Straße", "STRASSE"),  # case folding, not lower()
        (
            "e\N{COMBINING ACUTE ACCENT}t\N{COMBINING ACUTE ACCENT}e",
            "É" + "T\N{COMBINING ACUTE ACCENT}e",
        ),
        ("ﬁrst １２", "first 12"),  # ligature and full-width digits
        ("the\tcat,\nthe  hat!", "The cat — the hat"),
        ("語言", "語 言"),
    ],
)
def test_words_that_look_different_but_are_the_same(one, other):
    assert words(one) == words(other)


@pytest.mark.parametrize("text", ["", " \n", "…!?", "\ud800", "\N{ZERO WIDTH SPACE}"])
def test_texts_without_words(text):
    assert words(text) == []


def test_words_of_mixed_scripts():
    assert words("Война и мир, 戦争と平和 2nd") == [
        *("война", "и", "мир"),
        *("戦", "争", "と", "平", "和"),
        "2nd",
    ]


def test_sequence_hashes_tell_ninety_thousand_pairs_apart():
    first, second = np.divmod(np.arange(90_000), 300)
    assert len(np.unique(sequence_hashes([first, second]))) == 90_000


@given(TEXTS, st.integers(1, 4))
@settings(max_examples=60, deadline=None)
def test_set_sizes_are_those_of_the_definition(documents, width):
    sizes = np.diff(shingle_sets(documents, width).indptr)
    assert sizes.tolist() == [len(s) for s in plain_sets(documents, width)]


@given(TEXTS, st.sampled_from([0.1, 0.3, 1 / 3, 0.5, 0.7, 0.8, 1.0]))
@settings(max_examples=100, deadline=None)
def test_similar_pairs_are_all_pairs_of_the_definition(documents, threshold):
    found = similar_pairs(shingle_sets(documents), threshold)
    assert found.tolist() == plain_pairs(documents, threshold)


@pytest.mark.parametrize("threshold", [0.2, 0.35, 0.5])
def test_similar_pairs_on_real_text(threshold):
    verses = list(bible_verses().values())[:500]
    sets = shingle_sets(verses)
    pairs = similar_pairs(sets, threshold)
    assert pairs.tolist() == plain_pairs(verses, threshold)
    assert len(pairs) > 2
    both = [(plain_sets([verses[i]])[0], plain_sets([verses[j]])[0]) for i, j in pairs]
    exact = [len(a & b) / len(a | b) for a, b in both]
    np.testing.assert_array_equal(jaccard(sets, pairs), exact)


def test_a_shingle_counts_once():
    sets = shingle_sets(["a b c a b c a b c", "a b c a b"])
    assert jaccard(sets, np.array([[0, 1]])).tolist() == [1.0]


def test_shingles_do_not_cross_documents():
    sets = shingle_sets(["a b", "c d e"])
    assert np.diff(sets.indptr).tolist() == [1, 1]
    assert jaccard(sets, np.array([[0, 1]])).tolist() == [0.0]


def test_short_and_empty_documents():
    sets = shingle_sets(["a b", "A, b.", "a", "a b c", "", "…"])
    pairs = np.array([[0, 1], [0, 2], [0, 3], [4, 5], [0, 4]])
    assert jaccard(sets, pairs).tolist() == [1.0, 0.0, 0.0, 1.0, 0.0]


@pytest.mark.parametrize("documents", [[], ["only one"]])
def test_too_few_documents_for_a_pair(documents):
    assert similar_pairs(shingle_sets(documents), 0.5).shape == (0, 2)


def test_the_same_text_has_the_same_shingles_in_every_collection():
    alone, later = shingle_sets(["a b c d"]), shingle_sets(["x y z", "a b c d"])
    assert alone.indices.tolist() == later[[1]].indices.tolist()


@pytest.mark.parametrize("threshold", [0.0, -1.0, 1.1, float("nan")])
def test_thresholds_out_of_range(threshold):
    with pytest.raises(ValueError, match="threshold must be above 0"):
        similar_pairs(shingle_sets(["a"]), threshold)


def test_bad_arguments():
    with pytest.raises(TypeError, match="got one text"):
        shingle_sets("a text, not a list of texts")
    with pytest.raises(ValueError, match="width must be at least 1"):
        shingle_sets(["a"], width=0)


TEXTS = {
    "Hindi": "हिन्दी में",
    "Hindi vowels": "की के का कु",
    "Thai": "ภาษา ที่ ทำ",
    "Bengali": "ভৌতিক গল্প",
    "Telugu": "శ్రీ రామ",
    "decomposed Latin": "ab\u030cc de\u0301f",
    "Persian": "می\u200cخواهم",
}


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_marks_belong_to_their_letters(text):
    assert words(text) == [unicodedata.normalize("NFKC", w).casefold() for w in text.split()]


def test_two_empty_rows_are_equal():
    assert jaccard(csr_array((2, 5), dtype=np.int32), np.array([[0, 1]])).tolist() == [1.0]
