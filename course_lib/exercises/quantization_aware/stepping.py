"""Exercise of 07_quantization_aware: a step that learns.

Axes: O rows that have one step each, I numbers in a row.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from course_lib.exercises.engine.seeded import Draw
from course_lib.exercises.engine.spec import Case, Exercise, Misconception, Property, labelled_cases
from course_lib.exercises.quantization_aware.straight import NAMES, places

NEAR = 0.05  # of a step: more than bfloat16 rounds a level of 8 steps by


def learned_step(x: Tensor, step: Tensor, lowest: int, highest: int) -> Tensor:
    """x on its nearest levels, x̂ = s · clamp(round(x / s), lowest, highest); s learns, too.

    x (O, I) is float and finite, I ≥ 1. step s (O, 1), above 0, is float32, or float64 where x is:
    reckon in the dtype of s; x̂ is in that of x. Ties go to the even code; lowest ≤ 0 < highest.
        ∂x̂/∂x = 1 where lowest < x/s < highest, else 0: at an end itself, too
        ∂x̂/∂s = round(x/s) − x/s where that is 1, else the end that x/s is at or beyond
    The gradient of s is summed over its row and multiplied by g = 1 / √(I · highest): LSQ's rules
    (Esser et al., 2020). x and s stay as they are.
    """
    place = x / step
    code = place.round().clamp(lowest, highest)
    inside = (place > lowest) & (place < highest)
    pull = torch.where(inside, code - place, code) * (x.shape[1] * highest) ** -0.5
    through = torch.where(inside, x - x.detach(), 0.0)  # 0, but not its derivative
    return (code * step.detach() + through + pull * (step - step.detach())).to(x.dtype)


def _layers(seed: int) -> list[Case]:
    draw = Draw(seed)
    relu, view = _on(draw, -4, 3, 4, 9), _on(draw, -4, 3, 4, 6)
    labelled = {
        **_at_places(draw),
        "four bits": _on(draw, -8, 7, 5, 8),
        "three bits": _on(draw, -4, 3, 4, 7),
        "two bits": _on(draw, -2, 1, 4, 6),
        "three levels": _on(draw, -1, 1, 4, 6),
        "eight bits, in float64": _on(draw, -128, 127, 4, 30, beyond=20, dtype=torch.float64),
        "as many codes below 0 as above": _on(draw, -7, 7, 4, 6),
        "codes from 0 on, as behind a ReLU": (relu[0].clamp(min=0), relu[1], 0, 3),
        "as many rows as columns": _on(draw, -4, 3, 5, 5),
        "one number": _on(draw, -4, 3, 1, 1),
        "one number in a row": _on(draw, -4, 3, 6, 1),
        "one row": _on(draw, -4, 3, 1, 9),
        "many numbers in a row": _on(draw, -4, 3, 1, 400),
        "no rows": _on(draw, -4, 3, 0, 4),
        "views": (view[0].T.clone().T, view[1].expand(4, 2)[:, 1:], *view[2:]),
        **_in_scales_and_dtypes(draw),
    }
    return labelled_cases(NAMES, labelled)


def _on(
    draw: Draw, lowest: int, highest: int, *shape: int, beyond=2, dtype=torch.float32, scale=1.0
) -> tuple:
    """Every row has its own step, a number of odd digits in float32 or float64."""
    wide = torch.promote_types(dtype, torch.float32)
    step = (scale * (0.1 + draw.uniform(shape[0], 1).double())).to(wide)
    place = places(draw, lowest, highest, *shape, beyond=beyond)
    return (step * place).to(dtype), step, lowest, highest


def _at_places(draw: Draw) -> dict[str, tuple]:
    """Two rows at chosen positions, in steps of a power of two: x / s is exact."""
    step = 2.0 ** draw.number(-3, 4) * torch.tensor([[1.0], [2.0]])
    far, codes = 3 + 9 * draw.uniform(6), torch.arange(-9, 9.0).tolist()

    def at(lowest: int, highest: int, *positions: float):
        return step * torch.tensor([positions, positions[::-1]]), step, lowest, highest

    return {
        "by hand": at(-4, 3, 0.25, 1.25, 9.0, -9.0),
        "at the ends and at every code": at(-8, 7, *codes),
        "ties": at(-4, 3, *(code + 0.5 for code in codes)),
        "within half a step beyond the ends": at(-4, 3, -4.375, 3.375, -4.25, 3.125, 0.25),
        "just inside the ends": at(-4, 3, -3.875, 2.875, -3.625, 2.625, 0.25),
        "next to the ends": at(-4, 3, *(e + d * 2.0**-16 for e in (-4, 3) for d in (-1, 1)), 0.25),
        "all are clipped": at(-4, 3, *(4 + far).tolist(), *(-4 - far).tolist()),
        "all are clipped, upwards": at(-4, 3, *(4 + far).tolist()),
        "far beyond the ends": at(-4, 3, *(1e6 * draw.normal(7)).tolist()),
        "zeros": at(-4, 3, 0.0, 0.0, 0.0),
    }


def _in_scales_and_dtypes(draw: Draw) -> dict[str, tuple]:
    double, half, brain = torch.float64, torch.float16, torch.bfloat16
    gaps, uneven = 10.0 ** torch.arange(-12, 18, 6.0)[:, None], _on(draw, -4, 3, 5, 6)
    return {
        "steps of very different size": (gaps * uneven[0], gaps * uneven[1], *uneven[2:]),
        "very small numbers": _on(draw, -4, 3, 3, 6, scale=1e-25),
        "very large numbers": _on(draw, -4, 3, 3, 6, scale=1e25),
        "float64": _on(draw, -4, 3, 4, 6, dtype=double),
        "float64, smaller than float32 knows": _on(draw, -4, 3, 4, 6, dtype=double, scale=1e-60),
        "float16, the step in float32": _on(draw, -4, 3, 4, 6, dtype=half),
        "float16, many numbers in a row": _on(draw, -4, 3, 2, 3000, dtype=half),
        "bfloat16, the step in float32": _on(draw, -4, 3, 4, 6, dtype=brain),
    }


def _levels(inputs: dict, value: Tensor) -> bool:
    """Asked in steps of each row, as very small numbers all agree with 0."""
    x, step = inputs["x"].detach().double(), inputs["step"].detach().double()
    codes = (x / step).round().clamp(inputs["lowest"], inputs["highest"])
    return bool(((value.double() / step - codes).abs() <= NEAR).all())


def _g(x: Tensor, highest: int) -> float:
    return (x.shape[1] * highest) ** -0.5


def _inside(place: Tensor, lowest: int, highest: int) -> Tensor:
    return (place > lowest) & (place < highest)


def _unclipped(place: Tensor, lowest: int, highest: int) -> Tensor:
    return (place.round() >= lowest) & (place.round() <= highest)


def _clamped(place: Tensor, lowest: int, highest: int) -> Tensor:
    return (place >= lowest) & (place <= highest)


def _learned(inside: Callable = _inside, g: Callable = _g, pull: Callable = torch.where):
    """learned_step with another mask, another g, or another pull at the step.

    pull: (inside, round(x/s) − x/s, code) -> ∂x̂/∂s.
    """

    def wrong(x, step, lowest, highest):
        place = (x / step).detach()
        code = place.round().clamp(lowest, highest)
        mask = inside(place, lowest, highest)
        of_step = pull(mask, code - place, code) * g(x, highest)
        through = torch.where(mask, x - x.detach(), 0.0)
        made = code * step.detach() + through + of_step * (step - step.detach())
        return made.to(x.dtype)

    return wrong


LEARNED_STEP = Exercise(
    reference=learned_step,
    cases=_layers,
    differentiable=("x", "step"),
    relative_tolerance=1e-4,
    hints=(
        "Take x̂ = s · r, where r is what clamp and round make of x / s. s stands in it twice: what "
        "does the product rule say, if the derivative of round is 1?",
        "Inside, ∂x̂/∂s = r + s · (−x / s²) = r − x/s. Outside, r is lowest or highest and does not "
        "move: ∂x̂/∂s = r. In a torch.autograd.Function, backward gets a gradient of the shape of "
        "x̂: times the mask for x, times ∂x̂/∂s, summed over dim 1, times g for s.",
        "place = (x / step).detach(); code = place.round().clamp(lowest, highest); inside = (place "
        "> lowest) & (place < highest); pull = g * torch.where(inside, code - place, code). Then "
        "x - x.detach() and step - step.detach() are 0 and have derivative 1: add torch.where("
        "inside, x - x.detach(), 0) and pull * (step - step.detach()) to (code * step).detach(), "
        "and take the sum to the dtype of x.",
    ),
    properties=(
        Property("each number is on its level, s · clamp(round(x / s), lowest, highest)", _levels),
    ),
    misconceptions=(
        Misconception(
            "g forgotten",
            _learned(g=lambda x, highest: 1.0),
            "all is right but g: the gradient of s is the plain sum over its row. I weights pull "
            "at one step, which would move much faster than they do. Multiply by 1 / √(I · "
            "highest).",
        ),
        Misconception(
            "g of the whole tensor",
            _learned(g=lambda x, highest: (max(x.numel(), 1) * highest) ** -0.5),
            "in g you counted all numbers of x. A step has those of its own row alone, I of them.",
        ),
        Misconception(
            "the code alone pulls",
            _learned(pull=lambda inside, error, code: code),
            "you took ∂x̂/∂s = clamp(round(x / s)) everywhere. But s stands in x / s as well: "
            "inside, that takes x / s off again, and round(x / s) − x / s is left.",
        ),
        Misconception(
            "the clipped ones do not pull",
            _learned(pull=lambda inside, error, code: error * inside),
            "only numbers inside pull at s. Those outside do most of all: their level is lowest · "
            "s or highest · s, and moves with s. That is how a step grows.",
        ),
        Misconception(
            "the ends count as inside",
            _learned(_clamped),
            "all is right but at the ends themselves. PyTorch's clamp lets the gradient through "
            "there; LSQ counts x / s = lowest and x / s = highest as outside.",
        ),
        Misconception(
            "inside as in straight_through",
            _learned(_unclipped),
            "you took for inside what needs no clipping of its code, as in straight_through. LSQ "
            "draws the border at the last level itself: lowest < x / s < highest.",
        ),
    ),
)
