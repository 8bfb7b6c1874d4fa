"""Exercises of 02_l0_objective: masks that hold, gates that are learned, a sparse network."""

import copy
import math
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from course_lib.data.images import Digits, digits
from course_lib.exercises.engine.seeded import Draw
from course_lib.exercises.engine.spec import Case, Exercise, Misconception, Property, labelled_cases
from course_lib.measure.quality import accuracy
from course_lib.models.digits_mlp import DigitsMLP, train_digits
from course_lib.models.parts import prunable_weights
from course_lib.pruning.masks import apply_masks, hold_masks, magnitude_masks

# ------------------------------------------------------------------ masked_momentum_step


def masked_momentum_step(
    weight: Tensor, velocity: Tensor, gradient: Tensor, mask: Tensor, rate: float, momentum: float
) -> tuple[Tensor, Tensor]:
    """(weight, velocity) after one SGD step with momentum under which no pruned weight returns.

    The inputs stay as they are; mask is bool, True where a weight stays.
    """
    velocity = (momentum * velocity + gradient) * mask
    return (weight - rate * velocity) * mask, velocity


def _optimizer_states(seed: int) -> list[Case]:
    draw, names = Draw(seed), ("weight", "velocity", "gradient", "mask", "rate", "momentum")
    mask = torch.tensor([False, True])
    two, ones, zeros = torch.tensor([0.0, 2.0]), torch.ones(2), torch.zeros(2)
    some, rate, momentum = draw.normal(3, 4) > 0, draw.number(1, 5) / 8, draw.number(5, 9) / 10
    some[0, :2] = torch.tensor([True, False])

    def state(*shape: int) -> list[Tensor]:
        return [draw.normal(*shape) for _ in range(3)]

    labelled = {
        "no momentum yet": (two, zeros, ones, mask, 0.5, 0.9),
        "momentum from before the pruning": (two, ones, ones, mask, rate, 0.9),
        "just chosen, not yet zero": (torch.tensor([3.0, 2.0]), ones, -ones, mask, 0.1, 0.5),
        "no gradient": (two, 2 * ones, zeros, mask, 0.25, momentum),
        "no momentum at all": (*state(2), mask, rate, 0.0),
        "a matrix": (*state(3, 4), some, 0.1, momentum),
        "very large gradients": (*state(2), mask, 1e9, momentum),
        "all stay": (*state(5), torch.ones(5, dtype=torch.bool), rate, momentum),
        "float64": (*(1e60 * one.double() for one in state(3, 4)), some, rate, momentum),
    }
    return labelled_cases(names, labelled)


def _step_with(of_gradient, of_velocity, of_weight):
    """The step with each of three masks applied or not; "~" for the mask the wrong way round."""

    def wrong(weight, velocity, gradient, mask, rate, momentum):
        masks = {True: mask, False: torch.ones_like(mask), "~": ~mask}
        velocity = momentum * velocity + gradient * masks[of_gradient]
        velocity = velocity * masks[of_velocity]
        return (weight - rate * velocity) * masks[of_weight], velocity

    return wrong


MASKED_MOMENTUM_STEP = Exercise(
    reference=masked_momentum_step,
    cases=_optimizer_states,
    hints=(
        "Without a mask: velocity ← momentum · velocity + gradient; weight ← weight − rate · "
        "velocity.",
        "Who could bring a pruned weight back? The gradient of this step, and the velocity, which "
        "remembers earlier ones.",
        "Mask the new velocity, and mask the new weight. True times a number is the number.",
    ),
    properties=(
        Property(
            "pruned weights are zero, and nothing is remembered about them",
            lambda inputs, value: not any(part[~inputs["mask"]].any() for part in value),
        ),
    ),
    misconceptions=(
        Misconception(
            "no mask",
            _step_with(False, False, False),
            "pruned weights took part in the step and came back. Zeroing them once, before the "
            "training, is what S0's sample does.",
        ),
        Misconception(
            "gradient only",
            _step_with(True, False, False),
            "only the gradient was masked. The velocity still holds gradients from before the "
            "pruning, and moves pruned weights for many more steps.",
        ),
        Misconception(
            "weight only",
            _step_with(False, False, True),
            "the weights are right, but the velocity still collects gradients of pruned weights. "
            "The day the mask changes, such a weight leaps.",
        ),
        Misconception(
            "velocity only",
            _step_with(False, True, False),
            "the velocity is right, but a weight that was chosen and is not zero yet stays as it "
            "is: nothing moves it, nothing removes it.",
        ),
        Misconception(
            "mask inverted",
            _step_with("~", "~", "~"),
            "the mask was used the wrong way round: True means that the weight stays.",
        ),
    ),
)

# ------------------------------------------------------------------- expected_open_gates


