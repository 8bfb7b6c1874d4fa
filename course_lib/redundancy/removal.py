"""What a language model loses when layers, heads, hidden units or weights are taken away.

A head or a hidden unit is off when its columns of the last matrix of its sublayer are zero, and a
layer can be left out since it only adds to x. The functions here return changed copies, to measure
a loss with. Zeros still take their memory and time: the chapters on pruning say how to save these.

Removing by random scores is removing at random: the control for every choice.

Source: Michel, Levy, Neubig, 2019, "Are Sixteen Heads Really Better than One?".

Axes: L layers, H heads, F hidden units, I inputs, O outputs.
"""

import copy
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from course_lib.models.llama import Llama
from course_lib.models.selection import check_mask, lowest_mask


def lowest(scores: Tensor, share: float) -> Tensor:
    """True for the round(share · n) lowest scores; with random scores, a random choice.

    >>> lowest(torch.tensor([[3.0, 1.0], [2.0, 4.0]]), share=0.5).tolist()
    [[False, True], [True, False]]
    """
    if not 0 <= share <= 1:
        raise ValueError(f"share must be from 0 to 1; got {share}")
    return lowest_mask(scores, round(share * scores.numel()))


@torch.no_grad()
def without_heads(model: Llama, off: Tensor) -> Llama:
    """A copy of the model whose attention heads are switched off where `off` (L, H) is True."""
    check_mask("off", off, (model.config.layers, model.config.heads))
    model = copy.deepcopy(model)
    for block, layer_off in zip(model.blocks, off, strict=True):
        columns = layer_off.repeat_interleave(block.attention.head_width)  # (H,) -> (H · E,)
        block.attention.output.weight.masked_fill_(columns, 0.0)
    return model


@torch.no_grad()
def without_units(model: Llama, off: Tensor) -> Llama:
    """A copy of the model whose hidden MLP units are switched off where `off` (L, F) is True."""
    check_mask("off", off, (model.config.layers, model.config.mlp_width))
    model = copy.deepcopy(model)
    for block, layer_off in zip(model.blocks, off, strict=True):
        block.mlp.down.weight.masked_fill_(layer_off, 0.0)
    return model


@torch.no_grad()
def without_weights(model: Llama, share: float, score: Callable[[Tensor], Tensor]) -> Llama:
    """A copy in which the `share` of weights with the lowest score is zero in each linear layer.

    Args:
        share: from 0 to 1.
        score: weight (O, I) -> scores (O, I), such as `torch.abs` or `torch.rand_like`.
    """
    model = copy.deepcopy(model)
    for module in model.modules():
        if isinstance(module, nn.Linear):
            module.weight.masked_fill_(lowest(score(module.weight), share), 0.0)
    return model


def loss_without_each(
    model: Llama,
    remove: Callable[[Llama, Tensor], Llama],
    shape: tuple[int, ...],
    loss: Callable[[Llama], float],
) -> Tensor:
    """The loss when one part alone is removed, for each part: a tensor of `shape`.

    Args:
        remove: `without_heads`, `without_layers` or `without_units`.
        shape: of the mask that `remove` takes, such as (L, H).
        loss: what is to be measured, such as bits per byte of some text.
    """
    losses = torch.empty(shape)
    for part in np.ndindex(*shape):
        off = torch.zeros(shape, dtype=torch.bool, device=model.embedding.weight.device)
        off[part] = True
        losses[part] = loss(remove(model, off))
    return losses
