"""The best k levels for a set of numbers in one dimension: exact, by dynamic programming.

The cells of the best levels are runs of the sorted numbers, so only the k − 1 places where one ends
and the next begins are to be chosen. With w(a, b) the squared error of the numbers a … b − 1 about
their mean, which two differences of prefix sums give, and F_m(b) the least error of the first b
numbers in m cells:

    F_m(b) = min over a of F_{m−1}(a) + w(a, b)                               1 ≤ m ≤ k

The best a rises with b, so half of the b's can be found between the a's of their neighbours: divide
and conquer, k n log n steps instead of k n².

For 1.5 million numbers that is still long, so it starts coarse. The places are put into some
thousand intervals [a, a'] for each border. A cell that begins in [a, a'] and ends in [b, b'] holds
all numbers from a' to b − 1, so its error is at least w(a', b). Summed up by the same recursion,
from the left and from the right, this says how small the error can be, at best, if a border lies in
an interval. Some Lloyd steps from the best path give an error that can be had. Intervals that
cannot be as good are dropped, the others are cut into four, until each is one place. Nothing is
dropped that could hold the best: the result is exact, but for rounding in the float64 prefix sums,
some 1e-12 of Σ (x − mean)².

All is done on the CPU in float64.

Axes: R rows, C numbers in a row, k levels; n different numbers of a row.

Source: Fisher, 1958, "On Grouping for Maximum Homogeneity", for the recursion; Wang and Song, 2011,
"Ckmeans.1d.dp: Optimal k-means Clustering in One Dimension by Dynamic Programming".
"""

import numpy as np
import torch
from torch import Tensor

from course_lib.quantization.kmeans import check_k

FIRST = 1024  # intervals of each border, evenly in number; and as many evenly in value
PIECES = 4  # into which an interval is cut at least
STEPS = 30  # of Lloyd, from each path
FLOOR = 1e-100  # far below the weight of a number, for runs that have none
Intervals = tuple[np.ndarray, np.ndarray]  # first places, last places


def optimal_levels(rows: Tensor, k: int, counts: Tensor | None = None) -> Tensor:
    """The k levels with the least Σ n (x − x̂)² that there are, x̂ the level nearest to x.

    Args:
        rows: (R, C), floats.
        k: from 1 to 256.
        counts: n, (R, C): how often each number occurs, or how much it weighs, at least 0; once if
            not given.

    Returns:
        (R, k), ascending, float32 or wider, on the rows' device. A row with fewer different numbers
        than k gets each of them, the largest repeated.

    Raises:
        TypeError: not floats.
        ValueError: rows are empty or not finite; k outside 1 … 256; counts that do not fit.

    >>> optimal_levels(torch.tensor([[0.0, 1.0, 5.0, 6.0, 6.0, 20.0]]), 3).tolist()
    [[0.5, 5.666666507720947, 20.0]]
    """
    rows = check_k(rows, k)
    if counts is not None and (
        counts.shape != rows.shape or counts.min() < 0 or not counts.sum(1).min() > 0
    ):
        raise ValueError(
            f"counts must be at least 0, of shape {tuple(rows.shape)}, and not all 0 in a row; "
            f"got {tuple(counts.shape)}"
        )
    levels = []
    for i, row in enumerate(rows.detach().cpu().numpy()):
        numbers, times = np.unique_counts(row)
        if counts is not None:
            numbers, place = np.unique_inverse(row)
            times = np.bincount(place, counts[i].cpu().numpy(), len(numbers))
            numbers, times = numbers[times > 0], times[times > 0]
        levels.append(_row_levels(numbers.astype(np.float64), times.astype(np.float64), k))
    return torch.from_numpy(np.stack(levels)).to(rows.dtype).to(rows.device)


def _row_levels(numbers: np.ndarray, times: np.ndarray, k: int) -> np.ndarray:
    """The best levels (k,) of n different ascending numbers that occur so many times."""
    found = numbers
    if len(numbers) > k:
        centre = np.average(numbers, weights=times)
        numbers = numbers - centre  # the prefix sums lose less
        sums = np.zeros((3, len(numbers) + 1))  # of 1, x and x² over the first so many numbers
        for total, power in zip(sums, (times, times * numbers, times * numbers**2), strict=True):
            np.cumsum(power, out=total[1:])
        places = np.unique(_best_places(numbers, sums, k))
        weight, total, _ = np.diff(sums[:, places])
        found = total / weight + centre
    return np.concatenate([found, np.full(k - len(found), found[-1])])


