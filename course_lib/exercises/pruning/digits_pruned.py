"""Exercises of 03_pruning, the last: a network of which one weight in twenty is left."""

import copy
import itertools
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from course_lib.data.images import Digits, digits
from course_lib.exercises.engine.seeded import Draw
from course_lib.exercises.engine.spec import Case, Exercise, Misconception, Property
from course_lib.measure.quality import accuracy
from course_lib.models.digits_mlp import DigitsMLP, train_digits
from course_lib.models.parts import prunable_weights
from course_lib.pruning.masks import apply_masks, hold_masks, magnitude_masks

DENSITY, POINTS = 0.05, 1.0  # asked: at most, and at most so much less accuracy, in points
EPOCHS, RATE = 16, 1e-2  # of the reference
TIGHTEN = 200  # steps of 320 in which the reference prunes
LAYERS = ("0.weight", "2.weight", "4.weight")


def prune_digits(models: list[nn.Module], images: Tensor, labels: Tensor) -> list[nn.Module]:
    """A copy of each trained DigitsMLP, in order, with at most 5 % of its weights not zero.

    The mean of their accuracies on test images is to be within one point of the dense ones'. The
    zeros stand in the weights of the linear layers themselves; biases are free. images (1257, 64),
    labels (1257,). The check shows all images, the test's too, turned or mirrored in one way, so
    learn from those given and do not call digits().
    """
    pruned = copy.deepcopy(models)
    for model in pruned:
        train_digits(
            model, Digits(images, labels, images, labels), EPOCHS, RATE, prepare=_of(model)
        )
    return pruned


def _of(model: nn.Module):
    """What train_digits calls with its optimizer: the masks tighten in every step, then hold."""
    weights, steps = prunable_weights(model), itertools.count(1)
    masks = magnitude_masks(weights, 1.0)

    def tighten(*_) -> None:
        if (step := next(steps)) <= TIGHTEN:
            density = DENSITY + (1 - DENSITY) * (1 - step / TIGHTEN) ** 3
            masks.update(magnitude_masks(weights, density))

    def prepare(optimizer: torch.optim.Optimizer) -> None:
        optimizer.register_step_pre_hook(tighten)
        hold_masks(optimizer, weights, masks)

    return prepare


def _turned(images: Tensor, way: int) -> Tensor:
    """The images (N, 64) in one of the eight ways in which a square can lie; 0 is as they are."""
    square = images.view(-1, 8, 8).rot90(way % 4, (1, 2))  # (N, 64) -> (N, 8, 8)
    return (square.flip(2) if way >= 4 else square).flatten(1)


@cache
def _trained(seed: int) -> tuple[list[nn.Module], Digits]:
    """Three trained models, and the digits, lying in another way than in the lesson."""
    draw, data = Draw(seed), digits()
    way = draw.number(1, 8)
    data = data._replace(train_images=_turned(data.train_images, way))
    models = [draw.module(DigitsMLP) for _ in range(3)]
    for model in models:
        train_digits(model, data, seed=draw.number(0, 1000))
    return models, data


def _three_models(seed: int) -> list[Case]:
    models, data = _trained(seed)
    inputs = {"models": models, "images": data.train_images, "labels": data.train_labels}
    return [Case("three networks", copy.deepcopy(inputs))]


def _way(inputs: dict) -> int:
    """In which way the images of a case lie."""
    first, images = inputs["images"][0].cpu(), digits().train_images
    return next(w for w in range(8) if (_turned(images, w) == first).all(dim=1).any())


def _mean_accuracy(inputs: dict, states: list[dict[str, Tensor]]) -> float:
    """On the test images, in percent."""
    data, model, total = digits(), DigitsMLP(), 0.0
    images = _turned(data.test_images, _way(inputs))
    for state in states:
        model.load_state_dict(state)
        total += accuracy(model, images, data.test_labels)
    return 100 * total / len(states)


def _dense(inputs: dict) -> float:
    return _mean_accuracy(inputs, [model.state_dict() for model in inputs["models"]])


def _weights(state: dict[str, Tensor]) -> Tensor:
    return torch.cat([state[name].flatten() for name in LAYERS])


def _largest_density(states: list[dict[str, Tensor]]) -> float:
    return max(float((_weights(state) != 0).double().mean()) for state in states)


def _are_networks(inputs: dict, states: list[dict[str, Tensor]]) -> bool:
    """As many as were given, each with the tensors of a DigitsMLP, all of finite numbers."""
    if not isinstance(states, list):
        return False
    models = inputs["models"]
    shapes = [{n: t.shape for n, t in model.state_dict().items()} for model in models]
    finite = all(t.isfinite().all() for state in states for t in state.values())
    return finite and [{n: t.shape for n, t in state.items()} for state in states] == shapes


