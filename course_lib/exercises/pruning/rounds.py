"""Exercises of 03_pruning: pruning in rounds, and how much each of them leaves."""

import torch
from torch import Tensor

from course_lib.exercises.engine.seeded import Draw
from course_lib.exercises.engine.spec import Case, Exercise, Misconception, Property, labelled_cases

# ---------------------------------------------------------------------------- next_masks


def next_masks(
    weights: dict[str, Tensor], masks: dict[str, Tensor], share: float
) -> dict[str, Tensor]:
    """The masks of the next round, bool by name: True where a weight stays.

    Of the R weights whose mask is True, in all layers together, the round(share · R) of least
    magnitude go (Python's round: 2.5 becomes 2); of equal magnitudes the first stay, in the order
    of the dictionary and of the entries. A weight whose mask is False never returns, even if it is
    not zero.
    """
    kept = torch.cat([masks[name].flatten() for name in weights])
    size = torch.cat([weight.abs().flatten() for weight in weights.values()])
    left = int(kept.sum())
    order = torch.where(kept, size, -torch.inf).argsort(descending=True, stable=True)
    chosen = torch.zeros_like(kept)
    chosen[order[: left - round(share * left)]] = True
    parts = iter(chosen.split([weight.numel() for weight in weights.values()]))
    return {name: next(parts).view_as(weight) for name, weight in weights.items()}


def _state(draw: Draw, *shapes: tuple[int, ...], zeroed: bool, share: float = 0.5):
    """Layers of different scales, `share` of them pruned, and zero there or not."""
    weights = {f"{i}.weight": (i + 1) * draw.normal(*s) for i, s in enumerate(shapes)}
    masks = {name: draw.uniform(*w.shape) >= share for name, w in weights.items()}
    weights = {n: w * masks[n] for n, w in weights.items()} if zeroed else weights
    return weights, masks


def _scaled(dtype, scale, weights, masks):
    return {n: scale * w.to(dtype) for n, w in weights.items()}, masks


def _states(seed: int) -> list[Case]:
    draw = Draw(seed)

    def all_of(some):
        return {name: torch.ones_like(w, dtype=torch.bool) for name, w in some.items()}

    first = {"a": torch.tensor([[3.0, -0.5], [-2.0, 1.0]]), "b": torch.tensor([4.0, 0.25])}
    second = {"a": torch.tensor([[True, False], [True, True]]), "b": torch.tensor([True, False])}
    ties = {"a": draw.integers(-2, 3, 4, 5).float(), "b": draw.integers(-2, 3, 30).float()}
    zeros = {"a": torch.tensor([0.0, -0.0, 2.0, -1.0]), "b": torch.tensor([0.0, 3.0, 0.5, -4.0])}
    zeros_left = torch.tensor([False, True, True, True])
    near = {
        "a": 1 + 1e-12 * draw.order(9).double(),
        "b": -1 - 1e-12 * draw.order(9).double() - 9e-12,
    }
    a, b, c = draw.number(25, 35) / 100, draw.number(15, 25) / 100, draw.number(40, 60) / 100
    labelled = {
        "the first round": (first, all_of(first), 0.5),
        "the second round": ({n: w * second[n] for n, w in first.items()}, second, 0.5),
        "pruned weights are zero": (*_state(draw, (4, 5), (3, 4), zeroed=True), a),
        "pruned weights are not zero": (*_state(draw, (4, 5), (3, 4), zeroed=False), b),
        "most are gone": (*_state(draw, (9, 9), (30,), zeroed=True, share=0.9), c),
        "ties": (ties, {n: draw.uniform(*w.shape) > 0.3 for n, w in ties.items()}, c),
        "zeros that still count": (zeros, {**all_of(zeros), "a": zeros_left}, 0.15),
        "half a weight": ({"a": draw.normal(5)}, {"a": torch.ones(5, dtype=torch.bool)}, 0.5),
        "nothing goes": (*_state(draw, (3, 3), (4,), zeroed=False), 0.0),
        "all go": (*_state(draw, (3, 3), (4,), zeroed=False), 1.0),
        "one layer, very small weights": (
            *_scaled(torch.float32, 1e-30, *_state(draw, (40,), zeroed=True)),
            a,
        ),
        "very large weights": (
            *_scaled(torch.float32, 1e9, *_state(draw, (5, 6), (8,), zeroed=True)),
            b,
        ),
        "float64, nearly equal": (near, all_of(near), a),
        "float16": (*_scaled(torch.float16, 1.0, *_state(draw, (20,), (20,), zeroed=True)), c),
    }
    return labelled_cases(("weights", "masks", "share"), labelled)


