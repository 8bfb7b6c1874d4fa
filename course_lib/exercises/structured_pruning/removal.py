"""Exercises of 04_structured_pruning: hidden units go, and a bias takes over what is constant.

Axes: N examples, I inputs, H hidden units, K of them that stay, O outputs.
"""

from functools import partial

import torch
from torch import Tensor

from course_lib.exercises.engine.seeded import Draw
from course_lib.exercises.engine.spec import Case, Exercise, Misconception, Property, labelled_cases

# -------------------------------------------------------------------------- remove_units


def remove_units(
    weight: Tensor, bias: Tensor, following: Tensor, keep: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """(weight, bias, following) of following · relu(weight · x + bias), smaller by hidden units.

    weight (H, I), bias (H,), following (O, H). keep (H,), bool: True for the units that stay, K of
    them, at least one; they stay in their order. The result is (K, I), (K,) and (O, K), each in its
    own dtype; the inputs stay as they are.
    """
    return weight[keep], bias[keep], following[:, keep]


def _network(draw: Draw, inputs: int, hidden: int, outputs: int, scale=1.0, dtype=torch.float32):
    shapes = ((hidden, inputs), (hidden,), (outputs, hidden))
    return tuple(scale * draw.normal(*shape).to(dtype) for shape in shapes)


def _turned(draw: Draw) -> tuple[Tensor, ...]:
    """Nine units, whose numbers do not lie side by side in memory."""
    weight, bias, following = _network(draw, 3, 18, 4)
    return weight[::2].T.clone().T, bias[::2], following[:, ::2]


def _networks(seed: int) -> list[Case]:
    draw = Draw(seed)
    network = partial(_network, draw)
    by_hand = torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]), torch.tensor([0.5, 1.5, 2.5])
    following = torch.tensor([[1.0, -1.0, 2.0]]) * draw.number(1, 9)
    labelled = {
        "three units, two stay": (*by_hand, following, torch.tensor([True, False, True])),
        "nine units": (*network(4, 9, 3), draw.order(9) < 5),
        "as many inputs and outputs as units": (*network(6, 6, 6), draw.order(6) < 4),
        "the first stay": (*network(3, 8, 2), torch.arange(8) < 5),
        "the last stays": (*network(3, 5, 2), torch.arange(5) == 4),
        "every second stays": (*network(5, 9, 4), torch.arange(9) % 2 == 1),
        "one stays": (*network(3, 7, 4), draw.order(7) == 0),
        "all stay": (*network(3, 5, 5), torch.ones(5, dtype=torch.bool)),
        "one unit, one input, one output": (*network(1, 1, 1), torch.tensor([True])),
        "64-128-128: 26,122 parameters with the last layer's become 13,770": (
            *network(64, 128, 128),
            draw.order(128) < 64,
        ),
        **_odd_networks(draw),
    }
    return labelled_cases(("weight", "bias", "following", "keep"), labelled)


def _odd_networks(draw: Draw) -> dict[str, tuple[Tensor, ...]]:
    """Zeros, views, scales and dtypes."""
    network = partial(_network, draw)
    zeros, no_bias, unread = network(3, 6, 2), network(3, 6, 2), network(4, 6, 3)
    zeros[0][:3], zeros[1][:3] = 0.0, -0.0
    no_bias[1].zero_()
    unread[2][:, ::2] = 0
    idle = network(4, 6, 3)
    idle[0][0], idle[1][0], idle[2][:, 0] = 0, 0, 0
    weight, bias, following = network(4, 5, 2)
    twins = torch.tensor([0, 0, 1, 2, 0])
    halves = network(4, 7, 3, dtype=torch.float16)
    mixed = halves[0].bfloat16(), halves[1].float(), halves[2]
    tiny = network(3, 5, 2, 1e-60, torch.float64)
    return {
        "units of zeros stay": (*zeros, torch.tensor([1, 0, 1, 1, 0, 1]) == 1),
        "units that nobody reads stay": (*unread, torch.tensor([1, 1, 1, 0, 1, 0]) == 1),
        "a unit of zeros that nobody reads stays": (*idle, torch.arange(6) < 4),
        "twins stay": (weight[twins], bias[twins], following, torch.tensor([1, 1, 0, 1, 1]) == 1),
        "biases of zero": (*no_bias, draw.order(6) < 3),
        "very small weights": (*network(4, 6, 3, scale=1e-9), draw.order(6) < 4),
        "very large weights": (*network(4, 6, 3, scale=1e9), draw.order(6) < 4),
        "views": (*_turned(draw), torch.arange(18).remainder(3).ne(0)[::2]),
        "float16": (*halves, draw.order(7) < 3),
        "a dtype for each": (*mixed, draw.order(7) < 4),
        "float64, smaller than float32 knows": (*tiny, draw.order(5) < 3),
    }


