"""Exercises of 03_pruning: a network goes back to what it was early on, all but its mask."""

import copy

import torch
from torch import Tensor

from course_lib.exercises.engine.seeded import Draw
from course_lib.exercises.engine.spec import Case, Exercise, Misconception, labelled_cases

# -------------------------------------------------------------------------------- rewind


def rewind(
    early: dict[str, Tensor], trained: dict[str, Tensor], masks: dict[str, Tensor]
) -> dict[str, Tensor]:
    """All tensors of a network as they were early on, and zero where the mask is False.

    early, trained: the same names, shapes and dtypes, float or integer. masks: bool, True where a
    weight stays, for some of the names. What has no mask (a bias, a buffer) goes back, too. The
    inputs stay as they are.
    """
    rewound = copy.deepcopy(early)
    for name, mask in masks.items():
        rewound[name][~mask] = 0
    return rewound


def _network(draw: Draw, *, scale: float = 1.0, dtype=torch.float32, outputs: int = 3):
    shapes = {
        "0.weight": (4, 5),
        "0.bias": (4,),
        "2.weight": (outputs, 4),
        "2.bias": (outputs,),
    }
    early = {name: (scale * draw.normal(*s).to(dtype)) for name, s in shapes.items()}
    trained = {name: w + scale * draw.normal(*w.shape).to(dtype) for name, w in early.items()}
    masks = {n: draw.uniform(*w.shape) < 0.5 for n, w in early.items() if "weight" in n}
    return early, trained, masks


def _trained_under(early, trained, masks):
    """Trained under the masks, and one weight that stays has just become zero."""
    trained = {n: w * masks[n] if n in masks else w for n, w in trained.items()}
    masks["0.weight"][0, :2] = torch.tensor([True, False])
    trained["0.weight"][0, :2] = torch.tensor([0.0, -0.0])
    return early, trained, masks


def _checkpoints(seed: int) -> list[Case]:
    draw = Draw(seed)

    def counted(early, trained, masks):
        """With the buffers of a BatchNorm."""
        early |= {"1.mean": draw.normal(4), "1.count": torch.tensor(draw.number(1, 9))}
        trained |= {"1.mean": draw.normal(4), "1.count": torch.tensor(draw.number(20, 99))}
        return early, trained, masks

    w, t = torch.tensor([0.5, -1.0, 2.0]), torch.tensor([3.0, 0.0, -4.0])
    mask, zeros = torch.tensor([True, False, True]), torch.tensor([0.0, -0.0, 1.5])
    early, trained, masks = _network(draw)
    labelled = {
        "three weights and a bias": (
            {"weight": w, "bias": torch.tensor([0.25]) * draw.number(1, 9)},
            {"weight": t, "bias": torch.tensor([-1.0])},
            {"weight": mask},
        ),
        "a network": _network(draw),
        "trained under the masks": _trained_under(*_network(draw)),
        "buffers": counted(*_network(draw)),
        "one layer has a mask": (early, trained, {"2.weight": masks["2.weight"]}),
        "no mask at all": (*_network(draw)[:2], {}),
        "all are pruned": (*_network(draw)[:2], {n: torch.zeros_like(m) for n, m in masks.items()}),
        "early weights of zero": ({"w": zeros}, {"w": draw.normal(3)}, {"w": mask}),
        "very small weights": _network(draw, scale=1e-30),
        "very large weights": _network(draw, scale=1e30),
        "float16": _network(draw, dtype=torch.float16),
        "float64": _network(draw, scale=1e-60, dtype=torch.float64),
    }
    return labelled_cases(("early", "trained", "masks"), labelled)


def _merged(of_masked, of_rest):
    """A dictionary made name by name: of those with a mask by one rule, of the rest by another."""

    def wrong(early, trained, masks):
        return {
            name: of_masked(early[name], trained[name], masks[name])
            if name in masks
            else of_rest(early[name], trained[name])
            for name in early
        }

    return wrong


def _only_masked(early, trained, masks):
    return {name: early[name] * mask for name, mask in masks.items()}


REWIND = Exercise(
    reference=rewind,
    cases=_checkpoints,
    relative_tolerance=0.0,
    absolute_tolerance=0.0,
    hints=(
        "What of the trained network is left after rewinding? Only which weights stay.",
        "Start from a copy of `early`, all of it: copy.deepcopy makes new tensors.",
        "For each name and mask: rewound[name][~mask] = 0.",
    ),
    misconceptions=(
        Misconception(
            "not rewound",
            _merged(lambda e, t, m: t * m, lambda e, t: t),
            "these are the trained weights under the mask: a pruned network, but no ticket. The "
            "claim of the lottery ticket is about training again from the early values.",
        ),
        Misconception(
            "biases stay trained",
            _merged(lambda e, t, m: e * m, lambda e, t: t),
            "the weights went back and the biases and buffers did not. They remember the whole "
            "training, so the network did not start afresh.",
        ),
        Misconception(
            "weights stay trained",
            _merged(lambda e, t, m: t * m, lambda e, t: e.clone()),
            "biases and buffers went back, and the weights kept their trained values under the "
            "mask. All go back to what they were early on.",
        ),
        Misconception(
            "no mask",
            _merged(lambda e, t, m: e.clone(), lambda e, t: e.clone()),
            "all went back, the pruned weights, too: that is the dense network before training.",
        ),
        Misconception(
            "mask guessed from zeros",
            _merged(lambda e, t, m: e * (t != 0), lambda e, t: e.clone()),
            "you took the trained weights that are not zero for the mask. A weight that stays can "
            "be zero by chance, and one that goes need not be zero yet.",
        ),
        Misconception(
            "masked ones only",
            _only_masked,
            "only tensors with a mask came back. The network needs its biases and buffers, too.",
        ),
    ),
)
