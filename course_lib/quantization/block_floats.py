"""Block formats: a few neighbours share a scale, and each is a float of few bits.

    MX       32 neighbours, a scale that is a power of two: 8 bits, its exponent (E8M0)
    NVFP4    16 neighbours, a scale that is itself an FP8 number (E4M3); all of them times one
             float32 scale for the whole tensor

With elements of 4 bits (E2M1), MX takes 4 + 8/32 = 4.25 bits a number, NVFP4 4 + 8/16 = 4.5.

    MX       X = 2^(⌊log₂ max |x|⌋ − e_max)               x̂ = X · element(x / X)
    NVFP4    t = max |x| / (448 · 6) of the tensor
             S = E4M3(max |x| / (6 t)) of the block        x̂ = t S · E2M1(x / (t S))

e_max is the exponent of the element's largest number: 2 for E2M1, whose largest is 6 = 1.5 · 2². So
the largest of an MX block lands between 4 and 8, and what is above 6 is cut to 6: up to a quarter
of the largest weight is lost. NVFP4's scale is finer: its largest lands within a sixteenth of 6,
unless the block is far smaller than the tensor's largest.

Axes: R rows, each one block, C numbers in a block.

Source: Rouhani et al., 2023, "OCP Microscaling Formats (MX) Specification, Version 1.0"; Alvarez et
al., 2025, "Introducing NVFP4 for Efficient and Accurate Low-Precision Inference".
"""

import math

import torch
from torch import Tensor

from course_lib.models.finite import check_finite
from course_lib.quantization.codebook import absmax
from course_lib.quantization.floats import E2M1, E4M3, Float, decode, encode
from course_lib.quantization.rows import check_codes, check_rows

MX_BLOCK, NV_BLOCK = 32, 16  # numbers
E8M0_BIAS, E8M0_NAN = 127, 255


def encode_mx(rows: Tensor, element: Float = E2M1) -> tuple[Tensor, Tensor]:
    """Rows as elements and a power of two each: X = 2^(⌊log₂ max |x|⌋ − e_max).

    Args:
        rows: (R, C), floats; C is 32 in the standard.
        element: the format of each number; numbers beyond its largest are cut to that.

    Returns:
        Codes (R, C) and the scales' exponents plus 127, (R,), uint8 both. A row of zeros has 0.

    Raises:
        TypeError: not floats.
        ValueError: rows are empty, NaN or infinite.

    >>> codes, exponents = encode_mx(torch.tensor([[6.0, -1.0, 0.2, 0.0]]))
    >>> codes.tolist(), (exponents - 127).tolist()
    ([[7, 10, 0, 0]], [0])
    """
    check_rows(rows)
    wide = rows.to(torch.promote_types(rows.dtype, torch.float32))
    largest = absmax(wide)
    top = math.frexp(element.highest)[1] - 1  # e_max
    exponent = (torch.frexp(largest).exponent - 1 - top).clamp(-E8M0_BIAS, E8M0_BIAS)
    scaled = wide * _power(-exponent)
    return encode(scaled, element, saturate=True), (exponent[:, 0] + E8M0_BIAS).to(torch.uint8)


def decode_mx(codes: Tensor, exponents: Tensor, element: Float = E2M1) -> Tensor:
    """The numbers X · element of `encode_mx`'s codes: (R, C), float32; NaN where the scale is.

    Raises:
        ValueError: shapes that do not fit; a code that the element does not have.

    >>> decode_mx(*encode_mx(torch.tensor([[6.0, -1.0, 0.2, 0.0]]))).tolist()
    [[6.0, -1.0, 0.0, 0.0]]
    """
    _check_codes(codes, exponents, "exponents")
    check_codes(exponents, 256)
    # Two factors: 2⁻¹²⁷ alone is subnormal, and some devices take that for 0.
    exponent = exponents.to(torch.int32)[:, None] - E8M0_BIAS
    half = exponent // 2
    second = _power(exponent - half).where(exponents[:, None] != E8M0_NAN, torch.nan)
    return decode(codes, element).mul_(_power(half)).mul_(second)


def encode_nvfp4(rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Rows as E2M1, an E4M3 scale each, and a float32 scale for all of them.

    Args:
        rows: (R, C), floats: all blocks of one tensor; C is 16 in NVFP4.

    Returns:
        Codes (R, C) and the codes of the scales (R,), uint8; the tensor's scale (), float32.

    Raises:
        TypeError: not floats.
        ValueError: rows are empty, NaN or infinite.

    >>> codes, scales, tensor_scale = encode_nvfp4(torch.tensor([[6.0, -1.0], [3.0, 0.0]]))
    >>> codes.tolist(), decode(scales, E4M3).tolist(), round(448 * tensor_scale.item(), 6)
    ([[7, 10], [7, 0]], [448.0, 224.0], 1.0)
    """
    check_rows(rows)
    wide = rows.float()
    check_finite(wide, "rows, in float32,")
    largest = absmax(wide)
    tiny = torch.finfo(torch.float32).tiny
    tensor_scale = (largest.amax() / (E4M3.highest * E2M1.highest)).clamp(min=tiny)
    scales = encode(largest / E2M1.highest / tensor_scale, E4M3, saturate=True)
    block = decode(scales, E4M3) * tensor_scale
    scaled = torch.where(block > 0, wide / block, 0.0)
    return encode(scaled, E2M1), scales[:, 0], tensor_scale


def decode_nvfp4(codes: Tensor, scales: Tensor, tensor_scale: Tensor) -> Tensor:
    """The numbers t S · element of `encode_nvfp4`'s codes: (R, C), float32.

    Raises:
        ValueError: shapes that do not fit; a code that E2M1 does not have.

    >>> decode_nvfp4(*encode_nvfp4(torch.tensor([[6.0, -1.0], [3.0, 0.0]]))).tolist()
    [[6.0, -1.0], [3.0, 0.0]]
    """
    _check_codes(codes, scales, "scales")
    if tensor_scale.shape != ():
        raise ValueError(f"tensor_scale must have shape (); got {tuple(tensor_scale.shape)}")
    return decode(codes, E2M1) * (decode(scales, E4M3)[:, None] * tensor_scale)


def _power(exponent: Tensor) -> Tensor:
    """2 to whole numbers from −126 to 127, float32."""
    return torch.ldexp(torch.ones_like(exponent, dtype=torch.float32), exponent)


def _check_codes(codes: Tensor, scales: Tensor, name: str) -> None:
    if codes.dim() != 2 or scales.shape != (len(codes),):
        raise ValueError(
            f"codes must have shape (R, C), and {name} (R,); "
            f"got {tuple(codes.shape)} and {tuple(scales.shape)}"
        )
