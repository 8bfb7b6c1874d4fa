"""How many ranks each layer gets, if all layers together may have so many numbers.

A rank of a layer costs O + I numbers. What it gains differs: a layer whose spectrum falls fast has
its worth in few ranks. So each layer has a curve, of what is gained over what is spent,

    r (O + I) numbers                 for r = 1, 2, … as long as that is less than O I
    O I numbers, and all is gained    for the layer as it is: whole

and the budget is spent where a number gains most. A curve need not be bent as that needs it: the
step from the last rank to the whole layer often gains more per number than the ranks before. Only
the corners of its upper hull count, then, and between them the way is straight. Steps of all
layers are taken in the order of their gain per number, until one is too dear; it is taken in part.

So a layer's rank never falls when the budget grows. At a budget that the steps just use up, no
choice of ranks gains more; at one between, the last step is taken in part.

Names are those of the layers' weights. What is returned names the layers to be factored: a layer
that is not named stays whole.

Source: Shoham and Gersho, 1988, "Efficient Bit Allocation for an Arbitrary Set of Quantizers"
(greedy steps on hulls).

Axes: O outputs, I inputs, r rank.
"""

import math
from collections.abc import Mapping
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from course_lib.low_rank.svd import saving_rank
from course_lib.models.finite import check_finite

Shapes = Mapping[str, tuple[int, int]]


class Point(NamedTuple):
    """What a layer costs and gains at a rank; None is the whole layer."""

    cost: int
    gain: float
    rank: int | None


def numbers(shapes: Shapes, ranks: Mapping[str, int]) -> int:
    """How many numbers the layers have: Σ r (O + I) where there is a rank, O I where not.

    >>> numbers({"up": (30, 10), "down": (10, 30)}, {"up": 2})
    380
    """
    if unknown := ranks.keys() - shapes.keys():
        raise ValueError(f"ranks must name layers that there are; got {sorted(unknown)}")
    return sum(_cost(shape, ranks.get(name)) for name, shape in shapes.items())


