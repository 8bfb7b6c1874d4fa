"""Ternary weights, five in a byte: 1.6 bits a weight.

Five digits of three values have 3⁵ = 243 combinations, and a byte has 256: so a byte holds five
trits, 1.6 bits each, where log₂ 3 = 1.585 would be the least. A weight in R rows becomes

    trits     uint8      ⌈N/5⌉ bytes, (t₀ + 1) + 3 (t₁ + 1) + … + 81 (t₄ + 1)
    scale     float16    R numbers, α

The codes are cut into five runs of equal length which lie over each other, as in `packing`.

Axes: O outputs, I inputs, R rows sharing one α, N codes.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from course_lib.formats.codebook import stored_scale
from course_lib.models.finite import is_fake
from course_lib.quantization.codebook import check_scale
from course_lib.quantization.rows import to_rows
from course_lib.quantization.ternary import Signs, best_signs

IN_A_BYTE = 5


@dataclass(frozen=True)
class Ternary:
    """The scheme of a weight that becomes α t.

    granularity: which numbers share α, as in `rows.to_rows`.
    fit: rows (R, C) -> t and α; one of `quantization.ternary`.
    """

    granularity: str | int = "channel"
    fit: Callable[[Tensor], Signs] = best_signs


@dataclass(frozen=True, eq=False)
class Trits:
    """A weight that is ternary already, as after training.

    codes: t, −1, 0 or 1 for each weight, in its shape, (O, I).
    scale: α, (R, 1), float16 numbers above 0.
    """

    codes: Tensor
    scale: Tensor

    @property
    def weight(self) -> Tensor:
        """The weight that comes back from a file, (O, I)."""
        rows = self.codes.reshape(len(self.scale), -1)  # (O, I) -> (R, C)
        return (rows * self.scale).view(self.codes.shape)


def pack_trits(codes: Tensor) -> Tensor:
    """Codes −1, 0, 1 of any shape and number as bytes, (⌈N/5⌉,); the last is filled up with −1.

    Raises:
        ValueError: no codes, or other codes.

    >>> pack_trits(torch.tensor([1, 0, 0, 0, -1])).tolist()  # 2 + 3 + 9 + 27 + 0
    [41]
    """
    if codes.is_floating_point() or codes.is_complex() or codes.numel() == 0:
        raise ValueError(f"codes must be integers; got {codes.numel()} of {codes.dtype}")
    if not is_fake(codes) and not (codes.amin() >= -1 and codes.amax() <= 1):
        raise ValueError(f"codes must be −1, 0 or 1; got {codes.amin()} to {codes.amax()}")
    length = -(-codes.numel() // IN_A_BYTE)  # ⌈N/5⌉
    digits = (codes.flatten().to(torch.int8) + 1).to(torch.uint8)
    digits = torch.nn.functional.pad(digits, (0, IN_A_BYTE * length - len(digits)))
    packed = torch.zeros(length, dtype=torch.uint8, device=codes.device)
    for run in digits.view(IN_A_BYTE, length).flip(0):  # (N,) -> (5, N/5)
        packed.mul_(3).add_(run)
    return packed


def unpack_trits(packed: Tensor, count: int) -> Tensor:
    """The first `count` codes of `pack_trits`' bytes: (count,), int8.

    Raises:
        ValueError: packed is not the ⌈count/5⌉ bytes of so many codes; a byte above 242.

    >>> unpack_trits(torch.tensor([41], dtype=torch.uint8), count=5).tolist()
    [1, 0, 0, 0, -1]
    """
    length = -(-count // IN_A_BYTE)
    if packed.shape != (length,) or packed.dtype != torch.uint8 or count < 1:
        raise ValueError(
            f"packed must be uint8 of shape ({length},) for {count} codes, at least 1; "
            f"got {tuple(packed.shape)}, {packed.dtype}"
        )
    if not is_fake(packed) and packed.amax() >= 3**IN_A_BYTE:
        raise ValueError(f"a byte of five trits must be from 0 to 242; got {packed.amax()}")
    powers = torch.tensor([[3**k] for k in range(IN_A_BYTE)], dtype=torch.uint8)
    digits = packed.div(powers.to(packed.device), rounding_mode="floor").remainder_(3)
    return digits.flatten()[:count].to(torch.int8) - 1  # (5, N/5) -> (N,)


def encode_ternary(weight: Tensor, scheme: Ternary) -> dict[str, Tensor]:
    """The parts that stand for a weight in a file: trits and scale.

    Raises:
        ValueError: α beyond float16; what `to_rows` and the fit refuse.

    >>> parts = encode_ternary(torch.randn(4, 25), Ternary())
    >>> {name: tuple(part.shape) for name, part in parts.items()}
    {'trits': (20,), 'scale': (4,)}
    """
    codes, alpha = scheme.fit(to_rows(weight.detach(), scheme.granularity))
    return {"trits": pack_trits(codes), "scale": stored_scale(alpha)}


def encode_trits(weight: Tensor, trits: Trits) -> dict[str, Tensor]:
    """The same of codes that are chosen already; `decode_trits` gives back just `trits.weight`.

    Raises:
        ValueError: the weight has another shape than the codes; R rows that do not divide them; a
            code that is none; a scale that is not a float16 number above 0.
    """
    rows, scale = len(trits.scale), trits.scale.to(torch.float16)
    if trits.codes.shape != weight.shape or trits.codes.numel() % rows:
        raise ValueError(
            f"codes must have the weight's shape {tuple(weight.shape)} and fill {rows} rows; "
            f"got {tuple(trits.codes.shape)}"
        )
    check_scale(trits.scale, trits.codes.reshape(rows, -1))
    if not is_fake(scale) and not scale.to(trits.scale.dtype).equal(trits.scale):
        raise ValueError("scale must hold float16 numbers; round it before the codes are chosen")
    return {"trits": pack_trits(trits.codes), "scale": scale.flatten()}


def decode_trits(parts: Mapping[str, Tensor], shape: torch.Size) -> Tensor:
    """The weight that the parts stand for, in float32: α t.

    Raises:
        ValueError: parts that no encoder here writes, as of a damaged file.

    >>> weight = torch.tensor([[1.5, 0.0, -1.5, 0.0]])
    >>> torch.equal(decode_trits(encode_ternary(weight, Ternary()), weight.shape), weight)
    True
    """
    count, scale = shape.numel(), parts["scale"].to(torch.float32).view(-1, 1)
    if len(scale) < 1 or count % len(scale):
        raise ValueError(f"{len(scale)} rows must fill a weight of {count} numbers evenly")
    codes = unpack_trits(parts["trits"], count).view(len(scale), -1)
    check_scale(scale, codes)
    return Trits(codes.view(shape), scale).weight