def _computes_the_same(inputs, value) -> bool:
    """With the units that go set to 0 in the old network."""
    weight, bias, following = (inputs[n].double() for n in ("weight", "bias", "following"))
    new_weight, new_bias, new_following = (part.double() for part in value)
    x = Draw(0).normal(5, weight.shape[1]).double()
    hidden = (x @ weight.T + bias).relu() * inputs["keep"]
    new = (x @ new_weight.T + new_bias).relu() @ new_following.T
    rounding = 1e-9 * hidden @ following.abs().T
    return bool(((new - hidden @ following.T).abs() <= rounding).all())


def _as_numbers(weight, bias, following, keep):
    places = keep.long()
    return weight[places], bias[places], following[:, places]


REMOVE_UNITS = Exercise(
    reference=remove_units,
    cases=_networks,
    relative_tolerance=0.0,
    absolute_tolerance=0.0,
    hints=(
        "Unit p has three things: the numbers that it reads with, its threshold, and the numbers "
        "by which others read it. Where do they stand?",
        "Row p of `weight`, entry p of `bias`, column p of `following`. A bool tensor as an index "
        "takes the places where it is True.",
        "weight[keep], bias[keep], following[:, keep].",
    ),
    properties=(
        Property(
            "the smaller network computes what the old one does with the other units at 0",
            _computes_the_same,
        ),
    ),
    misconceptions=(
        Misconception(
            "masked",
            lambda w, b, f, keep: (w * keep[:, None], b * keep, f * keep),
            "the units that go are zeros now, but they are still there: as many numbers, as many "
            "products, no byte saved. Take rows and columns out.",
        ),
        Misconception(
            "the others stayed",
            lambda w, b, f, keep: (w[~keep], b[~keep], f[:, ~keep]),
            "keep is True for the units that stay. You kept those that should go.",
        ),
        Misconception(
            "bias forgotten",
            lambda w, b, f, keep: (w[keep], b, f[:, keep]),
            "the bias still has an entry for each old unit. It belongs to the unit, as its row.",
        ),
        Misconception(
            "next layer forgotten",
            lambda w, b, f, keep: (w[keep], b[keep], f),
            "the next layer still has a column for each old unit: it reads what nobody sends.",
        ),
        Misconception(
            "True and False as numbers",
            _as_numbers,
            "you used the mask as places: True became 1 and False 0, so units 0 and 1 came back "
            "again and again. A mask must be bool to choose; places are keep.nonzero()[:, 0].",
        ),
        Misconception(
            "scaled up",
            lambda w, b, f, keep: (w[keep], b[keep], f[:, keep] * (len(keep) / keep.sum().item())),
            "you multiplied the next layer by H / K, as dropout does. Dropout draws units by "
            "chance, again and again, and the mean must be right. Here these units go for good: "
            "what stays must say what it said.",
        ),
    ),
)

# ------------------------------------------------------------------------ fold_constants


