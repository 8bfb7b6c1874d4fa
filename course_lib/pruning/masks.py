"""Prune a real model: choose masks for its weights, and train under them.

A mask says for each weight whether it stays. Setting weights to zero once is not enough when
training goes on: the next gradient, the momentum of earlier ones or an optimizer's running averages
would bring them back. `hold_masks` therefore repeats the projection θ ← θ ⊙ m after every step, on
the weights and on all that the optimizer remembers about them.

Source: Han et al., 2015, "Learning both Weights and Connections for Efficient Neural
Networks".
"""

import copy
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from course_lib.models.parts import prunable_weights
from course_lib.models.selection import highest_masks
from course_lib.pruning.scores import magnitude


def masks_by_score(
    scores: Mapping[str, Tensor], density: float, per_layer: bool = False
) -> dict[str, Tensor]:
    """Keep the weights with the highest scores, k = round(density · size) of them.

    The order is that of numbers, signs included: −2 goes before −1, and −1 before 0. So a score
    whose sign means nothing must come as a magnitude.

    Args:
        scores: tensors by name, of their weights' shapes and of one floating dtype; ±∞ is allowed.
        density: share of weights that stay, from 0 to 1.
        per_layer: keep this share of each tensor, instead of this share of them all.

    Returns:
        A bool mask for each name; exactly k are True, and of equal scores the first stay.

    Raises:
        ValueError: density is out of range; a score is NaN; the dtypes differ.

    >>> scores = {"a": torch.tensor([4.0, -3.0]), "b": torch.tensor([-1.0, 0.0])}
    >>> masks_by_score(scores, 0.5)
    {'a': tensor([ True, False]), 'b': tensor([False,  True])}
    >>> masks_by_score({"a": torch.zeros(4)}, 0.5)
    {'a': tensor([ True,  True, False, False])}
    """
    if not 0 <= density <= 1:
        raise ValueError(f"density must be from 0 to 1; got {density}")
    if per_layer:
        return {
            name: highest_masks({name: score}, round(density * score.numel()))[name]
            for name, score in scores.items()
        }
    return highest_masks(scores, round(density * sum(s.numel() for s in scores.values())))


def magnitude_masks(
    weights: Mapping[str, Tensor], density: float, per_layer: bool = False
) -> dict[str, Tensor]:
    """Keep the largest magnitudes: the projection onto ‖θ‖₀ ≤ k with k = round(density · size).

    Args:
        weights: tensors by name, of one floating dtype.
        density, per_layer, Returns and Raises: as for `masks_by_score`, with |w| as the score.

    Source: Han et al., 2015, "Learning both Weights and Connections for Efficient
    Neural Networks".

    >>> weights = {"a": torch.tensor([4.0, -3.0]), "b": torch.tensor([1.0, -2.0])}
    >>> magnitude_masks(weights, 0.5)
    {'a': tensor([True, True]), 'b': tensor([False, False])}
    >>> magnitude_masks(weights, 0.5, per_layer=True)
    {'a': tensor([ True, False]), 'b': tensor([False,  True])}
    """
    return masks_by_score({n: magnitude(w) for n, w in weights.items()}, density, per_layer)


@torch.no_grad()
def apply_masks(weights: Mapping[str, Tensor], masks: Mapping[str, Tensor]) -> None:
    """In place: set each weight whose mask is False to zero.

    Raises:
        ValueError: a mask has another shape than its weight.

    >>> weights = {"a": torch.tensor([4.0, -3.0])}
    >>> apply_masks(weights, {"a": torch.tensor([False, True])})
    >>> weights
    {'a': tensor([ 0., -3.])}
    """
    for name, mask in masks.items():
        if mask.shape != weights[name].shape:
            raise ValueError(
                f"the mask of {name!r} must have the weight's shape {tuple(weights[name].shape)}; "
                f"got {tuple(mask.shape)}"
            )
        weights[name].masked_fill_(~mask, 0)


def magnitude_pruned(model: nn.Module, density: float, per_layer: bool = False) -> nn.Module:
    """A copy of the model whose linear and convolution weights are projected by `magnitude_masks`.

    >>> model = nn.Linear(10, 10)
    >>> int((magnitude_pruned(model, 0.2).weight != 0).sum())
    20
    """
    pruned = copy.deepcopy(model)
    weights = prunable_weights(pruned)
    apply_masks(weights, magnitude_masks(weights, density, per_layer))
    return pruned


def hold_masks(
    optimizer: torch.optim.Optimizer,
    weights: Mapping[str, nn.Parameter],
    masks: Mapping[str, Tensor],
) -> None:
    """In place: from now on no step of `optimizer` brings a pruned weight back.

        gradient ← gradient ⊙ m,  the optimizer's own step,  weight ← weight ⊙ m,  state ← state ⊙ m

    where the state is all that the optimizer keeps in the weight's shape: momentum, running
    averages. So nothing about a pruned weight can leak into those that stay. Masks may be replaced
    later, by `masks.update(…)`: they are read anew at each step. A deep copy of the optimizer does
    not hold the copy's weights: call this again for it.

    Args:
        optimizer: any that updates `weights`.
        weights: the parameters by name, from `prunable_weights`.
        masks: a bool tensor for each of the names, or for some.

    Source: Han et al., 2015, "Learning both Weights and Connections for Efficient
    Neural Networks".

    >>> weight = nn.Parameter(torch.tensor([0.0, 2.0]))
    >>> optimizer = torch.optim.SGD([weight], lr=0.5, momentum=0.9)
    >>> hold_masks(optimizer, {"w": weight}, {"w": torch.tensor([False, True])})
    >>> weight.grad = torch.tensor([1.0, 1.0])
    >>> optimizer.step()
    >>> weight.tolist(), optimizer.state[weight]["momentum_buffer"].tolist()
    ([0.0, 1.5], [0.0, 1.0])
    """

    def mask_gradients(*_) -> None:
        gradients = {name: w.grad for name, w in weights.items() if w.grad is not None}
        apply_masks(gradients, {name: masks[name] for name in masks if name in gradients})

    def mask_weights_and_state(*_) -> None:
        apply_masks(weights, masks)
        for name, mask in masks.items():
            for value in optimizer.state.get(weights[name], {}).values():
                if torch.is_tensor(value) and value.shape == mask.shape:
                    value.masked_fill_(~mask, 0)

    mask_weights_and_state()
    optimizer.register_step_pre_hook(mask_gradients)
    optimizer.register_step_post_hook(mask_weights_and_state)
