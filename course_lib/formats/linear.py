"""A weight quantized linearly, as the parts that stand in a file.

A weight that is quantized to n bits in R rows becomes

    codes          uint8      q − q_min, n bits each (`packing`)
    scale          float16    R numbers
    zero_point     uint8      z − q_min, n bits each; absent if symmetric: 2ⁿ⁻¹ − 1 throughout

Nothing else needs to be stored: the number of bytes tells n, the number of scales tells R, and the
model knows its shapes.

A scale in float16 is off by up to 2⁻¹¹ of itself. It is rounded *before* the codes are chosen, so
they are chosen among the levels that come back, and |x − x̂| ≤ s/2 still holds between the outermost
ones. As these move, the range may reach up to (2ⁿ − 1) 2⁻¹¹ s further: an eighth of s at 8 bits.
Scales below 2⁻¹⁴, where float16 has fewer digits, lose more.

Axes: O outputs, I inputs, R rows sharing one scale, N codes.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from course_lib.formats.packing import pack, unpack
from course_lib.models.finite import check_finite, is_fake
from course_lib.quantization.calibration import Range, minmax_range
from course_lib.quantization.linear import Format, Grid, dequantize, fit_grid, quantize
from course_lib.quantization.rows import to_rows


@dataclass(frozen=True)
class Scheme:
    """How a weight is quantized.

    format: the codes.
    granularity: "tensor", "channel" or a group size, as in `rows.to_rows`.
    calibrate: (rows, format) -> (low, high); one of `calibration`.
    """

    format: Format
    granularity: str | int
    calibrate: Callable[[Tensor, Format], Range] = minmax_range


@dataclass(frozen=True, eq=False)
class Codes:
    """A weight that is quantized already, by a method that chooses the codes itself.

    In a file it has the same parts as a weight under a `Scheme`: `model_file.pack_model` takes
    either.

    codes: one for each weight, in its shape, (O, I).
    grid: the levels of R rows, as `rows.to_rows` makes them of the weight; from `stored_grid`.
    """

    codes: Tensor
    grid: Grid

    @property
    def weight(self) -> Tensor:
        """The weight that comes back from a file, (O, I)."""
        rows = self.codes.reshape(len(self.grid.scale), -1)  # (O, I) -> (R, C)
        return dequantize(rows, self.grid).view(self.codes.shape)


def stored_grid(grid: Grid) -> Grid:
    """The grid as a file gives it back: its scale rounded to float16, held in the dtype it had.

    Raises:
        ValueError: a scale beyond float16.

    >>> grid = fit_grid(torch.tensor([[0.0]]), torch.tensor([[1.0]]), Format(4))
    >>> round(grid.scale.item(), 7), round(stored_grid(grid).scale.item(), 7)
    (0.0666667, 0.0666504)
    """
    scale = grid.scale.to(torch.float16).clamp(min=2**-24)  # the smallest float16 above 0
    check_finite(scale, "scale, in float16,")
    return Grid(scale.to(grid.scale.dtype), grid.zero_point, grid.format)


def parts_of(codes: Tensor, grid: Grid) -> dict[str, Tensor]:
    """The parts that stand in a file for codes that are chosen already.

    `decode_linear` gives back just `Codes(codes, grid).weight`.

    Args:
        codes: from q_min to q_max, in the order of the weight: (O, I) or (R, C).
        grid: of R rows, from `stored_grid`.

    Raises:
        ValueError: more than 8 bits; R rows that do not divide the codes; a code that the format
            does not have; a scale that is not a float16 number above 0.

    >>> grid = fit_grid(torch.tensor([[0.0]]), torch.tensor([[1.5]]), Format(2))
    >>> parts_of(torch.tensor([[0, 3, 1, 0]]), grid)["scale"]
    tensor([0.5000], dtype=torch.float16)
    """
    check_codes(codes, grid)
    format = grid.format
    parts = {
        "codes": pack(codes.to(torch.int16) - format.lowest, format.bits),
        "scale": grid.scale.to(torch.float16).flatten(),
    }
    if not format.symmetric:
        parts["zero_point"] = pack(grid.zero_point, format.bits)
    return parts


def check_codes(codes: Tensor, grid: Grid) -> None:
    """Raise a ValueError unless a file can hold just these levels and codes; as `parts_of` says."""
    scale, format = grid.scale.to(torch.float16), grid.format
    exact = (scale == grid.scale) & (scale > 0) & scale.isfinite()
    if not is_fake(scale) and not exact.all():
        raise ValueError("scale must hold float16 numbers above 0; `stored_grid` makes it so")
    if codes.numel() == 0 or codes.numel() % len(scale):
        raise ValueError(
            f"codes must fill {len(scale)} rows of equal length; got {codes.numel()} of them"
        )
    low, high = codes.aminmax()
    if not is_fake(codes) and not (low >= format.lowest and high <= format.highest):
        raise ValueError(
            f"codes must be from {format.lowest} to {format.highest}; got {low} to {high}"
        )


def encode_codes(weight: Tensor, codes: Codes) -> dict[str, Tensor]:
    """`parts_of` the codes that stand for a weight.

    Raises:
        ValueError: the weight has another shape than the codes; what `parts_of` refuses.
    """
    if codes.codes.shape != weight.shape:
        raise ValueError(
            f"codes must have the weight's shape {tuple(weight.shape)}; "
            f"got {tuple(codes.codes.shape)}"
        )
    return parts_of(codes.codes, codes.grid)


def encode_linear(weight: Tensor, scheme: Scheme) -> dict[str, Tensor]:
    """The parts that stand for a weight in a file: codes, scale and, if affine, zero_point.

    Raises:
        ValueError: more than 8 bits; a scale beyond float16; what `to_rows` and `quantize` refuse.

    >>> parts = encode_linear(torch.randn(4, 32), Scheme(Format(8, symmetric=True), "channel"))
    >>> {name: tuple(part.shape) for name, part in parts.items()}
    {'codes': (128,), 'scale': (4,)}
    """
    chosen = nearest_codes(weight, scheme)
    return parts_of(chosen.codes, chosen.grid)


def nearest_codes(weight: Tensor, scheme: Scheme) -> Codes:
    """Each weight's nearest level, by itself: what methods that know a layer's inputs improve on.

    Raises:
        ValueError: a scale beyond float16; what `to_rows` and `quantize` refuse.

    >>> nearest_codes(torch.tensor([[0.0, 0.4, 1.5]]), Scheme(Format(2), "channel")).weight
    tensor([[0.0000, 0.5000, 1.5000]])
    """
    rows = to_rows(weight, scheme.granularity)
    grid = fit_stored(rows, scheme)
    return Codes(quantize(rows, grid).view(weight.shape), grid)


def fit_stored(rows: Tensor, scheme: Scheme) -> Grid:
    """The levels that a scheme fits to rows (R, C), with the scales that a file gives back.

    >>> fit_stored(torch.tensor([[0.0, 0.5, 1.5]]), Scheme(Format(2), "channel")).scale
    tensor([[0.5000]])
    """
    return stored_grid(fit_grid(*scheme.calibrate(rows, scheme.format), scheme.format))


def read_codes(parts: Mapping[str, Tensor], shape: torch.Size) -> Codes:
    """The codes and levels that `encode_linear`'s parts hold, of a weight of this shape.

    Symmetric codes are int8, affine ones uint8; scales are float32.

    Raises:
        ValueError: parts that no encoder here writes, as of a damaged file.

    >>> weight = torch.tensor([[-1.5, 0.0, 1.0, 1.5]])
    >>> read_codes(encode_linear(weight, Scheme(Format(3, True), "channel")), weight.shape).codes
    tensor([[-3,  0,  2,  3]], dtype=torch.int8)
    """
    count, R = shape.numel(), len(parts["scale"])
    if not R or not count or count % R:
        raise ValueError(f"{R} rows must fill a weight of {count} numbers evenly")
    bits = len(parts["codes"]) // -(-count // 8)  # eight codes fill n bytes
    scale = parts["scale"].to(torch.float32)[:, None]  # (R,) -> (R, 1)
    codes = unpack(parts["codes"], bits, count).view(shape)
    if "zero_point" in parts:
        zero_point = unpack(parts["zero_point"], bits, R).to(torch.int32)[:, None]
        return Codes(codes, Grid(scale, zero_point, Format(bits)))
    format = Format(bits, symmetric=True)
    codes = (codes.to(torch.int16) + format.lowest).to(torch.int8)
    return Codes(codes, Grid(scale, torch.zeros_like(scale, dtype=torch.int32), format))


def decode_linear(parts: Mapping[str, Tensor], shape: torch.Size) -> Tensor:
    """The weight that `encode_linear`'s parts stand for, in float32.

    >>> weight = torch.tensor([[0.0, 0.5, 1.0, 1.5]])
    >>> decode_linear(encode_linear(weight, Scheme(Format(2), "channel")), weight.shape)
    tensor([[0.0000, 0.5000, 1.0000, 1.5000]])
    """
    return read_codes(parts, shape).weight
