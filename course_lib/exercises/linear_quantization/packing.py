"""Exercises of 05_linear_quantization: codes in bytes. N is any count."""

import torch
from torch import Tensor

from course_lib.exercises.engine.spec import Case, Exercise, Misconception

# ---------------------------------------------------------------- pack_int4, unpack_int4


def pack_int4(codes: Tensor) -> Tensor:
    """Codes 0 … 15 (N,) two to a byte, the first in the low four bits; an odd end gets a 0."""
    if len(codes) % 2:
        codes = torch.cat([codes, codes.new_zeros(1)])
    return codes[0::2] | (codes[1::2] << 4)


def unpack_int4(packed: Tensor, count: int) -> Tensor:
    """The `count` codes 0 … 15 that pack_int4 put into bytes."""
    pairs = torch.stack([packed & 15, packed >> 4], dim=1)  # (N/2, 2)
    return pairs.flatten()[:count]


def _nibbles() -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randint(16, (n,), dtype=torch.uint8, generator=generator) for n in (8, 7, 1, 30)]


PACK_INT4 = Exercise(
    reference=pack_int4,
    cases=lambda seed: [Case(f"{len(codes)} codes", {"codes": codes}) for codes in _nibbles()],
    hints=(
        "codes[0::2] are the first of each pair, codes[1::2] the second.",
        "Shift the second by four bits and put both together: first | (second << 4).",
        "With an odd count the last byte holds one code; append a zero first.",
    ),
    misconceptions=(
        Misconception(
            "high bits first",
            lambda codes: pack_int4(codes) >> 4 | pack_int4(codes) << 4,
            "the two codes of a byte are swapped: the first belongs into the low four bits.",
        ),
        Misconception(
            "first half with second half",
            lambda codes: (
                (padded := torch.cat([codes, codes.new_zeros(len(codes) % 2)])).view(2, -1)[0]
                | padded.view(2, -1)[1] << 4
            ),
            "you joined the first half of the codes with the second half. Neighbours share a byte.",
        ),
        Misconception(
            "last code lost",
            lambda codes: codes[0::2][: len(codes) // 2] | (codes[1::2] << 4),
            "with an odd count the last code is gone. Fill up with a zero.",
        ),
        Misconception(
            "three bits",
            lambda codes: pack_int4(codes) & 15 | ((pack_int4(codes) >> 4) << 3),
            "the second code was shifted by three bits, so it overlaps the first. A 4-bit code "
            "takes four.",
        ),
        Misconception(
            "not packed",
            lambda codes: codes.clone(),
            "each code still takes a byte of its own. The file would be as large as with int8.",
        ),
    ),
)

UNPACK_INT4 = Exercise(
    reference=unpack_int4,
    cases=lambda seed: [
        Case(f"{len(c)} codes", {"packed": pack_int4(c), "count": len(c)}) for c in _nibbles()
    ],
    hints=(
        "packed & 15 keeps the low four bits, packed >> 4 the high four.",
        "Low and high take turns: stack them as columns of (N/2, 2), then flatten.",
    ),
    misconceptions=(
        Misconception(
            "swapped",
            lambda packed, count: torch.stack([packed >> 4, packed & 15], 1).flatten()[:count],
            "high and low four bits are swapped.",
        ),
        Misconception(
            "all low, then all high",
            lambda packed, count: torch.cat([packed & 15, packed >> 4])[:count],
            "first came all the low halves and then all the high ones. They take turns.",
        ),
        Misconception(
            "filling kept",
            lambda packed, count: torch.stack([packed & 15, packed >> 4], 1).flatten(),
            "the filling of an odd end was kept: `count` says how many codes there are.",
        ),
        Misconception(
            "not shifted down",
            lambda packed, count: torch.stack([packed & 15, packed & 240], 1).flatten()[:count],
            "the high four bits were cut out but not shifted down: 3 became 48.",
        ),
    ),
)
