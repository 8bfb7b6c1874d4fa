"""Exercise of 06_codebooks: a block of MXFP4. Axes: C numbers of the block."""

import math

import torch
from torch import Tensor

from course_lib.exercises.engine.seeded import Draw
from course_lib.exercises.engine.spec import Case, Exercise, Misconception, Property

LEVELS = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)  # of E2M1


def mx_block(values: Tensor) -> tuple[Tensor, int]:
    """One block as MXFP4: a multiple of a shared power of two for each number, and its exponent e.

    values: (C,), float, finite. e = ⌊log₂ max |x|⌋ − 2, cut to −127 … 127; −127 if all are zero.
    The multiples, in the dtype of values, are of ±{0, 0.5, 1, 1.5, 2, 3, 4, 6}: the nearest to
    x / 2ᵉ, the largest for what is beyond it. Halfway between two, the one that has an even
    mantissa: 0, 1, 2 or 4. No number on the way is rounded or too large, even for float16.
    """
    wide = values.double()
    largest = wide.abs().max().frexp()  # m · 2ᵖ, ½ ≤ m < 1
    exponent = min(max(int(largest.exponent) - 3, -127), 127) if largest.mantissa else -127
    size = (wide.abs() * 2.0**-exponent).clamp(max=6)
    steps = (size.frexp().exponent - 2).clamp(min=-1)  # ½ below 2, 1 below 4, then 2: as powers
    multiples = (size * 2.0**-steps).round() * 2.0**steps  # ties to even
    return (multiples * wide.sign()).to(values.dtype), exponent


def _blocks(seed: int) -> list[Case]:
    draw = Draw(seed)
    grid = torch.tensor(LEVELS)
    ties = (grid[1:] + grid[:-1]) / 2
    signs = draw.integers(0, 2, 7) * 2 - 1.0
    scale, bits = 2.0 ** draw.number(-20, 20), 2.0 ** draw.number(90, 100)
    near = torch.tensor(4 - 2.0**-22)  # the float32 just below 4
    wide = torch.tensor([4 - 2.0**-51, -1.2, 0.7], dtype=torch.float64)
    labelled = {
        "five numbers": torch.tensor([6.0, -1.0, 0.2, 0.0, 2.4]),
        "a block of 32": draw.normal(32),
        "weights": 0.02 * draw.normal(32),
        "the levels": grid[draw.order(8)] * scale,
        "halfway between levels": torch.cat([ties * signs, torch.tensor([4.0])]) * scale,
        "halfway, in blocks of a larger number": torch.cat([-ties, torch.tensor([7.5])]) * scale,
        "just beside halfway": torch.cat([ties * (1 - 1e-6), ties * (1 + 1e-6), ties]) * -scale,
        "the largest is a power of two": torch.cat([draw.uniform(7), torch.tensor([1.0])]) * scale,
        "the largest is just below a power of two": near * bits * torch.tensor([1.0, -0.3, 0.7]),
        "float64, just below a power of two": wide * bits,
        "the largest is cut": torch.tensor([7.99, -7.2, 6.5, 5.5, -3.3]) * scale,
        "one number": draw.normal(1),
        "all negative": -draw.uniform(32) - 0.1,
        "zeros and −0.0": torch.tensor([0.0, -0.0, 0.0]),
        "zeros beside a number": torch.tensor([0.0, -0.0, -3.0 - draw.number(0, 3), 0.0]),
        "one far number": torch.cat([0.01 * draw.normal(31), torch.tensor([-50.0])]),
        "very small": 1e-30 * draw.normal(32),
        "an exponent that is cut, subnormal": 2.0**-128 * draw.normal(16).double().float(),
        "very large": 1e37 * draw.normal(32).clamp(-3, 3),
        "float64": draw.normal(32).double(),
        "float64, nearer to halfway than float32 knows": torch.cat(
            [ties.double() - 1e-12, ties.double() + 1e-12, torch.tensor([6.0])]
        ),
        "float64, beyond the largest exponent": 1e45 * draw.normal(8).double(),
        "float64, below the smallest exponent": 1e-38 * draw.normal(8).double(),
        "float16": draw.normal(32).half(),
        "float16, the smallest that it knows": (draw.integers(1, 9, 12) * 2.0**-24).half(),
        "float16, near the largest that it knows": (6e4 * (draw.uniform(12) * 2 - 1)).half(),
        "bfloat16": draw.normal(32).bfloat16(),
    }
    return [Case(label, {"values": values}) for label, values in labelled.items()]


