"""Ranges from a histogram: for activations, of which there are too many to look at one by one.

    centres, counts = histogram(rows)
    mse_range(centres, format, counts)      the MSE range of millions of numbers, from 8192
    kl_range(rows, format)                  the range that keeps the distribution's shape

Axes: R rows, C numbers in a row.
"""

import torch
from torch import Tensor

from course_lib.quantization.calibration import Range, minmax_range
from course_lib.quantization.linear import Format
from course_lib.quantization.rows import BLOCK, check_rows

BINS = 8192  # at 8 bits, a dozen for each level of a range that clips half of min–max
KL_BINS = 2048  # the KL search looks at each


def histogram(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Even bins from the smallest to the largest of all numbers: their centres and their counts.

    Args, Raises: as for `calibration.mse_range`.

    Returns:
        centres (1, 8192), float32, and counts (1, 8192), int32.

    >>> centres, counts = histogram(torch.tensor([[0.0, 0.0, 2.0]]))
    >>> centres[0, [0, -1]].tolist(), counts[0, [0, -1]].tolist()
    ([0.0001220703125, 1.9998779296875], [2, 1])
    """
    check_rows(rows)
    low, high = rows.amin().float(), rows.amax().float()
    share = (torch.arange(BINS, device=rows.device) + 0.5) / BINS
    centres = (1 - share) * low + share * high  # high − low may be beyond float32
    return centres[None], _counts(rows, low, high, BINS)[None]


def _counts(rows: Tensor, low: Tensor, high: Tensor, bins: int) -> Tensor:
    """How many numbers fall into each of the even bins from low to high: (R, C) -> (bins,)."""
    half = (high / 2 - low / 2) / bins  # of a bin's width; high − low may be beyond float32
    half = half.clamp(min=torch.finfo(low.dtype).tiny)
    counts = torch.zeros(bins, dtype=torch.int32, device=rows.device)
    for part in rows.flatten().split(BLOCK):
        bin = ((part.float() / 2 - low / 2) / half).to(torch.int32).clamp_(max=bins - 1)
        counts.index_add_(0, bin, torch.ones_like(bin))
    return counts


def kl_range(rows: Tensor, format: Format) -> Range:
    """The range [−t, t], within min–max, that changes the distribution of |x| least, of all rows.

    The histogram of |x| has 2048 bins. For each of them as the last one kept, P is the histogram
    with all that lies beyond added to the last bin, and Q the histogram without it, averaged over
    the 2ⁿ⁻¹ levels of |x|. Chosen is the t with the least

        KL(P ‖ Q) = Σ P log(P / Q)

    This is a rule for shapes, not for errors: its squared error may be above that of min–max.

    Args:
        rows: (R, C).
        format: the codes that the range is for, of at most 11 bits.

    Returns:
        low and high, (R, 1) each.

    Raises: as for `calibration.mse_range`, and ValueError: above 11 bits, levels outnumber bins.

    Source: Migacz, 2017, "8-bit Inference with TensorRT".

    >>> low, high = kl_range(torch.linspace(-1.56, 1.56, 10_000).tan()[None], Format(4))
    >>> low.item() == -high.item(), high.item() < 0.5 * torch.tensor(1.56).tan().item()
    (True, True)
    """
    levels = 2 ** (format.bits - 1)
    if levels >= KL_BINS:
        raise ValueError(f"format must have at most 11 bits for a KL range; got {format.bits}")
    low, high = minmax_range(rows)
    top = torch.maximum(-low, high).amax().float()
    counts = _counts(rows.abs(), torch.zeros_like(top), top, KL_BINS).float()
    counts[0] -= (rows == 0).sum()
    divergences = [_divergence(counts, kept, levels) for kept in range(levels, KL_BINS + 1)]
    t = (levels + torch.stack(divergences).argmin()) / KL_BINS * top
    return low.clamp(-t, t), high.clamp(-t, t)


def _divergence(counts: Tensor, kept: int, levels: int) -> Tensor:
    """KL(P ‖ Q) if the first `kept` bins are kept; infinite where Q lacks a bin that P has."""
    inside = counts[:kept]
    p = inside.clone()
    p[-1] += counts[kept:].sum()
    level = torch.arange(kept, device=counts.device) * levels // kept  # of each bin
    filled = (inside > 0).to(counts.dtype)
    totals, bins = (counts.new_zeros(levels).index_add(0, level, c) for c in (inside, filled))
    q = filled * (totals / bins.clamp(min=1))[level]
    p, q = p / p.sum().clamp(min=1), q / q.sum().clamp(min=1)
    return (torch.xlogy(p, p) - torch.xlogy(p, q)).sum()
