"""Exercise of 12_capstone: the order of steps by which a layer loses most, and the step to blame.

Axes: N tokens, O outputs, I inputs, S steps, P = S! orders.
"""

from collections.abc import Callable
from itertools import permutations

import torch
from torch import Tensor

from course_lib.exercises.engine.seeded import Draw
from course_lib.exercises.engine.spec import Case, Exercise, Misconception, Property, labelled_cases
from course_lib.models import steps as ways

Steps = dict[str, Callable[[Tensor], Tensor]]
CLEAR = 1e-4  # of the largest loss: how far the worst order, or step, is from the next


def order_that_loses(
    weight: Tensor, x: Tensor, steps: dict[str, Callable[[Tensor], Tensor]]
) -> tuple[Tensor, tuple[str, ...], str]:
    """(losses, worst, blamed): all orders of S ≥ 1 steps, the one that loses most, and by which.

    A step takes weights (O, I) in the dtype of `weight` and gives such weights. It may overwrite
    those that it takes, so give it none that are still needed: `weight` stays as it is. The loss of
    weights w is the mean square of x wᵀ − x weightᵀ, reckoned in float64 whatever the dtypes; x is
    (N, I).
    losses (S!, S), float64: its row p is the p-th order of `itertools.permutations(steps)`, each
    order from `weight` on; column j is the loss after j + 1 of its steps. worst: the names, in its
    order, of the order with the largest loss at its end. A step's increase is the loss after it
    less the one before it (0 before the first); its excess is its increase in `worst`, less its
    increase as the first step of an order. blamed: the step of the largest excess. Of equal orders
    counts the first, and so of equal excesses the first in `worst`.
    """
    exact = x.double() @ weight.double().T
    orders, rows, alone = list(permutations(steps)), [], {}
    for order in orders:
        current, row = weight.clone(), []
        for name in order:
            current = steps[name](current)
            row.append((x.double() @ current.double().T - exact).square().mean())
        rows.append(torch.stack(row))
        alone[order[0]] = row[0]
    losses = torch.stack(rows)  # (P, S)
    p = int(losses[:, -1].argmax())
    increases = losses[p].diff(prepend=torch.zeros_like(losses[p, :1]))
    above = increases - torch.stack([alone[name] for name in orders[p]])
    return losses, orders[p], orders[p][int(above.argmax())]


def _layers(seed: int) -> list[Case]:
    draw = Draw(seed)
    two = {"prune": ways.half_dropped, "round": ways.rounded}
    three = {"round": ways.rounded, "prune": ways.half_dropped, "clip": ways.clipped}
    written = {"round": ways.rounded_, "prune": ways.half_dropped_}
    mixed = {"prune": ways.half_dropped, "round": ways.rounded_, "turn": ways.first_column_turned_}
    undone = {"halve": ways.halved, "double": ways.doubled, "round": ways.rounded}
    apart = {"double": ways.doubled, "turn": ways.first_column_turned_}
    twice = {"double": ways.doubled, "again": ways.doubled} | {"turn": ways.first_column_turned_}
    zero = _layer(draw, 4, 6)
    labelled = {
        "prune and round": _clear(draw, two, 6, 12),
        "the same, written the other way round": _clear(draw, dict(reversed(two.items())), 5, 8),
        "prune, round and clip": _clear(draw, three, 6, 12),
        "steps that overwrite their input": _clear(draw, written, 5, 10),
        "some steps overwrite their input": (*_whole(draw, 8, 8), mixed),
        "four steps": (*_whole(draw, 8, 8), three | {"turn": ways.first_column_turned_}),
        "one step": (*_layer(draw, 4, 7), {"round": ways.rounded}),
        "one step that overwrites its input": (*_layer(draw, 4, 7), {"prune": ways.half_dropped_}),
        "a step that another one undoes": (*_whole(draw, 4, 8), undone),
        "steps that do not mind the order": (*_whole(draw, 4, 8), apart),
        "one step under two names": (*_whole(draw, 4, 8), {"a": ways.rounded, "b": ways.rounded}),
        "blamed is what costs more than alone, not many times as much": (
            draw.integers(1, 3, 4, 8) * draw.normal(4, 8).sign(),
            _whole(draw, 4, 8)[1].sign() * torch.tensor([20.0] + 7 * [1]), twice,
        ),
        "one output": _clear(draw, three, 1, 12),
        "one token": _clear(draw, three, 5, 8, tokens=1),
        "as many tokens as inputs": _clear(draw, two, 5, 8, tokens=8),
        "weights of 0": (torch.zeros(4, 6), zero[1], three),
        "tokens of 0": (zero[0], torch.zeros(5, 6), three),
        "very small": _clear(draw, three, 5, 8, change=lambda w, x: (1e-9 * w, x)),
        "very large": _clear(draw, written, 5, 8, change=lambda w, x: (w, 1e9 * x)),
        "float16": _clear(draw, three, 5, 10, change=lambda w, x: (w.half(), (100 * x).half())),
        "float64": _clear(draw, written, 5, 10, change=lambda w, x: (w.double() / 3, x.double())),
    }  # fmt: skip
    return labelled_cases(("weight", "x", "steps"), labelled)


def _layer(draw: Draw, outputs: int, inputs: int, tokens: int = 20) -> tuple[Tensor, Tensor]:
    """Weights with a few large ones, and tokens whose channels are of unequal size."""
    weight = draw.normal(outputs, inputs)
    x = draw.normal(tokens, inputs) * torch.logspace(-0.5, 0.5, inputs)[draw.order(inputs)]
    return weight * weight.abs(), x


