"""Exercise of 07_quantization_aware: rounding that a gradient passes.

Axes: O rows that have one step each, I numbers in a row.
"""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from course_lib.exercises.engine.seeded import Draw
from course_lib.exercises.engine.spec import Case, Exercise, Misconception, Property, labelled_cases
from course_lib.exercises.linear_quantization.formula import near_border

ROUNDINGS = 4  # of the dtype, that a level may be off by: x̂ + x − x is rounded twice
NAMES = ("x", "step", "lowest", "highest")


def straight_through(x: Tensor, step: Tensor, lowest: int, highest: int) -> Tensor:
    """x on its nearest levels, s · clamp(round(x / s), lowest, highest), with a gradient for x.

    x is float, of any shape; step s > 0, in its dtype, is one number, (), or one for each row of x
    (O, I), as (O, 1). Ties go to the even code; lowest ≤ 0 ≤ highest. Backward, ∂x̂/∂x is 1 where
    round(x / s) needed no clipping, 0 elsewhere: half a step beyond the last level still learns.
    No gradient reaches s. ±∞ are clipped like all else; NaN stays NaN, with gradient 0. The result
    is in the shape and dtype of x; x and s stay as they are.
    """
    codes = (x / step).round()
    clipped = codes.clamp(lowest, highest)
    through = torch.where(codes == clipped, x - x.detach(), 0.0)  # 0, but not its derivative
    return (clipped * step).detach() + through


def places(draw: Draw, lowest: int, highest: int, *shape: int, beyond: int = 3) -> Tensor:
    """Positions in steps, up to 0.4 beside codes that go beyond both ends: none is near a tie."""
    codes = draw.integers(lowest - beyond, highest + beyond + 1, *shape)
    return codes + 0.8 * draw.uniform(1, *shape)[0] - 0.4


def _numbers(seed: int) -> list[Case]:
    draw = Draw(seed)
    size = 2.0 ** draw.number(-3, 4)

    def on(lowest: int, highest: int, *shape: int, step: Tensor | None = None, beyond: int = 3):
        step = 0.1 + draw.uniform(1)[0] if step is None else step
        return step * places(draw, lowest, highest, *shape, beyond=beyond), step, lowest, highest

    rows, view, zeros = 0.05 + draw.uniform(5, 1), on(-4, 3, 6, 4), on(-2, 2, 7)
    uneven = 10.0 ** torch.arange(-20, 30, 10.0)[:, None]
    labelled = {
        "by hand": _exactly(size, -2, 1, -2.75, -1.25, -0.25, 0.25, 0.75, 1.25, 1.75, 9.0),
        "four bits": on(-8, 7, 6, 9),
        "a step for each row": on(-4, 4, 5, 7, step=rows),
        "steps of very different size": on(-4, 3, 5, 6, step=uneven),
        "as many rows as columns": on(-3, 3, 5, 5, step=rows.flip(0)),
        "three axes": on(-7, 7, 2, 3, 4),
        "one number, no axis": on(-4, 3, beyond=0),
        "no numbers": (torch.zeros(0, 5), torch.tensor(size), -4, 3),
        **_between_codes(size),
        "codes from 0 on": on(0, 15, 4, 8),
        "no code above 0": on(-15, 0, 20),
        "eight bits": on(-128, 127, 60, beyond=20),
        "three levels": on(-1, 1, 4, 6, beyond=1),
        "zeros": (torch.zeros(7), *zeros[1:]),
        "infinite, and no number": _exactly(
            size, -4, 3, -torch.inf, 1.25, torch.inf, torch.nan, -1.75, 0
        ),
        "x is a view": (view[0].T, *view[1:]),
        **_of_dtypes(draw),
    }  # fmt: skip
    return labelled_cases(NAMES, labelled)


def _exactly(size: float, lowest: int, highest: int, *positions: float) -> tuple:
    """At these positions in steps of a power of two: x / s is exact."""
    return size * torch.tensor(positions), torch.tensor(size), lowest, highest


def _between_codes(size: float) -> dict[str, tuple]:
    exactly = partial(_exactly, size)

    def half_codes(lowest: int, highest: int):
        return exactly(lowest, highest, *torch.arange(lowest - 2, highest + 2).add(0.5).tolist())

    # On both sides of each, nearer than a mask by rounded numbers tells.
    around = [b + side * 2.0**-16 for b in (-8.5, 7.5, -7.5, 6.5) for side in (-1, 1)]
    return {
        "ties, and the ends are even": half_codes(-8, 6),
        "ties, and the ends are odd": half_codes(-7, 7),
        "just within half a step beyond the ends": exactly(-8, 7, -8.375, 7.375, 7.0, -8.0),
        "just beyond half a step": exactly(-8, 7, -8.625, 7.625, 6.625, -7.625),
        "next to half a step beyond the ends": exactly(-8, 7, *around),
    }


