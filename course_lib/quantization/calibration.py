"""Calibration: which range should the levels of a grid cover?

A wide range clips nothing and rounds everything coarsely; a narrow one rounds finely and clips the
outliers. Each function here takes rows of numbers and gives a range (low, high), each (R, 1), that
`course_lib.quantization.linear.fit_grid` makes into a grid:

    min-max         [min x, max x]                  clips nothing
    percentile      [x at 100 − p %, x at p %]      clips a fixed share
    MSE             argmin Σ (x − x̂)²               balances clipping against rounding

All are called as f(rows, format), so that one can stand for another. `histogram.kl_range` is a
fourth.

Axes: R rows sharing one range, C numbers in a row.
"""

import torch
from torch import Tensor

from course_lib.models.finite import is_fake
from course_lib.quantization.linear import Format, Grid, fake_quantize, fit_grid
from course_lib.quantization.rows import blocks, check_matrix, check_rows, row_blocks

Range = tuple[Tensor, Tensor]
CANDIDATES = 80  # ranges that the MSE search tries


def minmax_range(rows: Tensor, format: Format | None = None) -> Range:
    """The smallest and the largest number of each row; the format makes no difference.

    Args, Raises: as for `mse_range`.

    >>> minmax_range(torch.tensor([[3.0, -1.0, 2.0]]))
    (tensor([[-1.]]), tensor([[3.]]))
    """
    check_matrix(rows)
    low = torch.full_like(rows[:, :1], torch.inf)  # (R, 1)
    high = -low
    for i, j in blocks(rows):
        low[i] = torch.minimum(low[i], rows[i, j].amin(dim=1, keepdim=True))
        high[i] = torch.maximum(high[i], rows[i, j].amax(dim=1, keepdim=True))
    if not (is_fake(rows) or torch.stack([low, high]).isfinite().all()):
        check_rows(rows)  # says what is not finite, and where
    return low, high


def percentile_range(rows: Tensor, format: Format | None = None, percent: float = 99.9) -> Range:
    """The numbers below which 100 − p and p per cent of each row lie, interpolated as NumPy does.

    Args:
        rows: (R, C).
        format: makes no difference.
        percent: p, from 50 to 100; 100 is min–max.

    Raises: as for `mse_range`, and ValueError: percent outside 50 … 100.

    >>> low, high = percentile_range(torch.arange(101.0)[None], percent=99)
    >>> low.item(), high.item()
    (1.0, 99.0)
    """
    check_rows(rows)
    if not 50 <= percent <= 100:
        raise ValueError(f"percent must be from 50 to 100; got {percent}")
    place = (1 - percent / 100) * (rows.shape[1] - 1)  # counted from 0 at the end of the sorted row
    count = min(int(place) + 2, rows.shape[1])
    ends = [_extremes(rows, count, largest)[:, int(place) :] for largest in (False, True)]
    # Halves: the distance of two neighbours may be beyond float32.
    low, high = (2 * torch.lerp(end[:, :1] / 2, end[:, -1:] / 2, place % 1) for end in ends)
    return torch.minimum(low, high), high  # near 50 per cent, rounding may swap them


def _extremes(rows: Tensor, count: int, largest: bool) -> Tensor:
    """The `count` largest (or smallest) numbers of each row, in order: (R, C) -> (R, count).

    They lie in those `count` columns of a (width, C/width) table whose extremes are the largest.
    Only these columns are sorted, which is far faster than to sort the whole row.
    """
    R, C = rows.shape
    width = max(1, int((C / count) ** 0.5))
    whole = C // width * width
    table = rows[:, :whole].reshape(R, width, -1)  # (R, C) -> (R, width, C/width)
    extremes = table.amax(dim=1) if largest else table.amin(dim=1)
    columns = extremes.topk(count, dim=1, largest=largest, sorted=False).indices
    chosen = table.gather(2, columns[:, None].expand(-1, width, -1)).flatten(1)
    chosen = torch.cat([chosen, rows[:, whole:]], dim=1)
    return chosen.topk(count, dim=1, largest=largest).values


