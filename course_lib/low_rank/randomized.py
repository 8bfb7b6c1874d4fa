"""The first singular vectors at a fraction of the cost: look at what the matrix makes of noise.

W maps random vectors mostly into its strong directions. An orthonormal basis Q of W Ω, for a few
random columns Ω, nearly holds W's first left singular vectors; the small matrix Qᵀ W gives the
rest:

    Q = orth(W Ω)           Ω: (I, k), k = r + p columns of normal noise
    Q = orth(W orth(Wᵀ Q))  t times: σ_k counts with its power 2 t + 1, so weak directions fade
    W ≈ Q (Qᵀ W) = Q U' Σ Vᵀ, cut to r

Products with k columns take the place of a decomposition of all min(O, I). Orthonormalizing between
the rounds is what keeps weak directions: in W (Wᵀ W)^t Ω, they fall below the rounding of the
strong ones.

Source: Halko, Martinsson and Tropp, 2011, "Finding Structure with Randomness: Probabilistic
Algorithms for Constructing Approximate Matrix Decompositions".

Axes: O outputs, I inputs, k columns, r rank, p extra columns, t rounds.
"""

import torch
from torch import Tensor

from course_lib.device import without_autocast
from course_lib.low_rank.svd import Factors, scaled_to_one, truncated


@without_autocast
@torch.no_grad()
def range_basis(
    weight: Tensor, columns: int, rounds: int = 4, generator: torch.Generator | None = None
) -> Tensor:
    """An orthonormal basis that nearly holds the first left singular vectors: Q, (O, k).

    Args:
        weight: W, (O, I), any float type.
        columns: k, from 1 to min(O, I).
        rounds: t, power rounds, at least 0: each costs two products more.
        generator: of the noise; of two with one state, both give the same Q.

    Returns:
        Q with Qᵀ Q = 1, in float32 or the weight's wider dtype.

    Raises:
        TypeError: the weight is not of floats.
        ValueError: it is not 2-D, empty, NaN or infinite; columns or rounds are out of range.

    >>> weight = torch.outer(torch.tensor([3.0, 4.0]), torch.ones(5))
    >>> range_basis(weight, columns=1).abs()
    tensor([[0.6000],
            [0.8000]])
    """
    wide, _ = scaled_to_one(weight, 0)
    if not 1 <= columns <= min(wide.shape):
        raise ValueError(
            f"columns must be from 1 to {min(wide.shape)}, the smaller side; got {columns}"
        )
    return _basis(wide, columns, rounds, generator)


@without_autocast
@torch.no_grad()
def randomized(
    weight: Tensor,
    rank: int,
    extra: int = 16,
    rounds: int = 4,
    generator: torch.Generator | None = None,
) -> Factors:
    """Nearly `truncated(weight, rank)`: the truncated SVD of Q Qᵀ W.

    Args:
        weight: W, (O, I), any float type.
        rank: r, from 0 to min(O, I).
        extra: p, columns of noise more than r; fewer where W has no more.
        rounds, generator: as for `range_basis`.

    Returns:
        B (O, r) and A (r, I), in the weight's dtype.

    Raises: as `range_basis`; ValueError for a negative number of extra columns, too.

    >>> weight = torch.outer(torch.tensor([3.0, 4.0]), torch.ones(5))
    >>> torch.allclose(randomized(weight, rank=1).product, weight)
    True
    """
    if extra < 0:
        raise ValueError(f"extra must be at least 0; got {extra}")
    wide, scale = scaled_to_one(weight, rank)
    columns = min(max(rank + extra, 1), *wide.shape)
    basis = _basis(wide, columns, rounds, generator)  # (O, k)
    small = truncated(basis.T @ wide, rank)  # of (k, I): (k, r) and (r, I)
    half = scale.sqrt()
    left = basis @ small.left * half  # (O, k) (k, r) -> (O, r)
    return Factors(left.to(weight.dtype), (small.right * half).to(weight.dtype))


def _basis(weight: Tensor, columns: int, rounds: int, generator: torch.Generator | None) -> Tensor:
    if rounds < 0:
        raise ValueError(f"rounds must be at least 0; got {rounds}")
    place = weight.device if generator is None else generator.device
    shape = weight.shape[1], columns
    noise = torch.randn(shape, generator=generator, dtype=weight.dtype, device=place)
    basis = torch.linalg.qr(weight @ noise.to(weight.device)).Q  # (O, I) (I, k) -> (O, k)
    for _ in range(rounds):
        other = torch.linalg.qr(weight.T @ basis).Q  # (I, O) (O, k) -> (I, k)
        basis = torch.linalg.qr(weight @ other).Q
    return basis
