"""Exercises of 06_codebooks: the levels of a normal float, and rounding to floats of few bits."""

import torch
from torch import Tensor

from course_lib.exercises.engine.seeded import Draw
from course_lib.exercises.engine.spec import Case, Exercise, Misconception, Property, labelled_cases

# ------------------------------------------------------------------- normal_float_levels


def normal_float_levels(bits: int, last: float) -> Tensor:
    """The 2**bits levels of a normal float, ascending from −1 to 1, float32.

    NF4 is bits = 4, last = 0.9677083. With n = 2**(bits − 1) and Φ⁻¹ the quantiles of the normal
    density (torch.special.ndtri): n levels above 0 are Φ⁻¹(p), p in n even steps from ½ to `last`,
    without ½. n − 1 levels below 0 are −Φ⁻¹(p), p in n − 1 even steps from ½ to `last`, without ½.
    One level is 0. All are divided by the largest. bits from 2 to 8, ½ < last < 1; in float64,
    rounded to float32 at the end.
    """
    half = 2 ** (bits - 1)
    above = torch.linspace(0.5, last, half + 1, dtype=torch.float64)  # the first is ½: the level 0
    below = torch.linspace(last, 0.5, half, dtype=torch.float64)[:-1]
    levels = torch.cat([-torch.special.ndtri(below), torch.special.ndtri(above)])
    return (levels / levels[-1]).float()


def _tables(seed: int) -> list[Case]:
    draw = Draw(seed)

    def last() -> float:
        return 0.9 + 0.09 * float(draw.uniform(1))

    labelled = {
        "NF4": (4, 0.9677083),
        "four bits, another last": (4, last()),
        "two bits": (2, last()),
        "three bits": (3, last()),
        "five bits": (5, last()),
        "eight bits": (8, last()),
        "last near ½": (4, 0.5 + 1e-6 * (1 + last())),
        "last near 1": (6, 1 - 1e-9 * last()),
    }
    return labelled_cases(("bits", "last"), labelled)


def _quantiles(last: float, count: int) -> Tensor:
    """Φ⁻¹ at `count` even steps from ½ to last, without ½."""
    return torch.special.ndtri(torch.linspace(0.5, last, count + 1, dtype=torch.float64)[1:])


def _table(below: Tensor, above: Tensor) -> Tensor:
    levels = torch.cat([-below.flip(0), torch.zeros(1, dtype=torch.float64), above])
    return (levels / levels[-1]).float()


def _no_zero(bits, last):
    p = torch.linspace(1 - last, last, 2**bits, dtype=torch.float64)
    levels = torch.special.ndtri(p)
    return (levels / levels[-1]).float()


def _not_divided(bits, last):
    above = _quantiles(last, 2 ** (bits - 1))
    return (normal_float_levels(bits, last).double() * above[-1]).float()


def _same_steps(bits, last):
    above = _quantiles(last, 2 ** (bits - 1))
    return _table(above[:-1], above)


def _too_few(bits, last):
    half = _quantiles(last, 2 ** (bits - 1) - 1)
    return _table(half, half)


NORMAL_FLOAT_LEVELS = Exercise(
    reference=normal_float_levels,
    cases=_tables,
    hints=(
        "Build three parts, and join them: the levels below 0, the 0, the levels above 0.",
        "torch.linspace(0.5, last, n + 1, dtype=torch.float64) makes n even steps; it begins with "
        "½, and Φ⁻¹(½) = 0.",
        "For the levels below, torch.linspace(0.5, last, n, …) makes n − 1 steps. Leave its ½ out, "
        "take −ndtri, and flip, so that they ascend. Divide by the last of all.",
    ),
    properties=(
        Property(
            "there are 2**bits levels from −1 to 1, one of them 0",
            lambda inputs, levels: (
                levels.shape == (2 ** inputs["bits"],)
                and [levels[0], levels[-1], (levels == 0).sum()] == [-1, 1, 1]
            ),
        ),
    ),
    misconceptions=(
        Misconception(
            "no level is 0",
            _no_zero,
            "your probabilities go in even steps from 1 − last to last. That is symmetric, and so "
            "no level is 0: every pruned weight, and every padding, would be off.",
        ),
        Misconception(
            "not divided by the largest",
            _not_divided,
            "these are the quantiles themselves. The weights of a block are divided by their "
            "largest magnitude, so the levels have to reach from −1 to 1, too.",
        ),
        Misconception(
            "even levels",
            lambda bits, last: torch.linspace(-1, 1, 2**bits),
            "these levels are even. It is the probabilities that go in even steps; the levels are "
            "their quantiles.",
        ),
        Misconception(
            "more below than above",
            lambda bits, last: -normal_float_levels(bits, last).flip(0),
            "you have n levels below 0 and n − 1 above. It is the other way round.",
        ),
        Misconception(
            "the same steps on both sides",
            _same_steps,
            "both sides have the same steps, and the last one below is left out: −1 is missing, so "
            "a block whose largest magnitude is negative has no level for it. Below 0, n − 1 "
            "larger steps lead to `last`.",
        ),
        Misconception(
            "one level too few",
            _too_few,
            "n − 1 levels on each side, and 0: that is one fewer than bits can name. The side "
            "above 0 has n.",
        ),
    ),
)

