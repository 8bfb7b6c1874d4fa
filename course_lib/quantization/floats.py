"""Floats of few bits: a sign, an exponent of E bits, a mantissa of M bits.

    x = (−1)^sign · 2^(e − bias) · (1 + m / 2ᴹ)      e > 0, normal
    x = (−1)^sign · 2^(1 − bias) · m / 2ᴹ            e = 0, subnormal

Within one power of two the levels are even; from one to the next their distance doubles. What the
largest codes mean differs:

    "ieee"      e all ones: infinity if m = 0, else NaN; what is too large becomes infinity
    "nan"       e and m all ones: NaN; no infinity, and what is too large becomes NaN
    "finite"    a number like the others; what is too large becomes the largest

Or `encode` saturates: then the largest it becomes in every format.

A code is the number's bits, sign first. Rounding is to the nearest level, and a tie goes to the
level with an even m; one beyond the largest counts as if the exponents went on.

Axes: any shape.

Source: Micikevicius et al., 2022, "FP8 Formats for Deep Learning", for FP8; Rouhani et al., 2023,
"OCP Microscaling Formats (MX) Specification, Version 1.0", for FP6 and FP4.
"""

import math
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from course_lib.models.finite import check_floats, is_fake
from course_lib.quantization.rows import blocks, check_codes

FLOAT32_BIAS = 127
TOPS = ("ieee", "nan", "finite")


@dataclass(frozen=True)
class Float:
    """A float format of at most 8 bits: E, M, the bias of the exponent, what the top codes mean.

    >>> Float(2, 1, 1, "finite").levels.tolist()
    [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0]
    """

    exponent_bits: int
    mantissa_bits: int
    bias: int
    top: str

    def __post_init__(self):
        if not (
            self.exponent_bits >= 1 and self.mantissa_bits >= 1 and self.bits <= 8
            and 0 <= self.bias <= 100 and self.top in TOPS
        ):  # fmt: skip
            raise ValueError(
                "a Float must have 1 + E + M ≤ 8 bits, E and M at least 1, a bias from 0 to 100, "
                f"and a top of {TOPS}; got {self}"
            )
        if self.top == "ieee" and self.exponent_bits < 2:
            raise ValueError(f"with E = 1 and top ieee no normal numbers are left; got {self}")

    @property
    def bits(self) -> int:
        return 1 + self.exponent_bits + self.mantissa_bits

    @property
    def levels(self) -> Tensor:
        """The finite numbers of sign +, ascending from 0, float32."""
        return torch.tensor(_magnitudes(self)[: self.highest_code + 1])

    @property
    def highest_code(self) -> int:
        """The code of the largest finite number."""
        cells = 2 ** (self.bits - 1)
        return cells - {"ieee": 2**self.mantissa_bits, "nan": 1, "finite": 0}[self.top] - 1

    @property
    def over_code(self) -> int:
        """The code of what is too large: infinity, NaN or the largest number."""
        return self.highest_code + (self.top != "finite")

    @property
    def highest(self) -> float:
        """The largest finite number."""
        return _magnitudes(self)[self.highest_code]


E4M3 = Float(4, 3, bias=7, top="nan")
E5M2 = Float(5, 2, bias=15, top="ieee")
E2M3 = Float(2, 3, bias=1, top="finite")
E3M2 = Float(3, 2, bias=3, top="finite")
E2M1 = Float(2, 1, bias=1, top="finite")


def encode(x: Tensor, format: Float, saturate: bool = False) -> Tensor:
    """The code of the level nearest to each number, ties to even.

    With e the exponent of |x|, at least 1 − bias, and q = round(|x| / 2^(e − M)), the code without
    its sign is (e + bias − 1) · 2ᴹ + q: if q is rounded up to 2^(M + 1), the sum carries over.

    Args:
        x: floats of any shape, taken as float32; infinities and NaN too.
        format: of the codes.
        saturate: what is too large, infinity too, becomes the largest number, whatever the top is.
            So PyTorch converts to E4M3, but not to E5M2; ml_dtypes never does.

    Returns:
        Codes in the shape of x, uint8.

    Raises:
        TypeError: x does not hold floats.
        ValueError: x is empty; NaN, in a format without.

    >>> encode(torch.tensor([-0.0, 0.25, 0.26, 5.0, 99.0]), E2M1).tolist()
    [8, 0, 1, 6, 7]
    """
    check_floats(x, "x")
    if format.top == "finite" and not is_fake(x) and x.isnan().any():
        raise ValueError(f"x must not be NaN, which {format} has no code for")
    codes = torch.empty(x.shape, dtype=torch.uint8, device=x.device)
    flat, out = x.reshape(1, -1), codes.view(1, -1)
    for i, j in blocks(flat):
        out[i, j] = _encode(flat[i, j].float().contiguous(), format, saturate)
    return codes


def _encode(x: Tensor, format: Float, saturate: bool) -> Tensor:
    """The codes of one block, int32, by the bits of its float32 numbers."""
    M, lowest = format.mantissa_bits, 1 - format.bias
    bits = x.view(torch.int32)
    sign = (bits >> 31) & 1
    size = x.abs().clamp_(max=2 * format.highest)
    exponent = ((size.view(torch.int32) >> 23) - FLOAT32_BIAS).clamp_(lowest, FLOAT32_BIAS)
    factor = ((M + FLOAT32_BIAS - exponent) << 23).view(torch.float32)  # 2^(M − e)
    codes = (size * factor).round_().to(torch.int32)
    codes += (exponent - lowest) << M
    over = format.highest_code if saturate else format.over_code
    codes.masked_fill_(codes > format.highest_code, over)
    if format.top != "finite":
        codes.masked_fill_(x.isnan(), 2 ** (format.bits - 1) - 1)
    return codes + (sign << (format.bits - 1))


def decode(codes: Tensor, format: Float) -> Tensor:
    """The number of each code, float32, in the shape of the codes.

    Raises:
        ValueError: a code of more bits than the format's.

    >>> decode(torch.tensor([0, 1, 7, 8 + 2], dtype=torch.uint8), E2M1).tolist()
    [0.0, 0.5, 6.0, -1.0]
    """
    check_codes(codes, 2**format.bits)
    values = torch.tensor(_magnitudes(format))
    table = torch.cat([values, -values]).to(codes.device)
    return table.index_select(0, codes.flatten().to(torch.int32)).view(codes.shape)


@cache
def _magnitudes(format: Float) -> tuple[float, ...]:
    """What the codes of sign + mean, in order: numbers, and infinity and NaN where there are."""
    M, values = format.mantissa_bits, []
    for code in range(2 ** (format.bits - 1)):
        field, m = divmod(code, 2**M)
        whole = (field > 0) + m / 2**M
        values.append(whole * 2.0 ** (max(field, 1) - format.bias))
    for code in range(format.highest_code + 1, len(values)):
        values[code] = math.nan
    if format.top == "ieee":
        values[format.highest_code + 1] = math.inf
    return tuple(values)
