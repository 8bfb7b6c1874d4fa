"""Exercise of 09_low_rank: ranks for many layers, out of one budget.

Axes: L layers, O outputs, I inputs of a layer.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from course_lib.exercises.engine.seeded import Draw
from course_lib.exercises.engine.spec import Case, Exercise, Misconception, Property, labelled_cases


def ranks_for_budget(
    spectra: list[Tensor], shapes: list[tuple[int, int]], budget: int
) -> list[int]:
    """A rank for each of L layers, such that their factors hold at most `budget` numbers in all.

    Layer i has shape (O, I) = shapes[i] and min(O, I) singular values spectra[i], largest first,
    float32 or float64. All ranks begin at 0. A layer's next direction costs O + I numbers and keeps
    σ² of energy. Again and again the layer whose next direction has the largest σ² / (O + I) gets
    it; when that one costs more than is left, all stops, even if a cheaper one would fit. A
    direction of σ = 0 is never taken; above 0, no two layers' ratios are equal. Reckon in float64;
    the ranks are int.
    """
    steps = []
    for layer, spectrum in enumerate(spectra):
        gains = spectrum.double().square().div(sum(shapes[layer])).tolist()
        steps += [(gain, layer) for gain in gains if gain > 0]
    ranks = [0] * len(spectra)
    for _, layer in sorted(steps, reverse=True):
        budget -= sum(shapes[layer])
        if budget < 0:
            break
        ranks[layer] += 1
    return ranks


def _spectrum(draw: Draw, shape: tuple[int, int], decay: float = 0.0) -> Tensor:
    """min(O, I) numbers, largest first; with a decay the later ones are smaller still."""
    drawn = (draw.normal(min(shape)).abs() + 0.05).sort(descending=True).values
    return drawn * torch.arange(1, min(shape) + 1) ** -decay


def _resized(sizes: list[float], spectra: list[Tensor], *rest) -> tuple:
    return [size * s for size, s in zip(sizes, spectra, strict=True)], *rest


def _layers(seed: int) -> list[Case]:
    draw = Draw(seed)
    block = [(12, 12), (4, 12), (4, 12), (12, 12), (32, 12), (32, 12), (12, 32)]
    pair = [(6, 9), (20, 7)]

    def drawn(shapes: list[tuple[int, int]], share: float, decay: float = 0.5) -> tuple:
        """A budget that is a share of what all the weights hold."""
        spectra = [_spectrum(draw, shape, decay) for shape in shapes]
        return spectra, shapes, int(share * sum(outputs * inputs for outputs, inputs in shapes))

    size = draw.number(1, 9)
    by_hand = [torch.tensor([4.0, 2.0]) * size, torch.tensor([5.0, 3.0]) * size]
    flat = drawn([(5, 8), (9, 4), (6, 6)], 0.5)
    flat[0][0][:] = 1.7
    powers = 10 ** (2 * draw.uniform(7) - 1)
    labelled = {
        "by hand, and nothing is left": (by_hand, [(2, 2), (2, 4)], 16),
        "by hand, one number too few": (by_hand, [(2, 2), (2, 4)], 15),
        "a small and a large layer": drawn(pair, 0.6),
        "the next one does not fit, a cheaper one would": _dear_one_next(draw),
        "seven layers of a block": drawn(block, 0.4),
        "a block, hardly anything to spend": drawn(block, 0.05),
        "a block, layers of very different size": _resized(powers.tolist(), *drawn(block, 0.4)),
        "spectra that fall slowly": drawn(block, 0.5, decay=0.0),
        "spectra that fall fast": drawn(block, 0.3, decay=2.0),
        "one layer": drawn([(7, 9)], 0.7),
        "layers of one direction": drawn([(1, 9), (5, 1), (1, 1)], 1.5),
        "one direction each, one number too few": (*drawn([(1, 9), (5, 1), (1, 1)], 1.0)[:2], 17),
        "nothing to spend": drawn(block, 0.0),
        "less than the first direction costs": (*drawn([(9, 8), (7, 8)], 1.0)[:2], 14),
        "more than all directions cost": drawn(pair, 40.0),
        "equal singular values in a layer": flat,
        **_with_zeros(draw),
        "very small": _resized([1e-30, 1e-30], *drawn(pair, 0.6)),
        "very large": _resized([1e30, 1e30], *drawn(pair, 0.6)),
        "nine equal digits, the cheaper one is ahead": _nearly_equal(draw, -1),
        "nine equal digits, the dearer one is ahead": _nearly_equal(draw, 1),
        "as wide as a vocabulary": drawn([(49_152, 48), (500, 300)], 0.1, decay=0.3),
    }
    return labelled_cases(("spectra", "shapes", "budget"), labelled)


def _dear_one_next(draw: Draw) -> tuple:
    """Layer 0 gets two directions; then the best is layer 1's, which costs more than is left."""
    first = torch.tensor([9.0, 8, 4, 3, 2]) + 0.5 * draw.uniform(1)
    return [first, torch.tensor([18.0, 17, 3])], [(5, 5), (3, 60)], 2 * 10 + draw.number(31, 60)


