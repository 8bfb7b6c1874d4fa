"""The triangle that GPTQ and SparseGPT go through a layer with, column by column.

Write the Hessian as a product of triangles, H = R Rᵀ with R upper triangular, and divide each
column of R by its diagonal: V = R / R_jj. What an error costs then falls apart into columns:

    error  =  ‖(W − Ŵ) R‖²  =  Σ_j R_jj² ‖t_j − ŵ_j‖²        t_j = w_j + Σ_{i<j} (w_i − ŵ_i) V_ij

t_j, the *target* of column j, is the weight plus what makes up for the errors of the columns before
it. Once these are chosen, the best that column j can do is to come near to t_j: GPTQ takes the
nearest levels, SparseGPT 0 where that is cheap. Nothing is inverted.

The papers go another way to the same numbers: after each column they move all columns to its
right, by the rows of the factor U of H⁻¹ = UᵀU. U is R⁻¹, so 1 / U_jj = R_jj, and a column is
moved to t_j when its turn comes. `pruning.inverse_hessian.inverse_factor` gives U.

Sources: Frantar et al., 2023, "GPTQ: Accurate Post-Training Quantization for Generative Pre-trained
Transformers"; in this form, as LDLQ, Chee et al., 2023, "QuIP: 2-Bit Quantization of Large Language
Models With Guarantees", who prove both the same.

Axes: O outputs, I inputs, C columns that are looked at together.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from course_lib.device import without_autocast
from course_lib.models.finite import check_finite, is_fake

MOST_DAMPING = 1e9  # no Gram matrix needs more than its own rounding


@dataclass(frozen=True, eq=False)
class Factor:
    """R of H + λ 1 = R Rᵀ, in two pieces.

    unit: V, upper triangular with a diagonal of 1, (I, I).
    diagonal: R_jj, (I,).
    dead: inputs that are always 0, (I,) bool. To them nothing is carried, and nothing from them.
    damping: λ / mean G_jj; more than was asked for if that was too little.
    """

    unit: Tensor
    diagonal: Tensor
    dead: Tensor
    damping: float


@without_autocast
def damped_factor(gram: Tensor, damping: float = 0.01) -> Factor:
    """R of R Rᵀ = G + λ 1, where λ = damping · mean G_jj over the inputs that are not dead.

    Where the sum is not positive definite, damping becomes ten times as large until it is, from
    10⁻⁶ on. So one token, equal inputs, or a matrix that is no Gram matrix give a factor, too, and
    `Factor.damping` says at what price.

    Args:
        gram: G, (I, I), symmetric; or the Hessian 2 G, to the same effect.
        damping: at least 0; 0.01 in the papers.

    Returns:
        The factor, in the dtype of `gram`, at least float32.

    Raises:
        ValueError: G is not (I, I), symmetric and finite, has a negative number on its diagonal,
            or is so far from a Gram matrix that no damping up to 10⁹ helps; damping is negative.

    >>> factor = damped_factor(torch.tensor([[2.0, 1.0], [1.0, 1.0]]), damping=0.0)
    >>> R = factor.unit * factor.diagonal
    >>> R @ R.T
    tensor([[2., 1.],
            [1., 1.]])
    """
    gram = gram.detach().to(torch.promote_types(gram.dtype, torch.float32))
    _check_gram(gram, damping)
    level = gram.diagonal()
    dead = level == 0
    mean = level.sum() / (~dead).sum().clamp(min=1)
    mean = mean.masked_fill(dead.all(), 1)  # where all are dead, any number will do
    while True:
        shifted = gram.flip(0, 1)  # a copy; from the last input to the first, so that R is upper
        shifted.diagonal().add_((damping + dead.flip(0)) * mean)
        lower, failed = torch.linalg.cholesky_ex(shifted)
        if is_fake(gram) or not failed:
            break
        damping = max(10 * damping, 1e-6)
        if damping > MOST_DAMPING:
            raise ValueError(f"gram must be a mean of x xᵀ; damping of {damping:.0e} is too little")
    R = lower.flip(0, 1)
    diagonal = R.diagonal().clone()
    return Factor(R.div_(diagonal), diagonal, dead, damping)


def _check_gram(gram: Tensor, damping: float) -> None:
    if gram.dim() != 2 or gram.shape[0] != gram.shape[1]:
        raise ValueError(f"gram must have shape (I, I); got {tuple(gram.shape)}")
    if not 0 <= damping < torch.inf:
        raise ValueError(f"damping must be at least 0 and finite; got {damping}")
    check_finite(gram, "gram")
    if is_fake(gram):
        return
    if (gram.diagonal() < 0).any():
        raise ValueError(
            f"gram must have no negative diagonal; the least is {gram.diagonal().min():.3g}"
        )
    probe = torch.linspace(1, 2, len(gram), dtype=gram.dtype, device=gram.device)
    ways = gram @ probe, probe @ gram  # the same if G = Gᵀ, and much faster than to turn G
    if (ways[0] - ways[1]).abs().max() > 1e-3 * gram.abs().max() * len(gram):
        raise ValueError("gram must be symmetric; G v and v G differ by more than a thousandth")


@without_autocast
def targets(weight: Tensor, change: Tensor, unit: Tensor, columns: slice) -> Tensor:
    """What the columns before some columns ask of them: w_j + Σ_i (w_i − ŵ_i) V_ij, i before all.

    All matrices of weights lie transposed here, an input's weights side by side in memory.

    Args:
        weight: Wᵀ, (I, O).
        change: (W − Ŵ)ᵀ, (I, O), known for the columns before.
        unit: V, (I, I).
        columns: which, C of them.

    Returns:
        (C, O).

    >>> unit = torch.tensor([[1.0, 0.5], [0.0, 1.0]])
    >>> targets(torch.tensor([[3.0], [4.0]]), torch.tensor([[0.2], [0.0]]), unit, slice(1, 2))
    tensor([[4.1000]])
    """
    before = slice(0, columns.start)
    return torch.addmm(weight[columns], unit[before, columns].T, change[before])


@without_autocast
def repaired(weight: Tensor, target: Tensor, unit: Tensor, columns: slice) -> Tensor:
    """The best weights for some columns, as if they could be any numbers, all before them fixed.

    Where Ŵ is not yet chosen, (W − Ŵ) R can be 0: that is W in the papers' code at this moment.

    Args:
        weight, unit, columns: as for `targets`, which gives `target` (C, O).

    Returns:
        (C, O).
    """
    ahead = target - weight[columns]
    triangle = unit[columns, columns].T  # (C, C), lower
    moved = torch.linalg.solve_triangular(triangle, ahead, upper=False, unitriangular=True)
    return moved.add_(weight[columns])
