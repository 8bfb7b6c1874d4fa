"""Exercises of 05_linear_quantization: codes in bytes. N is any count."""

import torch
from torch import Tensor

from course_lib.exercises.engine.seeded import Draw
from course_lib.exercises.engine.spec import Case, Exercise, Misconception

# ---------------------------------------------------------------- pack_int4, unpack_int4


def pack_int4(codes: Tensor) -> Tensor:
    """Codes 0 … 15 (N,), uint8, two to a byte, the first in the low four bits; odd ends get a 0."""
    if len(codes) % 2:
        codes = torch.cat([codes, codes.new_zeros(1)])
    return codes[0::2] | (codes[1::2] << 4)


def unpack_int4(packed: Tensor, count: int) -> Tensor:
    """The `count` uint8 codes 0 … 15 that pack_int4 put into bytes; zeros at the end count, too."""
    pairs = torch.stack([packed & 15, packed >> 4], dim=1)  # (N/2, 2)
    return pairs.flatten()[:count]


def _codes(seed: int) -> dict[str, Tensor]:
    draw = Draw(seed)

    def some(count: int, *last: int) -> Tensor:
        """Random codes that end with the given ones."""
        first = draw.integers(0, 16, count - len(last))
        return torch.cat([first, torch.tensor(last, dtype=torch.long)]).byte()

    half = draw.number(8, 20)
    return {
        "eight codes": some(8),
        "seven codes": some(7, 15),
        "one code": some(1),
        "no code": some(0),
        "the largest codes": some(5, 15, 15, 15, 15),
        "an even number, the last two 0": some(2 * half, 9, 0, 0),
        "an odd number, the last 0": some(2 * half + 1, 3, 0),
        "all zero": torch.zeros(draw.number(5, 9), dtype=torch.uint8),
        "many codes": some(200 + draw.number(0, 50)),
    }


PACK_INT4 = Exercise(
    reference=pack_int4,
    cases=lambda seed: [Case(label, {"codes": codes}) for label, codes in _codes(seed).items()],
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
        Case(label, {"packed": pack_int4(codes), "count": len(codes)})
        for label, codes in _codes(seed).items()
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
