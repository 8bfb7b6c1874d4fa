"""How many directions a matrix uses.

A matrix (weights, or activations with a row for each token) stretches space by its singular values
σ₁ ≥ σ₂ ≥ …; where few of them are large, few directions matter. Three counts of "few":

    stable rank       Σ σ² / σ₁²                                 about the largest one alone
    effective rank    exp(−Σ p ln p),   p = σ / Σ σ              as many equal σ have this entropy
    energy rank       the least k with σ₁² + … + σ_k² ≥ share · Σ σ²

All three are 1 for a matrix of rank one and n for n equal singular values; only the matrix of zeros
has 0.

Sources: Rudelson and Vershynin, 2007, "Sampling from Large Matrices" (stable rank); Roy and
Vetterli, 2007, "The Effective Rank".

Axes: O rows, I columns of a matrix.
"""

import torch
from torch import Tensor

from course_lib.models.finite import check_finite


def singular_values(matrix: Tensor) -> Tensor:
    """σ₁ ≥ σ₂ ≥ … of a matrix (O, I), computed in float32 or better: (min(O, I),).

    Raises:
        ValueError: matrix is not 2-D, has no entries, is not of a floating dtype or not finite.

    >>> singular_values(torch.tensor([[3.0, 0.0], [0.0, -4.0]])).tolist()
    [4.0, 3.0]
    """
    if matrix.dim() != 2 or matrix.numel() == 0 or not matrix.is_floating_point():
        raise ValueError(
            "matrix must be a floating-point tensor of shape (O, I) with O, I ≥ 1; "
            f"got {matrix.dtype} of shape {tuple(matrix.shape)}"
        )
    check_finite(matrix, "matrix")
    return torch.linalg.svdvals(matrix.detach().to(torch.promote_types(matrix.dtype, torch.float)))


def stable_rank(matrix: Tensor) -> Tensor:
    """Σ σ² / σ₁², from 1 to the rank; small changes of the matrix change it little.

    >>> float(stable_rank(torch.diag(torch.tensor([2.0, 2.0, 1.0]))))
    2.25
    """
    return _relative(matrix).square().sum()


def effective_rank(matrix: Tensor) -> Tensor:
    """exp of the entropy of p = σ / Σ σ, from 1 to the rank.

    >>> round(float(effective_rank(torch.eye(5))), 4)
    5.0
    """
    values = _relative(matrix)
    shares = values / values.sum().clamp(min=1)
    return torch.where(values[0] > 0, torch.special.entr(shares).sum().exp(), 0.0)


def energy_rank(matrix: Tensor, share: float) -> Tensor:
    """How many of the largest σ hold `share` of Σ σ².

    >>> int(energy_rank(torch.diag(torch.tensor([3.0, 1.0, 1.0])), share=0.9))
    2
    """
    if not 0 < share <= 1:
        raise ValueError(f"share must be above 0 and at most 1; got {share}")
    energy = _relative(matrix).square()
    missing = share * energy.sum() - energy.cumsum(0) + energy  # what the ones before leave to hold
    return (missing > 1e-6 * energy.sum()).sum()


def _relative(matrix: Tensor) -> Tensor:
    """σ / σ₁, whose squares neither vanish nor overflow; zeros for the matrix of zeros."""
    values = singular_values(matrix)
    return torch.where(values[0] > 0, values / values[0], 0.0)
