"""Exercise of 04_structured_pruning: after which layer a token may leave.

Axes: L layers, T tokens.
"""

import torch
from torch import Tensor

from course_lib.exercises.engine.seeded import Draw
from course_lib.exercises.engine.spec import Case, Exercise, Misconception, Property, labelled_cases


def exit_layer(confidences: Tensor, threshold: float) -> Tensor:
    """After how many layers each of T tokens leaves: the first whose confidence is above threshold.

    confidences: (L, T), float, row l after l + 1 layers; threshold: from 0 to 1. A token that is
    never sure leaves after all L. What stands behind its exit is not computed, so it may be
    anything, and so may the last row; a NaN is not above any threshold. Returns int64 (T,), from 1
    to L.
    """
    sure = confidences > threshold  # (L, T)
    sure[-1] = True
    return sure.int().argmax(0) + 1  # of equal ones the first


def _behind(confidences: Tensor, threshold: float, garbage: Tensor) -> Tensor:
    """The same up to each token's exit, and something else behind it; the last row is nothing."""
    layers = exit_layer(confidences, threshold)
    places = torch.arange(1, len(confidences) + 1)[:, None]  # (L, 1)
    behind = (places > layers) | (places == len(confidences))
    return torch.where(behind, garbage.to(confidences.dtype), confidences)


def _tokens(seed: int) -> list[Case]:
    draw = Draw(seed)
    first = torch.tensor([[0.9, 0.3, 0.5, 0.2], [0.1, 0.6, 0.5, 0.3], [0.0, 0.0, 0.0, 0.4]])
    some, many = draw.uniform(4, 12), draw.uniform(draw.number(5, 9), 30)
    falling = draw.uniform(6, 9).sort(dim=0, descending=True).values
    rising = draw.uniform(6, 9).sort(dim=0).values
    equal = draw.integers(0, 5, 6, 40) / 4  # 0, ¼ … 1: often just the threshold
    nan, inf = torch.full((4, 12), torch.nan), torch.full((4, 12), torch.inf)
    labelled = {
        "four tokens": (first, 0.5),
        "many tokens": (many, draw.number(70, 95) / 100),
        "confidence rises": (rising, draw.number(40, 80) / 100),
        "confidence falls": (falling, draw.number(40, 80) / 100),
        "some": (some, 0.6),
        "the same, NaN behind the exits": (_behind(some, 0.6, nan), 0.6),
        "the same, infinities behind the exits": (_behind(some, 0.6, inf), 0.6),
        "the same, −∞ behind the exits": (_behind(some, 0.6, -inf), 0.6),
        "the same, other numbers behind the exits": (_behind(some, 0.6, draw.uniform(4, 12)), 0.6),
        "just the threshold": (equal, 0.5),
        "all are just the threshold": (torch.full((4, 3), 0.75), 0.75),
        "never sure": (0.5 * draw.uniform(5, 6), 0.625),
        "never sure, and the last row is NaN": (
            torch.cat([0.5 * draw.uniform(3, 6), torch.full((1, 6), torch.nan)]),
            0.625,
        ),
        "always sure": (0.5 + 0.5 * draw.uniform(4, 5), 0.25),
        "threshold 0, and zeros": (draw.integers(0, 2, 5, 30).float() * draw.uniform(5, 30), 0.0),
        "threshold 1": (draw.integers(1, 4, 4, 9) / 2, 1.0),
        "one layer": (draw.uniform(1, 7), 0.5),
        "two layers": (draw.uniform(2, 9), 0.5),
        "one token": (draw.uniform(6, 1), 0.7),
        "as many layers as tokens": (draw.uniform(6, 6), 0.6),
        "very small confidences": (1e-9 * draw.uniform(5, 9), 5e-10),
        "float16": ((draw.integers(0, 1025, 5, 60) / 1024).half(), 0.875),
        **_odd_tokens(draw),
    }
    return labelled_cases(("confidences", "threshold"), labelled)


def _odd_tokens(draw: Draw) -> dict[str, tuple[Tensor, float]]:
    """NaN, infinities, late exits and confidences that are nearly the threshold."""
    unknown = torch.where(draw.uniform(5, 20) < 0.4, torch.nan, draw.uniform(5, 20))
    endless = torch.where(draw.uniform(5, 20) < 0.3, torch.inf, draw.uniform(5, 20))
    late = torch.zeros(600, 4)  # one token is never sure
    late[[299, 256 + 2 * draw.number(1, 20), 511], [0, 1, 2]] = 1
    near = 0.75 + 2.0**-53 * (draw.order(28).double() - 14).view(4, 7)  # each double around ¾
    return {
        "NaN before the exits": (unknown, 0.5),
        "infinite confidences": (endless, 0.9),
        "many layers, late exits": (late, 0.5),
        "float64, they differ in the last bit": (near, 0.75),
    }


def _last_that_is_not(confidences, threshold):
    """One layer behind the last that is not sure."""
    places = torch.arange(1, len(confidences) + 1)[:, None]
    unsure = torch.where(confidences > threshold, 0, places)
    return (unsure.amax(0) + 1).clamp(max=len(confidences))


def _together(confidences, threshold):
    sure = (confidences > threshold).all(1)
    sure[-1] = True
    return (sure.int().argmax() + 1).expand(confidences.shape[1]).clone()


EXIT_LAYER = Exercise(
    reference=exit_layer,
    cases=_tokens,
    hints=(
        "Go down one column, layer by layer. When do you stop, and what have you not looked at?",
        "confidences > threshold is True where a token may leave. What must the last row be, "
        "whatever stands in it? And which True of a column counts?",
        "Set the last row of that comparison to True (not of the input!); sure.int().argmax(0) is "
        "the place of the first True. How many layers is place 0?",
    ),
    properties=(
        Property(
            "every token leaves after 1 to L layers",
            lambda inputs, value: bool(
                ((value >= 1) & (value <= len(inputs["confidences"]))).all()
            ),
        ),
    ),
    misconceptions=(
        Misconception(
            "places from 0",
            lambda c, t: exit_layer(c, t) - 1,
            "you gave the row's place, which counts from 0. Asked is after how many layers: the "
            "first row stands behind one.",
        ),
        Misconception(
            "just the threshold is enough",
            lambda c, t: exit_layer(torch.where(c == t, torch.inf, c), t),
            "a token left whose confidence was just the threshold. It must be above.",
        ),
        Misconception(
            "the last layer forgotten",
            lambda c, t: (c > t).int().argmax(0) + 1,
            "a token that is never sure left after the first layer: argmax of a column without a "
            "True is 0. Who reaches the last layer leaves there, sure or not.",
        ),
        Misconception(
            "the surest layer",
            lambda c, t: c.argmax(0) + 1,
            "you took the layer with the highest confidence. To know it, all layers must be "
            "computed, and nothing is saved. The first that is enough decides.",
        ),
        Misconception(
            "sure for good",
            _last_that_is_not,
            "you asked for all later layers to be sure, too. At its exit a token cannot know what "
            "they would say: that is what it saves.",
        ),
        Misconception(
            "all together",
            _together,
            "all tokens left at once, when all were sure. Each token has an exit of its own.",
        ),
    ),
)
