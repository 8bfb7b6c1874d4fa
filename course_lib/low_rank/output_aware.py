"""Low rank where it counts: in what a layer gives, not in its weight.

A layer gives y = W x. A replacement Ŵ of rank r is judged on the inputs that really come:

    mean ‖(W − Ŵ) x‖² = ‖(W − Ŵ) G^½‖_F²        G = mean x xᵀ

The best one lets the outputs through along their own first r directions, and nothing else:

    Ŵ = U_r U_rᵀ W        U_r: the first r eigenvectors of H = W G Wᵀ = mean y yᵀ

That is principal component analysis of the outputs. Papers take the singular vectors of W S, with
S Sᵀ = G from Cholesky, and multiply by S⁻¹ in the end; but [W S]_r S⁻¹ = U_r U_rᵀ W S S⁻¹, so there
is nothing to invert, and a singular G is no trouble. A diagonal S is ASVD.

H has the *squares* of the singular values of W S, so it is computed in float64: what is lost lies
below 1e-8 of the first singular value. Where O > I, W = Q R, and Q times the eigenvectors of the
smaller R G Rᵀ are those of H.

Directions that no input tells anything about (fewer tokens than inputs, or none) are ordered by
the weight alone: to G a little is added, ε · tr G · 1, as much as G's own rounding. With G = 0 the
answer is the truncated SVD of W.

Sources: Wang et al., 2025, "SVD-LLM: Truncation-aware Singular Value Decomposition for Large
Language Model Compression" (Cholesky); Yuan et al., 2023, "ASVD: Activation-aware Singular Value
Decomposition for Compressing Large Language Models"; Yu and Wu, 2023, "Compressing Transformers:
Features Are Low-Rank, but Weights Are Not!" (PCA of the outputs).

Axes: O outputs, I inputs, r rank, m = min(O, I).
"""

import torch
from torch import Tensor

from course_lib.device import without_autocast
from course_lib.low_rank.svd import Factors, scaled_to_one
from course_lib.models.finite import check_finite, is_fake

ROUNDING = torch.finfo(torch.float32).eps  # ε: moments are summed in float32


@without_autocast
@torch.no_grad()
def output_factors(weight: Tensor, gram: Tensor, rank: int) -> Factors:
    """The factors of rank r with the least mean ‖(W − B A) x‖²: U_r and U_rᵀ W, balanced.

    Args:
        weight: W, (O, I), any float type.
        gram: G, the mean of x xᵀ, (I, I), symmetric, any float type; it may be singular, or 0.
        rank: r, from 0 to min(O, I).

    Returns:
        B (O, r) and A (r, I), in the weight's dtype; column k of B is as long as row k of A.

    Raises:
        TypeError: weight or gram are not of floats.
        ValueError: the shapes do not fit; a number is NaN or infinite; the rank is out of range.

    >>> weight = torch.tensor([[4.0, 0.0], [0.0, 1.0]])  # by itself, the first direction is first
    >>> gram = torch.diag(torch.tensor([1.0, 100.0]))  # but the second input is ten times larger
    >>> output_factors(weight, gram, rank=1).product.round(decimals=4).abs()
    tensor([[0., 0.],
            [0., 1.]])
    """
    wide, scale = scaled_to_one(weight, rank)
    level, gram = _relative(gram, weight.shape[1])
    told = torch.where(level > 0, gram.trace(), 1.0)
    gram.diagonal().add_(ROUNDING * told)
    tall = weight.shape[0] > weight.shape[1]
    basis, small = torch.linalg.qr(wide) if tall else (None, wide)  # (O, m), (m, I)
    left = torch.linalg.eigh(_moment(small, gram)).eigenvectors.flip(1)[:, :rank]  # (m, r)
    right = left.T @ small.double()  # (r, m) (m, I) -> (r, I)
    root = right.norm(dim=1, keepdim=True).sqrt()  # (r, 1)
    right = right / torch.where(root > 0, root, 1.0)
    left = (basis.double() @ left if tall else left) * root.T  # (O, m) (m, r) -> (O, r)
    half = scale.double().sqrt()
    return Factors((left * half).to(weight.dtype), (right * half).to(weight.dtype))


def scaled_factors(weight: Tensor, scale: Tensor, rank: int) -> Factors:
    """ASVD: truncate W diag(s), and take the scale back. It is `output_factors` with G = diag(s²).

    The paper's scale is (mean |x|)^½. It knows how large each input is, and not how they go
    together. Nothing is divided by it, so it may be 0.

    Args:
        weight: W, (O, I), any float type.
        scale: s, (I,), at least 0.
        rank: r, from 0 to min(O, I).

    Returns, Raises: as `output_factors`; ValueError for a negative scale, too.

    >>> scaled_factors(torch.tensor([[4.0, 0.0], [0.0, 1.0]]), torch.tensor([0.0, 1.0]), 1).product
    tensor([[0., 0.],
            [0., 1.]])
    """
    check_finite(scale, "scale")
    if scale.dim() != 1 or (not is_fake(scale) and (scale < 0).any()):
        raise ValueError("scale must have shape (I,) and be at least 0")
    relative = scale.double() / torch.where(scale.amax() > 0, scale.amax(), 1.0)
    return output_factors(weight, relative.square().diag(), rank)


@without_autocast
@torch.no_grad()
def output_spectrum(weight: Tensor, gram: Tensor) -> Tensor:
    """The singular values of W G^½: the roots of the eigenvalues of H = mean y yᵀ, descending.

    Their squares are mean squares of the outputs along their directions; the sum of them all is
    mean ‖y‖². `error_norms` of them says what a rank costs.

    Args:
        weight, gram: as for `output_factors`.

    Returns:
        (min(O, I),), float64; those below 1e-8 of the first are rounding.

    >>> output_spectrum(torch.eye(2), torch.diag(torch.tensor([9.0, 16.0])))
    tensor([4., 3.], dtype=torch.float64)
    """
    wide, scale = scaled_to_one(weight, 0)
    level, gram = _relative(gram, weight.shape[1])
    small = torch.linalg.qr(wide, mode="r").R if weight.shape[0] > weight.shape[1] else wide
    energies = torch.linalg.eigvalsh(_moment(small, gram)).flip(0).clamp(min=0)
    return energies.sqrt() * scale.double() * level.sqrt()


def _relative(gram: Tensor, inputs: int) -> tuple[Tensor, Tensor]:
    """The largest mean square g of an input, and G / g, both float64; zeros where g is 0."""
    check_finite(gram, "gram")
    if gram.shape != (inputs, inputs):
        raise ValueError(
            f"gram must have shape (I, I) = {(inputs, inputs)}; got {tuple(gram.shape)}"
        )
    level = gram.diagonal().amax().double()
    return level, gram.double() / torch.where(level > 0, level, 1.0)


def _moment(weight: Tensor, gram: Tensor) -> Tensor:
    """W G Wᵀ in float64: (m, I) (I, I) (I, m) -> (m, m)."""
    return weight.double() @ gram @ weight.double().T
