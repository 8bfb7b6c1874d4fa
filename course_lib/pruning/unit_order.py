"""Inputs removed one at a time: after each the others are refitted, and all errors asked anew.

`group_scores.repair_errors` takes it that one input goes and all others stay to make up for it.
When many go, those it counts on go too. So ask again: remove the cheapest, refit W, take it out of
the inverse, and only then look for the next. `obs` does that for single weights.

    i = argmin Σ_o w_oi² / [H⁻¹]_ii       W ← W − w_i [H⁻¹]_i / [H⁻¹]_ii

Source: Kurtic et al., 2023, "ZipLM: Inference-Aware Structured Pruning of Language Models".

Axes: O outputs, I inputs, K inputs that stay.
"""

import torch
from torch import Tensor

from course_lib.device import without_autocast
from course_lib.models.finite import check_finite
from course_lib.pruning.inverse_hessian import damped_inverse
from course_lib.pruning.refit import DAMPING


@without_autocast
@torch.no_grad()
def keep_one_by_one(weight: Tensor, hessian: Tensor, K: int, damping: float = DAMPING) -> Tensor:
    """The K inputs of W that stay when the cheapest goes, again and again: (I,) bool.

    Args:
        weight: W, (O, I).
        hessian: H = 2 · mean x xᵀ, (I, I), from `layer_hessian`.
        K: from 1 to I.
        damping: λ / mean H_jj.

    Raises:
        ValueError: shapes do not fit, K is out of range; what `damped_inverse` refuses.

    >>> alike = torch.tensor([[4.0, 3.9, 0.0], [3.9, 4.0, 0.0], [0.0, 0.0, 4.0]])
    >>> keep_one_by_one(torch.tensor([[1.0, 1.1, 0.5]]), alike, K=1).tolist()
    [False, True, False]
    """
    if weight.dim() != 2 or hessian.shape != (weight.shape[-1],) * 2:
        raise ValueError(
            "weight must have shape (O, I) and hessian (I, I); "
            f"got {tuple(weight.shape)} and {tuple(hessian.shape)}"
        )
    if not 1 <= K <= len(hessian):
        raise ValueError(f"K must be from 1 to {len(hessian)}; got {K}")
    check_finite(weight, "weight")
    inverse, left = damped_inverse(hessian.double(), damping), weight.double()
    keep = torch.ones(len(hessian), dtype=torch.bool, device=weight.device)
    for _ in range(len(hessian) - K):
        # Of what went the weight is 0 and so is its row of the inverse: 0 / 0.
        errors = left.square().sum(dim=0) / inverse.diagonal()
        gone = errors.masked_fill(~keep, torch.inf).argmin()
        row = inverse[gone] / inverse[gone, gone]
        left = left - torch.outer(left[:, gone], row)
        inverse = inverse - torch.outer(inverse[:, gone], row)
        keep[gone] = False
        left[:, gone] = inverse[:, gone] = inverse[gone] = 0  # to the last digit
    return keep
