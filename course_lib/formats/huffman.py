"""Huffman's code: frequent codes get few bits, rare ones many, and no lossless code of whole bits,
one code at a time, is shorter.

A symbol that gets l bits owns the share 2⁻ˡ of the numbers from 0 to 1. Lay the shares side by
side, the large ones first and of equal ones the lower symbol first: a symbol's bits are the first l
binary digits of where its share begins. That is the canonical code. Whoever has the lengths has the
code, and to decode is to look up whose share a number lies in:

    symbol      0        1        2        3
    length      1        3        2        3
    share       0 … 1/2  3/4 … 7/8  1/2 … 3/4  7/8 … 1
    bits        0        110      10       111

Lengths are limited to 15 bits, so that one fits into half a byte.

Sources: Huffman, 1952, "A Method for the Construction of Minimum-Redundancy Codes"; Larmore and
Hirschberg, 1990, "A Fast Algorithm for Optimal Length-Limited Huffman Codes"; Schwartz and Kallick,
1964, "Generating a Canonical Prefix Encoding".

Axes: K symbols, of which n occur.
"""

import numpy as np
import torch
from torch import Tensor

LONGEST = 15  # bits


def code_lengths(counts: Tensor, longest: int = LONGEST) -> Tensor:
    """Bits for each symbol, so that Σ count · length is the least that a prefix code can have.

    By package-merge: a symbol of length l buys the l coins 2⁻¹, 2⁻² … 2⁻ˡ, each at the price of its
    count, and all that are bought must make n − 1 together. Going up from the smallest coin, the
    cheapest two of a value are packed into one of twice the value; among those of 1/2 the cheapest
    2 n − 2 are bought.

    Args:
        counts: how often each symbol occurs, integers from 0 to 2⁴⁰, (K,).
        longest: the largest length allowed.

    Returns:
        Lengths (K,), uint8: 0 for a symbol that does not occur, 1 if it is the only one.

    Raises:
        ValueError: counts are no integers of one axis, negative or above 2⁴⁰; more than 2^longest
            symbols occur; longest is not from 1 to 32.

    Source: Larmore and Hirschberg, 1990, "A Fast Algorithm for Optimal Length-Limited Huffman
    Codes".

    >>> code_lengths(torch.tensor([40, 5, 20, 6, 0])).tolist()
    [1, 3, 2, 3, 0]
    >>> code_lengths(torch.tensor([40, 5, 20, 6, 0]), longest=2).tolist()
    [2, 2, 2, 2, 0]
    """
    counts_ = _checked(counts)
    symbols = np.flatnonzero(counts_)
    n = len(symbols)
    if not 1 <= longest <= 32 or n > 2**longest:
        raise ValueError(f"longest must be from 1 to 32 and give {n} symbols a code; got {longest}")
    lengths = np.zeros(len(counts_), np.uint8)
    if n == 1:
        lengths[symbols] = 1
    elif n > 1:
        symbols = symbols[np.argsort(counts_[symbols], kind="stable")]  # the rarest first
        lengths[symbols] = _package_merge(counts_[symbols], longest)
    return torch.from_numpy(lengths).to(counts.device)


def _checked(counts: Tensor) -> np.ndarray:
    if counts.dim() != 1 or counts.is_floating_point() or counts.dtype == torch.bool:
        raise ValueError(
            f"counts must be integers of shape (K,); got {counts.dtype} of {tuple(counts.shape)}"
        )
    values = counts.cpu().numpy().astype(np.int64)
    if values.size and not (values.min() >= 0 and values.max() <= 2**40):
        raise ValueError(f"counts must be from 0 to 2**40; got {values.min()} to {values.max()}")
    return values


def _package_merge(counts: np.ndarray, longest: int) -> np.ndarray:
    """Lengths for counts that rise, of n ≥ 2 symbols. What is bought of a value's single coins are
    always the first ones, since they stand in order of their price."""
    single, packages = [], counts[:0]
    for _ in range(longest):
        prices = np.concatenate([counts, packages])
        order = np.argsort(prices, kind="stable")
        single.append(order < len(counts))
        packages = prices[order][: len(prices) // 2 * 2].reshape(-1, 2).sum(1)
    lengths = np.zeros(len(counts), np.uint8)
    bought = 2 * len(counts) - 2
    for is_single in reversed(single):  # from the coins of 1/2 down to the smallest
        coins = int(is_single[:bought].sum())
        lengths[:coins] += 1
        bought = 2 * (bought - coins)  # the others are packages of two of half the value
    return lengths


def canonical_codes(lengths: Tensor) -> Tensor:
    """Each symbol's bits, read as a binary number of `lengths` digits: (K,), int64.

    Args:
        lengths: (K,), integers from 0 to 32, from `code_lengths`; a symbol of length 0 has no code
            and gets −1.

    Raises:
        ValueError: no prefix code has these lengths, or one that wastes bits. (One symbol alone
            wastes half of them.)

    Source: Schwartz and Kallick, 1964, "Generating a Canonical Prefix Encoding".

    >>> canonical_codes(torch.tensor([1, 3, 2, 3, 0])).tolist()
    [0, 6, 2, 7, -1]
    """
    numbers = lengths.cpu().numpy().astype(np.int64)
    symbols, shares = shares_of(numbers)
    codes = np.full(len(numbers), -1)
    codes[symbols] = (
        np.cumsum(shares) - shares
    ) // shares  # where a share begins, in its own units
    return torch.from_numpy(codes).to(lengths.device)


def shares_of(lengths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The symbols that have a code, in the order of their shares, and the shares in units of 2⁻ˡ,
    l being the largest length: both (n,).

    Raises:
        ValueError: as `canonical_codes`.

    >>> [part.tolist() for part in shares_of(np.array([1, 3, 2, 3, 0]))]
    [[0, 2, 1, 3], [4, 2, 1, 1]]
    """
    order = np.argsort(lengths, kind="stable")
    symbols = order[lengths[order] > 0]
    longest = int(lengths.max(initial=0))
    if longest > 32 or lengths.min(initial=0) < 0:
        raise ValueError(f"lengths must be from 0 to 32; got {lengths.min()} to {longest}")
    shares = 1 << (longest - lengths[symbols])
    whole, alone = 1 << longest, len(symbols) == 1 and longest == 1
    if len(symbols) and shares.sum() != whole and not alone:
        total = shares.sum() / whole
        raise ValueError(f"lengths must be a prefix code's, Σ 2^−length = 1; got {total:.6g}")
    return symbols, shares
