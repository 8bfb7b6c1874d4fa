"""Low rank where it counts: in what a layer gives, not in its weight.

A layer gives y = W x. A replacement Ŵ of rank r is judged on the inputs that really come:

    mean ‖(W − Ŵ) x‖² = ‖(W − Ŵ) S‖_F²        S Sᵀ = G = mean x xᵀ

The best one lets the outputs through along their own first r directions, and nothing else:

    Ŵ = U_r U_rᵀ W        U_r: the first r left singular vectors of W S

They are the first eigenvectors of H = W G Wᵀ = mean y yᵀ: this is principal component analysis of
the outputs. SVD-LLM, with S from Cholesky, and ASVD, with a diagonal S, take [W S]_r S⁻¹. That is
U_r U_rᵀ W S S⁻¹: the same, and nothing need be inverted.

Where no input tells anything about a direction (fewer tokens than inputs, or a dead input), the
weight alone decides: G gets a four-millionth of its trace on its diagonal, more than its own
rounding and little beside all else. With G = 0, Ŵ is the truncated SVD of W.

Eigenvectors of H cost as much, and less is left of the small ones: H has the squares of the
singular values, and float32 loses what lies below 3e-4 of the first.

Sources: Wang et al., 2025, "SVD-LLM: Truncation-aware Singular Value Decomposition for Large
Language Model Compression"; Yuan et al., 2023, "ASVD: Activation-aware Singular Value Decomposition
for Compressing Large Language Models"; Yu and Wu, 2023, "Compressing Transformers: Features Are
Low-Rank, but Weights Are Not!" (the outputs' directions).

Axes: O outputs, I inputs, r rank, m = min(O, I).
"""

import torch
from torch import Tensor

from course_lib.device import without_autocast
from course_lib.low_rank.svd import Factors, scaled_to_one
from course_lib.models.finite import check_finite, is_fake

DAMPING = 2**-22  # of the trace of G: twice float32's rounding, with which moments are summed


@without_autocast
@torch.no_grad()
def output_factors(weight: Tensor, gram: Tensor, rank: int) -> Factors:
    """The factors of rank r with the least mean ‖(W − B A) x‖²: U_r and U_rᵀ W, balanced.

    Args:
        weight: W, (O, I), any float type.
        gram: G, the mean of x xᵀ, (I, I), summed in float32 or wider; it may be singular, or 0.
        rank: r, from 0 to min(O, I).

    Returns:
        B (O, r) and A (r, I), in the weight's dtype; column k of B is as long as row k of A. The
        first s columns and rows are the factors of rank s.

    Raises:
        TypeError: weight or gram are not of floats.
        ValueError: the shapes do not fit; a number is NaN or infinite; the rank is out of range;
            gram has an eigenvalue below 0 by more than rounding.

    >>> weight = torch.tensor([[4.0, 0.0], [0.0, 1.0]])  # by itself, the first direction is first
    >>> gram = torch.diag(torch.tensor([1.0, 100.0]))  # but the second input is ten times larger
    >>> output_factors(weight, gram, rank=1).product.abs()
    tensor([[0., 0.],
            [0., 1.]])
    """
    wide, scale = scaled_to_one(weight, rank)
    outputs, inputs = weight.shape
    root = _root(gram, inputs).to(wide.dtype)
    basis, small = torch.linalg.qr(wide) if outputs > inputs else (None, wide)  # (O, m), (m, I)
    seen = small @ root  # (m, I) (I, I) -> (m, I)
    if outputs < inputs:  # a square matrix with the same left singular vectors
        seen = torch.linalg.qr(seen.T, mode="r").R.T  # (m, m)
    left = torch.linalg.svd(seen).U[:, :rank]  # (m, r)
    right = left.T @ small  # (r, m) (m, I) -> (r, I)
    left = left if basis is None else basis @ left  # (O, m) (m, r) -> (O, r)
    half = right.norm(dim=1).sqrt()  # (r,)
    left = left * half * scale.sqrt()
    right = right / torch.where(half > 0, half, 1.0)[:, None] * scale.sqrt()
    return Factors(left.to(weight.dtype), right.to(weight.dtype))


def scaled_factors(weight: Tensor, scale: Tensor, rank: int) -> Factors:
    """ASVD: truncate W diag(s), and take the scale back. It is `output_factors` with G = diag(s²).

    The paper's scale is (mean |x|)^½. It knows how large each input is, and not how they go
    together. Nothing is divided by it, so it may be 0.

    Args:
        weight: W, (O, I), any float type.
        scale: s, (I,), at least 0.
        rank: r, from 0 to min(O, I).

    Returns, Raises: as `output_factors`; ValueError for a negative scale, too.

    >>> weight = torch.tensor([[4.0, 0.0], [0.0, 1.0]])
    >>> scaled_factors(weight, torch.tensor([0.0, 1.0]), rank=1).product.abs()
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
    """The singular values of W S: the roots of the eigenvalues of H = mean y yᵀ, descending.

    Their squares are the outputs' mean squares along their directions, and add up to mean ‖y‖².
    `error_norms` of them says what a rank costs. Nothing is added to G here.

    Args:
        weight, gram: as for `output_factors`.

    Returns:
        (min(O, I),), float64; those below 1e-8 of the first are rounding.

    >>> output_spectrum(torch.eye(2), torch.diag(torch.tensor([9.0, 16.0])))
    tensor([4., 3.], dtype=torch.float64)
    """
    wide, scale = scaled_to_one(weight, 0)
    gram, level = _relative(gram, weight.shape[1])
    if weight.shape[0] > weight.shape[1]:
        wide = torch.linalg.qr(wide, mode="r").R  # (I, I)
    wide = wide.double()
    energies = torch.linalg.eigvalsh(wide @ gram @ wide.T)  # (m, I) (I, I) (I, m) -> (m,)
    return energies.flip(0).clamp(min=0).sqrt() * scale.double() * level.sqrt()


def _root(gram: Tensor, inputs: int) -> Tensor:
    """S, lower triangular, float64: S Sᵀ is G with what damps it, up to a factor."""
    gram, level = _relative(gram, inputs)
    added = torch.where(level > 0, DAMPING * gram.trace(), 1.0)
    gram.diagonal().add_(added)
    root, failed = torch.linalg.cholesky_ex(gram)
    if not is_fake(gram) and failed:
        raise ValueError("gram must be a mean of x xᵀ; got one with an eigenvalue below 0")
    return root


def _relative(gram: Tensor, inputs: int) -> tuple[Tensor, Tensor]:
    """G / g and g, the largest mean square of an input, in float64; zeros and 0 for zeros."""
    check_finite(gram, "gram")
    if gram.shape != (inputs, inputs):
        raise ValueError(
            f"gram must have shape (I, I) = {(inputs, inputs)}; got {tuple(gram.shape)}"
        )
    gram = gram.to(torch.float64, copy=True)
    level = gram.diagonal().amax()
    gram /= torch.where(level > 0, level, 1.0)
    return gram, level
