"""The sources' formula for linear quantization, as it is printed, and repaired.

Document S1 (§4.2) maps x in [a, b] to n bits by

    x_q = round((x − a) / (b − a) · 2ⁿ − 0.5)

Meant is: cut the range into 2ⁿ cells and number them. Two things go wrong. `round` takes ties to
the even neighbour, so a number on the border of two cells falls into the lower or the upper one by
turns, and b itself gets the code 2ⁿ, which does not fit into n bits: as a byte, the largest weight
becomes the smallest. And no rule for decoding is given. Repaired, with cells of Δ = (b − a) / 2ⁿ:

    q = clamp(⌊(x − a) / Δ⌋, 0, 2ⁿ − 1)          x̂ = a + (q + ½) Δ

This is the mid-rise quantizer of the textbooks. It needs no zero-point, but it has no level at the
ends, nor at 0 if a = −b, so `course_lib.quantization.linear` is what models are quantized with.

Source: Gersho and Gray, 1992, "Vector Quantization and Signal Compression", chapter 5.
"""

import math

import torch
from torch import Tensor

from course_lib.models.finite import check_finite
from course_lib.quantization.linear import Format


def printed_codes(x: Tensor, low: float, high: float, bits: int) -> Tensor:
    """The formula as it is printed, int32: codes outside 0 … 2ⁿ − 1 are its fault, not the type's.

    Args, Raises: as for `quantize_midrise`.

    >>> printed_codes(torch.tensor([-1.0, -0.25, 0.0, 0.8, 1.0]), low=-1, high=1, bits=3).tolist()
    [0, 2, 4, 7, 8]
    """
    x = _checked(x, low, high)
    return ((x - low) / (high - low) * 2**bits - 0.5).round().to(torch.int32)


def quantize_midrise(x: Tensor, low: float, high: float, bits: int) -> Tensor:
    """The number of the cell that holds x: q = clamp(⌊(x − a) / Δ⌋, 0, 2ⁿ − 1).

    Args:
        x: floats of any shape; outside the range they get the first or last cell.
        low, high: the range [a, b].
        bits: n, from 2 to 16.

    Returns:
        Codes in the shape of x: uint8, int32 above 8 bits.

    Raises:
        TypeError: x does not hold floats.
        ValueError: x is empty, or holds NaN or infinity; low is not below high; bits not in 2 … 16.

    >>> quantize_midrise(torch.tensor([-1.0, -0.25, 0.0, 0.8, 1.0]), -1, 1, bits=3).tolist()
    [0, 3, 4, 7, 7]
    """
    x = _checked(x, low, high)
    format = Format(bits)
    cells = ((x - low) / (high - low) * 2**bits).floor()
    return cells.clamp(0, format.highest).to(format.dtype)


def dequantize_midrise(codes: Tensor, low: float, high: float, bits: int) -> Tensor:
    """The middle of each cell, x̂ = a + (q + ½) Δ, float32; inside the range |x − x̂| ≤ Δ/2.

    >>> dequantize_midrise(torch.tensor([0, 3, 4, 7, 7]), -1, 1, bits=3).tolist()
    [-0.875, -0.125, 0.125, 0.875, 0.875]
    """
    width = (high - low) / 2**bits
    return low + (codes.to(torch.float32) + 0.5) * width


def _checked(x: Tensor, low: float, high: float) -> Tensor:
    """x in float32 or wider: in half precision, codes of 8 bits and more would be wrong."""
    check_finite(x, "x")
    if not (low < high and math.isfinite(high - low)):
        raise ValueError(f"low must be below high, and both finite; got low={low}, high={high}")
    return x.to(torch.promote_types(x.dtype, torch.float32))