# ------------------------------------------------------------------------ round_to_float


def round_to_float(weights: Tensor, mantissa_bits: int, bias: int, highest: float) -> Tensor:
    """Each weight, rounded to the nearest number that a small float can hold; in weights' dtype.

    Such a float is ±m · 2^(e − M): M = mantissa_bits, e whole and at least 1 − bias, m whole and
    below 2^(M + 1), and at most `highest`, which is one of these numbers. e is the exponent of the
    weight, 2^e ≤ |w| < 2^(e + 1), or 1 − bias where that is larger. A tie goes to the even m. What
    is beyond ±highest becomes ±highest, infinity too; NaN stays NaN. Every sign stays, that of −0.0
    too, and of what becomes zero. Weights: any shape, also none, float16 to float64; M from 1 to
    10, bias from 0 to 15; reckon in float64.
    """
    size = weights.double().abs().clamp(max=highest)
    exponent = (torch.frexp(size).exponent - 1).clamp(min=1 - bias)
    step = 2.0 ** (exponent - mantissa_bits)
    return ((size / step).round() * step).copysign(weights).to(weights.dtype)


def _quarters(draw: Draw, bias: int, mantissa_bits: int, top: int) -> Tensor:
    """Quarters of the first steps, of each sign: among them are all ties of small numbers."""
    quarters = torch.arange(-top, top + 1)[draw.order(2 * top + 1)]
    return quarters * 2.0 ** (1 - bias - mantissa_bits - 2)


def _wide(draw: Draw, count: int, low: int, high: int) -> Tensor:
    """Numbers of many sizes, from 2^low to 2^high."""
    return draw.normal(count) * 2.0 ** draw.integers(low, high, count)


def _formats(seed: int) -> list[Case]:
    draw = Draw(seed)
    e2m1, e3m2, e4m3, e5m2 = (1, 1, 6.0), (2, 3, 28.0), (3, 7, 448.0), (2, 15, 57344.0)
    ends = torch.tensor([448.0, 449.0, 463.9, 464.0, 465.0, 480.0, 1e9, 3e38, torch.inf])
    odd = torch.tensor([torch.nan, 0.0, -0.0, 1e-45, -1e-45, 1e-30, -1e-30, -1e-3, -0.2])
    ties = (draw.integers(8, 16, 40) + 0.5) * 2.0 ** draw.integers(-9, 5, 40)
    beside = ties.double() * (1 + 1e-12 * (2 * draw.integers(0, 2, 40).double() - 1))
    halves = draw.integers(-31744, 31744, 60).to(torch.int16).view(torch.float16)
    below = (2 - 2.0**-10) * 2.0 ** draw.order(29)[:24].sub(14)
    M, bias, top = draw.number(3, 7), draw.number(1, 12), draw.number(3, 9)
    own = (M, bias, (2 ** (M + 1) - 1 - draw.number(0, 5)) * 2.0 ** (top - M))
    labelled = {
        "E2M1, all ties": (_quarters(draw, 1, 1, 28), *e2m1),
        "E2M1": (3 * draw.normal(30), *e2m1),
        "E3M2, a matrix": (6 * draw.normal(4, 6), *e3m2),
        "E4M3, of all sizes": (_wide(draw, 60, -12, 9), *e4m3),
        "E4M3, small numbers": (_quarters(draw, 7, 3, 64), *e4m3),
        "E4M3, beyond the largest": (torch.cat([ends, -ends])[draw.order(18)], *e4m3),
        "E4M3, NaN, zeros and almost zeros": (odd[draw.order(9)], *e4m3),
        "E4M3, float64 next to ties": (beside, *e4m3),
        "E5M2, float16 of all kinds": (halves, *e5m2),
        "powers of two": (2.0 ** draw.integers(-20, 18, 30), *e5m2),
        "float16's own numbers": (_wide(draw, 60, -28, 17), 10, 15, 65504.0),
        "float16's own numbers, just below powers of two": (below.half(), 10, 15, 65504.0),
        "another format": (_wide(draw, 80, -bias - M, top + 2), *own),
        "another format, small numbers": (_quarters(draw, bias, M, 50), *own),
        "a bias of 0": (_wide(draw, 40, -4, 7), 2, 0, 112.0),
        "one weight": (draw.normal(1), *e3m2),
        "one weight, shape ()": (draw.normal(1)[0], *e3m2),
        "no weights": (draw.normal(0, 3), *e3m2),
        "float64, beyond float32": (_wide(draw, 12, -2, 2).double() * 1e200, *e4m3),
        "float64, below float32": (_wide(draw, 12, -2, 2).double() * 1e-200, *e4m3),
    }
    return labelled_cases(("weights", "mantissa_bits", "bias", "highest"), labelled)


