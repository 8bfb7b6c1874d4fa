"""Optimal Brain Surgeon: remove a weight and move the others, so that the loss rises least.

Around a minimum the loss rises by ½ δᵀHδ when the weights move by δ. Removing weight q asks for
δ_q = −w_q; the least of all such δ, and what it costs, are

    δ = −w_q / [H⁻¹]_qq · H⁻¹[:, q]        saliency_q = w_q² / (2 [H⁻¹]_qq)

For least squares nothing is left out: what stays is least squares on the columns that stay. Then q
leaves the inverse, by one column u = H⁻¹[:, q] / √[H⁻¹]_qq:    H⁻¹ ← H⁻¹ − u uᵀ.

`obs_prune` removes weight after weight in every row of a layer. Each row chooses an order of its
own and would need an inverse of its own, I² numbers. Instead it keeps its columns u, a Cholesky
factor of H⁻¹ with the pivots that it chose: the k-th step needs one column of
H⁻¹ − Σ u uᵀ and its diagonal, O(I · k) work. In one fixed order of the inputs all rows have the
same columns u, the rows of `inverse_factor`: so GPTQ and SparseGPT go through a layer.

Sources: Hassibi and Stork, 1992, "Second Order Derivatives for Network Pruning: Optimal Brain
Surgeon"; row by row for a layer: Frantar et al., 2022, "Optimal Brain Compression: A
Framework for Accurate Post-Training Quantization and Pruning".

Axes: N examples, O outputs, I inputs, R rows that are pruned together, K removed weights of a row.
"""

import torch
from torch import Tensor

from course_lib.device import without_autocast
from course_lib.models.finite import check_finite, is_fake
from course_lib.pruning.inverse_hessian import (
    damped,
    damped_inverse,
    inverse_factor,
    layer_hessian,
)

__all__ = [
    "damped_inverse",
    "inverse_factor",
    "layer_hessian",
    "obs_prune",
    "obs_saliency",
    "obs_step",
]

AT_ONCE = 2**22  # numbers in the columns u that are kept at a time


def obs_saliency(weight: Tensor, inverse: Tensor) -> Tensor:
    """What each weight's removal costs when the others move: w_q² / (2 [H⁻¹]_qq).

    A weight that `obs_step` has removed from the inverse costs infinity: it cannot go again.

    Args:
        weight: w, (O, I) or (I,).
        inverse: H⁻¹, (I, I).

    Returns:
        Saliencies in the weight's shape, in the units of the loss.

    Raises:
        ValueError: the shapes do not fit.

    Source: Hassibi and Stork, 1992, "Second Order Derivatives for Network Pruning: Optimal Brain
    Surgeon".

    >>> obs_saliency(torch.tensor([3.0, 2.0]), torch.tensor([[1.0, -1.0], [-1.0, 2.0]]))
    tensor([4.5000, 1.0000])
    """
    _check_fit(weight, inverse, "inverse", (1, 2))
    diagonal = inverse.diagonal()
    return (weight.square() / (2 * diagonal)).masked_fill(diagonal == 0, torch.inf)


@without_autocast
def obs_step(weight: Tensor, inverse: Tensor, q: int | Tensor) -> tuple[Tensor, Tensor]:
    """Remove weight q, move the others so that the loss rises least, and take q out of H⁻¹.

        w ← w − w_q / [H⁻¹]_qq · H⁻¹[:, q]        H⁻¹ ← H⁻¹ − H⁻¹[:, q] H⁻¹[q, :] / [H⁻¹]_qq

    Args:
        weight: w, (I,).
        inverse: H⁻¹, (I, I), or what an earlier step made of it.
        q: which weight, from 0 to I − 1.

    Returns:
        The weight with w_q exactly 0, and the inverse with row and column q exactly 0.

    Raises:
        ValueError: the shapes do not fit, q is out of range, or [H⁻¹]_qq is not positive: that
            weight is gone already.

    Source: Hassibi and Stork, 1992, "Second Order Derivatives for Network Pruning: Optimal Brain
    Surgeon".

    >>> weight, inverse = torch.tensor([3.0, 2.0]), torch.tensor([[1.0, -1.0], [-1.0, 2.0]])
    >>> obs_step(weight, inverse, q=1)
    (tensor([4., 0.]), tensor([[0.5000, 0.0000],
            [0.0000, 0.0000]]))
    """
    _check_fit(weight, inverse, "inverse", (1,))
    if not 0 <= (q := int(q)) < len(weight):
        raise ValueError(f"q must be from 0 to {len(weight) - 1}; got {q}")
    column = inverse[:, q]
    if not is_fake(inverse) and not column[q] > 0:
        raise ValueError(f"inverse[q, q] must be positive; got {column[q]:.3g} at q = {q}")
    here = torch.arange(len(weight), device=weight.device) == q
    weight = (weight - weight[q] / column[q] * column).masked_fill(here, 0)
    inverse = inverse - torch.outer(column, column / column[q])
    return weight, inverse.masked_fill(here | here[:, None], 0)


