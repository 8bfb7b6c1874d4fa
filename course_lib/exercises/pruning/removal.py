"""Exercises of 03_pruning: a weight removed with repair, and a budget split over layers.

Axes: I inputs, L layers, S choices.
"""

import torch
from torch import Tensor

from course_lib.exercises.engine.seeded import Draw
from course_lib.exercises.engine.spec import Case, Exercise, Misconception, Property, labelled_cases

# ------------------------------------------------------------------------------ obs_step


def obs_step(weight: Tensor, inverse: Tensor, index: int) -> tuple[Tensor, Tensor]:
    """(weight, inverse) after weight `index` went and the others moved to make up for it.

    weight (I,); inverse (I, I) is the inverse Hessian, with zeros in the rows and columns of
    weights that went before. In the result, the weight that went is exactly 0, and so are its row
    and column of the inverse, which is that of the Hessian without it. Both are in the inputs'
    dtype; the inputs stay as they are.
    """
    column = inverse[:, index] / inverse[index, index]
    weight = weight - weight[index] * column
    inverse = inverse - torch.outer(column, inverse[index])
    weight[index] = 0
    inverse[index] = inverse[:, index] = 0
    return weight, inverse


def _inverses(seed: int) -> list[Case]:
    draw = Draw(seed)

    def inverse(count: int, rows: int = 0) -> Tensor:
        """Of the Hessian 2XᵀX of random inputs, float64."""
        X = draw.normal(rows or 2 * count, count).double() + 0.5
        return torch.linalg.inv(2 * X.T @ X)

    def weight(count: int) -> Tensor:
        return draw.normal(count).double() + 0.1

    after_one = obs_step(weight(5), inverse(5), 2)
    nearly = inverse(3)
    nearly[:2, :2] += 1e4
    two = torch.tensor([[2.0, 1.0], [1.0, 2.0]])
    labelled = {
        "two weights": (torch.tensor([1.0, 4.0]), two, 0),
        "the last of two": (torch.tensor([1.0, 4.0]), draw.number(1, 9) * two, 1),
        "four weights": (weight(4), inverse(4), draw.number(0, 4)),
        "a second removal": (*after_one, 4),
        "inputs that do not overlap": (weight(3).float(), torch.diag(0.5 + draw.uniform(3)), 1),
        "two inputs nearly equal": (weight(3), nearly, 0),
        "a weight that is zero": (torch.tensor([0.0, -1.5, 2.0]), torch.diag(torch.ones(3)) + 1, 0),
        "one weight": (draw.normal(1), 1 + draw.uniform(1, 1), 0),
        "a small inverse": (weight(4), 1e-9 * inverse(4), 1),
        "a large inverse, small weights": (1e-9 * weight(4), 1e9 * inverse(4), 3),
        "twenty weights, as small as float64 knows": (
            1e-60 * weight(20),
            1e-60 * inverse(20, rows=60),
            draw.number(0, 20),
        ),
    }
    return labelled_cases(("weight", "inverse", "index"), labelled)


def _moved(of_weight, of_inverse):
    """A step with other formulas, of (weight, inverse, index); then zeros where they belong."""

    def wrong(weight, inverse, index):
        new, rest = of_weight(weight, inverse, index), of_inverse(inverse, index)
        new[index] = 0
        return new, rest

    return wrong


def _without(inverse, index):
    """The inverse with weight `index` eliminated."""
    rest = inverse - torch.outer(inverse[:, index], inverse[index]) / inverse[index, index]
    return _crossed_out(rest, index)


def _crossed_out(inverse, index):
    rest = inverse.clone()
    rest[index] = rest[:, index] = 0
    return rest


def _repaired(weight, inverse, index):
    return weight - weight[index] * inverse[:, index] / inverse[index, index]


def _in_place(weight, inverse, index):
    new, rest = obs_step(weight, inverse, index)
    return weight.copy_(new), inverse.copy_(rest)


