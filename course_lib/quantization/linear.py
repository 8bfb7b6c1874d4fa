"""Linear quantization: a number x becomes a small integer q, and q a number x̂ near x.

    q = clamp(round(x / s) + z, q_min, q_max)        quantize
    x̂ = s · (q − z)                                  dequantize

The scale s is the distance between neighbouring levels, the zero-point z the code of 0. In the
range that the levels were fitted to, |x − x̂| ≤ s/2, but for float32's own rounding. Because z is an
integer, 0 is kept exactly: pruned weights and padding stay 0.

`round` takes a tie to the even neighbour, before z is added. So do PyTorch's `fake_quantize_*` and
torchao; on x86, `torch.quantize_per_channel` adds z first, so its ties differ where z is odd.

Axes: R rows sharing one scale, C numbers in a row; `course_lib.quantization.rows` makes rows.

Source: Jacob et al., 2018, "Quantization and Training of Neural Networks for Efficient
Integer-Arithmetic-Only Inference".
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from course_lib.models.finite import is_fake
from course_lib.quantization.rows import blocks, check_rows


@dataclass(frozen=True)
class Format:
    """Which integers the codes may be, n bits each.

        affine       0 … 2ⁿ − 1
        symmetric    −(2ⁿ⁻¹ − 1) … 2ⁿ⁻¹ − 1      z is 0, and −x gets minus the code of x

    Symmetric codes leave −2ⁿ⁻¹ unused: with it, the levels would reach further down than up.

    >>> [(f.lowest, f.highest) for f in (Format(4), Format(4, symmetric=True))]
    [(0, 15), (-7, 7)]
    """

    bits: int
    symmetric: bool = False

    def __post_init__(self):
        if not 2 <= self.bits <= 16:
            raise ValueError(f"bits must be from 2 to 16; got {self.bits}")

    @property
    def highest(self) -> int:
        return 2 ** (self.bits - self.symmetric) - 1

    @property
    def lowest(self) -> int:
        return -self.highest if self.symmetric else 0

    @property
    def dtype(self) -> torch.dtype:
        """The smallest integer type of PyTorch that holds every code."""
        if self.bits > 8:
            return torch.int32
        return torch.int8 if self.symmetric else torch.uint8


@dataclass(frozen=True, eq=False)
class Grid:
    """The levels of R rows: scale (R, 1) in the unit of x, zero_point (R, 1) int32, format.

    In a symmetric format the zero-point is 0.
    """

    scale: Tensor
    zero_point: Tensor
    format: Format

    def __getitem__(self, rows: slice) -> "Grid":
        """The grid of some of the rows."""
        return Grid(self.scale[rows], self.zero_point[rows], self.format)


def fit_affine(low: Tensor, high: Tensor, bits: int) -> Grid:
    """Levels from `low` to `high`, stretched where needed to hold 0.

        s = (high − low) / (2ⁿ − 1)      z = −round(low / s)

    Args:
        low, high: ends of the range, (R, 1).
        bits: n, from 2 to 16.

    Returns:
        A grid in float32 or wider. Where low = high = 0, s is the smallest normal number, not 0.

    Raises:
        ValueError: bits outside 2 … 16; low and high not (R, 1), NaN, infinite, or low above high.

    >>> grid = fit_affine(torch.tensor([[0.5]]), torch.tensor([[1.5]]), bits=2)
    >>> grid.scale.tolist(), grid.zero_point.tolist()
    ([[0.5]], [[0]])
    """
    low, high = _check_range(low, high)
    format = Format(bits)
    low, high = low.clamp(max=0), high.clamp(min=0)
    scale = (high / 2 - low / 2) / (format.highest / 2)  # halves: high − low may be beyond float32
    scale = scale.clamp(min=torch.finfo(scale.dtype).tiny)
    return Grid(scale, -(low / scale).round().to(torch.int32), format)


def fit_symmetric(low: Tensor, high: Tensor, bits: int) -> Grid:
    """Levels from −m to m, where m = max(|low|, |high|), with 0 in the middle.

        s = m / (2ⁿ⁻¹ − 1)      z = 0

    Args, Returns, Raises: as for `fit_affine`.

    >>> grid = fit_symmetric(torch.tensor([[-1.0]]), torch.tensor([[0.25]]), bits=2)
    >>> grid.scale.tolist(), grid.zero_point.tolist()
    ([[1.0]], [[0]])
    """
    low, high = _check_range(low, high)
    format = Format(bits, symmetric=True)
    scale = torch.maximum(low.abs(), high.abs()) / format.highest
    scale = scale.clamp(min=torch.finfo(scale.dtype).tiny)
    return Grid(scale, torch.zeros_like(scale, dtype=torch.int32), format)


def fit_grid(low: Tensor, high: Tensor, format: Format) -> Grid:
    """`fit_symmetric` or `fit_affine`, as the format says."""
    return (fit_symmetric if format.symmetric else fit_affine)(low, high, format.bits)


def quantize(rows: Tensor, grid: Grid) -> Tensor:
    """The code of the level nearest to each number: q = clamp(round(x / s) + z, q_min, q_max).

    Args:
        rows: (R, C), floats; may hold other numbers than those that the grid was fitted to.
        grid: the levels of its R rows.

    Returns:
        Codes (R, C): int8 or uint8, int32 above 8 bits.

    Raises:
        TypeError: rows are not floats.
        ValueError: rows are empty, hold NaN or infinity, or are not as many as the grid's.

    >>> rows = torch.tensor([[-1.0, 0.3, 1.0]])
    >>> quantize(rows, fit_symmetric(rows.amin(1, True), rows.amax(1, True), bits=8)).tolist()
    [[-127, 38, 127]]
    """
    check_rows(rows)
    _check_grid(rows, grid, "rows")
    codes = torch.empty(rows.shape, dtype=grid.format.dtype, device=rows.device)
    for i, j in blocks(rows):
        codes[i, j] = _nearest_codes(rows[i, j], grid[i])
    return codes


def dequantize(codes: Tensor, grid: Grid) -> Tensor:
    """The level of each code: x̂ = s · (q − z), (R, C) -> (R, C), in the dtype of the scale.

    Raises:
        ValueError: the codes' rows are not as many as the grid's.

    >>> grid = fit_affine(torch.tensor([[-1.0]]), torch.tensor([[2.0]]), bits=2)
    >>> dequantize(torch.tensor([[0, 1, 2, 3]]), grid).tolist()
    [[-1.0, 0.0, 1.0, 2.0]]
    """
    _check_grid(codes, grid, "codes")
    values = torch.empty(codes.shape, dtype=grid.scale.dtype, device=codes.device)
    for i, j in blocks(codes):
        values[i, j].copy_(codes[i, j])
        _to_levels(values[i, j], grid[i])
    return values


def fake_quantize(rows: Tensor, grid: Grid) -> Tensor:
    """Dequantize(quantize(x)) in one go and unchecked: each number becomes its nearest level.

    >>> grid = fit_affine(torch.tensor([[-1.0]]), torch.tensor([[2.0]]), bits=2)
    >>> fake_quantize(torch.tensor([[-3.0, 0.4, 0.6, 9.0]]), grid).tolist()
    [[-1.0, 0.0, 1.0, 2.0]]
    """
    return _to_levels(_nearest_codes(rows, grid), grid)


def _nearest_codes(rows: Tensor, grid: Grid) -> Tensor:
    """Codes as floats, in one new tensor. Like PyTorch, x · (1/s) and not x / s: it is faster."""
    codes = (rows * (1 / grid.scale)).round_()
    if not grid.format.symmetric:  # there, z is 0
        codes.add_(grid.zero_point)
    return codes.clamp_(grid.format.lowest, grid.format.highest)


def _to_levels(codes: Tensor, grid: Grid) -> Tensor:
    """s · (q − z), in place, of codes held as floats."""
    if not grid.format.symmetric:
        codes.sub_(grid.zero_point)
    return codes.mul_(grid.scale)


def _check_grid(rows: Tensor, grid: Grid, name: str) -> None:
    if rows.dim() != 2 or grid.scale.shape != (len(rows), 1):
        raise ValueError(
            f"{name} must have shape (R, C), and the grid a scale (R, 1); "
            f"got {tuple(rows.shape)} and {tuple(grid.scale.shape)}"
        )


def _check_range(low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
    """The ends of a range in float32 or wider, once they are finite and in order."""
    check_rows(low, "low")
    check_rows(high, "high")
    if low.shape != high.shape or low.shape[1] != 1:
        raise ValueError(
            f"low and high must have shape (R, 1); got {tuple(low.shape)} and {tuple(high.shape)}"
        )
    if not is_fake(low) and (low > high).any():
        raise ValueError("low must not be above high; it is in at least one row")
    dtype = torch.promote_types(low.dtype, torch.float32)
    return low.to(dtype), high.to(dtype)
