"""Which k coefficients should stay? Least squares with L0, L1 and L2: here the answer can be known.

Everywhere L(θ) = ‖X θ − y‖₂², the sum of squares, so ∇L = 2 Xᵀ(X θ − y), with Lipschitz constant
Λ = 2 σ_max(X)². A step of length 1/Λ against the gradient never raises L.

    best subset    min L  s.t. ‖θ‖₀ ≤ k    exact: least squares on every support of k features
    OMP            the same                k times: add the feature most aligned with the residual
    ridge          min L + λ ‖θ‖₂²         θ = (XᵀX + λ 1)⁻¹ Xᵀ y

The first is NP-hard (Natarajan, 1995, "Sparse Approximate Solutions to Linear Systems").

No intercept: centre the features and the targets first. Other libraries scale λ differently:
scikit-learn's Lasso divides L by 2N, so its alpha is λ / (2N); its Ridge has the λ used here.

Axes: N rows, P features, S supports.
"""

import math
from itertools import combinations

import torch
from torch import Tensor

from course_lib.device import without_autocast
from course_lib.models.finite import check_finite

MOST_SUBSETS = 20_000


def squared_error(features: Tensor, targets: Tensor, theta: Tensor) -> Tensor:
    """L(θ) = ‖X θ − y‖₂²; a 0-d tensor.

    >>> X = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0], [2.0, 1.0]])
    >>> float(squared_error(X, torch.tensor([1.0, 2.0, 3.0, 5.0]), torch.tensor([1.0, 2.0])))
    1.0
    """
    return (features @ theta - targets).square().sum()


@without_autocast
def gradient(features: Tensor, targets: Tensor, theta: Tensor) -> Tensor:
    """∇L(θ) = 2 Xᵀ(X θ − y): (P,).

    >>> X = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0], [2.0, 1.0]])
    >>> gradient(X, torch.tensor([1.0, 2.0, 3.0, 5.0]), torch.tensor([1.0, 2.0]))
    tensor([-4., -2.])
    """
    return 2 * features.T @ (features @ theta - targets)


def lipschitz_constant(features: Tensor) -> Tensor:
    """Λ = 2 σ_max(X)²: no smaller number has ‖∇L(a) − ∇L(b)‖ ≤ Λ ‖a − b‖; a 0-d tensor.

    >>> float(lipschitz_constant(torch.tensor([[3.0, 0.0], [0.0, 1.0]])))
    18.0
    """
    return 2 * torch.linalg.matrix_norm(features, 2).square()


@without_autocast
def ridge(features: Tensor, targets: Tensor, penalty: float) -> Tensor:
    """min L(θ) + λ ‖θ‖₂² in closed form: θ = (XᵀX + λ 1)⁻¹ Xᵀ y, (P,).

    Raises:
        ValueError: the shapes do not fit, or penalty is negative.

    Source: Hoerl and Kennard, 1970, "Ridge Regression: Biased Estimation for Nonorthogonal
    Problems".

    >>> ridge(torch.eye(2), torch.tensor([2.0, 1.0]), penalty=1.0)
    tensor([1.0000, 0.5000])
    """
    check_regression(features, targets, penalty)
    X, y = features.double(), targets.double()
    gram = X.T @ X  # (P, N) (N, P) -> (P, P)
    eye = torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
    return torch.linalg.solve(gram + penalty * eye, X.T @ y).to(features.dtype)


@without_autocast
def best_subset(features: Tensor, targets: Tensor, k: int) -> Tensor:
    """The exact min L(θ) s.t. ‖θ‖₀ ≤ k: least squares on each of the (P over k) supports.

    Raises:
        ValueError: the shapes do not fit, k is out of range, or the supports are more than 20,000.

    Source: Beale, Kendall, Mann, 1967, "The Discarding of Variables in Multivariate Analysis".

    >>> best_subset(torch.eye(3), torch.tensor([0.5, -3.0, 2.0]), k=2)
    tensor([ 0., -3.,  2.])
    """
    check_regression(features, targets)
    P = features.shape[1]
    if not 0 <= k <= P or math.comb(P, k) > MOST_SUBSETS:
        raise ValueError(f"k must be from 0 to {P} with at most {MOST_SUBSETS} supports; got {k}")
    supports = torch.tensor(list(combinations(range(P), k)), dtype=torch.int64)
    supports = supports.to(features.device)  # (S, k)
    parts = features[:, supports].transpose(0, 1)  # (N, S, k) -> (S, N, k)
    thetas = _fitted(parts, targets)  # (S, k)
    predicted = (parts.double() @ thetas[:, :, None]).squeeze(2)  # (S, N)
    losses = (predicted - targets.double()).square().sum(dim=1)  # (S,)
    best = losses.argmin(dim=0, keepdim=True)  # (1,)
    chosen = thetas[best][0].to(features.dtype)
    return features.new_zeros(P).index_copy(0, supports[best][0], chosen)


@without_autocast
def orthogonal_matching_pursuit(features: Tensor, targets: Tensor, k: int) -> Tensor:
    """Greedy: k times, add the feature most aligned with the residual, |xᵀr| / ‖x‖, and fit anew.

    Raises:
        ValueError: the shapes do not fit, or k is out of range.

    Source: Pati, Rezaiifar, Krishnaprasad, 1993, "Orthogonal Matching Pursuit: Recursive Function
    Approximation with Applications to Wavelet Decomposition".

    >>> orthogonal_matching_pursuit(torch.eye(3), torch.tensor([0.5, -3.0, 2.0]), k=2)
    tensor([ 0., -3.,  2.])
    """
    check_regression(features, targets)
    if not 0 <= k <= features.shape[1]:
        raise ValueError(f"k must be from 0 to {features.shape[1]}; got {k}")
    lengths = features.norm(dim=0).clamp_min(torch.finfo(features.dtype).tiny)
    theta = chosen = features.new_zeros(features.shape[1])  # chosen: 1 for yes, 0 for no
    for _ in range(k):
        alignment = (features.T @ (targets - features @ theta)).abs() / lengths
        chosen = chosen.index_fill(0, alignment.masked_fill(chosen > 0, -1).argmax(), 1)
        theta = chosen * _fitted(features * chosen, targets).to(features.dtype)
    return theta


def _fitted(features: Tensor, targets: Tensor) -> Tensor:
    """Least squares of the targets (N,) on features (…, N, P): (…, P), float64; zeros for zeros.

    In float64, and with features of equal length: `pinv` takes singular values below ε · N of the
    largest for zero, in float32 for 200,000 rows a fortieth.
    """
    wide = features.double()
    lengths = wide.norm(dim=-2, keepdim=True)  # (…, 1, P)
    lengths = lengths.masked_fill(lengths == 0, 1)
    return (torch.linalg.pinv(wide / lengths) @ targets.double()) / lengths.squeeze(-2)


def check_regression(features: Tensor, targets: Tensor, penalty: float = 0.0) -> None:
    """Raise a ValueError unless X is (N, P), y is (N,), both finite floats, and λ ≥ 0."""
    if features.dim() != 2 or targets.shape != features.shape[:1] or not len(targets):
        raise ValueError(
            "features must have shape (N, P) and targets (N,), N ≥ 1; "
            f"got {tuple(features.shape)} and {tuple(targets.shape)}"
        )
    check_finite(features, "features")
    check_finite(targets, "targets")
    if not penalty >= 0:
        raise ValueError(f"penalty must be at least 0; got {penalty}")
