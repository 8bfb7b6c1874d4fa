"""A model with rounded weights, in the simplest way: one scale a row, levels from −max to max."""

import copy
from collections.abc import Callable, Mapping

import torch
from torch import nn

from course_lib.models.parts import matrices


@torch.no_grad()
def rounded(
    model: nn.Module,
    bits: int,
    weights: Callable[[nn.Module], Mapping[str, nn.Parameter]] = matrices,
) -> nn.Module:
    """A copy of the model whose weights are rounded to 2ⁿ − 1 levels a row: s · round(w / s).

        s = max |w| / (2ⁿ⁻¹ − 1) of each row

    The copy's weights are ordinary floats. A row of zeros stays as it is.

    Args:
        model: any module; it is left as it is.
        bits: n, at least 2.
        weights: which of its parameters, 2-D all; by default every matrix, the embedding too.

    >>> model = nn.Linear(50, 2)
    >>> [len(row.unique()) <= 7 for row in rounded(model, bits=3).weight]
    [True, True]
    """
    if bits < 2:
        raise ValueError(f"bits must be at least 2; got {bits}")
    model = copy.deepcopy(model)
    for weight in weights(model).values():
        step = weight.abs().amax(dim=1, keepdim=True) / (2 ** (bits - 1) - 1)
        weight.copy_(torch.where(step > 0, step * (weight / step).round(), weight))
    return model