def _as_given(weights, masks, share):
    """The function that the lesson prints for repair: it looks right in the first round."""
    threshold = torch.cat([w.abs().flatten() for w in weights.values()]).quantile(share)
    return {name: w.abs() > threshold for name, w in weights.items()}


def _as_given_and_masked(weights, masks, share):
    return {name: mask & masks[name] for name, mask in _as_given(weights, masks, share).items()}


def _quantile_of_the_living(weights, masks, share):
    living = torch.cat([w.abs()[masks[name]] for name, w in weights.items()])
    threshold = living.quantile(share)
    return {name: (w.abs() > threshold) & masks[name] for name, w in weights.items()}


def _largest(scores: dict[str, Tensor], count: int) -> dict[str, Tensor]:
    """Masks of the `count` largest scores of all; of equal ones the first."""
    everything = {name: torch.ones_like(s, dtype=torch.bool) for name, s in scores.items()}
    total = sum(s.numel() for s in scores.values())
    least = min(s.min() for s in scores.values())
    shifted = {name: s - least for name, s in scores.items()}
    return next_masks(shifted, everything, 1 - count / total)


def _left(masks) -> int:
    return sum(int(mask.sum()) for mask in masks.values())


def _share_of_all(weights, masks, share):
    """round(share · size) go in each round, as long as there are any."""
    total, left = sum(w.numel() for w in weights.values()), _left(masks)
    return next_masks(weights, masks, min(1.0, round(share * total) / left))


def _each_layer(weights, masks, share):
    alone = [next_masks({n: weights[n]}, {n: masks[n]}, share) for n in weights]
    return {name: mask for one in alone for name, mask in one.items()}


def _returning(weights, masks, share):
    left = _left(masks)
    return _largest({n: w.abs() for n, w in weights.items()}, left - round(share * left))


NEXT_MASKS = Exercise(
    reference=next_masks,
    cases=_states,
    hints=(
        "In the second round, which weights are the smallest? Those that are zero already.",
        "Let only weights compete whose mask is True. How many stay? R − round(share · R).",
        "Give pruned weights the magnitude −∞, sort all layers' magnitudes together "
        "(argsort(descending=True, stable=True)) and keep the first R − round(share · R); then "
        "split the long mask into the layers' shapes.",
    ),
    properties=(
        Property(
            "no pruned weight returns",
            lambda inputs, value: (
                not any((value[n] & ~m).any() for n, m in inputs["masks"].items())
            ),
        ),
    ),
    misconceptions=(
        Misconception(
            "as given",
            _as_given,
            "the function is as it was. From the second round on the zeros themselves are the "
            "smallest share: the threshold is 0, so nothing more goes, and a pruned weight that is "
            "not zero comes back.",
        ),
        Misconception(
            "as given, and masked",
            _as_given_and_masked,
            "no pruned weight returns now, but all of them still take part in the quantile. Their "
            "zeros are the smallest share, so from the second round on too few go. Let only "
            "weights compete whose mask is True.",
        ),
        Misconception(
            "a quantile of those left",
            _quantile_of_the_living,
            "the right weights compete, but a quantile is a threshold between two magnitudes, and "
            "not a count: equal magnitudes go or stay together, and not always are there "
            "round(share · R) below it. (Nor does quantile take float16.) Sort, and count.",
        ),
        Misconception(
            "share of all",
            _share_of_all,
            "in each round a share of all weights went. The share is of those that are left; else "
            "ten rounds of 10 % leave nothing.",
        ),
        Misconception(
            "each layer by itself",
            _each_layer,
            "each layer lost the same share. One ranking over all layers was asked for: a layer "
            "of small weights gives up more.",
        ),
        Misconception(
            "pruned weights return",
            _returning,
            "how many stay is right, but pruned weights took part in the ranking. One that is not "
            "zero (in a copy, or before its mask was applied) came back.",
        ),
    ),
)

# ------------------------------------------------------------------------ kept_at_rounds


