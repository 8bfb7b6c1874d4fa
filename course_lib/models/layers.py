"""Which layers, heads and units of a language model do little; and the model without some layers.

In a block, x ← x + attention(…) and x ← x + mlp(…), each correction is a sum Σ_p W_p x_p over
parts: the heads of the attention, or the hidden units of the MLP. W_p are the columns of the last
matrix that belong to part p, and x_p are that part's values. Two measures of "little":

    influence of a layer       1 − mean over tokens of cos(x before, x after)
    contribution of a part     mean over tokens of ‖W_p x_p‖, divided by the mean of ‖x‖

x is the layer's input. It grows from layer to layer, and so do the corrections: without the
division the first layers, which do most, would look the least important.

Sources: Men et al., 2024, "ShortGPT: Layers in Large Language Models are More Redundant Than You
Expect" (influence); contributions follow from the sum above.

Axes: B batch, T tokens, N = B · T, L layers, H heads, F hidden units, P parts, E columns of a part,
I inputs, O outputs.
"""

import copy
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from course_lib.models.llama import Llama
from course_lib.models.parts import record_inputs
from course_lib.models.selection import check_mask


def layer_influence(model: Llama, tokens: Tensor) -> Tensor:
    """1 − mean cos(x before, x after) of each layer over tokens (B, T): (L,), from 0 to 2."""
    states = record_inputs(model, tokens, [*model.blocks, model.norm])
    similar = [
        F.cosine_similarity(before, after, dim=-1).mean() for before, after in pairwise(states)
    ]
    return 1 - torch.stack(similar)


def contributions(inputs: Tensor, weight: Tensor, parts: int) -> Tensor:
    """Mean over N of ‖W_p x_p‖ for each of P equal parts of the inputs: (P,).

    ‖W_p x_p‖² = x_pᵀ (W_pᵀ W_p) x_p, so that no output is made for each part.

    Args:
        inputs: (N, I), with I = P · E.
        weight: (O, I).
        parts: P.

    >>> contributions(torch.tensor([[1.0, 2.0, 0.0]]), torch.tensor([[3.0, 0.0, 1.0]]), parts=3)
    tensor([3., 0., 0.])
    """
    if weight.shape[1] % parts:
        raise ValueError(f"parts must divide the {weight.shape[1]} inputs; got {parts}")
    x = inputs.unflatten(1, (parts, -1))  # (N, I) -> (N, P, E)
    w = weight.detach().unflatten(1, (parts, -1))  # (O, I) -> (O, P, E)
    gram = torch.einsum("ope,opf->pef", w, w)
    squares = torch.einsum("npe,pef,npf->np", x, gram, x)
    return squares.clamp(min=0).sqrt().mean(dim=0)


def head_contributions(model: Llama, tokens: Tensor) -> Tensor:
    """Mean ‖W_p x_p‖ / mean ‖x‖ of each attention head over tokens (B, T): (L, H)."""
    matrices = [block.attention.output for block in model.blocks]
    return _relative_contributions(
        model, tokens, matrices, [b.attention.heads for b in model.blocks]
    )


def unit_contributions(model: Llama, tokens: Tensor) -> Tensor:
    """Mean ‖W_p x_p‖ / mean ‖x‖ of each hidden unit of the MLPs over tokens (B, T): (L, F)."""
    matrices = [block.mlp.down for block in model.blocks]
    return _relative_contributions(model, tokens, matrices, [m.in_features for m in matrices])


def _relative_contributions(
    model: Llama, tokens: Tensor, matrices: list[nn.Linear], parts: list[int]
) -> Tensor:
    """Contributions as shares of the length of the x that the layer is given: (L, P)."""
    if len(set(parts)) > 1:
        raise ValueError(f"every layer must have equally many parts; got {parts}")
    inputs = record_inputs(model, tokens, [*matrices, *model.blocks])
    values, states = inputs[: len(matrices)], inputs[len(matrices) :]
    layers = zip(matrices, values, states, strict=True)
    return torch.stack(
        [contributions(v, m.weight, parts[0]) / x.norm(dim=-1).mean() for m, v, x in layers]
    )


def without_layers(model: Llama, off: Tensor) -> Llama:
    """A copy of the model without the layers for which `off` (L,) is True.

    Raises:
        ValueError: off is not bool of shape (L,).

    >>> from course_lib.models.llama import LlamaConfig
    >>> config = LlamaConfig(vocabulary=11, width=8, layers=3, heads=2, kv_heads=1, mlp_width=12,
    ...                      context=16)
    >>> len(without_layers(Llama(config), torch.tensor([False, True, False])).blocks)
    2
    """
    return copy.deepcopy(view_without_layers(model, off))


def view_without_layers(model: Llama, off: Tensor) -> Llama:
    """The model without some layers, sharing its weights: to measure with, not to change.

    Args, Raises: as for `without_layers`.
    """
    check_mask("off", off, (len(model.blocks),))
    stay = [number for number, gone in enumerate(off.tolist()) if not gone]
    view = copy.copy(model)
    view._modules = dict(model._modules)  # a shallow copy has the model's own dictionary
    view.blocks = nn.ModuleList(model.blocks[number] for number in stay)
    view.config = model.config.with_shapes([model.config.shapes[number] for number in stay])
    return view
