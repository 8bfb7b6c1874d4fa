"""Remove what a collection of texts holds twice: equal texts, similar texts, repeated passages.

Passages: Lee et al. find repeated substrings with a suffix array, which knows the repeats of every
length at once. To remove passages of at least L tokens one length is enough, since a longer repeat
is made of repeated windows of L. So this module hashes each window: L · N cheap steps and one sort
of numbers instead of a sort of all suffixes. What it cannot do is to name the longest repeats.

Source: Lee et al., 2022, "Deduplicating Training Data Makes Language Models Better".

Axes: N documents or tokens, P pairs of documents.
"""

from collections.abc import Iterable

import numpy as np
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components

from course_lib.redundancy.shingles import sequence_hashes


def first_copies(texts: Iterable[str]) -> np.ndarray:
    """For each text the index of the first text that equals it: (N,).

    Texts are looked up by their hash and then compared, so no two different texts are ever taken
    for equal. What counts as equal is the caller's choice: pass raw texts, or `" ".join(words(t))`.

    >>> first_copies(["a cat", "a dog", "a cat"]).tolist()
    [0, 1, 0]
    """
    if isinstance(texts, str):
        raise TypeError("texts must be a collection of texts; got one text")
    seen: dict[str, int] = {}
    return np.array([seen.setdefault(text, i) for i, text in enumerate(texts)], dtype=np.int64)


def cluster_heads(pairs: np.ndarray, count: int) -> np.ndarray:
    """For each of `count` documents the first one of its cluster, which is the one to keep: (N,).

    A cluster is a connected component: if A is like B and B like C, all three are one cluster even
    where A and C differ, and only its first document stays. Keep i where heads[i] == i.

    >>> cluster_heads(np.array([[1, 3], [3, 4]]), count=5).tolist()
    [0, 1, 2, 1, 1]
    """
    links = csr_array((np.ones(len(pairs), dtype=bool), tuple(pairs.T)), shape=(count, count))
    _, label = connected_components(links, directed=False)
    _, first, cluster = np.unique(label, return_index=True, return_inverse=True)
    return first[cluster]


def repeated_tokens(tokens: np.ndarray, length: int) -> np.ndarray:
    """True for each token inside a window of `length` tokens that has occurred before: (N,) bool.

    Before means that the first occurrence ends where this one begins or earlier: of a run such as
    "la la la la", windows of two that overlap the first stay. The first occurrence stays False, but
    where it lies across the edge of another repeat, it loses that part with it.

    >>> repeated_tokens(np.array([7, 8, 9, 5, 7, 8, 9, 9]), length=3).astype(int).tolist()
    [0, 0, 0, 0, 1, 1, 1, 0]
    >>> repeated_tokens(np.array([1, 1, 1, 1, 2]), length=2).astype(int).tolist()
    [0, 0, 1, 1, 0]
    """
    if length < 1:
        raise ValueError(f"length must be at least 1 token; got {length}")
    windows = max(0, len(tokens) - length + 1)
    repeated = np.zeros(len(tokens), dtype=bool)
    hashes = sequence_hashes(tokens[i : i + windows] for i in range(length))
    _, first, which = np.unique(hashes, return_index=True, return_inverse=True)
    again = first[which] + length <= np.arange(windows)
    for i in range(length):
        repeated[i : i + windows] |= again
    return repeated
