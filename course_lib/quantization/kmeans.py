"""k-means in one dimension: levels that move, turn by turn, to the mean of the numbers they serve.

One step of Lloyd's method:

    cells      the numbers nearest to each level
    levels     the mean of each cell

Neither can raise Σ (x − x̂)², so it falls until nothing moves any more: at levels that no step
improves, which need not be the best there are. `optimal_kmeans` finds those.

A cell may be empty. Its level then moves to the number that is farthest from its own level, and of
several empty ones each takes the next farthest. This cannot raise the error either.

In one dimension cells are runs of the sorted numbers, and a sum over a run is the difference of two
prefix sums: after one sort, a step asks only for the k − 1 places where the midpoints fall.

Axes: R rows, C numbers in a row, k levels.

Source: Lloyd, 1982, "Least Squares Quantization in PCM"; the three starts are those of Han et al.,
2016, "Deep Compression: Compressing Deep Neural Networks with Pruning, Trained Quantization and
Huffman Coding".
"""

import torch
from torch import Tensor

from course_lib.quantization.codebook import check_levels, lookup, midpoints, nearest_codes
from course_lib.quantization.rows import check_rows

STARTS = ("linear", "density", "random")
STEPS = 300


def start_levels(rows: Tensor, k: int, start: str = "linear", seed: int = 0) -> Tensor:
    """Levels to begin with: (R, C) -> (R, k), ascending.

        linear     even, from the least number to the largest: the large weights get levels too
        density    numbers with (j + ½) C / k of the row below them: many levels where weights are
        random     k of the row's numbers, drawn without putting back

    Args:
        rows: (R, C), floats.
        k: from 1 to 256; "random" needs as many numbers in a row.
        start: which of the three.
        seed: of the random draw.

    Raises:
        TypeError: not floats.
        ValueError: rows are empty or not finite; k or start is none of the above.

    >>> rows = torch.tensor([[0.0, 0.1, 0.2, 0.3, 4.0]])
    >>> start_levels(rows, 2).tolist(), start_levels(rows, 2, "density").tolist()
    ([[0.0, 4.0]], [[0.10000000149011612, 0.30000001192092896]])
    """
    rows = check_k(rows, k)
    R, C = rows.shape
    if start not in STARTS or (start == "random" and k > C):
        raise ValueError(f'start must be one of {STARTS}, "random" of {C} ≥ k; got {start!r}, {k=}')
    if start == "linear":
        low, high = rows.aminmax(dim=1, keepdim=True)
        share = torch.arange(k, device=rows.device, dtype=rows.dtype) / max(1, k - 1)
        share = share if k > 1 else share + 0.5
        half = share * (high / 2 - low / 2)  # high − low may be beyond float32
        return low + half + half
    if start == "density":
        places = ((torch.arange(k, device=rows.device) + 0.5) * C / k).long()
        return rows.sort(dim=1).values[:, places]
    generator = torch.Generator().manual_seed(seed)
    places = torch.rand(R, C, generator=generator).topk(k, dim=1).indices.to(rows.device)
    return rows.gather(1, places).sort(dim=1).values


def lloyd(rows: Tensor, levels: Tensor, steps: int = STEPS) -> Tensor:
    """Levels after Lloyd steps, at most so many; fewer if nothing moves any more.

    Args:
        rows: (R, C), floats.
        levels: (R, k), ascending, to begin with.
        steps: at most.

    Returns:
        (R, k), ascending, float32 or wider.

    Raises:
        TypeError: not floats.
        ValueError: rows or levels are empty or not finite; shapes that do not fit; levels fall.

    >>> lloyd(torch.tensor([[0.0, 1.0, 5.0, 6.0]]), torch.tensor([[0.0, 1.0]])).tolist()
    [[0.5, 5.5]]
    """
    rows = check_k(rows, levels.shape[-1])
    check_levels(levels, rows)
    ordered = rows.sort(dim=1).values
    sums = torch.nn.functional.pad(_wide(ordered).cumsum(dim=1), (1, 0))  # (R, C + 1)
    levels = levels.to(rows.dtype).expand(len(rows), -1).contiguous()
    for _ in range(steps):
        moved = _step(ordered, sums, levels)
        if torch.equal(moved, levels):
            break
        levels = moved
    return levels


def _step(ordered: Tensor, sums: Tensor, levels: Tensor) -> Tensor:
    """One step on sorted rows (R, C) with their prefix sums (R, C + 1): (R, k) -> (R, k)."""
    R, C = ordered.shape
    inner = torch.searchsorted(ordered, midpoints(levels), right=True)  # a midpoint's own: below
    breaks = torch.nn.functional.pad(inner, (1, 0))
    breaks = torch.cat([breaks, breaks.new_full((R, 1), C)], dim=1)  # (R, k + 1)
    counts = breaks.diff(dim=1)
    means = sums.gather(1, breaks).diff(dim=1) / counts.clamp(min=1)
    moved = torch.where(counts > 0, means.to(levels.dtype), levels)
    if (counts == 0).any():
        moved = _fill(ordered, breaks, counts, moved)
    return moved.sort(dim=1).values


def _fill(ordered: Tensor, breaks: Tensor, counts: Tensor, levels: Tensor) -> Tensor:
    """Levels (R, k) whose empty cells took the numbers that are farthest from their levels.

    The farthest number of a cell is its first or its last. Where all are on their levels, as with
    fewer different numbers than levels, an empty cell's level stays.
    """
    C = ordered.shape[1]
    ends = torch.cat([breaks[:, :-1].clamp(max=C - 1), (breaks[:, 1:] - 1).clamp(min=0)], dim=1)
    numbers = ordered.gather(1, ends)  # (R, 2k)
    both = torch.cat([counts, counts], dim=1) > 0
    far = torch.where(both, (numbers - torch.cat([levels, levels], dim=1)).abs(), -1.0)
    distance, place = far.sort(dim=1, descending=True, stable=True)
    rank = (counts == 0).cumsum(dim=1).sub(1).clamp(min=0)  # which of the empty cells of its row
    taken = numbers.gather(1, place.gather(1, rank))
    fits = (counts == 0) & (distance.gather(1, rank) > 0)
    return torch.where(fits, taken, levels)


def kmeans(
    rows: Tensor, k: int, start: str = "linear", steps: int = STEPS, seed: int = 0
) -> Tensor:
    """`lloyd` from `start_levels`: (R, C) -> (R, k).

    >>> kmeans(torch.tensor([[0.0, 1.0, 5.0, 6.0]]), 2).tolist()
    [[0.5, 5.5]]
    """
    return lloyd(rows, start_levels(rows, k, start, seed), steps)


def squared_error(rows: Tensor, levels: Tensor) -> Tensor:
    """Σ (x − x̂)² of each row, x̂ the nearest level: (R, C), (R, k) -> (R,), in float64 on a CPU.

    >>> squared_error(torch.tensor([[0.0, 1.0, 5.0]]), torch.tensor([[0.5, 5.0]])).item()
    0.5
    """
    values = lookup(nearest_codes(rows, levels), levels)
    return (_wide(rows) - _wide(values)).square().sum(dim=1)


def check_k(rows: Tensor, k: int) -> Tensor:
    """The rows in float32 or wider, once they are finite and k is from 1 to 256."""
    check_rows(rows)
    if not 1 <= k <= 256:
        raise ValueError(f"k must be from 1 to 256; got {k}")
    return rows.to(torch.promote_types(rows.dtype, torch.float32))


def _wide(numbers: Tensor) -> Tensor:
    """In float64; in float32 on devices that have no more."""
    return numbers.float() if numbers.device.type == "mps" else numbers.double()