def even_ranks(shapes: Shapes, budget: int) -> dict[str, int]:
    """Each layer gets the same share p of its numbers: r = ⌊p O I / (O + I)⌋, p = budget / Σ O I.

    Layers of which no rank saves anything (O = 1, say) stay whole, and p is that of the others.

    Args:
        shapes: name -> (O, I).
        budget: numbers of all layers together.

    Returns:
        Name -> rank, from 1 on; no names where the budget holds all layers as they are.

    Raises:
        ValueError: no layers, or an empty one; the budget gives a layer less than one rank.

    >>> even_ranks({"query": (64, 64), "up": (512, 64)}, budget=18_432)
    {'query': 16, 'up': 28}
    """
    _check(shapes)
    if budget >= numbers(shapes, {}):
        return {}
    small = {name: shape for name, shape in shapes.items() if saving_rank(*shape)}
    total = numbers(small, {})
    share = budget - numbers(shapes, {}) + total  # what is left for them
    ranks = {name: share * o * i // (total * (o + i)) for name, (o, i) in small.items()}
    if min(ranks.values(), default=0) < 1:
        raise ValueError(f"budget must give each layer a rank at least; {budget} gives {ranks}")
    return ranks


def ranks_by_energy(spectra: Mapping[str, Tensor], shapes: Shapes, budget: int) -> dict[str, int]:
    """Ranks go where a number gains most energy: σ_k² / (O + I).

    Energies of different layers are compared as they are. Divide each spectrum by its norm, and it
    is the shares of the layers' energies that are.

    Args:
        spectra: name -> singular values, falling, (min(O, I),): of the weights, or of the layers'
            outputs (`output_aware.output_spectrum`).
        shapes, budget: as for `even_ranks`.

    Returns:
        Name -> rank, from 1 on, of the layers that do not stay whole. Numbers that gain nothing are
        not spent.

    Raises:
        ValueError: no layers, or an empty one; the budget does not pay for a rank each; a spectrum
            is missing, of another length, not finite, below 0, or does not fall.

    >>> spectra = {"steep": torch.tensor([9.0, 1.0, 0.1, 0.1]), "flat": torch.ones(4)}
    >>> ranks_by_energy(spectra, {"steep": (4, 4), "flat": (4, 4)}, budget=24)
    {'steep': 1}
    """
    energies = _energies(spectra, shapes)
    return _spend(
        {name: _curve(shapes[name], e, 1) for name, e in energies.items()}, shapes, budget
    )


def ranks_by_loss(
    losses: Mapping[str, Mapping[int, float]],
    dense: float,
    spectra: Mapping[str, Tensor],
    shapes: Shapes,
    budget: int,
) -> dict[str, int]:
    """Ranks go where a number lowers the model's loss most, measured at a few ranks of each layer.

    Of a layer that is cut to rank r the loss is taken to rise with the energy that is cut off, by a
    factor s of the layer's own, fitted to what was measured:

        rise(r) ≈ s Σ_{k > r} σ_k²        s = Σ_r rise(r) tail(r) / Σ_r tail(r)²

    and the rises of single layers are taken to add up.

    Args:
        losses: name -> rank -> the loss of the model in which that layer alone has that rank, from
            `decoder.rank_losses`. One or two ranks will do. A layer without any stays whole.
        dense: the loss of the model as it is.
        spectra, shapes, budget: as for `ranks_by_energy`.

    Returns:
        Name -> rank, of the layers that do not stay whole. No layer gets less than the lowest rank
        that was measured.

    Raises:
        ValueError: as for `ranks_by_energy`; losses are missing or not finite; a rank is below 1 or
            saves nothing; the budget does not pay for the lowest ranks.

    >>> spectra = dict.fromkeys(("first", "second"), 0.9 ** torch.arange(64))
    >>> losses, shapes = {"first": {8: 3.0}, "second": {8: 1.2}}, dict.fromkeys(spectra, (64, 64))
    >>> ranks_by_loss(losses, 1.0, spectra, shapes, budget=4096)
    {'first': 21, 'second': 11}
    """
    energies, curves = _energies(spectra, shapes), {}
    _check_names("losses", losses, shapes)
    for name, shape in shapes.items():
        ranks, most = sorted(losses[name]), saving_rank(*shape)
        if ranks and not 1 <= ranks[0] <= ranks[-1] <= most:
            raise ValueError(f"ranks of {name} must be from 1 to {most} to save; got {ranks}")
        rises = torch.tensor([losses[name][rank] - dense for rank in ranks] or [0.0]).double()
        check_finite(rises, f"the loss of {name}, or the dense one,")
        tails = energies[name][-1] - energies[name][ranks or [-1]]
        squares = tails.square().sum()
        size = (rises @ tails / squares).clamp(min=0) if squares > 0 else 0.0
        curves[name] = _curve(shape, energies[name] * size, ranks[0] if ranks else most + 1)
    return _spend(curves, shapes, budget)


def _cost(shape: tuple[int, int], rank: int | None) -> int:
    return math.prod(shape) if rank is None else rank * sum(shape)


def _curve(shape: tuple[int, int], energies: Tensor, lowest: int) -> list[Point]:
    """The corners of the upper hull, from the lowest rank on to where nothing more is gained."""
    gains, most = energies.tolist(), saving_rank(*shape)
    points = [Point(_cost(shape, rank), gains[rank], rank) for rank in range(lowest, most + 1)]
    corners: list[Point] = []
    for point in (*points, Point(_cost(shape, None), gains[-1], None)):
        while len(corners) > 1 and _slope(corners[-2], point) >= _slope(*corners[-2:]):
            corners.pop()
        corners.append(point)
    while len(corners) > 1 and _slope(*corners[-2:]) <= 0:
        corners.pop()
    return corners


def _slope(before: Point, after: Point) -> float:
    return (after.gain - before.gain) / (after.cost - before.cost)


def _spend(curves: Mapping[str, list[Point]], shapes: Shapes, budget: int) -> dict[str, int]:
    """The layers' ranks after the steps that the budget pays for, the steepest first."""
    chosen = {name: curve[0].rank for name, curve in curves.items()}
    left = budget - numbers(shapes, chosen)
    if left < 0:
        raise ValueError(f"budget must pay for the lowest ranks, {budget - left}; got {budget}")
    steps = [(name, *step) for name, curve in curves.items() for step in pairwise(curve)]
    for name, before, after in sorted(steps, key=lambda step: -_slope(*step[1:])):
        if after.cost - before.cost > left:  # in part, and then no other step
            rank = before.rank + left // sum(shapes[name])
            chosen[name] = min(rank, saving_rank(*shapes[name]))
            break
        left -= after.cost - before.cost
        chosen[name] = after.rank
    return {name: rank for name, rank in chosen.items() if rank is not None}


def _energies(spectra: Mapping[str, Tensor], shapes: Shapes) -> dict[str, Tensor]:
    """Name -> Σ_{k ≤ r} σ_k² for r = 0 … min(O, I), float64; an error for bad input."""
    _check(shapes)
    _check_names("spectra", spectra, shapes)
    energies = {}
    for name, spectrum in spectra.items():
        check_finite(spectrum, f"the spectrum of {name}")
        wide, length = spectrum.detach().double().cpu(), min(shapes[name])
        if wide.shape != (length,) or (wide < 0).any() or (wide.diff() > 0).any():
            raise ValueError(
                f"the spectrum of {name} must be {length} falling numbers from 0 on; "
                f"got {spectrum.tolist()}"
            )
        energies[name] = torch.cat([wide.new_zeros(1), wide.square().cumsum(0)])
    return energies


def _check(shapes: Shapes) -> None:
    if not shapes or min(min(shape) for shape in shapes.values()) < 1:
        raise ValueError(f"shapes must hold (O, I) of a layer at least, from 1 on; got {shapes}")


def _check_names(what: str, given: Mapping[str, object], shapes: Shapes) -> None:
    if given.keys() != shapes.keys():
        raise ValueError(f"{what} must be of the layers {list(shapes)}; got {list(given)}")