@without_autocast
def obs_prune(weight: Tensor, hessian: Tensor, density: float, damping: float = 0.0) -> Tensor:
    """In each row remove the weight that costs least, move the others, and again, until k stay.

    One row may also be a whole network's weights, with the exact Hessian of its loss at a minimum;
    where that is not positive definite, the error says how much damping makes it so. Everything
    is computed in float64, because the inverse gets small by subtraction.

    Args:
        weight: (O, I), floating.
        hessian: H, (I, I), of every row's loss, from `layer_hessian`, float32 or float64.
        density: share of each row that stays, from 0 to 1: k = round(density · I).
        damping: λ / mean |H_qq|; λ 1 is added to H, as in `inverse_factor`.

    Returns:
        The new weight, (O, I), in the old one's dtype: I − k zeros in each row.

    Raises:
        ValueError: density is out of range, the shapes do not fit, something is not finite, or the
            damped Hessian is not positive definite.

    Source: Frantar et al., 2022, "Optimal Brain Compression: A Framework for Accurate
    Post-Training Quantization and Pruning" (the same removals; the columns kept instead of H⁻¹).

    >>> hessian = torch.tensor([[2.0, 1.0], [1.0, 1.0]])
    >>> obs_prune(torch.tensor([[3.0, 2.0], [1.0, 4.0]]), hessian, density=0.5)
    tensor([[4., 0.],
            [0., 5.]])
    """
    if not 0 <= density <= 1:
        raise ValueError(f"density must be from 0 to 1; got {density}")
    check_finite(weight, "weight")
    _check_fit(weight, hessian, "hessian", (2,))
    inputs = weight.shape[1]
    count = inputs - round(density * inputs)
    inverse = damped_inverse(hessian, damping).double()
    least = 1 / damped(hessian, damping).diagonal()
    rows = weight.detach().double().split(max(1, AT_ONCE // max(1, count * inputs)))
    return torch.cat([_removed(part, inverse, least, count) for part in rows]).to(weight.dtype)


def _removed(weight: Tensor, inverse: Tensor, least: Tensor, count: int) -> Tensor:
    """`count` weights of each row gone: weight (R, I), inverse (I, I).

    `least` is 1 / H_qq, (I,): below it no [H⁻¹]_qq can fall, however many others are gone.
    """
    every = torch.arange(len(weight), device=weight.device)
    diagonal = inverse.diagonal().expand_as(weight)  # of each row's inverse: (R, I)
    gone = torch.zeros_like(weight, dtype=torch.bool)
    columns = weight.new_empty(len(weight), count, weight.shape[1])  # u of each step: (R, K, I)
    for k in range(count):
        q = (weight.square() / diagonal).masked_fill_(gone, torch.inf).argmin(dim=1)  # (R,)
        at_q = columns[every, :k, q].unsqueeze(1)  # (R, k) -> (R, 1, k)
        column = torch.baddbmm(inverse[q].unsqueeze(1), at_q, columns[:, :k], alpha=-1).squeeze(1)
        column.masked_fill_(gone, 0)  # (R, I); there it is 0 but for rounding
        pivot = diagonal[every, q].unsqueeze(1)  # (R, 1)
        weight = weight - weight[every, q].unsqueeze(1) / pivot * column
        columns[:, k] = column / pivot.sqrt()
        diagonal = torch.maximum(diagonal - columns[:, k].square(), least)
        gone[every, q] = True
        weight.masked_fill_(gone, 0)
    return weight


def _check_fit(weight: Tensor, square: Tensor, name: str, dimensions: tuple[int, ...]) -> None:
    """Raise unless the square matrix is (I, I) for the weight's I, and the weight of such shape."""
    if weight.dim() not in dimensions or tuple(square.shape) != (weight.shape[-1],) * 2:
        shapes = " or ".join({1: "(I,)", 2: "(O, I)"}[d] for d in dimensions)
        raise ValueError(
            f"weight must have shape {shapes} and {name} (I, I); "
            f"got {tuple(weight.shape)} and {tuple(square.shape)}"
        )
