"""Codebooks: a short table of levels, and for each number the place of the nearest one.

    q = argmin over j of |x − s c_j|        x̂ = s c_q

The levels c_1 ≤ … ≤ c_k need not be even. Where numbers of one row share a scale s, as in NF4, one
table serves rows of every size; without it, the levels are in the unit of x.

Nearest means: x lies between the midpoints of its level and the two neighbours. A number on a
midpoint, as float32 holds it, goes to the lower level.

Axes: R rows, C numbers in a row, k levels; levels are (R, k), or (1, k) for all rows.
"""

import torch
from torch import Tensor

from course_lib.models.finite import check_finite, is_fake
from course_lib.quantization.rows import blocks, check_codes, check_rows

TABLE_PAYS = 2**18  # numbers, above which the table of `_by_table` is worth making


def nearest_codes(rows: Tensor, levels: Tensor, scale: Tensor | None = None) -> Tensor:
    """The code of the level nearest to each number: q = argmin |x − s c_q|.

    Args:
        rows: (R, C), floats.
        levels: (R, k) or (1, k), ascending, k from 1 to 256.
        scale: s, (R, 1), above 0; 1 if not given.

    Returns:
        Codes (R, C) from 0 to k − 1, uint8.

    Raises:
        TypeError: not floats.
        ValueError: rows or levels are empty or not finite; shapes that do not fit; levels that
            fall; a scale that is not above 0.

    >>> nearest_codes(torch.tensor([[-9.0, 0.4, 0.5, 0.6, 2.0]]), torch.tensor([[0.0, 1.0, 4.0]]))
    tensor([[0, 0, 0, 1, 1]], dtype=torch.uint8)
    """
    check_rows(rows)
    check_levels(levels, rows)
    if scale is not None:
        check_scale(scale, rows)
    wide = torch.promote_types(rows.dtype, torch.float32)
    middles = midpoints(levels.to(wide))
    table = None
    if len(levels) == 1 and rows.numel() >= TABLE_PAYS and wide == torch.float32 == rows.dtype:
        table = _table(middles[0]) if rows.device.type == "cpu" else None
    codes = torch.empty(rows.shape, dtype=torch.uint8, device=rows.device)
    for i, j in blocks(rows):
        part = rows[i, j].to(wide)
        part = part.contiguous() if scale is None else part / scale[i]
        if table is not None:
            codes[i, j] = _by_table(part, middles[0], table)
        elif len(levels) == 1:
            codes[i, j] = torch.bucketize(part, middles[0], out_int32=True)
        else:
            codes[i, j] = torch.searchsorted(middles[i], part, out_int32=True)
    return codes


def lookup(codes: Tensor, levels: Tensor, scale: Tensor | None = None) -> Tensor:
    """The level of each code: x̂ = s c_q, (R, C) -> (R, C), in the dtype of the levels.

    Raises:
        ValueError: a code that the table does not have; rows that do not fit.

    >>> lookup(torch.tensor([[0, 2]]), torch.tensor([[0.0, 1.0, 4.0]]), torch.tensor([[0.5]]))
    tensor([[0., 2.]])
    """
    k = levels.shape[-1]
    if codes.dim() != 2 or levels.dim() != 2 or len(levels) not in (1, len(codes)):
        raise ValueError(
            "codes must have shape (R, C), and levels (R, k) or (1, k); "
            f"got {tuple(codes.shape)} and {tuple(levels.shape)}"
        )
    check_codes(codes, k)
    if len(levels) == 1:
        values = levels[0].index_select(0, codes.flatten().to(torch.int32)).view(codes.shape)
    else:
        values = levels.gather(1, codes.long())
    return values if scale is None else values.mul_(scale)


def midpoints(levels: Tensor) -> Tensor:
    """(c_j + c_{j+1}) / 2, where one cell ends and the next begins: (R, k) -> (R, k − 1).

    >>> midpoints(torch.tensor([[0.0, 1.0, 4.0]]))
    tensor([[0.5000, 2.5000]])
    """
    return levels[:, :-1] / 2 + levels[:, 1:] / 2  # halves: their sum may be beyond float32


