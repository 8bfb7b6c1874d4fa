"""Which layers of a decoder go? By their influence, by the loss without them, or as one run.

A layer only adds to x, so that any can be left out: `models.layers.without_layers`. Three rules:

    influence    the layers that turn x least: one pass through the model
    greedy       again and again the layer whose absence costs least: about n L measurements
    run          n neighbours: L − n + 1 measurements

Influence looks at each layer alone; of two that do the same it may take both. The loss after one
removal is measured with the others gone already, so greedy does not.

Sources: Men et al., 2024, "ShortGPT: Layers in Large Language Models are More Redundant Than You
Expect"; Gromov et al., 2024, "The Unreasonable Ineffectiveness of the Deeper Layers" (runs).

Axes: B windows, T tokens, L layers.
"""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from course_lib.models.finite import check_finite
from course_lib.models.layers import layer_influence, view_without_layers
from course_lib.models.llama import Llama

Loss = Callable[[Llama], float]


def layers_off(numbers: Iterable[int], layers: int) -> Tensor:
    """The mask (L,) that is True for these layers: what `without_layers` takes.

    >>> layers_off([2, 0], 4).tolist()
    [True, False, True, False]
    """
    off = torch.zeros(layers, dtype=torch.bool)
    off[list(numbers)] = True
    return off


@torch.no_grad()
def influence_order(model: Llama, tokens: Tensor) -> list[int]:
    """All layers, the one of least influence on tokens (B, T) first; to drop n, take the first n.

    Raises:
        ValueError: an influence is NaN.

    Source: Men et al., 2024, "ShortGPT: Layers in Large Language Models are More Redundant Than You
    Expect".

    >>> from course_lib.models.pretrained import tiny
    >>> len(influence_order(tiny()[0], torch.arange(9)[None]))
    4
    """
    influence = layer_influence(model, tokens)
    check_finite(influence, "the influence of the layers")
    return influence.argsort(stable=True).tolist()


@torch.no_grad()
def greedy_order(model: Llama, count: int, loss: Loss) -> tuple[list[int], Tensor]:
    """Drop the layer without which the loss is least, then the next, measured without the first.

    Args:
        model: is left as it is; a model with fewer layers shares its weights.
        count: how many go, from 0 to L − 1.
        loss: measures a model.

    Returns:
        The layers in the order in which they go, and the loss after each: `count` of both; of equal
        losses the first layer goes.

    Raises:
        ValueError: count is out of range, or a loss is not finite.

    >>> from course_lib.models.pretrained import tiny
    >>> model, _ = tiny()
    >>> greedy_order(model, 2, lambda m: float(len(m.blocks)))
    ([0, 1], tensor([3., 2.], dtype=torch.float64))
    """
    _check_count(model, count)
    gone: list[int] = []
    reached: list[float] = []
    for _ in range(count):
        stay = [number for number in range(len(model.blocks)) if number not in gone]
        losses = _losses(model, ([*gone, number] for number in stay), loss)
        gone.append(stay[int(losses.argmin())])
        reached.append(losses.min().item())
    return gone, torch.tensor(reached, dtype=torch.float64)


@torch.no_grad()
def run_losses(model: Llama, count: int, loss: Loss) -> Tensor:
    """The loss without the layers s … s + count − 1, for every s: (L − count + 1,), float64.

    The best run begins at its `argmin`. Args and Raises: as for `greedy_order`, count at least 1.

    >>> from course_lib.models.pretrained import tiny
    >>> model, _ = tiny()
    >>> run_losses(model, 3, lambda m: float(len(m.blocks)))
    tensor([1., 1.], dtype=torch.float64)
    """
    _check_count(model, count, least=1)
    starts = range(len(model.blocks) - count + 1)
    return _losses(model, (range(start, start + count) for start in starts), loss)


def _losses(model: Llama, choices: Iterable[Iterable[int]], loss: Loss) -> Tensor:
    """The loss without the layers of each choice: float64."""
    L = len(model.blocks)
    measured = [float(loss(view_without_layers(model, layers_off(gone, L)))) for gone in choices]
    losses = torch.tensor(measured, dtype=torch.float64)
    check_finite(losses, "the losses")
    return losses


def _check_count(model: Llama, count: int, least: int = 0) -> None:
    if not least <= count < len(model.blocks):
        raise ValueError(
            f"count must be from {least} to {len(model.blocks) - 1}, so that a layer stays; "
            f"got {count}"
        )