def expected_open_gates(log_alpha: Tensor, beta: float, gamma: float, zeta: float) -> Tensor:
    """Expected number of hard-concrete gates that are not zero, a 0-d tensor in log_alpha's dtype.

    It is there to be differentiated by log_alpha (any shape).
    """
    return (log_alpha - beta * math.log(-gamma / zeta)).sigmoid().sum()


def _gates(seed: int) -> list[Case]:
    draw, names = Draw(seed), ("log_alpha", "beta", "gamma", "zeta")
    beta, gamma = draw.number(3, 9) / 10, -draw.number(1, 6) / 20
    zeta = 1.0 + draw.number(7, 12) / 20
    labelled = {
        "three gates": (torch.tensor([-5.0, 0.0, 5.0]), 2 / 3, -0.1, 1.1),
        "all nearly closed": (draw.uniform(6) - 4.5, 2 / 3, -0.1, 1.1),
        "another temperature": (draw.normal(2), 0.3, -0.1, 1.1),
        "a wide stretch": (draw.normal(3), beta, -0.5, 1.5),
        "farther below 0 than above 1": (draw.normal(4), beta, -0.4, 1.05),
        "a matrix": (draw.normal(3, 4), beta, gamma, zeta),
        "one gate": (draw.normal(1), beta, gamma, zeta),
        "open and closed for certain": (torch.tensor([-30.0, 30.0, 25.0]), 2 / 3, gamma, zeta),
        "float64": (draw.normal(5).double(), beta, gamma, zeta),
    }
    return labelled_cases(names, labelled)


def _stretched(log_alpha, gamma, zeta):
    return (log_alpha.sigmoid() * (zeta - gamma) + gamma).clamp(0, 1)


EXPECTED_OPEN_GATES = Exercise(
    reference=expected_open_gates,
    cases=_gates,
    differentiable=("log_alpha",),
    hints=(
        "The expected number is the sum of each gate's chance of being open.",
        "A gate is zero if s(ζ − γ) + γ ≤ 0. Solve for s, then for u, which is uniform.",
        "P(z ≠ 0) = sigmoid(log α − β · log(−γ/ζ)); math.log takes the number −γ/ζ.",
    ),
    misconceptions=(
        Misconception(
            "sigmoid of log α",
            lambda a, beta, gamma, zeta: a.sigmoid().sum(),
            "sigmoid(log α) is the chance that s is above ½. The gate is zero only where the "
            "stretched s falls below zero, so it is open more often: subtract β log(−γ/ζ).",
        ),
        Misconception(
            "sign of the shift",
            lambda a, beta, gamma, zeta: (a + beta * math.log(-gamma / zeta)).sigmoid().sum(),
            "the shift has the wrong sign. −γ/ζ is below 1, so its logarithm is negative, and "
            "subtracting it makes an open gate likelier.",
        ),
        Misconception(
            "temperature forgotten",
            lambda a, beta, gamma, zeta: (a - math.log(-gamma / zeta)).sigmoid().sum(),
            "β is missing. The noise is divided by β before the sigmoid, so the border where the "
            "gate closes moves with it.",
        ),
        Misconception(
            "count of the fixed gates",
            lambda a, beta, gamma, zeta: (_stretched(a, gamma, zeta) != 0).sum().float(),
            "you counted the noiseless gates that are not zero. That number jumps, so it has no "
            "gradient. What is learned from is the expectation.",
        ),
        Misconception(
            "mean gate",
            lambda a, beta, gamma, zeta: _stretched(a, gamma, zeta).sum(),
            "you added up the gates themselves. A gate of 0.3 is open and costs a whole weight: "
            "‖θ‖₀ counts it as 1.",
        ),
    ),
)

# ----------------------------------------------------------------------- sparsify_digits

STROKES = ((0.2, 2), (0.08, 6))  # density, epochs of retraining
LAYERS = ("0.weight", "2.weight", "4.weight")


def retrain(
    model: nn.Module, images: Tensor, labels: Tensor, masks: dict[str, Tensor], epochs: int
) -> None:
    """In place: train on under the masks, which are held in every step."""
    weights, data = prunable_weights(model), Digits(images, labels, images, labels)
    train_digits(model, data, epochs, prepare=lambda opt: hold_masks(opt, weights, masks))


def sparsify_digits(models: list[nn.Module], images: Tensor, labels: Tensor) -> list[nn.Module]:
    """A copy of each trained DigitsMLP, in order, with at most 8 % of its weights not zero.

    The zeros stand in the weights themselves. `labels` names the ten digits in another way.
    """
    pruned = copy.deepcopy(models)
    for model in pruned:
        for density, epochs in STROKES:
            masks = magnitude_masks(prunable_weights(model), density)
            retrain(model, images, labels, masks, epochs)
    return pruned