def _whole(draw: Draw, outputs: int, inputs: int) -> tuple[Tensor, Tensor]:
    """For steps that often give equal weights: then losses are equal however they are added up.

    Weights are multiples of 3, tokens integers, and there are 2ⁿ of each: float64 rounds nothing.
    """
    weight, x = _layer(draw, outputs, inputs, tokens=16)
    return 3 * (2 * weight).round(), (4 * x).round()


def _clear(
    draw: Draw,
    steps: Steps,
    *shape: int,
    tokens: int = 20,
    change: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]] = lambda weight, x: (weight, x),
) -> tuple[Tensor, Tensor, Steps]:
    """A layer in which no other order of the steps, and no other step, comes near the worst.

    Equal weights may give losses that differ in the last digit where they are reckoned together.
    """
    while True:
        weight, x = change(*_layer(draw, *shape, tokens=tokens))
        losses, worst, _ = order_that_loses(weight, x, steps)
        orders = list(permutations(steps))
        row = losses[orders.index(worst)]
        alone = {order[0]: losses[p, 0] for p, order in enumerate(orders)}
        above = row.diff(prepend=row.new_zeros(1)) - torch.stack([alone[name] for name in worst])
        (first, second), (most, next_most) = (n.topk(2).values for n in (losses[:, -1], above))
        if min(first - second, most - next_most) > CLEAR * first:
            return weight, x, steps


def _wrong(
    fresh: bool = True,
    chained: bool = True,
    from_dense: bool = True,
    worst: Callable[[Tensor], Tensor] = lambda losses: losses[:, -1],
    blame: Callable[[Tensor, Tensor], int] = lambda rise, alone: int((rise - alone).argmax()),
) -> Callable:
    """The reference with one rule changed.

    fresh: each order begins with the weights; chained: each step goes on from the last one's.
    """

    def wrong(weight, x, steps):
        exact, current, rows = x.double() @ weight.double().T, weight.clone(), []
        orders = list(permutations(steps))
        for order in orders:
            current, row = weight.clone() if fresh else current, []
            before = exact
            for name in order:
                current = steps[name](current if chained else weight.clone())
                now = x.double() @ current.double().T
                row.append((now - before).square().mean())
                before = exact if from_dense else now
            rows.append(torch.stack(row))
        losses = torch.stack(rows)
        p = int(worst(losses).argmax())
        rise = losses[p].diff(prepend=torch.zeros_like(losses[p, :1]))
        first = {order[0]: row[0] for order, row in zip(orders, rows, strict=True)}
        alone = torch.stack([first[name] for name in orders[p]])
        return losses, list(orders[p]), orders[p][blame(rise, alone)]

    return wrong


def _are_losses(inputs: dict, value: list) -> bool:
    losses, worst, blamed = value
    orders = list(permutations(inputs["steps"]))
    return (
        losses.shape == (len(orders), len(inputs["steps"]))
        and losses.dtype == torch.float64
        and tuple(worst) in orders
        and blamed in worst
    )


ORDER_THAT_LOSES = Exercise(
    reference=order_that_loses,
    cases=_layers,
    relative_tolerance=1e-7,
    absolute_tolerance=1e-25,
    hints=(
        "First the table. For each order of itertools.permutations(steps) start with a copy of the "
        "weights, weight.clone(); apply its steps one after the other, and write down the loss "
        "after each. The loss is always against the weights that nobody has touched.",
        "What a step costs as the first of an order stands in column 0 of that order's row; the "
        "row of `worst` holds what it costs there, as the difference of two neighbouring columns.",
        "p = int(losses[:, -1].argmax()); its increases are losses[p].diff with a zero in front. "
        "Subtract from each what the same step costs as the first one; the largest is to blame.",
    ),
    properties=(
        Property(
            "losses (S!, S) in float64; worst is one of the orders, blamed one of its steps",
            _are_losses,
            form=True,
        ),
    ),
    misconceptions=(
        Misconception(
            "one copy for all orders",
            _wrong(fresh=False),
            "each order went on with what the order before it had left. Every order begins with a "
            "copy of `weight` of its own.",
        ),
        Misconception(
            "each step alone",
            _wrong(chained=False),
            "each step was given the weights that nobody had touched. In an order, a step goes on "
            "from what the step before it gave.",
        ),
        Misconception(
            "the loss against the step before",
            _wrong(from_dense=False),
            "you measured how far a step moves the outputs of the weights before it. The loss is "
            "against x weightᵀ, before and after: errors may add up, or cancel.",
        ),
        Misconception(
            "the largest increase",
            _wrong(blame=lambda rise, alone: int(rise.argmax())),
            "you blamed the step that costs most. A step that always costs much is not to blame "
            "for the order: subtract what it costs as the first one.",
        ),
        Misconception(
            "always the last step",
            _wrong(blame=lambda rise, alone: len(rise) - 1),
            "you blamed the last step of the worst order. It may cost no more there than alone.",
        ),
        Misconception(
            "the largest loss on the way",
            _wrong(worst=lambda losses: losses.amax(dim=1)),
            "you took the order with the largest loss after any of its steps. What counts is the "
            "loss at its end: a later step may undo what an earlier one did.",
        ),
    ),
)
