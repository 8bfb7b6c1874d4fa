"""A weight as floats of few bits, as the parts that stand in a file.

                codes       their scales                                       bits, elements of 4
    FewBits     n bits      scale, float16, one a row                          4 + 16/C
    MX          n bits      exponents, uint8, one for 32                       4.25
    NVFP4       4 bits      block_scales, E4M3 as uint8, one for 16, and
                            tensor_scale, float32                              4.5

FewBits and MX hold a fourth part, float: E, M, bias and the meaning of the top codes, 4 bytes. So a
file says itself what its codes are. FewBits divides the levels by their largest, so that the scale
is the largest |w| of the row: divided by 448, it would lose digits in float16.

Axes: O outputs, I inputs, R rows sharing a scale, C numbers in a row.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from course_lib.formats.codebook import stored_scale
from course_lib.formats.packing import pack, unpack
from course_lib.models.finite import check_finite
from course_lib.quantization.block_floats import (
    MX_BLOCK,
    NV_BLOCK,
    decode_mx,
    decode_nvfp4,
    encode_mx,
    encode_nvfp4,
)
from course_lib.quantization.codebook import absmax, check_scale
from course_lib.quantization.floats import E2M1, TOPS, Float, decode, encode
from course_lib.quantization.rows import to_rows


@dataclass(frozen=True)
class FewBits:
    """The scheme of a weight as floats times a scale.

    format: of the floats.
    granularity: which numbers share a scale, as in `rows.to_rows`.
    """

    format: Float
    granularity: str | int = "channel"


@dataclass(frozen=True)
class MX:
    """The scheme of a weight as blocks of 32 with a power of two; 32 must divide its inputs.

    element: the format of the floats.
    """

    element: Float = E2M1


@dataclass(frozen=True)
class NVFP4:
    """The scheme of a weight as blocks of 16 of E2M1; 16 must divide its inputs."""


def encode_few_bits(weight: Tensor, scheme: FewBits) -> dict[str, Tensor]:
    """The parts of a weight as floats: codes, scale, float.

    Raises:
        ValueError: a scale beyond float16; what `to_rows` and `absmax` refuse.

    >>> parts = encode_few_bits(torch.randn(4, 32), FewBits(E2M1))
    >>> {name: tuple(part.shape) for name, part in parts.items()}
    {'codes': (64,), 'scale': (4,), 'float': (4,)}
    """
    rows, format = to_rows(weight.detach(), scheme.granularity), scheme.format
    scale = stored_scale(absmax(rows))
    codes = encode(rows / scale.float()[:, None] * format.highest, format, saturate=True)
    return {
        "codes": pack(codes, format.bits),
        "scale": scale,
        "float": _description(format).to(weight.device),
    }


def decode_few_bits(parts: Mapping[str, Tensor], shape: torch.Size) -> Tensor:
    """The weight that `encode_few_bits`' parts stand for, in float32.

    Raises:
        ValueError: parts that no encoder here writes, as of a damaged file.

    >>> weight = torch.tensor([[6.0, -1.0, 0.5, 0.0]])
    >>> decode_few_bits(encode_few_bits(weight, FewBits(E2M1)), weight.shape)
    tensor([[ 6.0000, -1.0000,  0.5000,  0.0000]])
    """
    format, scale = _format(parts["float"]), parts["scale"].float().view(-1, 1)
    codes = _unpacked(parts["codes"], format.bits, len(scale), shape)
    check_scale(scale, codes)
    return _finite(decode(codes, format) * (scale / format.highest), shape)


def encode_mx_parts(weight: Tensor, scheme: MX = MX()) -> dict[str, Tensor]:
    """The parts of a weight in MX: codes, exponents, float.

    Raises:
        ValueError: 32 does not divide its inputs; what `encode_mx` refuses.

    >>> parts = encode_mx_parts(torch.randn(4, 64))
    >>> {name: tuple(part.shape) for name, part in parts.items()}
    {'codes': (128,), 'exponents': (8,), 'float': (4,)}
    """
    codes, exponents = encode_mx(to_rows(weight.detach(), MX_BLOCK), scheme.element)
    return {
        "codes": pack(codes, scheme.element.bits),
        "exponents": exponents,
        "float": _description(scheme.element).to(weight.device),
    }


def decode_mx_parts(parts: Mapping[str, Tensor], shape: torch.Size) -> Tensor:
    """The weight that `encode_mx_parts`' parts stand for, in float32.

    Raises:
        ValueError: parts that no encoder here writes, as of a damaged file.

    >>> weight = torch.randn(2, 32).sign()
    >>> torch.equal(decode_mx_parts(encode_mx_parts(weight), weight.shape), weight)
    True
    """
    element, exponents = _format(parts["float"]), parts["exponents"]
    codes = _unpacked(parts["codes"], element.bits, exponents.numel(), shape, MX_BLOCK)
    return _finite(decode_mx(codes, exponents, element), shape)


def encode_nvfp4_parts(weight: Tensor, scheme: NVFP4 = NVFP4()) -> dict[str, Tensor]:
    """The parts of a weight in NVFP4: codes, block_scales, tensor_scale.

    Raises:
        ValueError: 16 does not divide its inputs; what `encode_nvfp4` refuses.

    >>> parts = encode_nvfp4_parts(torch.randn(4, 64))
    >>> {name: tuple(part.shape) for name, part in parts.items()}
    {'codes': (128,), 'block_scales': (16,), 'tensor_scale': ()}
    """
    codes, scales, tensor_scale = encode_nvfp4(to_rows(weight.detach(), NV_BLOCK))
    packed = pack(codes, E2M1.bits)
    return {"codes": packed, "block_scales": scales, "tensor_scale": tensor_scale}


def decode_nvfp4_parts(parts: Mapping[str, Tensor], shape: torch.Size) -> Tensor:
    """The weight that `encode_nvfp4_parts`' parts stand for, in float32.

    Raises:
        ValueError: parts that no encoder here writes, as of a damaged file.

    >>> weight = torch.randn(2, 32).sign()
    >>> decode_nvfp4_parts(encode_nvfp4_parts(weight), weight.shape).allclose(weight)
    True
    """
    scales = parts["block_scales"]
    codes = _unpacked(parts["codes"], E2M1.bits, scales.numel(), shape, NV_BLOCK)
    return _finite(decode_nvfp4(codes, scales, parts["tensor_scale"]), shape)


def _description(format: Float) -> Tensor:
    """E, M, bias and the meaning of the top codes as bytes, (4,)."""
    numbers = format.exponent_bits, format.mantissa_bits, format.bias, TOPS.index(format.top)
    return torch.tensor(numbers, dtype=torch.uint8)


def _format(description: Tensor) -> Float:
    """The format that four bytes describe."""
    numbers = description.flatten().tolist()
    if len(numbers) != 4 or description.dtype != torch.uint8 or numbers[3] >= len(TOPS):
        raise ValueError(f"float must be 4 bytes: E, M, bias and 0, 1 or 2; got {numbers[:9]}")
    return Float(*numbers[:3], TOPS[numbers[3]])


def _unpacked(
    packed: Tensor, bits: int, rows: int, shape: torch.Size, block: int | None = None
) -> Tensor:
    """Codes (R, C) of a weight of this shape, C = block if that is given."""
    count = shape.numel()
    if rows < 1 or count % rows or block not in (None, count // rows):
        raise ValueError(
            f"scales must be one for each {block or 'row'} of {count} numbers; got {rows} scales"
        )
    return unpack(packed, bits, count).view(rows, -1)


def _finite(values: Tensor, shape: torch.Size) -> Tensor:
    """The values in the weight's shape, once none of them is NaN or infinite."""
    check_finite(values, "the decoded weight")
    return values.view(shape)