def _are_copies(inputs: dict, states: list[dict[str, Tensor]]) -> bool:
    """Each answer resembles its own model more than any other one, and has its shapes."""
    theirs = torch.stack([_weights(model.state_dict()) for model in inputs["models"]])
    mine = torch.stack([_weights(state) for state in states])
    likeness = F.normalize(mine, dim=1) @ F.normalize(theirs, dim=1).T
    return likeness.argmax(dim=1).tolist() == list(range(len(theirs)))


def _what_was_reached(inputs: dict, states: list[dict[str, Tensor]]) -> str:
    reached, dense = _mean_accuracy(inputs, states), _dense(inputs)
    return (
        f"accuracy {reached:.1f} %, dense {dense:.1f} % (asked: at most {POINTS:g} point less); "
        f"density {100 * _largest_density(states):.1f} % (asked: at most 5 %)"
    )


def _in_one_stroke(density: float, epochs: int, held: bool = True):
    """Pruned at once, then trained with the masks, or without."""

    def wrong(models, images, labels):
        pruned = copy.deepcopy(models)
        for model in pruned:
            weights = prunable_weights(model)
            masks = magnitude_masks(weights, density)
            apply_masks(weights, masks)
            if epochs:
                _train(model, images, labels, epochs, masks if held else {})
        return pruned

    return wrong


def _train(model, images, labels, epochs, masks) -> None:
    weights, data = prunable_weights(model), Digits(images, labels, images, labels)
    train_digits(model, data, epochs, prepare=lambda opt: hold_masks(opt, weights, masks))


def _trained_then_pruned(models, images, labels):
    pruned = copy.deepcopy(models)
    for model in pruned:
        _train(model, images, labels, 3, {})
        apply_masks(weights := prunable_weights(model), magnitude_masks(weights, DENSITY))
    return pruned


PRUNE_DIGITS = Exercise(
    reference=prune_digits,
    cases=_three_models,
    compare=False,
    seconds=120.0,
    reached=_what_was_reached,
    hints=(
        "At one weight in twenty, rounds of pruning with a short retraining after each lose about "
        "two points. What do they not have: time, gentle steps, a learning rate that lets the "
        "weights move?",
        "Prune a little in every step of one training instead of much between several: fast while "
        "there is much to spare, slowly towards the end (a cubic), and leave the last part of the "
        "training to heal. Try twice the usual learning rate.",
        "train_digits(model, Digits(images, labels, images, labels), epochs=16, rate=1e-2, "
        "prepare=…), where prepare(optimizer) calls follow_density(optimizer, "
        "prunable_weights(model), lambda step: cubic_density(step, 0, 200, 0.05)), as in the race.",
    ),
    properties=(
        Property(
            "a list of networks with a DigitsMLP's own tensors, 0.weight to 4.bias, dense and "
            "finite (masks of torch.nn.utils.prune: prune.remove makes them zeros)",
            _are_networks,
            form=True,
        ),
        Property(
            "each network keeps at most 5 % of its weights",
            lambda inputs, states: _largest_density(states) <= DENSITY,
        ),
        Property(
            "network i is a copy of model i, not of another one, pruned and trained", _are_copies
        ),
        Property(
            "on test images the mean accuracy is within one point of the dense networks'",
            lambda inputs, states: _dense(inputs) - _mean_accuracy(inputs, states) <= POINTS,
        ),
    ),
    misconceptions=(
        Misconception(
            "not retrained",
            _in_one_stroke(DENSITY, epochs=0),
            "the networks are sparse enough, but they were not trained again. What was left had "
            "no chance to take over.",
        ),
        Misconception(
            "5 % removed",
            _in_one_stroke(0.95, epochs=0),
            "you removed 5 % and kept 95 %. Density is the share that stays.",
        ),
        Misconception(
            "mask not held",
            _in_one_stroke(DENSITY, epochs=2, held=False),
            "you pruned and trained, and the training brought the pruned weights back: accuracy "
            "is fine, sparsity is gone. Hold the masks in every step.",
        ),
        Misconception(
            "one stroke, a short training",
            _in_one_stroke(DENSITY, epochs=6),
            "you pruned in one stroke and retrained for six epochs. Most of what was removed in "
            "that stroke would have been chosen otherwise a little later: go there in small steps, "
            "and train for longer.",
        ),
        Misconception(
            "trained, then pruned",
            _trained_then_pruned,
            "you trained on and pruned last. Nothing in that training knew that the weights would "
            "go. Prune first, or meanwhile, and train what is left.",
        ),
    ),
)