def _rounded(weights, M, bias, highest, to_whole=torch.round, exponent=None):
    """The reference with another rounding, or with another exponent for the step."""
    size = weights.double().abs().clamp(max=highest)
    own = torch.frexp(size).exponent - 1
    chosen = own.clamp(min=1 - bias) if exponent is None else exponent(own)
    step = torch.ldexp(torch.ones_like(size), chosen - M)
    return (to_whole(size / step) * step).copysign(weights).to(weights.dtype)


def _flushed(weights, M, bias, highest):
    normal = weights.double().abs() >= 2.0 ** (1 - bias)
    rounded = round_to_float(weights, M, bias, highest)
    return torch.where(normal | weights.isnan(), rounded, 0 * weights.sign())


def _infinite(weights, M, bias, highest):
    rounded = round_to_float(weights, M, bias, highest)
    beyond = weights.double().abs() > highest
    return torch.where(beyond, torch.inf * weights.sign(), rounded)


ROUND_TO_FLOAT = Exercise(
    reference=round_to_float,
    cases=_formats,
    absolute_tolerance=0.0,
    hints=(
        "From 2^e to 2^(e + 1) the numbers are even. What is their step there? Divide by it, "
        "round, multiply: that is chapter 05's rounding, with a step that depends on the weight.",
        "torch.frexp(size).exponent − 1 is e: frexp writes a number as f · 2^x, f from ½ to 1. "
        "Below 2^(1 − bias) the step becomes no finer: clamp e. The step is 2^(e − M).",
        "Work with the magnitude in float64, and clamp it to `highest` first. torch.round rounds "
        "ties to even. copysign brings the sign back, even to zeros.",
    ),
    properties=(
        Property(
            "every sign stays, also a zero's",
            lambda inputs, value: bool(
                (value.signbit() == inputs["weights"].signbit())[~value.isnan()].all()
            ),
        ),
    ),
    misconceptions=(
        Misconception(
            "ties away from zero",
            lambda *inputs: _rounded(*inputs, to_whole=lambda m: (m + 0.5).floor()),
            "only ties are wrong: you rounded them up, away from zero. A tie goes to the even m. "
            "So as many ties go up as down, and their errors cancel.",
        ),
        Misconception(
            "cut off",
            lambda *inputs: _rounded(*inputs, to_whole=torch.floor),
            "the digits that do not fit were cut off. Every weight came nearer to zero; round to "
            "the nearest instead.",
        ),
        Misconception(
            "exponents without end",
            lambda *inputs: _rounded(*inputs, exponent=lambda own: own),
            "your small weights are too fine. The exponent ends at 1 − bias: below 2^(1 − bias) "
            "the step stays the same, down to zero.",
        ),
        Misconception(
            "small numbers become 0",
            _flushed,
            "all weights below 2^(1 − bias) became 0. There are numbers there, the subnormal "
            "ones: m below 2^M, with the exponent 1 − bias.",
        ),
        Misconception(
            "infinity",
            _infinite,
            "what is beyond `highest` became infinite. Here it becomes the highest number: one "
            "large weight should not spoil a whole network.",
        ),
        Misconception(
            "one step for all",
            lambda w, M, bias, top: _rounded(
                w, M, bias, top, exponent=lambda own: 1 - bias + 0 * own
            ),
            "you used the finest step, 2^(1 − bias − M), for all weights. That is an even grid, "
            "with far more numbers than the bits can name. The step doubles with each power of 2.",
        ),
    ),
)