def kept_at_rounds(total: int, final: int, rounds: int) -> Tensor:
    """How many of `total` weights stay after each of the rounds, int64 (rounds,).

    Every round keeps the same share of what is left, so after round r (1, 2, …) it is
    total · (final / total)^(r / rounds), rounded to the nearest integer; after the last round it is
    exactly `final`. 1 ≤ final ≤ total, and total may be billions.
    """
    return torch.tensor(
        [round(total * (final / total) ** (r / rounds)) for r in range(1, rounds + 1)]
    )


def _plans(seed: int) -> list[Case]:
    draw = Draw(seed)

    def plan(total: tuple[int, int], final: tuple[int, int], rounds: tuple[int, int]):
        """None of whose numbers lies near a half: no answer hangs on rounding."""
        while True:
            some = draw.number(*total), draw.number(*final), draw.number(*rounds)
            numbers = [some[0] * (some[1] / some[0]) ** (r / some[2]) for r in range(some[2])]
            if all(abs(x % 1 - 0.5) > 0.01 for x in numbers):
                return some

    few, billions = draw.number(5, 50), 7 * 10**9 + draw.number(0, 10**6)
    labelled = {
        "to a tenth": (1000, 100, 3),
        "the digits network": (50_200, 2_510, draw.number(5, 12)),
        "one round": plan((50, 99), (5, 40), (1, 2)),
        "two rounds": plan((50, 99), (5, 40), (2, 3)),
        "many rounds": plan((500, 2000), (3, 30), (12, 20)),
        "more rounds than weights go": plan((10, 14), (7, 9), (9, 15)),
        "all stay": (few, few, 4),
        "down to one": plan((500, 900), (1, 2), (5, 9)),
        "billions": (billions, billions // draw.number(15, 30), draw.number(3, 8)),
    }
    return labelled_cases(("total", "final", "rounds"), labelled)


def _exact(total, final, rounds, first=1):
    return [total * (final / total) ** (r / rounds) for r in range(first, rounds + first)]


def _rounded_on(total, final, rounds):
    kept = [total]
    for _ in range(rounds):
        kept.append(round(kept[-1] * (final / total) ** (1 / rounds)))
    return torch.tensor(kept[1:])


KEPT_AT_ROUNDS = Exercise(
    reference=kept_at_rounds,
    cases=_plans,
    hints=(
        "If every round keeps the share f of what is left, what is left after r rounds?",
        "total · f^r, and after the last round that is final: so f = (final / total)^(1 / rounds).",
        "One number for each r from 1 to rounds: round(total * (final / total) ** (r / rounds)), "
        "in Python's numbers; then torch.tensor(list).",
    ),
    properties=(
        Property(
            "the last number is exactly final",
            lambda inputs, value: int(value[-1]) == inputs["final"],
        ),
        Property("the numbers never grow", lambda inputs, value: bool((value.diff() <= 0).all())),
    ),
    misconceptions=(
        Misconception(
            "a straight line",
            lambda total, final, rounds: torch.tensor(
                [round(total + (final - total) * r / rounds) for r in range(1, rounds + 1)]
            ),
            "equally many weights went in each round. Then the last rounds, when few are left, "
            "take the largest shares: ask for equal shares of what is left.",
        ),
        Misconception(
            "one round late",
            lambda total, final, rounds: torch.tensor(
                [round(x) for x in _exact(total, final, rounds, first=0)]
            ),
            "you began with what stays before the first round, so the last round never comes to "
            "`final`. Count r from 1.",
        ),
        Misconception(
            "cut off",
            lambda total, final, rounds: torch.tensor(
                [int(x) for x in _exact(total, final, rounds)]
            ),
            "int() cuts off what stands behind the point: 99.99999 becomes 99. Even the last "
            "number can miss `final` so. Use round().",
        ),
        Misconception(
            "rounded on and on",
            _rounded_on,
            "each round started from a rounded number, and the errors add up: the last number is "
            "not always `final`. Reckon each from `total`, and round once.",
        ),
        Misconception(
            "what goes",
            lambda total, final, rounds: (
                -torch.tensor([total, *(round(x) for x in _exact(total, final, rounds))]).diff()
            ),
            "you returned how many go in each round. Asked is how many stay after it.",
        ),
        Misconception(
            "float32",
            lambda total, final, rounds: (
                (total * torch.tensor(final / total) ** (torch.arange(1, rounds + 1) / rounds))
                .round()
                .long()
            ),
            "a tensor of floats is float32 unless you say otherwise, and float32 knows about seven "
            "digits: of billions of weights it miscounts hundreds. Use Python's numbers, or "
            "float64.",
        ),
    ),
)
