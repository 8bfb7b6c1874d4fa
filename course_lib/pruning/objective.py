"""The L0 objective: what it counts, what stands in for it, and the steps that make zeros.

A model θ′ of at most k weights is asked for,

    min L(θ′)   subject to   ‖θ′‖₀ ≤ k          or, with a price λ on each weight,  L(θ′) + λ ‖θ′‖₀

‖θ‖₀ is the number of non-zeros. It has no useful gradient, so gradient descent alone cannot lower
it. What helps is a function's proximal operator: a point near to θ at which the function is low,

    prox_R(θ) = argmin_x  ½ ‖x − θ‖₂² + R(x)

    R = t ‖x‖₁               soft threshold at t: shrinks everything by t, small weights to zero
    R = ½ t² ‖x‖₀            hard threshold at t: small weights to zero, the others untouched
    R = 0 if ‖x‖₀ ≤ k, ∞     projection: keeps the k largest magnitudes
    R = ½ λ ‖x‖₂²            θ / (1 + λ): shrinks everything, zeroes nothing

Sources: Donoho and Johnstone, 1994, "Ideal Spatial Adaptation by Wavelet Shrinkage" (thresholds);
Blumensath and Davies, 2008, "Iterative Thresholding for Sparse Approximations" (projection); Parikh
and Boyd, 2014, "Proximal Algorithms".
"""

import torch
from torch import Tensor

from course_lib.models.selection import lowest_mask


def l0(theta: Tensor) -> Tensor:
    """‖θ‖₀: how many entries are not zero; a 0-d integer tensor.

    Not a norm: ‖2θ‖₀ = ‖θ‖₀.

    >>> int(l0(torch.tensor([0.5, -3.0, 0.0, 2.0])))
    3
    """
    return (theta != 0).sum()


def l1(theta: Tensor) -> Tensor:
    """‖θ‖₁ = Σ |θᵢ|; a 0-d tensor.

    >>> float(l1(torch.tensor([0.5, -3.0, 0.0, 2.0])))
    5.5
    """
    return theta.abs().sum()


def squared_l2(theta: Tensor) -> Tensor:
    """‖θ‖₂² = Σ θᵢ²; a 0-d tensor.

    >>> float(squared_l2(torch.tensor([0.5, -3.0, 0.0, 2.0])))
    13.25
    """
    return theta.square().sum()


def soft_threshold(theta: Tensor, threshold: float | Tensor) -> Tensor:
    """sign(θ) · max(|θ| − t, 0): the proximal operator of t ‖·‖₁.

    Args:
        theta: weights of any shape.
        threshold: t ≥ 0, or a tensor of such that broadcasts with theta.

    Raises:
        ValueError: threshold is a negative number.

    Source: Donoho and Johnstone, 1994, "Ideal Spatial Adaptation by Wavelet Shrinkage".

    >>> soft_threshold(torch.tensor([1.0, -0.4, 0.2]), 0.25)
    tensor([ 0.7500, -0.1500,  0.0000])
    """
    _check_threshold(threshold)
    return theta.sign() * (theta.abs() - threshold).clamp_min(0)


def hard_threshold(theta: Tensor, threshold: float | Tensor) -> Tensor:
    """θ where |θ| > t, else 0: the proximal operator of ½ t² ‖·‖₀, so of λ ‖·‖₀ with t = √(2 λ).

    At |θ| = t both answers cost the same; here such a weight goes.

    Args:
        theta: weights of any shape.
        threshold: t ≥ 0, or a tensor of such that broadcasts with theta.

    Raises:
        ValueError: threshold is a negative number.

    Source: Donoho and Johnstone, 1994, "Ideal Spatial Adaptation by Wavelet Shrinkage".

    >>> hard_threshold(torch.tensor([1.0, -0.4, 0.25]), 0.25)
    tensor([ 1.0000, -0.4000,  0.0000])
    """
    _check_threshold(threshold)
    return torch.where(theta.abs() > threshold, theta, 0)


def largest_mask(theta: Tensor, k: int) -> Tensor:
    """True at the k entries of largest magnitude; of equal ones, the first in the order of indices.

    Args:
        theta: weights of any shape, without NaN.
        k: how many to choose, from 0 to the number of entries.

    Returns:
        A bool tensor of theta's shape with exactly k True.

    Raises:
        ValueError: k is out of range.

    >>> largest_mask(torch.tensor([1.0, -3.0, 1.0, -1.0]), k=2)
    tensor([ True,  True, False, False])
    """
    return lowest_mask(-theta.abs(), k)


def project(theta: Tensor, k: int) -> Tensor:
    """The point nearest to θ with at most k non-zeros: argmin ‖x − θ‖₂ subject to ‖x‖₀ ≤ k.

    For many tensors at once, or large ones, see `masks.magnitude_masks`, which does not sort.

    Args, Raises: as `largest_mask`.

    Source: Blumensath and Davies, 2008, "Iterative Thresholding for Sparse Approximations".

    >>> project(torch.tensor([0.5, -3.0, 0.0, 2.0, -0.1, 1.0]), k=2)
    tensor([ 0., -3.,  0.,  2.,  0.,  0.])
    """
    return torch.where(largest_mask(theta, k), theta, 0)


def _check_threshold(threshold: float | Tensor) -> None:
    """Only a number is checked: reading a tensor's values would wait for its device."""
    if not torch.is_tensor(threshold) and not threshold >= 0:
        raise ValueError(f"threshold must be at least 0; got {threshold}")
