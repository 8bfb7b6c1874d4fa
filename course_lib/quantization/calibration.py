"""Calibration: which range should the levels of a grid cover?

A wide range clips nothing and rounds everything coarsely; a narrow one rounds finely and clips the
outliers. Each function here looks at rows of numbers and returns a range (low, high), each (R, 1), that
`course_lib.quantization.linear.fit` makes into a grid:

    min-max         [min x, max x]                         clips nothing
    percentile      [x at 100 − p %, x at p %]             clips a fixed share
    MSE             argmin Σ (x − x̂)²                      balances clipping against rounding
    KL divergence   argmin KL(P ‖ Q) over [−t, t]          keeps the distribution's shape

All are called as f(rows, format), so that one can stand for another.

Axes: R rows sharing one range, C numbers in a row.
"""

import torch
from torch import Tensor

from course_lib.quantization.linear import Format, Grid, fake_quantize, fit
from course_lib.quantization.rows import BLOCK, blocks, check_rows

Range = tuple[Tensor, Tensor]
BINS = 2048  # of a histogram
CANDIDATES = 80  # ranges that the MSE search tries


def minmax_range(rows: Tensor, format: Format | None = None) -> Range:
    """The smallest and the largest number of each row; the format makes no difference.

    Args, Raises: as for `mse_range`.

    >>> minmax_range(torch.tensor([[3.0, -1.0, 2.0]]))
    (tensor([[-1.]]), tensor([[3.]]))
    """
    check_rows(rows)
    return rows.amin(dim=1, keepdim=True), rows.amax(dim=1, keepdim=True)


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
    place = (1 - percent / 100) * (rows.shape[1] - 1)  # of the wanted number, counted from the end
    count, fraction = min(int(place) + 2, rows.shape[1]), place % 1
    low = _extreme(rows, count, largest=False)
    high = _extreme(rows, count, largest=True)
    ends = [end[:, int(place) :][:, [0, -1]] for end in (low, high)]
    return tuple(torch.lerp(end[:, :1], end[:, 1:], fraction) for end in ends)