@cache
def _trained(seed: int) -> tuple[list[nn.Module], Digits]:
    """Three trained models, and the digits, each under the name of another one."""
    draw, data = Draw(seed), digits()
    names = draw.order(10)
    while (names == torch.arange(10)).any():
        names = draw.order(10)
    data = data._replace(train_labels=names[data.train_labels])
    models = [draw.module(DigitsMLP) for _ in range(3)]
    for model in models:
        train_digits(model, data, seed=draw.number(0, 1000))
    return models, data


def _three_models(seed: int) -> list[Case]:
    models, data = _trained(seed)
    inputs = {"models": models, "images": data.train_images, "labels": data.train_labels}
    return [Case("three networks", copy.deepcopy(inputs))]


def _mean_accuracy(inputs, states: list[dict[str, Tensor]]) -> float:
    """On the test images, under the names that the labels of the training images have."""
    data, model, total = digits(), DigitsMLP(), 0.0
    names = torch.zeros(10, dtype=torch.long).scatter(0, data.train_labels, inputs["labels"])
    for state in states:
        model.load_state_dict(state)
        total += accuracy(model, data.test_images, names[data.test_labels])
    return total / len(states)


def _asked(inputs) -> float:
    """Two points less than the dense networks' mean accuracy."""
    return _mean_accuracy(inputs, [model.state_dict() for model in inputs["models"]]) - 0.02


def _weights(state: dict[str, Tensor]) -> Tensor:
    return torch.cat([state[name].flatten() for name in LAYERS])


def _densities(states) -> list[float]:
    return [float((_weights(state) != 0).double().mean()) for state in states]


def _are_networks(inputs, states) -> bool:
    """As many as were given, each with the tensors of a DigitsMLP."""
    shapes = [{n: t.shape for n, t in model.state_dict().items()} for model in inputs["models"]]
    return (
        isinstance(states, list)
        and [{n: t.shape for n, t in state.items()} for state in states] == shapes
    )


def _are_copies(inputs, states) -> bool:
    """Each answer resembles its own model more than any other one, and has its shapes."""
    theirs = torch.stack([_weights(model.state_dict()) for model in inputs["models"]])
    mine = torch.stack([_weights(state) for state in states])
    likeness = F.normalize(mine, dim=1) @ F.normalize(theirs, dim=1).T
    return likeness.argmax(dim=1).tolist() == list(range(len(theirs)))


def _what_was_reached(inputs, states) -> str:
    reached, asked = 100 * _mean_accuracy(inputs, states), 100 * _asked(inputs)
    return (
        f"accuracy {reached:.1f} % (asked: at least {asked:.1f} %), "
        f"density {100 * max(_densities(states)):.1f} % (asked: at most 8 %)"
    )


def _pruned_to(density, held=None):
    """Pruned in one stroke; then trained with the mask (held), without it, or not at all."""

    def wrong(models, images, labels):
        pruned = copy.deepcopy(models)
        for model in pruned:
            weights = prunable_weights(model)
            masks = magnitude_masks(weights, density)
            apply_masks(weights, masks)
            if held is not None:
                retrain(model, images, labels, masks if held else {}, epochs=2)
        return pruned

    return wrong


SPARSIFY_DIGITS = Exercise(
    reference=sparsify_digits,
    cases=_three_models,
    compare=False,
    seconds=120.0,
    hints=(
        "Pruning in one stroke to 8 % loses half of the accuracy. What does retraining under the "
        "mask give back?",
        "Retrain under the mask: long enough after one stroke, or for fewer epochs in two strokes: "
        "prune to 20 %, retrain, prune to 8 %, retrain.",
        "for density, epochs in ((0.2, 2), (0.08, 6)): masks = magnitude_masks(prunable_weights("
        "model), density), then retrain(model, images, labels, masks, epochs).",
    ),
    reached=_what_was_reached,
    properties=(
        Property(
            "a list of networks, each with a DigitsMLP's own tensors", _are_networks, form=True
        ),
        Property(
            "each network keeps at most 8 % of its weights",
            lambda inputs, states: max(_densities(states)) <= 0.08,
        ),
        Property(
            "network i is a copy of model i, not of another one, pruned and trained", _are_copies
        ),
        Property(
            "on test images the mean accuracy is within two points of the dense networks' "
            "(only the images and labels that you are handed help: elsewhere the digits have other "
            "names)",
            lambda inputs, states: _mean_accuracy(inputs, states) >= _asked(inputs),
        ),
    ),
    misconceptions=(
        Misconception(
            "not retrained",
            _pruned_to(0.08),
            "the networks are sparse enough, but they were not trained again. What was left had "
            "no chance to take over, and accuracy has collapsed.",
        ),
        Misconception(
            "8 % removed",
            _pruned_to(0.92),
            "you removed 8 % and kept 92 %. Sparsity is the share of zeros, density the share of "
            "what stays.",
        ),
        Misconception(
            "mask not held",
            _pruned_to(0.08, held=False),
            "you pruned and trained, and the training brought the pruned weights back: accuracy "
            "is fine, sparsity is gone. Hold the masks in every step.",
        ),
    ),
)