def _encoded(
    values: Tensor,
    top: int = 2,
    exponent: int | None = None,
    saturate: bool = True,
    half_up: bool = False,
) -> tuple[Tensor, int]:
    """Another exponent, or other roundings."""
    wide = values.double()
    largest = float(wide.abs().max())
    if exponent is None:
        exponent = math.frexp(largest)[1] - 1 - top if largest else -127
    exponent = min(max(exponent, -127), 127)
    size = wide.abs() / 2.0**exponent
    size = size.clamp(max=6) if saturate else size
    step = 2.0 ** (size.frexp().exponent - 2).clamp(min=-1)
    whole = (size / step + 0.5).floor() if half_up else (size / step).round()
    return (whole * step * wide.sign()).to(values.dtype), exponent


def _so_that_it_fits(values):
    """The smallest power of two with which nothing is cut."""
    largest = float(values.double().abs().max())
    if not largest:
        return _encoded(values)
    fraction, power = math.frexp(largest / 6)
    return _encoded(values, exponent=power - (fraction == 0.5))


def _even_steps(values):
    wide, (_, exponent) = values.double(), _encoded(values)
    multiples = (wide / 2.0**exponent * 2).round() / 2
    return multiples.clamp(-6, 6).to(values.dtype), exponent


def _numbers_back(values):
    multiples, exponent = _encoded(values)
    return (multiples.double() * 2.0**exponent).to(values.dtype), exponent


MX_BLOCK = Exercise(
    reference=mx_block,
    cases=_blocks,
    hints=(
        "Two steps. First the exponent, from the largest magnitude alone. Then every number over "
        "2ᵉ goes to the nearest of the eight levels, with its sign.",
        "⌊log₂ m⌋ goes wrong just below a power of two, where the logarithm is rounded up: "
        "torch.frexp gives the exponent exactly, m = f · 2ᵖ with f from 0.5 to 1, so ⌊log₂ m⌋ is "
        "p − 1. Its exponents are a tensor: int(…) for e.",
        "Between 0 and 2 levels are 0.5 apart, to 4 they are 1 apart, then 2. Cut |x| / 2ᵉ to 6, "
        "divide by that step, round, multiply. torch.round sends ties to the even number, and that "
        "is the even mantissa.",
    ),
    properties=(
        Property(
            "the multiples are levels of E2M1",
            lambda inputs, value: set(value[0].double().abs().tolist()) <= {*LEVELS},
        ),
    ),
    misconceptions=(
        Misconception(
            "an exponent so that nothing is cut",
            _so_that_it_fits,
            "you took the smallest power of two with which the largest number fits. The standard "
            "takes ⌊log₂ max |x|⌋ − 2: then what lies between 6 and 8 is cut to 6, and the other "
            "numbers keep finer levels.",
        ),
        Misconception(
            "the largest becomes 1",
            lambda values: _encoded(values, top=0),
            "you forgot the 2: with e = ⌊log₂ max |x|⌋ the largest becomes 1 to 2, and the levels "
            "2, 3, 4 and 6 are never used. 2 is the exponent of the largest level, 6 = 1.5 · 2².",
        ),
        Misconception(
            "not cut",
            lambda values: _encoded(values, saturate=False),
            "some multiples are 8. There is no such level: what is above 6 becomes 6.",
        ),
        Misconception(
            "ties away from zero",
            lambda values: _encoded(values, half_up=True),
            "halfway between two levels you took the larger one. Here the one with an even "
            "mantissa wins: 2.5 becomes 2, 5 becomes 4, 0.25 becomes 0.",
        ),
        Misconception(
            "even steps",
            _even_steps,
            "you rounded to halves everywhere. That is a grid of integers with another name. A "
            "float's levels grow apart: above 2 they are 1 apart, above 4 they are 2 apart.",
        ),
        Misconception(
            "the numbers themselves",
            _numbers_back,
            "you multiplied by 2ᵉ again. Asked for are the multiples that are stored, 4 bits each, "
            "and e beside them.",
        ),
    ),
)