def _extreme(rows: Tensor, count: int, largest: bool) -> Tensor:
    """The `count` largest (or smallest) numbers of each row, in order: (R, C) -> (R, count).

    They lie in those `count` columns of a (width, C / width) table whose extremes are the largest.
    So only these columns are searched, which is far faster than a search of the whole row.
    """
    R, C = rows.shape
    width = max(1, int((C / count) ** 0.5))
    whole = C // width * width
    table = rows[:, :whole].view(R, width, -1)  # (R, C) -> (R, width, C/width)
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
            tensor is searched by its 2048 bins.

    Returns:
        low and high, (R, 1) each.

    Raises:
        TypeError: rows are not floats.
        ValueError: rows are not (R, C), empty, NaN or infinite.

    Source: the search over 80 shrunken ranges is that of the code to Frantar et al., 2023, "GPTQ:
    Accurate Post-Training Quantization for Generative Pre-trained Transformers"; it goes down to
    0.21, and takes |x − x̂| to the power of 2.4.

    >>> low, high = mse_range(torch.tensor([[0.0, 1.0, 2.0, 6.0] + [2.0] * 96]), Format(2))
    >>> high.item()
    6.0
    """
    low, high = minmax_range(rows)
    least = squared_error(rows, fit(low, high, format), counts)
    best = torch.ones_like(least)
    for k in range(1, CANDIDATES):
        share = 1 - k / CANDIDATES
        error = squared_error(rows, fit(share * low, share * high, format), counts)
        best[error < least] = share
        least = torch.minimum(error, least)
    return best * low, best * high


def squared_error(rows: Tensor, grid: Grid, counts: Tensor | None = None) -> Tensor:
    """Σ (x − x̂)² of each row: (R, C) -> (R, 1). Args: as for `mse_range`.

    >>> grid = fit(torch.tensor([[0.0]]), torch.tensor([[3.0]]), Format(2))
    >>> squared_error(torch.tensor([[0.0, 1.5, 5.0]]), grid).tolist()
    [[4.25]]
    """
    errors = torch.zeros_like(grid.scale)
    for i, j in blocks(rows):
        squares = fake_quantize(rows[i, j], grid[i]).sub_(rows[i, j]).square_()
        if counts is not None:
            squares *= counts[i, j]
        errors[i] += squares.sum(dim=1, keepdim=True)
    return errors


def histogram(rows: Tensor) -> tuple[Tensor, Tensor]:
    """2048 even bins from the smallest to the largest of all numbers: centres and counts, (1, 2048).

    Raises: as for `mse_range`.

    >>> centres, counts = histogram(torch.tensor([[0.0, 0.0, 2.0]]))
    >>> centres[0, [0, -1]].tolist(), counts[0, [0, -1]].tolist()
    ([0.00048828125, 1.99951171875], [2, 1])
    """
    check_rows(rows)
    low, high = rows.amin(), rows.amax()
    return _centres(low, high), _counts(rows, low, high)


def _centres(low: Tensor, high: Tensor) -> Tensor:
    bins = torch.arange(BINS, device=low.device)
    return (low + (bins + 0.5) * ((high - low) / BINS))[None]


def _counts(rows: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """How many numbers fall into each of the bins between low and high: (R, C) -> (1, 2048)."""
    width = ((high - low) / BINS).clamp(min=torch.finfo(low.dtype).tiny)
    counts = torch.zeros(BINS, dtype=torch.int32, device=rows.device)
    for part in rows.flatten().split(BLOCK):
        bins = ((part - low) / width).to(torch.int32).clamp_(max=BINS - 1)
        counts.index_add_(0, bins, torch.ones_like(bins))
    return counts[None]


def kl_range(rows: Tensor, format: Format) -> Range:
    """The range [−t, t], cut to min–max, that changes the distribution of |x| least: one for all rows.

    The histogram of |x| has 2048 bins. For each of them as the last one kept, P is the histogram with
    everything beyond added to the last bin, and Q the histogram without it, averaged over 2ⁿ⁻¹ levels:

        t* = argmin over t of KL(P ‖ Q) = Σ P log(P / Q)

    Args:
        rows: (R, C).
        format: the codes that the range is for, of at most 11 bits.

    Returns, Raises: as for `mse_range`, and ValueError: above 11 bits, there are no bins to average.

    Source: Migacz, 2017, "8-bit Inference with TensorRT".

    >>> low, high = kl_range(torch.linspace(-1, 1, 10_000)[None] ** 9, Format(4))
    >>> round(high.item(), 2)
    0.01
    """
    levels = 2 ** (format.bits - 1)
    if levels >= BINS:
        raise ValueError(f"format must have at most 11 bits for a KL range; got {format.bits}")
    low, high = minmax_range(rows)
    top = torch.maximum(-low, high).amax()
    counts = _counts(rows.abs(), torch.zeros_like(top), top)[0].float()
    kept = range(levels, BINS + 1)
    divergences = torch.stack([_divergence(counts, bins, levels) for bins in kept])
    t = (levels + divergences.argmin()) / BINS * top
    return torch.maximum(low, -t), torch.minimum(high, t)


def _divergence(counts: Tensor, kept: int, levels: int) -> Tensor:
    """KL(P ‖ Q) if the first `kept` bins are kept; infinite where Q lacks a bin that P has."""
    inside = counts[:kept]
    p = inside.clone()
    p[-1] += counts[kept:].sum()
    level = torch.arange(kept, device=counts.device) * levels // kept  # of each bin
    filled = (inside > 0).to(counts.dtype)
    totals, bins = (counts.new_zeros(levels).index_add(0, level, c) for c in (inside, filled))
    q = filled * (totals / bins.clamp(min=1))[level]
    p, q = p / p.sum(), q / q.sum()
    return (torch.xlogy(p, p) - torch.xlogy(p, q)).sum()