def _with_zeros(draw: Draw) -> dict[str, tuple]:
    """Directions that keep nothing, and a budget that would pay for them."""
    shapes = [(6, 8), (5, 9), (7, 3)]
    spectra = [_spectrum(draw, shape) for shape in shapes]
    spectra[0][draw.number(2, 5) :] = 0
    faint = [_spectrum(draw, shape) * 1e-9 ** torch.linspace(0, 1, min(shape)) for shape in shapes]
    silent = [spectra[0], torch.zeros(5), spectra[2]]
    return {
        "a layer of lower rank": (spectra, shapes, 10_000),
        "a layer of zeros": (silent, shapes, 10_000),
        "directions that keep hardly anything, and all are paid for": (faint, shapes, 10_000),
        "zeros alone": ([torch.zeros(draw.number(2, 9))], [(9, 9)], 10_000),
    }


def _nearly_equal(draw: Draw, sign: int) -> tuple:
    """Float64; layer 0 costs 7, layer 1 costs 11, and their ratios differ in the tenth digit."""
    one = _spectrum(draw, (3, 4), decay=1.0).double()
    other = one * (11 / 7) ** 0.5 * (1 + sign * 1e-9)
    return [one, other], [(3, 4), (3, 8)], 7


def _greedy(gain_of: Callable[..., Tensor], goes_on: bool = False):
    """Ranks by another gain, of (spectrum, (O, I)); or going on where a cheaper one fits."""

    def wrong(spectra, shapes, budget):
        steps = []
        for layer, spectrum in enumerate(spectra):
            gains = gain_of(spectrum.double(), shapes[layer]).tolist()
            steps += [(gain, layer) for gain in gains if gain > 0]
        ranks = [0] * len(spectra)
        for _, layer in sorted(steps, reverse=True):
            cost = sum(shapes[layer])
            if cost <= budget:
                ranks[layer] += 1
                budget -= cost
            elif not goes_on:
                break
        return ranks

    return wrong


def _the_same_for_all(spectra, shapes, budget):
    rank = budget // sum(map(sum, shapes))
    return [min(rank, int((spectrum > 0).sum())) for spectrum in spectra]


RANKS_FOR_BUDGET = Exercise(
    reference=ranks_for_budget,
    cases=_layers,
    relative_tolerance=0.0,
    absolute_tolerance=0.0,
    hints=(
        "One more rank in a layer of shape (O, I) is a column of B and a row of A: what does it "
        "cost? And by how much does the squared error fall?",
        "σ² for O + I numbers. Look at each layer's next direction, give a rank to the best, look "
        "again. σ falls within a layer, so you may as well sort all directions once.",
        "steps = [(σ² / (O + I), layer) for each σ > 0 of each layer], sorted with the largest "
        "first. For each: is O + I more than what is left? Then break. Else take it off, and the "
        "layer's rank grows by one. Python's floats are float64.",
    ),
    properties=(
        Property(
            "a rank for each layer, and each is an int",
            lambda inputs, value: (
                len(value) == len(inputs["shapes"]) and all(type(rank) is int for rank in value)
            ),
            form=True,
        ),
        Property(
            "the factors hold at most `budget` numbers",
            lambda inputs, value: (
                sum(rank * sum(shape) for rank, shape in zip(value, inputs["shapes"], strict=True))
                <= inputs["budget"]
            ),
        ),
    ),
    misconceptions=(
        Misconception(
            "the cost forgotten",
            _greedy(lambda s, shape: s.square()),
            "the largest σ² came first, whatever it costs. A direction of a large layer needs more "
            "numbers: what counts is σ² for each of them.",
        ),
        Misconception(
            "σ instead of σ²",
            _greedy(lambda s, shape: s / sum(shape)),
            "you divided σ by the cost. The squared error falls by σ², and squared errors are what "
            "adds up.",
        ),
        Misconception(
            "the cost of the whole weight",
            _greedy(lambda s, shape: s.square() / (shape[0] * shape[1])),
            "you divided by O · I, the numbers of W. A direction is one column of B and one row of "
            "A: O + I numbers.",
        ),
        Misconception(
            "a share of the layer's own energy",
            _greedy(lambda s, shape: s.square() / s.square().sum().clamp(min=1e-300) / sum(shape)),
            "you measured σ² in the energy of its own layer. Then a layer that hardly does "
            "anything counts as much as one that does most. The errors of all layers are in one "
            "sum here.",
        ),
        Misconception(
            "a cheaper one instead",
            _greedy(lambda s, shape: s.square() / sum(shape), goes_on=True),
            "the best direction did not fit any more, and you took others that do. That may well "
            "be a good idea, but the text asks to stop there: the answer is to be one.",
        ),
        Misconception(
            "the same for all",
            _the_same_for_all,
            "every layer got the same rank. That is the even split; a direction that matters "
            "little in one layer may buy more in another.",
        ),
    ),
)
