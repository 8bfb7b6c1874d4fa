"""MinHash against the theory, against brute force and against datasketch."""

from collections import Counter

import numpy as np
import pytest
from datasketch import MinHash, MinHashLSH

from course_lib.data.text import bible_verses
from course_lib.redundancy.minhash import (
    candidate_pairs,
    candidate_probability,
    estimate_jaccard,
    minhash_signatures,
    near_duplicates,
)
from course_lib.redundancy.shingles import jaccard, shingle_sets, similar_pairs, words

HASHES = 128


def edited_pairs(count, length=60, seed=0):
    """Documents 2i and 2i + 1 are alike: up to a fifth of the words of the second are replaced."""
    generator = np.random.default_rng(seed)
    vocabulary = np.array([f"w{i}" for i in range(5000)])
    documents = []
    for _ in range(count):
        first = generator.choice(vocabulary, length)
        changed = generator.random(length) < generator.uniform(0, 0.2)
        second = np.where(changed, generator.choice(vocabulary, length), first)
        documents += [" ".join(first), " ".join(second)]
    return documents, np.arange(2 * count).reshape(-1, 2)


def sketches(documents):
    shingled = []
    for document in documents:
        w = words(document)
        shingled.append([" ".join(w[i : i + 3]).encode() for i in range(len(w) - 2)])
    return MinHash.bulk(shingled, num_perm=HASHES)


def standard_scores(estimates, exact):
    """Errors in units of the theory's standard error, where that is not zero."""
    inside = (exact > 0.05) & (exact < 0.95)
    error = np.sqrt(exact * (1 - exact) / HASHES)
    return ((estimates - exact) / np.where(inside, error, 1))[inside]


def test_estimates_have_the_standard_error_of_the_theory_as_datasketchs_have():
    documents, pairs = edited_pairs(600)
    sets = shingle_sets(documents)
    exact = jaccard(sets, pairs)
    ours = standard_scores(estimate_jaccard(minhash_signatures(sets), pairs), exact)
    peer = sketches(documents)
    theirs = standard_scores(np.array([peer[i].jaccard(peer[j]) for i, j in pairs]), exact)
    # With n > 400 scores the root mean square has a standard error of 1/√(2n) < 0.036, the mean
    # of 1/√n < 0.05: four of them are allowed.
    for scores in (ours, theirs):
        assert len(scores) > 400
        assert abs(np.sqrt(np.mean(scores**2)) - 1) < 0.14
        assert abs(scores.mean()) < 0.2


def test_estimates_over_many_seeds_are_unbiased():
    sets = shingle_sets(["a b c d e f g h i j k l", "a b c d e f g h x y z w"])
    pairs = np.array([[0, 1]])
    exact = jaccard(sets, pairs)[0]
    mean = np.mean([estimate_jaccard(minhash_signatures(sets, seed=s), pairs) for s in range(300)])
    assert abs(mean - exact) < 4 * np.sqrt(exact * (1 - exact) / (300 * HASHES))


def test_signatures_of_equal_and_of_disjoint_sets():
    sets = shingle_sets(["a b c d", "a b c d", "p q r s", "", "…"])
    pairs = np.array([[0, 1], [0, 2], [3, 4], [0, 3]])
    assert estimate_jaccard(minhash_signatures(sets), pairs).tolist() == [1.0, 0.0, 1.0, 0.0]


def test_signatures_depend_on_the_seed_alone():
    sets = shingle_sets(["a b c d", "x y z"])
    np.testing.assert_array_equal(minhash_signatures(sets), minhash_signatures(sets))
    np.testing.assert_array_equal(minhash_signatures(sets)[[1]], minhash_signatures(sets[[1]]))
    assert (minhash_signatures(sets, seed=1) != minhash_signatures(sets)).mean() > 0.99


def test_a_set_without_shingles_is_refused():
    sets = shingle_sets(["a b c", "x y z"])
    sets.data[0] = 0
    sets.eliminate_zeros()
    with pytest.raises(ValueError, match="at least one shingle"):
        minhash_signatures(sets)


@pytest.mark.parametrize("similarity", [0.2, 0.4, 0.6])
def test_bands_follow_the_s_curve(similarity):
    pairs, bands, rows = 4000, 16, 4
    generator = np.random.default_rng(0)
    first = generator.integers(2**32, size=(pairs, bands * rows), dtype=np.uint32)
    other = generator.integers(2**32, size=first.shape, dtype=np.uint32)
    second = np.where(generator.random(first.shape) < similarity, first, other)
    found = candidate_pairs(np.concatenate([first, second]), bands)
    assert (found[:, 1] - found[:, 0] == pairs).all()  # only the planted pairs
    expected = candidate_probability(similarity, bands, rows)
    assert abs(len(found) / pairs - expected) < 4 * np.sqrt(expected * (1 - expected) / pairs)


def test_a_group_gives_all_its_pairs():
    signatures = np.tile(np.arange(8, dtype=np.uint32), (4, 1))
    expected = [[0, 1], [0, 2], [0, 3], [1, 2], [1, 3], [2, 3]]
    assert candidate_pairs(signatures, bands=2).tolist() == expected


def test_recall_and_precision_against_brute_force_and_datasketch():
    documents, _ = edited_pairs(500, seed=1)
    truth = {tuple(pair) for pair in similar_pairs(shingle_sets(documents), 0.7).tolist()}
    pairs, similarity = near_duplicates(documents, threshold=0.7)
    ours = {tuple(pair) for pair in pairs.tolist()}
    peer = MinHashLSH(threshold=0.7, num_perm=HASHES)
    theirs = set()
    for i, sketch in enumerate(sketches(documents)):
        theirs |= {(j, i) for j in peer.query(sketch)}
        peer.insert(i, sketch)
    assert len(truth) > 100
    assert ours <= truth  # candidates are checked exactly
    assert (similarity >= 0.7).all()
    assert len(ours & truth) >= 0.999 * len(truth)
    assert len(ours & truth) >= len(theirs & truth)


def test_near_duplicates_of_the_king_james_bible():
    verses = {number: text for number, text in bible_verses().items() if len(text) > 60}
    pairs, _ = near_duplicates(list(verses.values()), threshold=0.7)
    assert len(pairs) == 562
    chapters = np.array(list(verses))[pairs] // 1000
    twins = Counter(map(tuple, chapters[chapters[:, 0] != chapters[:, 1]].tolist()))
    found = [chapters for chapters, _ in twins.most_common(3)]
    assert (12_019, 23_037) in found  # 2 Kings 19, Isaiah 37
    assert (15_002, 16_007) in found  # Ezra 2, Nehemiah 7
    assert twins[10_022, 19_018] >= 10  # 2 Samuel 22, Psalm 18


@pytest.mark.parametrize("documents", [[], [""], ["one document alone"]])
def test_collections_without_a_pair(documents):
    pairs, similarity = near_duplicates(documents, threshold=0.5)
    assert pairs.shape == (0, 2)
    assert similarity.shape == (0,)


def test_bad_arguments():
    with pytest.raises(ValueError, match="bands must divide the 4 hashes"):
        candidate_pairs(np.zeros((2, 4), dtype=np.uint32), bands=3)
    with pytest.raises(ValueError, match="threshold must be above 0"):
        near_duplicates(["a"], threshold=0)