def absmax(rows: Tensor) -> Tensor:
    """The largest |x| of each row, (R, C) -> (R, 1); of a row of zeros, the least normal number.

    >>> absmax(torch.tensor([[-3.0, 1.0]]))
    tensor([[3.]])
    """
    check_rows(rows)
    low, high = rows.aminmax(dim=1, keepdim=True)
    top = torch.maximum(-low, high)
    return top.where(top > 0, torch.finfo(rows.dtype).tiny)


def rms(rows: Tensor) -> Tensor:
    """The root of the mean of x² of each row: what levels for a density of variance 1 go with.

    In float32 or wider, (R, C) -> (R, 1), and above 0 as `absmax` is.

    >>> rms(torch.tensor([[-3.0, 3.0]]))
    tensor([[3.]])
    """
    top = absmax(rows)
    wide = torch.promote_types(rows.dtype, torch.float32)
    return (rows.to(wide) / top).square().mean(1, keepdim=True).sqrt() * top


def logarithmic_levels(bits: int) -> Tensor:
    """0 and ± powers of two from 1 down: (1, 2ⁿ − 1), to go with `absmax`.

        0 and ±2⁻ᵉ, e = 0 … 2ⁿ⁻¹ − 2

    A product with such a level is a shift. The levels stand close near 0, where many weights are,
    and far apart at the end: each next bit adds levels near 0 only.

    Raises:
        ValueError: bits outside 2 … 8.

    Source: Miyashita et al., 2016, "Convolutional Neural Networks using Logarithmic Data
    Representation".

    >>> logarithmic_levels(3).tolist()
    [[-1.0, -0.5, -0.25, 0.0, 0.25, 0.5, 1.0]]
    """
    if not 2 <= bits <= 8:
        raise ValueError(f"bits must be from 2 to 8; got {bits}")
    powers = 2.0 ** -torch.arange(2 ** (bits - 1) - 1)
    return torch.cat([-powers, torch.zeros(1), powers.flip(0)])[None]


def check_levels(levels: Tensor, rows: Tensor) -> None:
    """Raise unless levels are (R, k) or (1, k), finite, ascending and at most 256 a row."""
    check_finite(levels, "levels")
    if levels.dim() != 2 or len(levels) not in (1, len(rows)) or levels.shape[1] > 256:
        raise ValueError(
            f"levels must have shape (1, k) or ({len(rows)}, k), k up to 256; "
            f"got {tuple(levels.shape)}"
        )
    if not is_fake(levels) and (levels.diff(dim=1) < 0).any():
        raise ValueError("levels must ascend; they fall in at least one row")


def check_scale(scale: Tensor, rows: Tensor) -> None:
    """Raise unless a scale is (R, 1), finite and above 0."""
    check_finite(scale, "scale")
    if scale.shape != (len(rows), 1):
        raise ValueError(f"scale must have shape ({len(rows)}, 1); got {tuple(scale.shape)}")
    if not is_fake(scale) and not (scale > 0).all():
        raise ValueError(f"scale must be above 0; got {scale.min():g}")


def _table(middles: Tensor) -> Tensor:
    """The code for each upper half of a float32's bits, 255 where the lower half decides: (2¹⁶,).

    A midpoint lies within few of the 65,536 cells that the upper halves make of all numbers.
    """
    first = torch.arange(2**16, dtype=torch.int32) << 16
    ends = [torch.bucketize(bits.view(torch.float32), middles) for bits in (first, first | 0xFFFF)]
    return torch.where(ends[0] == ends[1], ends[0], 255).to(torch.uint8)


def _by_table(part: Tensor, middles: Tensor, table: Tensor) -> Tensor:
    """The codes of float32 numbers: most by a look into the table, the others by a search."""
    keys = part.view(torch.int32) >> 16 & 0xFFFF
    codes = table.index_select(0, keys.flatten())
    unsure = (codes == 255).nonzero()[:, 0]
    found = torch.bucketize(part.flatten()[unsure], middles, out_int32=True)
    codes[unsure] = found.to(torch.uint8)
    return codes.view(part.shape)