def mse_range(rows: Tensor, format: Format, counts: Tensor | None = None) -> Range:
    """The share γ of the min–max range whose levels leave the least squared error, row by row.

        γ* = argmin over γ in {80/80, 79/80, … 1/80} of Σ (x − x̂(γ low, γ high))²

    Since γ = 1 is among the candidates, the error is never above that of min–max.

    Args:
        rows: (R, C), floats.
        format: the codes that the range is for.
        counts: how often each number occurs, (R, C); once if not given. With `histogram`, a large
            tensor is searched by its 8192 bins.

    Returns:
        low and high, (R, 1) each.

    Raises:
        TypeError: rows are not floats.
        ValueError: rows are not (R, C), empty, NaN or infinite.

    Source: the search over 80 shrunken ranges is that of the code to Frantar et al., 2023, "GPTQ:
    Accurate Post-Training Quantization for Generative Pre-trained Transformers"; it goes down to
    0.21, and takes |x − x̂| to the power of 2.4.

    >>> low, high = mse_range(torch.tensor([[0.0, 1.0, 2.0, 3.0] * 100 + [9.0]]), Format(2))
    >>> round(high.item(), 2)
    3.04
    """
    low, high = minmax_range(rows)
    wide = torch.promote_types(rows.dtype, torch.float32)  # half precision would round γ low
    low, high = low.to(wide), high.to(wide)
    shares = 1 - torch.arange(CANDIDATES, device=rows.device, dtype=wide) / CANDIDATES  # γ: (K,)
    best = torch.ones_like(low)
    for i in row_blocks(rows):
        errors = _relative_errors(
            rows[i], low[i], high[i], shares, format, None if counts is None else counts[i]
        )
        best[i] = shares[errors.argmin(dim=0)][:, None]  # of equal errors, the widest range
    return best * low, best * high


def _relative_errors(
    rows: Tensor, low: Tensor, high: Tensor, shares: Tensor, format: Format, counts: Tensor | None
) -> Tensor:
    """The root of Σ (x − x̂)² for each share γ of the range, in steps of the whole range: (K, R).

    In steps of s, x is x / s + z and its level round(x / s + z), so a candidate takes five passes
    over a block that stays in the cache: scale, round, clip, subtract, sum the squares.
    """
    K, R = len(shares), len(rows)
    ends = ((shares[:, None, None] * end).view(-1, 1) for end in (low, high))  # (K · R, 1)
    grid = fit_grid(*ends, format)
    per_step = (1 / grid.scale).view(K, R, 1)
    zero_point = grid.zero_point.to(grid.scale.dtype).view(K, R, 1)
    squares = torch.zeros(K, R, dtype=grid.scale.dtype, device=rows.device)
    for _, j in blocks(rows):
        part = rows[:, j].to(grid.scale.dtype)
        for k in range(K):
            position = torch.addcmul(zero_point[k], part, per_step[k])
            error = position.round().clamp_(format.lowest, format.highest).sub_(position)
            if counts is not None:
                error *= counts[:, j].sqrt()
            squares[k] += torch.linalg.vector_norm(error, dim=1).square()
    return squares.sqrt() * shares[:, None]


def rounding_error(rows: Tensor, grid: Grid, counts: Tensor | None = None) -> Tensor:
    """Σ (x − x̂)² of each row: (R, C) -> (R, 1). Args: as for `mse_range`.

    >>> grid = fit_grid(torch.tensor([[0.0]]), torch.tensor([[3.0]]), Format(2))
    >>> rounding_error(torch.tensor([[0.0, 1.5, 5.0]]), grid).tolist()
    [[4.25]]
    """
    errors = torch.zeros_like(grid.scale)
    for i, j in blocks(rows):
        squares = fake_quantize(rows[i, j], grid[i]).sub_(rows[i, j]).square_()
        if counts is not None:
            squares *= counts[i, j]
        errors[i] += squares.sum(dim=1, keepdim=True)
    return errors
