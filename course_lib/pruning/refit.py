"""Least squares on the weights that stay, from second moments alone.

Of W x the part W_gone x_gone is lost. The weights that stay take over what they can foretell of it:

    Δ = W_gone G_gone,stay (G_stay,stay + λ 1)⁻¹       G = mean x xᵀ

minimizes mean ‖W_gone x_gone − Δ x_stay‖² + λ ‖Δ‖². λ holds the weights near what they were, so
nothing moves where nothing was lost.

Sources: He et al., 2017, "Channel Pruning for Accelerating Very Deep Neural Networks" (least
squares on the channels that stay); Frantar et al., 2022, "Optimal Brain Compression: A
Framework for Accurate Post-Training Quantization and Pruning" (on single weights).

Axes: O outputs, I inputs, K inputs that stay.
"""

import torch
from torch import Tensor

from course_lib.device import without_autocast
from course_lib.models.finite import check_finite, is_fake
from course_lib.models.selection import check_keep, check_mask
from course_lib.pruning.inverse_hessian import damped

AT_ONCE = 2**24  # numbers in the matrices of the rows that are solved together
DAMPING = 1e-4


@without_autocast
@torch.no_grad()
def refit_columns(
    weight: Tensor, hessian: Tensor, keep: Tensor, damping: float = DAMPING
) -> Tensor:
    """V = W_stay + W_gone G_gone,stay (G_stay,stay + λ 1)⁻¹, with λ = damping · mean G_jj.

    Args:
        weight: W, (O, I), any float type.
        hessian: H = 2 G or G itself, to the same effect: (I, I), symmetric, float32 or float64.
        keep: (I,) bool.
        damping: at least 0; the mean is over the inputs that stay.

    Returns:
        (O, K), in the weight's dtype; solved in float64.

    Raises:
        ValueError: the shapes do not fit; keep keeps nothing; H is not symmetric and finite; the
            inputs that stay foretell each other, so that without more damping there is no answer.

    >>> hessian = torch.tensor([[1.0, 3.0], [3.0, 9.0]])
    >>> refit_columns(torch.tensor([[1.0, 2.0]]), hessian, torch.tensor([True, False]), damping=0.0)
    tensor([[7.]])
    """
    _check_moments(weight, hessian)
    check_keep(keep, weight.shape[1])
    wide = damped(hessian, 0.0)
    lost = wide[keep][:, ~keep] @ weight[:, ~keep].double().T  # (K, I - K) (I - K, O) -> (K, O)
    moved = _solve(wide[keep][:, keep], lost, damping, hessian.dtype).T
    return _narrow(weight[:, keep].double() + moved, weight.dtype)


@without_autocast
@torch.no_grad()
def refit_rows(weight: Tensor, hessian: Tensor, mask: Tensor, damping: float = DAMPING) -> Tensor:
    """`refit_columns` where each output keeps inputs of its own, as with 2 of 4: a system for each.

    Args:
        weight, hessian, damping: as for `refit_columns`.
        mask: True where a weight stays, (O, I) bool; in each row as many, at least one.

    Returns:
        (O, I), zero where the mask is False.

    Raises:
        ValueError: as `refit_columns`; a row keeps another number of weights than the first.

    >>> hessian = torch.tensor([[1.0, 3.0], [3.0, 9.0]])
    >>> mask = torch.tensor([[True, False], [False, True]])
    >>> refit_rows(torch.ones(2, 2), hessian, mask, damping=0.0)
    tensor([[4.0000, 0.0000],
            [0.0000, 1.3333]])
    """
    _check_moments(weight, hessian)
    check_mask("mask", mask, tuple(weight.shape))
    counts = mask.sum(dim=1)
    K = int(counts[0])
    if K == 0 or not (counts == K).all():
        raise ValueError(
            "mask must keep as many weights in each row, at least one; "
            f"got {counts.min()} to {counts.max()}"
        )
    wide = damped(hessian, 0.0)
    places = mask.nonzero()[:, 1].view(-1, K)  # (O · K,) -> (O, K)
    lost = (weight.double().masked_fill(mask, 0) @ wide).gather(1, places)  # (O, I) -> (O, K)
    new = weight.double() * mask
    for some in torch.arange(len(weight), device=weight.device).split(max(1, AT_ONCE // K**2)):
        at = places[some]
        stay = wide[at[:, :, None], at[:, None, :]]  # (some, K, K)
        moved = _solve(stay, lost[some][:, :, None], damping, hessian.dtype)  # (some, K, 1)
        new[some] = new[some].scatter_add(1, at, moved.squeeze(2))
    return _narrow(new, weight.dtype)


def _solve(stay: Tensor, lost: Tensor, damping: float, held: torch.dtype) -> Tensor:
    """(G + λ 1)⁻¹ lost for matrices (…, K, K), float64; an input that is always 0 moves nothing.

    A pivot is what the inputs before it do not foretell of an input. Where it is no more than the
    rounding of the moments, in the dtype that they were held in, the answer is made of rounding.
    """
    if not 0 <= damping < torch.inf:
        raise ValueError(f"damping must be at least 0 and finite; got {damping}")
    level = stay.diagonal(dim1=-2, dim2=-1)  # (…, K)
    level = level + damping * level.mean(dim=-1, keepdim=True) + (level == 0).double()
    stay = stay.diagonal_scatter(level, dim1=-2, dim2=-1)
    lower, failed = torch.linalg.cholesky_ex(stay)
    pivots = lower.diagonal(dim1=-2, dim2=-1).square()
    rounding = stay.shape[-1] * torch.finfo(held).eps
    if not is_fake(stay) and (failed.any() or not (pivots > rounding * level).all()):
        raise ValueError(
            "the inputs that stay foretell each other, up to rounding: damping must be larger; "
            f"got {damping}"
        )
    return torch.cholesky_solve(lost, lower)


def _narrow(weight: Tensor, dtype: torch.dtype) -> Tensor:
    weight = weight.to(dtype)
    check_finite(weight, f"the refitted weight, in {dtype},")
    return weight


def _check_moments(weight: Tensor, hessian: Tensor) -> None:
    if weight.dim() != 2 or hessian.shape != (weight.shape[-1],) * 2:
        raise ValueError(
            "weight must have shape (O, I) and hessian (I, I); "
            f"got {tuple(weight.shape)} and {tuple(hessian.shape)}"
        )
    check_finite(weight, "weight")
