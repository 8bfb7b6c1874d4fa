"""2 of every 4 neighbours stay: zeros in a pattern that matrix units of some GPUs can skip.

Between single weights, which no matrix unit can skip, and whole units. The best choice of 2 of 4 by
magnitude is the nearest such matrix; what stays can be refitted, in each row by itself.

`language_models.sparsegpt` chooses and refits in one pass; here the choice is by magnitude alone.

Source: Mishra et al., 2021, "Accelerating Sparse Deep Neural Networks".

Axes: B windows, T tokens, N rows, O outputs, I inputs.
"""

import copy

import torch
from torch import Tensor, nn

from course_lib.models.llama import Block, Llama
from course_lib.models.n_of_m import n_of_m_mask
from course_lib.models.parts import STAGES, record_inputs, walk_blocks
from course_lib.pruning.inverse_hessian import layer_hessian
from course_lib.pruning.refit import refit_rows
from course_lib.pruning.scores import magnitude


@torch.no_grad()
def n_of_m(weight: Tensor, n: int, m: int, inputs: Tensor | None = None) -> Tensor:
    """The weight with zeros: of every m neighbours in a row the n of largest magnitude stay.

    Args:
        weight: W, (O, I), where m divides I.
        n, m: 1 ≤ n ≤ m.
        inputs: calibration inputs, (N, I): what stays is refitted on them, in each row by itself.

    Returns:
        (O, I), in the weight's dtype; without inputs, the nearest weight of that pattern.

    Raises:
        ValueError: n out of range; m does not divide I; what `refit_rows` refuses.

    >>> n_of_m(torch.tensor([[3.0, 1.0, -2.0, 4.0]]), 2, 4)
    tensor([[3., 0., 0., 4.]])
    """
    if n < 1:
        raise ValueError(f"n must be at least 1: without weights nothing is left; got {n}")
    mask = n_of_m_mask(magnitude(weight), n, m)
    if inputs is None:
        return weight.masked_fill(~mask, 0)
    return refit_rows(weight, layer_hessian(inputs), mask)


@torch.no_grad()
def n_of_m_decoder(model: Llama, n: int, m: int, tokens: Tensor | None = None) -> Llama:
    """A copy of the model with n of m in every linear layer of its blocks; the embedding stays.

    Args:
        n, m: as for `n_of_m`.
        tokens: calibration text, (B, T). With it every layer is refitted, on what it is given once
            all layers before it were treated.

    >>> from course_lib.models.pretrained import tiny
    >>> sparse = n_of_m_decoder(tiny()[0], 2, 4)
    >>> (sparse.blocks[0].mlp.gate.weight == 0).double().mean().item()
    0.5
    """
    model = copy.deepcopy(model)
    if tokens is None:
        for block in model.blocks:
            for names in STAGES:
                _treat(block, names, n, m, None)
        return model
    for block, arguments in walk_blocks(model, tokens):
        for names in STAGES:
            (inputs,) = record_inputs(block, arguments, [block.get_submodule(names[0])])
            _treat(block, names, n, m, inputs)
    return model


def _treat(block: Block, names: tuple[str, ...], n: int, m: int, inputs: Tensor | None) -> None:
    """In place."""
    for name in names:
        layer: nn.Linear = block.get_submodule(name)
        layer.weight.copy_(n_of_m(layer.weight, n, m, inputs))