OBS_STEP = Exercise(
    reference=obs_step,
    cases=_inverses,
    absolute_tolerance=0.0,
    hints=(
        "Two things change: the weights, along one column of the inverse, and the inverse, by a "
        "matrix of rank one.",
        "δ = −w_q / [H⁻¹]_qq · H⁻¹[:, q] has −w_q at place q. That is why the weight becomes zero.",
        "inverse − outer(H⁻¹[:, q], H⁻¹[q]) / [H⁻¹]_qq; then write exact zeros over the rounding, "
        "in weight q, row q and column q.",
    ),
    properties=(
        Property(
            "the weight that went, its row and its column of the inverse are exactly zero",
            lambda inputs, value: (
                not any(
                    part.any()
                    for part in (
                        value[0][inputs["index"]],
                        value[1][inputs["index"]],
                        value[1][:, inputs["index"]],
                    )
                )
            ),
        ),
    ),
    misconceptions=(
        Misconception(
            "no repair",
            _moved(lambda w, inverse, q: w.clone(), _without),
            "the weight went, but the others stayed where they were: that is Optimal Brain Damage. "
            "Move them along column q of the inverse.",
        ),
        Misconception(
            "moved the wrong way",
            _moved(lambda w, inverse, q: 2 * w - _repaired(w, inverse, q), _without),
            "the others moved the wrong way. At place q the step must be −w_q, so its sign is "
            "minus everywhere.",
        ),
        Misconception(
            "inverse kept",
            _moved(_repaired, lambda inverse, q: inverse.clone()),
            "the weights are right, but the inverse is still that of the Hessian with weight q. "
            "The next removal would move q again.",
        ),
        Misconception(
            "row and column crossed out",
            _moved(_repaired, _crossed_out),
            "you wrote zeros into row and column q of the inverse. Crossing out is right for the "
            "Hessian itself; the inverse of what is left differs everywhere: subtract "
            "outer(column, row) / [H⁻¹]_qq first.",
        ),
        Misconception(
            "not divided by the diagonal",
            _moved(lambda w, inverse, q: w - w[q] * inverse[:, q], _without),
            "the step was not divided by [H⁻¹]_qq. Only then does it bring w_q to zero; you wrote "
            "that zero yourself, and the others moved by a wrong amount.",
        ),
        Misconception(
            "in place",
            _in_place,
            "the values are right, but the weights and the inverse that were passed in are gone.",
        ),
    ),
)

# -------------------------------------------------------------------------- split_budget


def split_budget(losses: Tensor, kept: Tensor, budget: int) -> Tensor:
    """The choice s of each layer, int64 (L,): least Σ losses[l, s_l] with Σ kept[l, s_l] ≤ budget.

    losses (L, S), float: by how much the loss rose when layer l alone was pruned by choice s (noise
    may make it negative). kept (L, S), int64: how many weights that leaves. The choices of a layer
    are in no order, and there are at most 5000 combinations, so you may try all. One of them fits.
    """
    layers, columns = (torch.arange(n, device=losses.device) for n in losses.shape)
    choices = torch.cartesian_prod(*[columns] * len(layers)).view(-1, len(layers))  # (S^L, L)

    def total(table: Tensor) -> Tensor:
        return table[layers, choices].sum(1)

    return choices[torch.where(total(kept) <= budget, total(losses), torch.inf).argmin()]


def _measured(draw: Draw, layers: int, choices: int, share: float, scale: float = 1.0):
    """The more a layer keeps, the less is lost, as a rule."""
    size = draw.integers(100, 1000, layers, 1)
    density = torch.linspace(0.1, 1, choices)
    losses = draw.uniform(layers, 1) * (1 / density - 1) ** 2 + 0.1 * draw.normal(layers, choices)
    kept = (size * density).round().long()
    return scale * losses, kept, int(share * size.sum())


def _sensitivities(seed: int) -> list[Case]:
    draw = Draw(seed)

    order = draw.order(4)
    mixed, kept, budget = _measured(draw, 4, 4, 0.5)
    sparse, counts, _ = _measured(draw, 3, 4, 0.5)
    doubles, *others = _measured(draw, 6, 4, 0.45)
    greedy = torch.tensor([[0.0, 10.0], [0.0, 6.0], [0.0, 6.0]])
    noisy = torch.tensor([[-0.125, -0.5, 2.0], [1.0, 0.25, 0.75], [0.0, 0.5, -0.25]])
    weights = torch.tensor([[60, 0], [50, 0], [50, 0]])
    billions = 2 * 10**9 + draw.integers(0, 9, 3, 1) + torch.tensor([[0, 10**9, 1]])
    alone = draw.order(4)
    near = 1 + 1e-3 * torch.tensor([[3.0, 2.0, 1.0, 0.0], [0.0, 1.0, 2.0, 3.0]])
    labelled = {
        "the best ratio is not the best": (greedy * draw.number(1, 5), weights, 100),
        "losses below zero": (noisy * draw.number(1, 5), 10 + draw.order(9).view(3, 3), 60),
        "three layers": _measured(draw, 3, 4, 0.5),
        "five layers": _measured(draw, 5, 5, 0.4),
        "choices in no order": (mixed[:, order], kept[:, order], budget),
        "one layer": (alone[None].float(), alone.flip(0)[None] * 10, 20),
        "all may stay": _measured(draw, 3, 3, 1.0),
        "only the sparsest fit": (sparse, counts, int(counts.amin(1).sum())),
        "very small losses": _measured(draw, 4, 4, 0.5, scale=1e-9),
        "very large losses": _measured(draw, 4, 4, 0.3, scale=1e9),
        "billions of weights, one too many": (
            draw.uniform(3, 3) + torch.tensor([[2.0, 1.0, 0.0]]),
            billions,
            int(billions[:, 2].sum()) - 1,
        ),
        "losses nearly equal": (near, 10 + draw.integers(0, 9, 2, 4), 40),
        "float64": (doubles.double(), *others),
    }
    return labelled_cases(("losses", "kept", "budget"), labelled)