def _best_places(numbers: np.ndarray, sums: np.ndarray, k: int) -> np.ndarray:
    """Where the cells of the least error begin, and the last one ends: (k + 1,), 0 … n."""
    n = len(numbers)
    even = np.searchsorted(numbers, np.linspace(numbers[0], numbers[-1], FIRST)[1:])
    cuts = np.unique(np.concatenate([np.linspace(1, n, FIRST).astype(np.int64), even]))
    ends = [np.array([0])] * 2, [np.array([n])] * 2
    borders = [ends[0], *[(cuts[:-1], cuts[1:] - 1)] * (k - 1), ends[1]]
    least = np.inf
    while True:
        left, path = _from_the_left(borders, sums)
        places, error = _improved(path, numbers, sums)
        if error < least:
            best, least = places, error
        if all(np.array_equal(*border) for border in borders):
            return path if left[-1][0] < least else best
        right = _from_the_right(borders, sums)
        keep = [f + b <= least * (1 + 1e-12) for f, b in zip(left, right, strict=True)]
        if not all(kept.any() for kept in keep):
            return best  # it is as good as rounding can tell
        borders = [_cut(a[c], b[c]) for (a, b), c in zip(borders, keep, strict=True)]


def _cut(first: np.ndarray, last: np.ndarray) -> Intervals:
    """The intervals cut into four each, or into more where they are few."""
    width = last - first + 1
    size = -(-width // max(PIECES, FIRST // len(first)))
    pieces = -(-width // size)
    step = np.arange(pieces.sum()) - np.repeat(np.cumsum(pieces) - pieces, pieces)
    size = np.repeat(size, pieces)
    begin = np.repeat(first, pieces) + step * size
    return begin, np.minimum(begin + size - 1, np.repeat(last, pieces))


def _from_the_left(borders: list[Intervals], sums: np.ndarray) -> tuple[list, np.ndarray]:
    """The least error left of each interval, border by border, and the places of the least path."""
    bounds, before = [np.zeros(1)], []
    for (_, last), (first, _) in zip(borders, borders[1:], strict=False):
        bound, place = _minima(bounds[-1], sums[:, first], sums[:, last], 1)
        bounds.append(bound)
        before.append(place)
    chosen = [0]
    for place in reversed(before):
        chosen.append(place[chosen[-1]])
    path = [(a[c] + b[c]) // 2 for (a, b), c in zip(borders, reversed(chosen), strict=True)]
    return bounds, np.maximum.accumulate(path)


def _from_the_right(borders: list[Intervals], sums: np.ndarray) -> list[np.ndarray]:
    """The least error right of each interval, border by border."""
    bounds = [np.zeros(1)]
    for (_, last), (first, _) in reversed(list(zip(borders, borders[1:], strict=False))):
        bounds.append(_minima(bounds[-1], sums[:, last], sums[:, first], -1)[0])
    return bounds[::-1]


def _minima(
    base: np.ndarray, rows: np.ndarray, columns: np.ndarray, sign: int
) -> tuple[np.ndarray, np.ndarray]:
    """min over c of base[c] + w between r and c, and the first such c, for each r.

    The c's rise with r. So the middle r is done first, and then the middle of each half, whose c's
    lie between those of its neighbours, all halves at once.

    Args:
        base: (columns,).
        rows, columns: the prefix sums at their places, (3, …).
        sign: 1 where the cell ends at r, −1 where it begins there.
    """
    rows, columns, count = sign * rows, sign * columns, rows.shape[1]
    least, chosen = np.empty(count), np.zeros(count + 2, dtype=np.int64)
    chosen[-1] = len(base) - 1  # chosen[r + 1] belongs to r
    half = 1 << count.bit_length() >> 1
    while half:
        r = np.arange(half, count + 1, 2 * half)
        low, high = chosen[r - half], chosen[np.minimum(r + half, count + 1)]
        width = high - low + 1
        start = np.cumsum(width) - width
        c = np.repeat(low - start, width) + np.arange(width.sum())
        runs = np.repeat(rows[:, r - 1], width, axis=1)
        runs -= columns.take(c, axis=1)
        error = _error(runs)
        error += base.take(c)
        least[r - 1] = smallest = np.minimum.reduceat(error, start)
        hits = np.flatnonzero(error == np.repeat(smallest, width))
        chosen[r] = c[hits[np.searchsorted(hits, start)]]
        half //= 2
    return least, chosen[1:-1]


def _error(sums: np.ndarray) -> np.ndarray:
    """Σ (x − mean)² = Σ x² − (Σ x)² / Σ 1 of runs, from (Σ 1, Σ x, Σ x²), which it uses up.

    Of a run that ends where it begins, or before, it is 0.
    """
    weight, total, squares = sums
    total *= total
    total /= np.maximum(weight, FLOOR, out=weight)
    squares -= total
    return np.maximum(squares, 0, out=squares)


def _improved(
    places: np.ndarray, numbers: np.ndarray, sums: np.ndarray
) -> tuple[np.ndarray, float]:
    """The places after some Lloyd steps, and their error."""
    for _ in range(STEPS):
        weight, total, _ = np.diff(sums[:, places])
        if weight.min() <= 0:
            break
        means = total / weight
        moved = places.copy()
        moved[1:-1] = np.searchsorted(numbers, (means[1:] + means[:-1]) / 2)
        if np.array_equal(moved, places):
            break
        places = moved
    return places, _error(np.diff(sums[:, places])).sum()