def fold_constants(
    weight: Tensor, bias: Tensor, inputs: Tensor, keep: Tensor
) -> tuple[Tensor, Tensor]:
    """(weight, bias) of the layer W h + b without some of its inputs; b takes over their means.

    weight W (O, H), bias b (O,). inputs (N, H): what the layer was given for N examples. keep (H,),
    bool: True for the inputs that stay, K of them, at least one. An input that goes counts as its
    mean over the N examples from now on, so its weights times its mean move into b. The result is
    (O, K) and (O,), each in its own dtype (all float; reckon in float64).
    """
    lost = weight[:, ~keep].double() @ inputs[:, ~keep].double().mean(0)  # (O, H − K) (H − K,)
    return weight[:, keep], (bias + lost).to(bias.dtype)


def _layer(draw: Draw, outputs: int, hidden: int, rows: int, stay: int, change: str = ""):
    """Changed as `change` says; drawn anew where a new bias is near zero: rounding would show."""
    while True:
        weight, bias = draw.normal(outputs, hidden), draw.normal(outputs)
        inputs, keep = (draw.normal(rows, hidden) + 0.3).relu(), draw.order(hidden) < stay
        if change == "no bias":
            bias *= 0
        elif change == "both signs":
            inputs -= 1
        elif change == "loud":
            inputs[:, keep] *= 1e6
        elif change == "rising":
            inputs *= torch.linspace(0, 2, rows)[:, None]
        elif change:
            inputs[:, ~keep] = draw.normal(hidden - stay) * (change == "constant")
        terms = bias.abs() + weight.abs() @ (inputs.abs().mean(0) * ~keep)
        if (fold_constants(weight, bias, inputs, keep)[1].abs() >= 0.05 * terms).all():
            return weight, bias, inputs, keep


def _scaled(of_weight: float, of_inputs: float, layer: tuple, dtype=torch.float32):
    weight, bias, inputs, keep = (x.to(dtype) if x.is_floating_point() else x for x in layer)
    return of_weight * weight, of_weight * of_inputs * bias, of_inputs * inputs, keep


def _layers_and_inputs(seed: int) -> list[Case]:
    draw = Draw(seed)
    layer = partial(_layer, draw)
    by_hand = torch.tensor([[1.0, 2.0], [0.0, -1.0]]), torch.tensor([0.5, 1.0])
    weight, bias, inputs, keep = layer(3, 8, 6, 4)
    w, b, x, stay = layer(3, 6, 9, 3)
    labelled = {
        "by hand": (
            *by_hand,
            torch.tensor([[5.0, 3.0], [7.0, 3.0]]) * draw.number(2, 9),
            torch.tensor([True, False]),
        ),
        "what goes is constant": layer(4, 9, 7, 5, "constant"),
        "after a ReLU": layer(3, 8, 20, 5),
        "means of both signs": layer(3, 8, 20, 4, "both signs"),
        "as many outputs and examples as inputs": layer(5, 5, 5, 3),
        "what stays is far larger": layer(3, 7, 6, 3, "loud"),
        "one example": layer(3, 6, 1, 4),
        "many examples, the later ones larger": layer(2, 4, 3701, 2, "rising"),
        "what goes is always 0": layer(3, 6, 5, 3, "dead"),
        "a bias of zero": layer(3, 6, 5, 3, "no bias"),
        "nothing goes": layer(3, 5, 4, 5),
        "one input stays": layer(3, 6, 9, 1),
        "one output": layer(1, 6, 9, 3),
        "very small inputs": _scaled(1.0, 1e-9, layer(3, 6, 9, 3)),
        "very large inputs": _scaled(1.0, 1e9, layer(3, 6, 9, 3)),
        "very small weights": _scaled(1e-9, 1.0, layer(3, 6, 9, 3)),
        "views": (weight.T.clone().T, bias, inputs.T.clone().T, keep.repeat_interleave(2)[::2]),
        "float16, whose means are too fine for it": _fine_means(draw),
        "a dtype for each": (w.bfloat16(), b.double(), x, stay),
        "float64, smaller than float32 knows": _scaled(
            1e-30, 1e-30, layer(3, 6, 9, 3), torch.float64
        ),
    }
    return labelled_cases(("weight", "bias", "inputs", "keep"), labelled)


