"""When the weights go: all at once, in rounds, or a few after each step of training.

A schedule says which share of the weights there is after so many steps or rounds. `follow_density`
trains under one: after each step it takes the weights of lowest score away, so many that exactly
the schedule's share is left, and never gives one back.
"""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from course_lib.models.selection import highest_masks
from course_lib.pruning.masks import hold_masks
from course_lib.pruning.scores import magnitude


def cubic_density(step: int, start: int, stop: int, final: float) -> float:
    """Density of gradual pruning: 1 until `start`, `final` from `stop` on; fast first, then slow.

        d = d_final + (1 − d_final) · (1 − (step − start) / (stop − start))³

    Raises:
        ValueError: stop is not after start; final is not from 0 to 1.

    Source: Zhu and Gupta, 2017, "To Prune, or Not to Prune" (there as sparsity, 1 − d).

    >>> [round(cubic_density(step, start=0, stop=4, final=0.1), 3) for step in range(6)]
    [1.0, 0.48, 0.213, 0.114, 0.1, 0.1]
    """
    if stop <= start:
        raise ValueError(f"stop must be after start={start}; got {stop}")
    if not 0 <= final <= 1:
        raise ValueError(f"final must be from 0 to 1; got {final}")
    left = 1 - min(1.0, max(0.0, (step - start) / (stop - start)))
    return final + (1 - final) * left**3


def geometric_density(round: int, rounds: int, final: float) -> float:
    """Density of pruning in rounds, each of which leaves the same share of what is left.

        d = d_final^(round / rounds)

    Args:
        round: how many rounds are over, from 0; after the last one the density stays.
        rounds: how many there are.
        final: density at the end, above 0: no share of something leaves nothing.

    Raises:
        ValueError: round is negative, rounds less than 1, or final not above 0 and at most 1.

    Source: Frankle and Carbin, 2019, "The Lottery Ticket Hypothesis: Finding Sparse, Trainable
    Neural Networks".

    >>> [geometric_density(round, rounds=3, final=0.125) for round in range(5)]
    [1.0, 0.5, 0.25, 0.125, 0.125]
    """
    if rounds < 1 or round < 0:
        raise ValueError(f"round must be at least 0 and rounds at least 1; got {round}, {rounds}")
    if not 0 < final <= 1:
        raise ValueError(f"final must be above 0 and at most 1; got {final}")
    return final ** (min(round, rounds) / rounds)


def _magnitudes(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: magnitude(weight.detach()) for name, weight in weights.items()}


def follow_density(
    optimizer: torch.optim.Optimizer,
    weights: Mapping[str, nn.Parameter],
    density_at: Callable[[int], float],
    score: Callable[[Mapping[str, Tensor]], Mapping[str, Tensor]] = _magnitudes,
) -> dict[str, Tensor]:
    """In place: prune now to density_at(0), and after step t of `optimizer` to density_at(t).

    Of all weights together k = round(density · size) stay, those of highest score; of equal ones
    the first. What is gone stays gone, as `hold_masks` holds it: a density that rises changes
    nothing. A deep copy of the optimizer does not hold the copy's weights: call this again for it.

    Args:
        optimizer: any that updates `weights`.
        weights: the parameters by name, from `prunable_weights`.
        density_at: step -> share of the weights that stay, from 0 to 1; step 0 is before the first.
        score: weights by name -> scores by name, in the weights' shapes; magnitude if not given. It
            is asked when weights are to go: after a step, when their gradients are still there.

    Returns:
        The masks by name: this dict holds those of the last step from now on.

    Raises:
        ValueError: a density is out of range; a score is NaN, or not of its weight's shape.

    Source: Zhu and Gupta, 2017, "To Prune, or Not to Prune".

    >>> weight = nn.Parameter(torch.tensor([1.0, -4.0, 3.0, 2.0]))
    >>> optimizer = torch.optim.SGD([weight], lr=0.5)
    >>> masks = follow_density(optimizer, {"w": weight}, lambda step: 1 - step / 4)
    >>> for _ in range(2):
    ...     weight.grad = torch.ones(4)
    ...     optimizer.step()
    ...     print(weight.tolist())
    [0.0, -4.5, 2.5, 1.5]
    [0.0, -5.0, 2.0, 0.0]
    """
    masks = {name: torch.ones_like(w, dtype=torch.bool) for name, w in weights.items()}
    size = sum(weight.numel() for weight in weights.values())
    step, left = 0, size

    def tighten(*_) -> None:
        nonlocal step, left
        density = density_at(step)
        if not 0 <= density <= 1:
            raise ValueError(f"density_at({step}) must be from 0 to 1; got {density}")
        step, k = step + 1, round(density * size)
        if k < left:
            masks.update(_tightened(masks, score(weights), k))
            left = k

    tighten()
    optimizer.register_step_post_hook(tighten)  # before hold_masks: it sets to zero what goes now
    hold_masks(optimizer, weights, masks)
    return masks


def _tightened(
    masks: Mapping[str, Tensor], scores: Mapping[str, Tensor], k: int
) -> dict[str, Tensor]:
    """New masks that keep the k highest scores of those that the masks kept."""
    for name, mask in masks.items():
        if scores[name].shape != mask.shape:
            raise ValueError(
                f"the score of {name!r} must have the weight's shape {tuple(mask.shape)}; "
                f"got {tuple(scores[name].shape)}"
            )
    stay = highest_masks({name: scores[name].detach()[mask] for name, mask in masks.items()}, k)
    return {name: mask.masked_scatter(mask, stay[name]) for name, mask in masks.items()}
