"""Which layer pays? Measure what each layer's pruning costs alone, then split the budget by that.

    min Σ_l loss_l(d_l)    s.t.  Σ_l round(d_l · size_l) ≤ round(density · Σ_l size_l)

with every d_l one of the densities that were measured. It takes the layers' losses to add up, which
they do as long as little is pruned. The problem is the multiple-choice knapsack; `split_budget`
solves it exactly.

Axes: L layers, S densities.
"""

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from course_lib.models.finite import check_finite
from course_lib.models.knapsack import cheapest_choice
from course_lib.models.parts import prunable_weights
from course_lib.models.selection import highest_masks
from course_lib.pruning.scores import magnitude


@dataclass(frozen=True)
class Sensitivity:
    """Losses of a model of which one layer at a time is pruned, by layer and density."""

    names: tuple[str, ...]  # of the layers' weights
    sizes: tuple[int, ...]  # weights of each
    densities: tuple[float, ...]
    dense: float  # the loss of the model as it is
    losses: Tensor  # (L, S), float64

    @property
    def increases(self) -> Tensor:
        """How much the loss rises: (L, S)."""
        return self.losses - self.dense


def masks_at(scores: Mapping[str, Tensor], densities: Mapping[str, float]) -> dict[str, Tensor]:
    """Keep in each tensor its own share: the round(density · size) highest scores, first of equals.

    Raises:
        ValueError: a density is not from 0 to 1, or a score is NaN.

    >>> masks_at({"a": torch.tensor([4.0, -3.0]), "b": torch.ones(2)}, {"a": 0.5, "b": 1.0})
    {'a': tensor([ True, False]), 'b': tensor([True, True])}
    """
    masks = {}
    for name, density in densities.items():
        if not 0 <= density <= 1:
            raise ValueError(f"the density of {name!r} must be from 0 to 1; got {density}")
        k = round(density * scores[name].numel())
        masks.update(highest_masks({name: scores[name]}, k))
    return masks


@torch.no_grad()
def sensitivity(
    model: nn.Module,
    densities: Sequence[float],
    measure: Callable[[nn.Module], float],
    scores: Mapping[str, Tensor] | None = None,
) -> Sensitivity:
    """Prune each layer alone to each density, and measure: L · S + 1 measurements, of a copy.

    Args:
        model: its linear and convolution weights are the layers; a tied weight is one of them.
        densities: shares of a layer's weights that stay, from 0 to 1.
        measure: the loss of a model, a finite number.
        scores: by name: the highest stay. Only layers with scores are pruned. If not given, every
            layer's magnitudes.

    Raises:
        ValueError: a score belongs to no weight or is NaN, a density is out of range, or a loss is
            not finite.

    Source: Han et al., 2015, "Learning both Weights and Connections for Efficient
    Neural Networks".

    >>> model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1))
    >>> found = sensitivity(model, [0.0, 1.0], lambda m: float(m[0].weight.abs().sum() == 0))
    >>> found.names, found.sizes, found.increases.tolist()
    (('0.weight', '1.weight'), (4, 2), [[1.0, 0.0], [0.0, 0.0]])
    """
    model = copy.deepcopy(model)
    weights = prunable_weights(model)
    if scores is None:
        scores = {name: magnitude(weight.detach()) for name, weight in weights.items()}
    for name in scores:
        if name not in weights or scores[name].shape != weights[name].shape:
            raise ValueError(f"scores must fit the weights {list(weights)}; got {name!r}")
    dense, losses = float(measure(model)), []
    for name in scores:
        weight, before = weights[name], weights[name].clone()
        for density in densities:
            mask = masks_at(scores, {name: density})[name]
            weight.copy_(before.masked_fill(~mask, 0))
            losses.append(float(measure(model)))
        weight.copy_(before)
    table = torch.tensor(losses, dtype=torch.float64).view(len(scores), -1)  # (L · S,) -> (L, S)
    check_finite(table, "the losses that measure gives")
    sizes = tuple(weights[name].numel() for name in scores)
    return Sensitivity(tuple(scores), sizes, tuple(densities), dense, table)


def split_budget(
    losses: Tensor, sizes: Sequence[int], densities: Sequence[float], density: float
) -> list[float]:
    """One density for each layer: least sum of losses with at most `density` of all weights.

    Exact for any losses, rising or not, up to the rounding of their sum: `models.knapsack`.

    Args:
        losses: of each layer at each density, (L, S), from `sensitivity`.
        sizes: weights of each layer, L numbers.
        densities: S numbers from 0 to 1.
        density: share of all weights that may stay, from 0 to 1.

    Returns:
        The densities chosen, L numbers; of equal sums, the one with fewest weights.

    Raises:
        ValueError: the shapes do not fit; losses are not finite; a density is out of range; even
            the lowest densities keep more than the budget.

    >>> split_budget(torch.tensor([[9.0, 5.0, 0.0], [2.0, 1.0, 0.0]]), [10, 10], [0.1, 0.5, 1], 0.6)
    [1, 0.1]
    """
    kept = _kept(losses, sizes, densities, density)
    budget = round(density * sum(sizes))
    if (least := int(kept.amin(dim=1).sum())) > budget:
        raise ValueError(
            f"density must let {least} weights stay, as the lowest densities do; {density} of "
            f"{sum(sizes)} are {budget}"
        )
    return [densities[s] for s in cheapest_choice(losses, kept, budget).tolist()]


def _kept(
    losses: Tensor, sizes: Sequence[int], densities: Sequence[float], density: float
) -> Tensor:
    """round(d · size) of each layer and density: (L, S), int64; an error for bad input."""
    if losses.dim() != 2 or tuple(losses.shape) != (len(sizes), len(densities)):
        raise ValueError(
            f"losses must have shape ({len(sizes)}, {len(densities)}) for as many sizes and "
            f"densities; got {tuple(losses.shape)}"
        )
    check_finite(losses, "losses")
    for value in (*densities, density):
        if not 0 <= value <= 1:
            raise ValueError(f"densities must be from 0 to 1; got {value}")
    return torch.tensor([[round(d * size) for d in densities] for size in sizes])
