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
from course_lib.models.finite import check_finite
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


def encode_linear(weight: Tensor, scheme: Scheme) -> dict[str, Tensor]:
    """The parts that stand for a weight in a file: codes, scale and, if affine, zero_point.

    Raises:
        ValueError: more than 8 bits; a scale beyond float16; what `to_rows` and `quantize` refuse.

    >>> parts = encode_linear(torch.randn(4, 32), Scheme(Format(8, symmetric=True), "channel"))
    >>> {name: tuple(part.shape) for name, part in parts.items()}
    {'codes': (128,), 'scale': (4,)}
    """
    rows, format = to_rows(weight, scheme.granularity), scheme.format
    grid = fit_grid(*scheme.calibrate(rows, format), format)
    scale = grid.scale.to(torch.float16).clamp(min=2**-24)  # the smallest float16 above 0
    check_finite(scale, "scale, in float16,")
    grid = Grid(scale.to(grid.scale.dtype), grid.zero_point, format)
    codes = quantize(rows, grid).to(torch.int16) - format.lowest
    parts = {"codes": pack(codes, format.bits), "scale": scale.flatten()}
    if not format.symmetric:
        parts["zero_point"] = pack(grid.zero_point, format.bits)
    return parts


def decode_linear(parts: Mapping[str, Tensor], shape: torch.Size) -> Tensor:
    """The weight that `encode_linear`'s parts stand for, in float32.

    >>> weight = torch.tensor([[0.0, 0.5, 1.0, 1.5]])
    >>> decode_linear(encode_linear(weight, Scheme(Format(2), "channel")), weight.shape)
    tensor([[0.0000, 0.5000, 1.0000, 1.5000]])
    """
    count, R = shape.numel(), len(parts["scale"])
    bits = len(parts["codes"]) // -(-count // 8)  # eight codes fill n bytes
    scale = parts["scale"].to(torch.float32)[:, None]  # (R,) -> (R, 1)
    if "zero_point" in parts:
        zero_point = unpack(parts["zero_point"], bits, R).to(torch.int32)[:, None]
    else:
        zero_point = torch.full_like(scale, 2 ** (bits - 1) - 1, dtype=torch.int32)
    codes = unpack(parts["codes"], bits, count).view(R, -1)  # (N,) -> (R, C)
    return dequantize(codes, Grid(scale, zero_point, Format(bits))).view(shape)
