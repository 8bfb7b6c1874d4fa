"""A weight as codes of a codebook, as the parts that stand in a file.

A weight whose rows get n-bit codes becomes

    codes     uint8      from 0 to k − 1, k ≤ 2ⁿ, n bits each (`packing`)
    levels    float16    k for each row: a codebook that was fitted to the weight
              float32    or k for all rows: a fixed table, of which 16 take 64 bytes

and, if the levels are in the unit of a scale,

    scale     float16    R numbers
or  scale_codes, scale_step, scale_mean                 the same by double quantization, at less

Codes are chosen among the levels that come back from the file, x̂ = s c_q. A codebook for each row
of few weights costs more than it gains: 16 levels of float16 for 256 weights are a bit a weight.

Axes: O outputs, I inputs, R rows sharing levels or a scale, C numbers in a row, k levels.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from course_lib.formats.packing import pack, unpack
from course_lib.models.finite import check_finite
from course_lib.quantization.codebook import (
    absmax,
    check_levels,
    check_scale,
    lookup,
    nearest_codes,
)
from course_lib.quantization.normal_float import (
    BLOCK,
    dequantize_scales,
    normal_float,
    quantize_scales,
)
from course_lib.quantization.optimal_kmeans import optimal_levels
from course_lib.quantization.rows import to_rows

SCALE_PARTS = ("scale_codes", "scale_step", "scale_mean")  # of double quantization, in its order


@dataclass(frozen=True)
class Codebook:
    """The scheme of a weight that gets levels of its own.

    bits: n, from 2 to 8; 2ⁿ levels.
    granularity: which numbers share a codebook, as in `rows.to_rows`.
    fit: (rows (R, C), k) -> levels (R, k), such as `optimal_levels` or `kmeans`.
    """

    bits: int
    granularity: str | int = "tensor"
    fit: Callable[[Tensor, int], Tensor] = optimal_levels


@dataclass(frozen=True)
class FixedLevels:
    """The scheme of a weight that gets a known table, times a scale for each row.

    levels: k from 3 to 256, ascending.
    granularity: which numbers share a scale, as in `rows.to_rows`.
    scale: rows (R, C) -> (R, 1), such as `absmax` or `rms`.
    double: whether the scales are quantized in turn.
    """

    levels: tuple[float, ...]
    granularity: str | int
    scale: Callable[[Tensor], Tensor] = absmax
    double: bool = False


NF4 = FixedLevels(tuple(normal_float()[0].tolist()), BLOCK, double=True)


def encode_codebook(weight: Tensor, scheme: Codebook) -> dict[str, Tensor]:
    """The parts that stand for a weight in a file: codes and levels.

    Raises:
        ValueError: levels beyond float16; what `to_rows`, `fit` and `nearest_codes` refuse.

    >>> parts = encode_codebook(torch.randn(8, 32), Codebook(bits=3))
    >>> {name: tuple(part.shape) for name, part in parts.items()}
    {'codes': (96,), 'levels': (1, 8)}
    """
    rows = to_rows(weight.detach(), scheme.granularity)
    levels = scheme.fit(rows, 2**scheme.bits).to(torch.float16)
    codes = nearest_codes(rows, levels.float())
    return codebook_parts(codes, levels, scheme.bits)


def encode_fixed(weight: Tensor, scheme: FixedLevels) -> dict[str, Tensor]:
    """The parts that stand for a weight in a file: codes, levels and scale.

    Raises:
        ValueError: a scale beyond float16; what `to_rows`, `scale` and `nearest_codes` refuse.

    >>> parts = encode_fixed(torch.randn(8, 64), NF4)
    >>> {name: tuple(part.shape) for name, part in parts.items() if name != "levels"}
    {'codes': (256,), 'scale_codes': (8,), 'scale_step': (1,), 'scale_mean': ()}
    """
    rows = to_rows(weight.detach(), scheme.granularity)
    levels = torch.tensor([scheme.levels]).to(weight.device)
    scale = scheme.scale(rows)
    if scheme.double:
        parts = dict(zip(SCALE_PARTS, quantize_scales(scale), strict=True))
    else:
        parts = {"scale": stored_scale(scale)}
    codes = nearest_codes(rows, levels, _scale(parts))
    bits = max(2, (len(scheme.levels) - 1).bit_length())
    return {**codebook_parts(codes, levels, bits), **parts}


def stored_scale(scale: Tensor) -> Tensor:
    """Scales (R, 1) as a file holds them, (R,), float16, above 0.

    >>> stored_scale(torch.tensor([[1e-30], [0.5]])).tolist()
    [5.960464477539063e-08, 0.5]
    """
    stored = scale.flatten().to(torch.float16).clamp(min=2**-24)
    check_finite(stored, "scale, in float16,")
    return stored


def codebook_parts(codes: Tensor, levels: Tensor, bits: int) -> dict[str, Tensor]:
    """The parts of codes that are chosen already, as after the retraining of a codebook.

    Args:
        codes: (R, C), from 0 to k − 1, in the order of the weight.
        levels: (R, k) or (1, k), ascending, stored in the dtype that they have.
        bits: n of a code, from 2 to 8.

    Raises:
        ValueError: a code or a level too many; levels that fall or are not finite.

    >>> parts = codebook_parts(torch.tensor([[0, 2]]), torch.tensor([[-1.0, 0.0, 1.0]]), bits=2)
    >>> decode_codebook(parts, torch.Size((2, 1))).tolist()
    [[-1.0], [1.0]]
    """
    check_levels(levels, codes)
    lookup(codes, levels)  # says what does not fit
    if levels.shape[1] > 2**bits:
        raise ValueError(f"levels must be at most 2^{bits} a row; got {levels.shape[1]}")
    return {"codes": pack(codes, bits), "levels": levels}


def decode_codebook(parts: Mapping[str, Tensor], shape: torch.Size) -> Tensor:
    """The weight that the parts stand for, in float32: x̂ = s c_q.

    Raises:
        ValueError: parts that no encoder here writes, as of a damaged file.

    >>> weight = torch.tensor([[-1.0, 0.0, 1.0, 1.0]])
    >>> decode_codebook(encode_codebook(weight, Codebook(bits=2)), weight.shape)
    tensor([[-1.,  0.,  1.,  1.]])
    """
    levels = parts["levels"]
    if levels.dim() != 2 or not levels.numel():
        raise ValueError(f"levels must have shape (R, k); got {tuple(levels.shape)}")
    scale = _scale(parts)
    R = len(levels) if scale is None else len(scale)
    if not R or shape.numel() % R or not shape.numel():
        raise ValueError(f"{R} rows must fill a weight of {shape.numel()} numbers evenly")
    bits = len(parts["codes"]) // -(-shape.numel() // 8)  # eight codes fill n bytes
    codes = unpack(parts["codes"], bits, shape.numel()).view(R, -1)  # (N,) -> (R, C)
    check_levels(levels, codes)
    if scale is not None:
        check_scale(scale, codes)
    return lookup(codes, levels.float(), scale).view(shape)


def _scale(parts: Mapping[str, Tensor]) -> Tensor | None:
    """The scales (R, 1) that the parts hold, if any, float32 and above 0."""
    if "scale" in parts:
        return parts["scale"].float().view(-1, 1)
    if "scale_codes" not in parts:
        return None
    tiny = torch.finfo(torch.float32).tiny
    return dequantize_scales(*(parts[name] for name in SCALE_PARTS)).clamp(min=tiny)
