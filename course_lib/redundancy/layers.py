"""Which layers, heads and units of a language model do little, without trying each.

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

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from course_lib.models.llama import Llama
from course_lib.models.parts import record_inputs


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
    return _relative_contributions(model, tokens, matrices, model.config.heads)


def unit_contributions(model: Llama, tokens: Tensor) -> Tensor:
    """Mean ‖W_p x_p‖ / mean ‖x‖ of each hidden unit of the MLPs over tokens (B, T): (L, F)."""
    matrices = [block.mlp.down for block in model.blocks]
    return _relative_contributions(model, tokens, matrices, model.config.mlp_width)


def _relative_contributions(
    model: Llama, tokens: Tensor, matrices: list[nn.Linear], parts: int
) -> Tensor:
    """Contributions as shares of the length of the x that the layer is given: (L, P)."""
    inputs = record_inputs(model, tokens, [*matrices, *model.blocks])
    values, states = inputs[: len(matrices)], inputs[len(matrices) :]
    layers = zip(matrices, values, states, strict=True)
    return torch.stack(
        [contributions(v, m.weight, parts) / x.norm(dim=-1).mean() for m, v, x in layers]
    )
