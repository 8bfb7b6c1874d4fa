"""A layer makes up for what was lost before it: the weight that asks the right question.

In a model whose first layers were changed, a layer is given x' and not x. It should still give
W x, as far as x' foretells it:

    min over W' of  mean ‖W x − W' x'‖² + λ ‖W' − W‖²

    W' = W + W D (G' + λ 1)⁻¹        G' = mean x' x'ᵀ        D = mean (x − x') x'ᵀ

For a replacement Ŵ, mean ‖W x − Ŵ x'‖² is what no weight can help plus mean ‖(W' − Ŵ) x'‖² (λ = 0).
So the best factors of rank r are those of W' for the inputs x': `output_factors(W', G', r)`.

That x' is used for G alone does not do it: those factors would keep W x', an answer to what was
asked wrongly.

Source: Zhang, Zou, He, Sun, 2016, "Accelerating Very Deep Convolutional Networks for Classification
and Detection" (asymmetric reconstruction).

Axes: N tokens, O outputs, I inputs.
"""

import torch
from torch import Tensor

from course_lib.device import without_autocast
from course_lib.models.finite import check_finite

DAMPING = 0.1  # λ over the mean of G'; with few tokens, less of it fits their noise


@without_autocast
@torch.no_grad()
def caught_up(weight: Tensor, gram: Tensor, drift: Tensor, damping: float = DAMPING) -> Tensor:
    """W' = W + W D (G' + λ 1)⁻¹, with λ = damping · mean G'_jj.

    Args:
        weight: W, (O, I), any float type.
        gram: G', the mean of x' x'ᵀ, (I, I): of the inputs that the layer is given now.
        drift: D, the mean of (x − x') x'ᵀ, (I, I), where x are the inputs that it was given.
        damping: above 0.

    Returns:
        (O, I), in the weight's dtype; solved in float64.

    Raises:
        TypeError: an argument is not of floats.
        ValueError: the shapes do not fit; NaN or infinity; damping is not above 0 and finite.

    >>> now = torch.tensor([[1.0], [2.0]])  # half of what it was
    >>> gram, drift = now.T @ now / 2, now.T @ now / 2
    >>> caught_up(torch.tensor([[3.0]]), gram, drift, damping=1e-6)
    tensor([[6.0000]])
    """
    if weight.dim() != 2 or not gram.shape == drift.shape == (weight.shape[-1],) * 2:
        raise ValueError(
            "weight must have shape (O, I), gram and drift (I, I); "
            f"got {tuple(weight.shape)}, {tuple(gram.shape)} and {tuple(drift.shape)}"
        )
    for tensor, name in ((weight, "weight"), (gram, "gram"), (drift, "drift")):
        check_finite(tensor, name)
    if not 0 < damping < torch.inf:
        raise ValueError(f"damping must be above 0 and finite; got {damping}")
    level = gram.diagonal().double().mean()
    level = torch.where(level > 0, level, 1.0)
    damped = gram.double() / level
    damped.diagonal().add_(damping)
    lost = weight.double() @ (drift.double() / level)  # (O, I) (I, I) -> (O, I)
    moved = torch.linalg.solve(damped, lost, left=False)  # X (G' + λ 1) = W D
    return (weight.double() + moved).to(weight.dtype)


def drift_of(before: Tensor, now: Tensor) -> Tensor:
    """D = mean (x − x') x'ᵀ of inputs before and now, (N, I) each: (I, I).

    >>> drift_of(torch.tensor([[3.0]]), torch.tensor([[1.0]]))
    tensor([[2.]])
    """
    wide = torch.promote_types(now.dtype, torch.float32)
    return _mean_products(before.to(wide) - now.to(wide), now.to(wide))


@without_autocast
def _mean_products(x: Tensor, y: Tensor) -> Tensor:
    return x.T @ y / len(x)  # (I, N) (N, I) -> (I, I)
