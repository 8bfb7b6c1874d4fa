"""A big matrix as the product of two small ones: as near to it as any of that rank.

The singular value decomposition W = Σ_k σ_k u_k v_kᵀ, σ₁ ≥ σ₂ ≥ …, is a sum of matrices of rank
one. Its first r terms are two factors:

    Ŵ = B A        B = U_r √Σ_r  (O, r)        A = √Σ_r V_rᵀ  (r, I)

No matrix of rank r is nearer to W (Eckart and Young; Mirsky, in every norm that rotations leave as
it is). What is missing, in the two norms that count most:

    ‖W − Ŵ‖_F = (σ_{r+1}² + σ_{r+2}² + …)^½        ‖W − Ŵ‖₂ = σ_{r+1}

B and A hold r (O + I) numbers. They save only where that is below O I: for a square matrix, below
half of its rank. Both get the root of Σ, so that neither has numbers much larger than the other's.

Sources: Eckart and Young, 1936, "The Approximation of One Matrix by Another of Lower Rank"; Mirsky,
1960, "Symmetric Gauge Functions and Unitarily Invariant Norms".

Axes: O outputs, I inputs, r rank.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from course_lib.device import without_autocast
from course_lib.models.finite import check_finite, is_fake


class Factors(NamedTuple):
    """Two small matrices that stand for a big one, Ŵ = B A.

    left: B, (O, r).
    right: A, (r, I).

    >>> factors = Factors(torch.tensor([[1.0], [2.0]]), torch.tensor([[3.0, 4.0, 5.0]]))
    >>> factors.rank, factors.count, factors.product.tolist()
    (1, 5, [[3.0, 4.0, 5.0], [6.0, 8.0, 10.0]])
    """

    left: Tensor
    right: Tensor

    @property
    def rank(self) -> int:
        """The columns of B, r: at least the rank of B A."""
        return self.left.shape[1]

    @property
    def count(self) -> int:
        """How many numbers are stored: r (O + I)."""
        return self.left.numel() + self.right.numel()

    @property
    def product(self) -> Tensor:
        """B A, (O, I), summed in float32 or wider, in B's dtype."""
        return _product(self.left, self.right)


class ErrorNorms(NamedTuple):
    """How large W − Ŵ is: Frobenius and spectral norm, as tensors without axes."""

    frobenius: Tensor
    spectral: Tensor


def saving_rank(outputs: int, inputs: int) -> int:
    """The largest rank whose factors hold fewer numbers than the matrix: r (O + I) < O I.

    >>> saving_rank(576, 576), saving_rank(1536, 576), saving_rank(1, 100)
    (287, 418, 0)
    """
    if outputs < 1 or inputs < 1:
        raise ValueError(f"outputs and inputs must be at least 1; got {outputs} and {inputs}")
    return (outputs * inputs - 1) // (outputs + inputs)


@without_autocast
@torch.no_grad()
def truncated(weight: Tensor, rank: int) -> Factors:
    """The nearest matrix of rank r, as factors: B = U_r √Σ_r, A = √Σ_r V_rᵀ.

    Args:
        weight: W, (O, I), any float type.
        rank: r, from 0 to min(O, I).

    Returns:
        B (O, r) and A (r, I), in the weight's dtype; computed in float32 or wider.

    Raises:
        TypeError: the weight is not of floats.
        ValueError: it is not 2-D, empty, NaN or infinite; the rank is out of range.

    >>> truncated(torch.tensor([[4.0, 0.0], [0.0, 1.0]]), rank=1).product
    tensor([[4., 0.],
            [0., 0.]])
    """
    wide, scale = scaled_to_one(weight, rank)
    U, sigma, V = torch.linalg.svd(wide, full_matrices=False)  # (O, m), (m,), (m, I)
    root = (sigma[:rank].sqrt() * scale.sqrt())[:, None]
    return Factors((U[:, :rank] * root.T).to(weight.dtype), (root * V[:rank]).to(weight.dtype))


def error_norms(spectrum: Tensor, rank: int) -> ErrorNorms:
    """How far the best matrix of rank r is from one with these singular values.

        frobenius = (σ_{r+1}² + σ_{r+2}² + …)^½        spectral = σ_{r+1}

    With `output_spectrum` for σ, they are the root of the mean ‖(W − Ŵ) x‖², and of its share
    along the worst direction.

    Args:
        spectrum: σ₁ ≥ σ₂ ≥ …, (m,), at least 0.
        rank: r, from 0 to m.

    Raises:
        TypeError: the spectrum is not of floats.
        ValueError: it is not 1-D, empty, NaN or infinite, negative or not descending; the rank is
            out of range.

    >>> error_norms(torch.tensor([5.0, 4.0, 3.0]), rank=1)
    ErrorNorms(frobenius=tensor(5.), spectral=tensor(4.))
    """
    check_finite(spectrum, "spectrum")
    if spectrum.dim() != 1 or not 0 <= rank <= len(spectrum):
        raise ValueError(
            "spectrum must have shape (m,) and rank be from 0 to m; "
            f"got {tuple(spectrum.shape)} and {rank}"
        )
    if not is_fake(spectrum) and (spectrum[-1] < 0 or (spectrum.diff() > 0).any()):
        raise ValueError("spectrum must descend to a last number of at least 0")
    left = torch.cat([spectrum.double(), spectrum.new_zeros(1)])[rank:]
    unit = torch.where(left[0] > 0, left[0], 1.0)  # no square overflows
    frobenius = (left / unit).square().sum().sqrt() * unit
    return ErrorNorms(frobenius.to(spectrum.dtype), left[0].to(spectrum.dtype))


def scaled_to_one(weight: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """A checked weight over its largest |w|, in float32 or wider, and that number: (O, I) and ().

    Squares of the quotient neither overflow nor vanish. Of zeros, the number is 1.

    >>> scaled_to_one(torch.tensor([[-2e30, 1e30]]), rank=1)
    (tensor([[-1.0000,  0.5000]]), tensor(2.0000e+30))
    """
    check_finite(weight, "weight")
    if weight.dim() != 2 or not 0 <= rank <= min(weight.shape):
        raise ValueError(
            "weight must have shape (O, I) and rank be from 0 to the smaller of the two; "
            f"got {tuple(weight.shape)} and {rank}"
        )
    wide = weight.to(torch.promote_types(weight.dtype, torch.float32))
    scale = wide.abs().amax()
    scale = torch.where(scale > 0, scale, 1.0)
    return wide / scale, scale


@without_autocast
def _product(left: Tensor, right: Tensor) -> Tensor:
    wide = torch.promote_types(left.dtype, torch.float32)
    return (left.to(wide) @ right.to(wide)).to(left.dtype)  # (O, r) (r, I) -> (O, I)
