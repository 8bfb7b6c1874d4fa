"""Exercise of 10_acceleration: an MLP over several workers.

Axes: T tokens, D model width, F hidden units.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from course_lib.exercises.engine.seeded import Draw
from course_lib.exercises.engine.spec import Case, Exercise, Misconception, Property, labelled_cases


def tensor_parallel_mlp(
    x: Tensor, first_weight: Tensor, second_weight: Tensor, workers: int
) -> list[Tensor]:
    """What each of several workers contributes to an MLP; the sum of all is its output.

    The MLP is W₂ silu(W₁ x) for each row of x (T, D); first_weight W₁ (F, D), second_weight
    W₂ (D, F). Worker w alone holds the hidden units of its part, and reckons with nothing else: no
    number travels before the sum. The units stay in their order. Each worker has F // workers of
    them, and the first F % workers have one more. A worker without units contributes zeros.

    The result: a list of `workers` tensors (T, D), in the dtype of x.
    """
    firsts = first_weight.tensor_split(workers)  # (F, D) -> (F_w, D)
    seconds = second_weight.tensor_split(workers, dim=1)  # (D, F) -> (D, F_w)
    return [F.silu(x @ firsts[w].T) @ seconds[w].T for w in range(workers)]


def _layers(seed: int) -> list[Case]:
    draw = Draw(seed)

    def layer(tokens: int, width: int, units: int, workers: int) -> tuple:
        return _layer(draw, tokens, width, units), workers

    half, view = _layer(draw, 3, 6, 8), _layer(draw, 3, 4, 6)
    by_hand = torch.ones(1, 1), torch.tensor([[-1.0], [2.0]]), torch.tensor([[1.0, 10.0]])
    size = draw.number(1, 9)
    labelled = {
        "by hand: a unit each": ((size * by_hand[0], *by_hand[1:]), 2),
        "two workers": layer(4, 6, 8, 2),
        "four workers": layer(3, 8, 16, 4),
        "one worker": layer(4, 5, 7, 1),
        "seven units, three workers": layer(3, 5, 7, 3),
        "eleven units, four workers": layer(2, 4, 11, 4),
        "a unit each": layer(3, 6, 5, 5),
        "more workers than units": layer(3, 4, 2, 4),
        "as wide as it is long": layer(6, 6, 6, 3),
        "one token": layer(1, 5, 9, 2),
        "no token": layer(0, 4, 6, 2),
        "width 1": layer(4, 1, 6, 3),
        "large inputs": ((_units_of_200(half[1][:3]), *half[1:]), 2),
        "a layer of zeros": ((half[0], torch.zeros(8, 6), half[2]), 3),
        "float64": (tuple(part.double() for part in _layer(draw, 3, 5, 8)), 4),
        "views": ((view[0].T.clone().T, view[1].T.clone().T, view[2].T.clone().T), 2),
    }
    flat = {label: (*parts, workers) for label, (parts, workers) in labelled.items()}
    return labelled_cases(("x", "first_weight", "second_weight", "workers"), flat)


def _layer(draw: Draw, tokens: int, width: int, units: int) -> tuple[Tensor, Tensor, Tensor]:
    return draw.normal(tokens, width), draw.normal(units, width), draw.normal(width, units)


def _units_of_200(rows: Tensor) -> Tensor:
    """Inputs with which a unit of each row is 200: exp(200) is infinite in float32."""
    return 200 * rows / rows.square().sum(1, keepdim=True)


def _adds_up(inputs, value: list[Tensor]) -> bool:
    x, first, second = (inputs[name].double() for name in ("x", "first_weight", "second_weight"))
    whole, parts = F.silu(x @ first.T) @ second.T, sum(part.double() for part in value)
    terms = (F.silu(x @ first.T).abs() + x.abs() @ first.abs().T) @ second.abs().T  # of both sums
    rounding = 20 * torch.finfo(inputs["x"].dtype).eps
    return bool(((parts - whole).abs() <= rounding * terms).all())


def _split(first, second):
    """One worker after another, its two weights by `first` and `second` (weight, workers)."""

    def wrong(x, first_weight, second_weight, workers):
        pairs = zip(first(first_weight, workers), second(second_weight, workers), strict=True)
        return [F.silu(x @ w1.T) @ w2.T for w1, w2 in pairs]

    return wrong


def _rows(weight, workers):
    return weight.tensor_split(workers)


def _columns(weight, workers):
    return weight.tensor_split(workers, dim=1)


def _inputs_split(x, first_weight, second_weight, workers):
    """Each worker has some of the inputs: its silu sees a part of the sum."""
    pairs = zip(_columns(x, workers), _columns(first_weight, workers), strict=True)
    return [F.silu(part @ w1.T) @ second_weight.T for part, w1 in pairs]


def _rounded_up(weight, workers, dim=0):
    count = -(-weight.shape[dim] // workers)
    starts = [min(count * place, weight.shape[dim]) for place in range(workers + 1)]
    ends = zip(starts, starts[1:], strict=False)
    return [weight.narrow(dim, a, b - a) for a, b in ends]


def _outputs_split(x, first_weight, second_weight, workers):
    hidden = F.silu(x @ first_weight.T)
    return [hidden @ w2.T for w2 in second_weight.tensor_split(workers)]


TENSOR_PARALLEL_MLP = Exercise(
    reference=tensor_parallel_mlp,
    cases=_layers,
    relative_tolerance=1e-4,
    absolute_tolerance=1e-4,
    hints=(
        "A hidden unit is silu of one number: of a whole row of W₁ with x. So a row may not be "
        "cut. Which axis of W₁ can be shared out, and which of W₂ then goes with it?",
        "Worker w takes some rows of W₁, and the columns of W₂ that read just these units. Its "
        "output is (T, D), a part of the sum over the units.",
        "first_weight.tensor_split(workers) and second_weight.tensor_split(workers, dim=1) give "
        "the first parts one more, as asked. Then F.silu(x @ w1.T) @ w2.T for each pair.",
    ),
    properties=(Property("the contributions add up to the MLP's output", _adds_up),),
    misconceptions=(
        Misconception(
            "the inputs shared out",
            _inputs_split,
            "each worker had some of the inputs and a part of every unit's sum. silu of a part is "
            "not a part of silu: the sum would have to travel first. Share out the units.",
        ),
        Misconception(
            "the outputs shared out",
            _outputs_split,
            "every worker reckoned all hidden units, and then some of the outputs. That saves "
            "nothing in W₁, and nothing is left to add up.",
        ),
        Misconception(
            "all inputs by each",
            lambda x, first, second, workers: [
                F.silu(x @ first.T) @ second.T / workers for _ in range(workers)
            ],
            "each worker reckoned the whole MLP, and the sum was divided. It adds up, but no "
            "worker has less to do, or less to hold.",
        ),
        Misconception(
            "silu after the sum",
            lambda x, first, second, workers: [
                (x @ w1.T) @ w2.T
                for w1, w2 in zip(_rows(first, workers), _columns(second, workers), strict=True)
            ],
            "silu is missing between the two layers.",
        ),
        Misconception(
            "other units in the second layer",
            _split(_rows, lambda weight, workers: _columns(weight, workers)[::-1]),
            "the second layer's part does not belong to the first's: the columns of W₂ must be "
            "those that read this worker's units.",
        ),
        Misconception(
            "parts rounded up",
            _split(_rounded_up, lambda weight, workers: _rounded_up(weight, workers, 1)),
            "your parts are rounded up, so the last worker gets what is left, or nothing. The "
            "units should be spread evenly: F // workers each, and one more for the first F % "
            "workers.",
        ),
    ),
)