def _of_dtypes(draw: Draw) -> dict[str, tuple]:
    def scaled(scale: float, dtype: torch.dtype = torch.float32):
        step = (scale * (0.5 + draw.uniform(1)[0].double())).to(dtype)
        return step * places(draw, -4, 3, 4, 5).to(dtype), step, -4, 3

    beyond = 3e4 * draw.normal(9).sign() * (1 + draw.uniform(9))
    beyond[draw.number(0, 9)] = 0.009
    far = 1e9 * draw.normal(9)
    far[draw.number(0, 9)] = 0.17
    fine = near_border(draw.integers(-120, 120, 40), draw)
    step = 0.1 + draw.uniform(1)[0].double()
    return {
        "far beyond the ends, all but one": (far, torch.tensor(0.1), -8, 7),
        "very large numbers": scaled(1e30),
        "very small numbers": scaled(1e-30),
        "float16": scaled(1.0, torch.float16),
        "bfloat16": scaled(1.0, torch.bfloat16),
        "float16, small steps": scaled(0.02, torch.float16),
        "float16, x / s is too large for it": (beyond.half(), torch.tensor(2.0**-8).half(), -8, 7),
        "float64, next to the borders": (step * fine, step, -100, 100),
        "float64, smaller than float32 knows": scaled(1e-60, torch.float64),
    }


def _on_levels(inputs: dict, value: Tensor) -> bool:
    x, step = inputs["x"].detach(), inputs["step"].detach()
    codes = (x.double() / step.double()).round().clamp(inputs["lowest"], inputs["highest"])
    levels = codes * step.double()
    near = (value.double() - levels).abs() <= ROUNDINGS * torch.finfo(x.dtype).eps * levels.abs()
    return bool((near | levels.isnan()).all())


def _level(x: Tensor, step: Tensor, lowest: int, highest: int) -> Tensor:
    return (x / step).round().clamp(lowest, highest) * step


def _past(value: Callable, clip: Callable = lambda x, step, lowest, highest: x) -> Callable:
    """The value, with the gradient of `clip`: x + (x̂ − x).detach()."""

    def wrong(x, step, lowest, highest):
        clipped = clip(x, step.detach(), lowest, highest)
        return clipped + (value(x, step, lowest, highest) - clipped).detach()

    return wrong


def _half_up(x, step, lowest, highest):
    codes = (x / step + 0.5).floor()
    clipped = codes.clamp(lowest, highest)
    return (clipped * step).detach() + torch.where(codes == clipped, x - x.detach(), 0.0)


def _of_the_step(x, step, lowest, highest):
    place = x / step
    clipped = place.round().clamp(lowest, highest).detach()
    return step * torch.where(place.round() == clipped, place + (clipped - place).detach(), clipped)


def _codes(x, step, lowest, highest):
    codes = (x / step).round()
    clipped = codes.clamp(lowest, highest)
    return clipped.detach() + torch.where(codes == clipped, x - x.detach(), 0.0)


STRAIGHT_THROUGH = Exercise(
    reference=straight_through,
    cases=_numbers,
    differentiable=("x", "step"),
    relative_tolerance=0.01,  # of bfloat16; the property asks for what each dtype can hold
    absolute_tolerance=0.0,
    hints=(
        "Write the level first, forward alone. Then: what is the derivative of round? Who has to "
        "say that it is 1?",
        "x + (level − x).detach() has the value of level and the derivative of x, which is 1. "
        "Where the code was clipped, level.detach() has derivative 0. torch.where takes one here "
        "and the other there. A torch.autograd.Function does the same with a backward of its own.",
        "codes = (x / step).round(); clipped = codes.clamp(lowest, highest); level = (clipped * "
        "step).detach(); torch.where(codes == clipped, x + (level - x).detach(), level).",
    ),
    properties=(
        Property("each number is on its level, but for rounding in its dtype", _on_levels),
    ),
    misconceptions=(
        Misconception(
            "the derivative of round",
            _level,
            "every value is right, but x learns nothing: PyTorch takes round as what it is, a "
            "staircase whose derivative is 0. And s got a gradient that it should not get.",
        ),
        Misconception(
            "nothing clips the gradient",
            _past(_level),
            "the gradient goes through everywhere, also where the code was clipped. There x may "
            "move without any change: training would push it further and further. And with x far "
            "away or infinite, x + (x̂ − x) is not x̂.",
        ),
        Misconception(
            "the gradient ends at the last level",
            _past(_level, lambda x, s, lowest, highest: x.clamp(lowest * s, highest * s)),
            "every value is right, but the gradient ends at the last level itself. Up to half a "
            "step beyond it round(x / s) is still a code, and nothing is clipped.",
        ),
        Misconception(
            "the step learns, too",
            _of_the_step,
            "every value is right, and so is the gradient of x; but one reaches s as well. Here s "
            "is given: use step.detach(). (A step that learns is the next exercise.)",
        ),
        Misconception(
            "half rounds up",
            _half_up,
            "⌊x / s + ½⌋ sends every tie up. torch.round sends it to the even code, so that ties "
            "do not all pull to one side.",
        ),
        Misconception(
            "codes instead of levels",
            _codes,
            "these are the codes. The layer behind reckons with levels: multiply by s again.",
        ),
    ),
)
