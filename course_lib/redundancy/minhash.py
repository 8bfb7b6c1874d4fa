"""MinHash: find similar documents without comparing every two of them.

A hash function puts all shingles in a random order. The first shingle of A ∪ B in that order is the
first of A and of B at once exactly if it lies in A ∩ B, so

    P(min h(A) = min h(B)) = J(A, B)

A signature holds the minima of K hash functions; the share of equal positions estimates J with
standard error √(J (1 − J) / K). Locality-sensitive hashing cuts a signature into b bands of
r = K / b rows: two documents become candidates if a band is equal throughout, with probability

    1 − (1 − J^r)^b          the S-curve; its steepest part is near (1 / b)^(1 / r)

Candidates are then compared exactly, so that only missed pairs remain as errors. A signature's size
does not grow with the text, which is what MinHash is for: where all sets fit into memory and only
high similarities are asked for, `shingles.similar_pairs` is about as fast and misses nothing.

Sources: Broder, 1997, "On the Resemblance and Containment of Documents"; Indyk and Motwani, 1998,
"Approximate Nearest Neighbors: Towards Removing the Curse of Dimensionality"; Leskovec, Rajaraman,
Ullman, 2014, "Mining of Massive Datasets", chapter 3.

Axes: N documents, K hash functions, P pairs of documents.
"""

from collections.abc import Sequence
from itertools import count

import numpy as np
from scipy.sparse import csr_array

from course_lib.redundancy.shingles import (
    check_threshold,
    jaccard,
    sequence_hashes,
    shingle_sets,
)


def minhash_signatures(sets: csr_array, hashes: int = 128, seed: int = 0) -> np.ndarray:
    """The minimum of h(x) = (a x + c) mod 2³² over each set, for K pairs of random a (odd) and c.

    With an odd a, each h is a permutation of the 32-bit numbers.

    Args:
        sets: from `shingle_sets`; its column numbers are x.
        hashes: K.
        seed: signatures are comparable only if they share it.

    Returns:
        Signatures (N, K), uint32.

    Raises:
        ValueError: a set is empty, so it has no minimum.

    Source: Broder et al., 2000, "Min-Wise Independent Permutations" (linear permutations).

    >>> minhash_signatures(shingle_sets(["a b c d", "A, b, c, d!"]), hashes=3).std(axis=0).tolist()
    [0.0, 0.0, 0.0]
    """
    if (np.diff(sets.indptr) == 0).any():
        raise ValueError("sets must hold at least one shingle each; got an empty set")
    generator = np.random.default_rng(seed)
    factors = generator.integers(2**32, size=hashes, dtype=np.uint32) | np.uint32(1)
    shifts = generator.integers(2**32, size=hashes, dtype=np.uint32)
    shingles = sets.indices.astype(np.uint32)
    hashed = np.empty_like(shingles)
    signatures = np.empty((hashes, sets.shape[0]), dtype=np.uint32)
    for row, factor, shift in zip(signatures, factors, shifts, strict=True):
        np.multiply(shingles, factor, out=hashed)
        hashed += shift
        np.minimum.reduceat(hashed, sets.indptr[:-1], out=row)
    return signatures.T  # (K, N) -> (N, K)


def estimate_jaccard(signatures: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    """The share of equal positions in the signatures of each pair: (P, 2) -> (P,).

    >>> estimate_jaccard(np.array([[3, 1, 4, 1], [3, 1, 5, 9]]), np.array([[0, 1]])).tolist()
    [0.5]
    """
    return (signatures[pairs[:, 0]] == signatures[pairs[:, 1]]).mean(axis=1)


def candidate_probability(similarity: np.ndarray, bands: int, rows: int) -> np.ndarray:
    """How likely a pair of this similarity becomes a candidate: 1 − (1 − J^r)^b.

    >>> candidate_probability(np.array([0.0, 0.2, 0.8, 1.0]), bands=20, rows=5).round(4).tolist()
    [0.0, 0.0064, 0.9996, 1.0]
    """
    return 1 - (1 - similarity**rows) ** bands


def candidate_pairs(signatures: np.ndarray, bands: int) -> np.ndarray:
    """The pairs i < j of documents whose signatures agree in at least one whole band: (P, 2).

    g documents with an equal band are g (g − 1) / 2 pairs: remove exact duplicates first.

    >>> candidate_pairs(np.array([[3, 1, 4, 1], [3, 1, 5, 9], [2, 7, 1, 8]]), bands=2).tolist()
    [[0, 1]]
    """
    documents, hashes = signatures.shape
    if bands < 1 or hashes % bands:
        raise ValueError(f"bands must divide the {hashes} hashes of a signature; got {bands}")
    found = [np.empty(0, dtype=np.int64)]
    for band in np.split(signatures.T, bands):  # (r, N)
        keys = sequence_hashes(band)
        order = np.argsort(keys, kind="stable")
        keys = keys[order]
        for gap in count(1):  # equal keys stand side by side
            equal = keys[:-gap] == keys[gap:]
            if not equal.any():
                break
            found.append(order[:-gap][equal] * documents + order[gap:][equal])
    return np.stack(np.divmod(np.unique(np.concatenate(found)), max(1, documents)), axis=1)


def near_duplicates(
    documents: Sequence[str], threshold: float, hashes: int = 128, bands: int = 32
) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of documents with J ≥ threshold, found by MinHash and then checked exactly.

    Args:
        documents: texts, compared by their 3-shingles.
        threshold: least Jaccard similarity, above 0 and at most 1.
        hashes, bands: K and b. A pair is missed with probability (1 − J^r)^b: with 128 and 32 that
            is 0.0002 at J = 0.7, 0.01 at 0.6 and 0.13 at 0.5.

    Returns:
        Pairs (P, 2), i < j, and their similarities (P,).

    >>> pairs, similarity = near_duplicates(["a b c d e f", "x y z", "A B C D E!"], threshold=0.7)
    >>> pairs.tolist(), similarity.tolist()
    ([[0, 2]], [0.75])
    """
    check_threshold(threshold)
    sets = shingle_sets(documents)
    pairs = candidate_pairs(minhash_signatures(sets, hashes), bands)
    similarity = jaccard(sets, pairs)
    return pairs[similarity >= threshold], similarity[similarity >= threshold]
