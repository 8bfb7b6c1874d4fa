"""How similar two texts are: sets of shingles and their Jaccard similarity.

A document is seen as its words in order: Unicode NFKC, case folded, punctuation dropped. Its set of
w-shingles holds each run of w words once, and two documents are as similar as their sets,

    J(A, B) = |A ∩ B| / |A ∪ B|

A document of fewer than w words is filled up with empty words. So every document has a shingle, and
two documents without any word are equal: J = 1. The sets stand in one sparse matrix: a row for each
document, a column for each shingle, 1 for "has". A shingle's column is 31 bits of its hash: one
pair of shingles in 2 · 10⁹ shares a column.

Source: Broder, 1997, "On the Resemblance and Containment of Documents".

Axes: N documents, C columns (2³¹), P pairs of documents.
"""

import re
import unicodedata
from collections.abc import Iterable, Sequence
from hashlib import blake2b

import numpy as np
from scipy.sparse import csr_array, triu

# A word is a run of letters, digits and the marks that belong to them (vowel signs of Indic
# scripts, tones of Thai, accents); a Chinese or Japanese character is one by itself.
MARKS = "".join(c for c in map(chr, range(0x300, 0x1F000)) if unicodedata.category(c)[0] == "M")
JOINERS, ALONE = "\u200c\u200d", "\u3040-\u30ff\u3400-\u9fff"
WORD = re.compile(f"(?:[^\\W{ALONE}]|(?<=[^\\W{ALONE}])[{JOINERS}]|[{MARKS}])+|[{ALONE}][{MARKS}]*")
HASH_FACTOR = np.uint64(0x9E3779B97F4A7C15)  # 2⁶⁴ divided by the golden ratio, odd


def words(text: str) -> list[str]:
    """The words of a text, comparable across case, punctuation, white space and Unicode forms.

    >>> words("The  ﬁrst DAY—and the 2nd; 语言")
    ['the', 'first', 'day', 'and', 'the', '2nd', '语', '言']
    """
    return WORD.findall(unicodedata.normalize("NFKC", text).casefold())


class _WordHashes(dict):
    """Word -> 64 bits of its BLAKE2b hash, computed once a word and equal on every machine."""

    def __missing__(self, word: str) -> int:
        digest = blake2b(word.encode(), digest_size=8).digest()
        self[word] = int.from_bytes(digest, "little")
        return self[word]


def sequence_hashes(columns: Iterable[np.ndarray]) -> np.ndarray:
    """A 64-bit hash of each row of some columns of integers (N,): h ← (h ⊕ (h >> 32) ⊕ c) · factor.

    >>> first, second = np.array([1, 2, 1]), np.array([5, 5, 5])
    >>> h = sequence_hashes([first, second])
    >>> bool(h[0] == h[2]), bool(h[0] == h[1]), bool(h[0] == sequence_hashes([second, first])[0])
    (True, False, False)
    """
    hashes = np.uint64(0)
    for column in columns:
        hashes = (hashes ^ (hashes >> np.uint64(32)) ^ column.astype(np.uint64)) * HASH_FACTOR
    return hashes


def shingle_sets(documents: Sequence[str], width: int = 3) -> csr_array:
    """The set of w-shingles of each document, as a sparse matrix of ones: (N, C).

    Args:
        documents: the texts.
        width: words in a shingle (w).

    Raises:
        TypeError: documents is one text instead of a collection of texts.
        ValueError: width is below 1.

    Source: Leskovec, Rajaraman, Ullman, 2014, "Mining of Massive Datasets", chapter 3.

    >>> shingle_sets(["the cat sat on the mat", "The cat!", "…"]).sum(axis=1).tolist()
    [4, 1, 1]
    """
    if isinstance(documents, str):
        raise TypeError("documents must be a sequence of texts; got one text")
    if width < 1:
        raise ValueError(f"width must be at least 1 word; got {width}")
    split = [words(document) for document in documents]
    padded = [w + [""] * (width - len(w)) for w in split]
    document = np.repeat(np.arange(len(padded)), [len(w) for w in padded])  # of each word
    lookup = _WordHashes({"": 0})
    codes = np.array([lookup[word] for w in padded for word in w], dtype=np.uint64)
    starts = max(0, len(codes) - width + 1)
    hashes = sequence_hashes(codes[i : i + starts] for i in range(width))
    inside = document[:starts] == document[len(document) - starts :]  # first and last word
    rows, columns = document[:starts][inside], (hashes[inside] >> np.uint64(33)).astype(np.int32)
    ones = np.ones(len(rows), dtype=np.int32)
    sets = csr_array((ones, (rows, columns)), shape=(len(padded), 2**31))
    sets.data[:] = 1  # a set, not a multiset
    return sets


def jaccard(sets: csr_array, pairs: np.ndarray) -> np.ndarray:
    """|A ∩ B| / |A ∪ B| of each pair of rows: pairs (P, 2) -> (P,); 1 for two empty rows.

    >>> jaccard(shingle_sets(["a b c d", "a b c e", "", "…"]), np.array([[0, 1], [0, 2], [2, 3]]))
    array([0.33333333, 0.        , 1.        ])
    """
    sizes = np.diff(sets.indptr)
    first, second = pairs.T
    both = sets[first].multiply(sets[second]).sum(axis=1)
    union = sizes[first] + sizes[second] - both
    return np.where(union > 0, both / np.maximum(union, 1), 1.0)


def similar_pairs(sets: csr_array, threshold: float) -> np.ndarray:
    """All pairs i < j with J ≥ t, exactly: (P, 2).

    J ≥ t needs |A ∩ B| ≥ t |A|, so at most |A| − ⌈t |A|⌉ shingles of A are not in B, and the rarest
    common shingle is among the |A| − ⌈t |A|⌉ + 1 rarest of A. The same holds for B. So only these
    rare shingles are compared, and the pairs of documents that share one are checked in full.

    Source: Bayardo, Ma, Srikant, 2007, "Scaling Up All Pairs Similarity Search".

    >>> similar_pairs(shingle_sets(["a b c d e", "a b c d f", "x y z"]), 0.5).tolist()
    [[0, 1]]
    """
    check_threshold(threshold)
    sizes = np.diff(sets.indptr)
    row = np.repeat(np.arange(len(sizes)), sizes)
    _, column, frequency = np.unique(sets.indices, return_inverse=True, return_counts=True)
    rarity = np.argsort(np.argsort(frequency, kind="stable"))[column]
    order = np.lexsort((rarity, row))  # in each row, rare shingles first
    place = np.arange(len(row)) - sets.indptr[row]
    looked_up = place <= (sizes - np.ceil(threshold * sizes - 1e-9))[row]
    entries = (row[looked_up], rarity[order][looked_up])
    rare = csr_array((sets.data[looked_up], entries), shape=(len(sizes), max(1, len(frequency))))
    pairs = np.stack(triu(rare @ rare.T, k=1).nonzero(), axis=1)
    pairs = pairs[np.lexsort(pairs.T[::-1])]
    return pairs[jaccard(sets, pairs) >= threshold]


def check_threshold(threshold: float) -> None:
    """Raise ValueError unless 0 < threshold ≤ 1."""
    if not 0 < threshold <= 1:
        raise ValueError(f"threshold must be above 0 and at most 1; got {threshold}")