def _is_a_choice(inputs, value: Tensor) -> bool:
    layers, choices = inputs["losses"].shape
    fits = value.dtype == torch.int64 and value.shape == (layers,)
    return fits and bool((value >= 0).all() and (value < choices).all())


def _chosen(inputs, value: Tensor, name: str) -> Tensor:
    """The chosen entry of each layer, (L,), in as many digits as there are."""
    numbers = inputs[name].gather(1, value[:, None])[:, 0]  # (L, S) -> (L,)
    return numbers.double() if numbers.is_floating_point() else numbers


def _loss(inputs, value: Tensor) -> float:
    return float(_chosen(inputs, value, "losses").sum())


def _weights(inputs, value: Tensor) -> int:
    return int(_chosen(inputs, value, "kept").sum())


def _asked(inputs) -> float:
    """The least loss, and what rounding in float32 may add."""
    rounding = 1e-5 * float(inputs["losses"].abs().max())
    return _loss(inputs, split_budget(**inputs)) + rounding


def _what_was_reached(inputs, value: Tensor) -> str:
    return (
        f"loss {_loss(inputs, value):.6g} (asked: {_loss(inputs, split_budget(**inputs)):.6g}) "
        f"with {_weights(inputs, value):,} weights (asked: at most {inputs['budget']:,})"
    )


def _one_for_all(losses, kept, budget):
    """The same choice for each layer: of those that fit, the one of least loss."""
    fits = kept.sum(0) <= budget
    price = torch.where(fits, losses.sum(0), torch.inf) if fits.any() else kept.sum(0)
    return price.argmin().repeat(len(losses))


def _greedy(losses, kept, budget):
    """From the most weights on: again and again the step that loses least for each weight."""
    choice = kept.argmax(1)
    while (now := kept.gather(1, choice[:, None])).sum() > budget:
        price = losses - losses.gather(1, choice[:, None])
        ratio = torch.where(kept < now, price / (now - kept), torch.inf)
        layer, step = divmod(int(ratio.argmin()), losses.shape[1])
        choice[layer] = step
    return choice


def _equal_shares(losses, kept, budget):
    fits = kept <= budget / len(kept)
    return torch.where(fits, losses, torch.inf).argmin(1)


SPLIT_BUDGET = Exercise(
    reference=split_budget,
    cases=_sensitivities,
    compare=False,
    reached=_what_was_reached,
    hints=(
        "The layers share one budget: what one of them keeps, another must give up.",
        "itertools.product(range(S), repeat=L) goes through all combinations; so does "
        "torch.cartesian_prod.",
        "For each: add up the kept weights of the chosen entries, skip it if that is above the "
        "budget, else add up the losses and remember the least. Return torch.tensor(best).",
    ),
    properties=(
        Property("one choice for each layer, int64 (L,), from 0 to S − 1", _is_a_choice, form=True),
        Property(
            "the weights that stay are within the budget",
            lambda inputs, value: _weights(inputs, value) <= inputs["budget"],
        ),
        Property(
            "no other choice within the budget loses less",
            lambda inputs, value: _loss(inputs, value) <= _asked(inputs),
        ),
    ),
    misconceptions=(
        Misconception(
            "the same for all",
            _one_for_all,
            "every layer got the same choice. That is the uniform split; a layer that hardly "
            "matters could give weights to one that does.",
        ),
        Misconception(
            "one step after another",
            _greedy,
            "you took the step of least loss per weight, again and again. The last such step can "
            "free far more than was needed, where another combination would have fitted exactly. "
            "It is a knapsack: try all.",
        ),
        Misconception(
            "budget ignored",
            lambda losses, kept, budget: losses.argmin(1),
            "each layer took its own least loss, and together they keep too many weights.",
        ),
        Misconception(
            "equal shares",
            _equal_shares,
            "each layer got the same part of the budget, so a large and a small layer keep equally "
            "many weights. Only their sum is limited.",
        ),
        Misconception(
            "fewest weights",
            lambda losses, kept, budget: kept.argmin(1),
            "each layer took its sparsest choice. The budget may be used up: weights that stay "
            "save loss.",
        ),
    ),
)