def _fine_means(draw: Draw) -> tuple[Tensor, ...]:
    """Means in eighths near 900, where float16 knows halves, add up to eighths near 1800, where it
    knows whole numbers; what the bias leaves of them is exact.
    """
    signs = torch.tensor([1.0, 1.0, 1.0, -1.0])
    weight = torch.stack([signs[draw.order(4)] for _ in range(6)])
    weight = torch.cat([draw.normal(6, 2), weight], dim=1)
    inputs = 880.0 + draw.integers(0, 40, 8, 6)
    inputs[0, 5] += 1 - inputs[:, 2:].sum() % 2  # an odd sum: no mean output is a whole number
    bias = draw.integers(-5, 6, 6) - 1760.0  # about 40 is left
    return weight.half(), bias.half(), inputs.half(), torch.arange(6) < 2


def _mean_output_stays(inputs, value) -> bool:
    weight, bias, x = (inputs[name].double() for name in ("weight", "bias", "inputs"))
    new_weight, new_bias = (part.double() for part in value)
    mean = x.mean(0)
    moved = weight @ mean + bias - new_weight @ mean[inputs["keep"]] - new_bias
    terms = weight.abs() @ x.abs().mean(0) + bias.abs()
    return bool((moved.abs() <= 1e-5 * terms).all())


def _folded(of_lost):
    """A fold of other numbers: of_lost(W_gone, inputs that go, W, inputs, keep) is added to b."""

    def wrong(weight, bias, inputs, keep):
        w, x = weight.double(), inputs.double()
        lost = of_lost(w[:, ~keep], x[:, ~keep], w, x, keep)
        return weight[:, keep], (bias + lost).to(bias.dtype)

    return wrong


def _of_those_that_fire(weight, inputs, *_):
    fires = inputs > 0
    return weight @ ((inputs * fires).sum(0) / fires.sum(0)).nan_to_num(0.0)


FOLD_CONSTANTS = Exercise(
    reference=fold_constants,
    cases=_layers_and_inputs,
    relative_tolerance=2e-5,
    absolute_tolerance=0.0,
    hints=(
        "If h_p were 3 for every example, what would its column w_p add to every output? And where "
        "in the layer does a number stand that is added to every output?",
        "inputs[:, ~keep].mean(0) holds the means of what goes, and weight[:, ~keep] the columns "
        "that were read with.",
        "bias + weight[:, ~keep] @ inputs[:, ~keep].mean(0), reckoned in .double() and turned back "
        "to bias.dtype; and weight[:, keep].",
    ),
    properties=(
        Property(
            "over the N examples, the mean of the layer's output stays as it was",
            _mean_output_stays,
        ),
    ),
    misconceptions=(
        Misconception(
            "nothing folded",
            lambda w, b, x, keep: (w[:, keep], b.clone()),
            "the columns went and the bias stayed as it was. Every output has lost what these "
            "inputs gave on the mean.",
        ),
        Misconception(
            "taken away",
            _folded(lambda w, x, *_: -(w @ x.mean(0))),
            "you subtracted the means. The bias stands in for what went, so it gets W_gone times "
            "the mean with a plus.",
        ),
        Misconception(
            "all means folded",
            _folded(lambda w, x, W, X, keep: W @ X.mean(0)),
            "the means of all inputs went into the bias. Those that stay still speak for "
            "themselves, and now they are counted twice.",
        ),
        Misconception(
            "means of what stays",
            _folded(lambda w, x, W, X, keep: W[:, keep] @ X[:, keep].mean(0)),
            "you folded the inputs that stay. The bias must stand in for those that go: ~keep.",
        ),
        Misconception(
            "mean of those that fire",
            _folded(_of_those_that_fire),
            "you took the mean over the examples in which the unit fires. For all the others it "
            "gave 0, and these count, too.",
        ),
        Misconception(
            "first example",
            _folded(lambda w, x, *_: w @ x[0]),
            "you took the first example's values. Of a constant input that is the mean; of any "
            "other it is one draw.",
        ),
    ),
)
