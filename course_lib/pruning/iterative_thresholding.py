"""Sparse least squares by gradient steps, each followed by a threshold that makes zeros.

    IHT    min L(θ)  s.t. ‖θ‖₀ ≤ k      θ ← the k largest magnitudes of   θ − ∇L(θ)/Λ
    ISTA   min L(θ) + λ ‖θ‖₁            θ ← the soft threshold at λ/Λ of  θ − ∇L(θ)/Λ

L(θ) = ‖X θ − y‖₂², and Λ is the Lipschitz constant of its gradient: with steps of 1/Λ neither
objective ever rises. The second problem, the lasso, is convex, and ISTA tends to its minimum; IHT
tends to a point that is best for its own step, which need not be the best subset.

scikit-learn's Lasso divides L by 2N: its alpha is λ / (2N).

Axes: N rows, P features.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from course_lib.pruning.least_squares import check_regression, gradient, lipschitz_constant
from course_lib.pruning.objective import project, soft_threshold


def _step_length(features: Tensor) -> Tensor:
    """1/Λ; finite even if all features are zero, when the gradient is zero, too."""
    return 1 / lipschitz_constant(features).clamp_min(torch.finfo(features.dtype).tiny)


def iterative_hard_thresholding(
    features: Tensor, targets: Tensor, k: int, steps: int = 1000
) -> Tensor:
    """Lower L over at most k coefficients: θ ← P_k(θ − ∇L(θ)/Λ), from θ = 0.

    Args:
        features: X, (N, P).
        targets: y, (N,).
        k: how many coefficients may be non-zero, from 0 to P.
        steps: how many steps.

    Returns:
        θ, (P,).

    Raises:
        ValueError: the shapes do not fit, or k is out of range.

    Source: Blumensath and Davies, 2008, "Iterative Thresholding for Sparse Approximations".

    >>> iterative_hard_thresholding(torch.eye(3), torch.tensor([0.5, -3.0, 2.0]), k=1)
    tensor([ 0., -3.,  0.])
    """
    check_regression(features, targets)
    step, theta = _step_length(features), features.new_zeros(features.shape[1])
    for _ in range(steps):
        theta = project(theta - step * gradient(features, targets, theta), k)
    return theta


def ista(
    features: Tensor,
    targets: Tensor,
    penalty: float,
    steps: int = 1000,
    start: Tensor | None = None,
) -> Tensor:
    """The lasso, min L(θ) + λ ‖θ‖₁: θ ← soft threshold of θ − ∇L(θ)/Λ at λ/Λ.

    Args:
        features: X, (N, P).
        targets: y, (N,).
        penalty: λ ≥ 0, in the units of L per unit of θ.
        steps: how many steps.
        start: θ to start from, (P,); zeros if not given.

    Returns:
        θ, (P,), with exact zeros.

    Raises:
        ValueError: the shapes do not fit, or penalty is negative.

    Sources: Tibshirani, 1996, "Regression Shrinkage and Selection via the Lasso"; Daubechies,
    Defrise, De Mol, 2004, "An Iterative Thresholding Algorithm for Linear Inverse Problems with a
    Sparsity Constraint".

    >>> ista(torch.eye(3), torch.tensor([1.0, -0.4, 0.2]), penalty=0.5)
    tensor([ 0.7500, -0.1500,  0.0000])
    """
    check_regression(features, targets, penalty)
    step = _step_length(features)
    theta = features.new_zeros(features.shape[1]) if start is None else start
    for _ in range(steps):
        theta = soft_threshold(theta - step * gradient(features, targets, theta), step * penalty)
    return theta


def lasso_path(
    features: Tensor, targets: Tensor, penalties: Sequence[float], steps: int = 1000
) -> Tensor:
    """The lasso's θ for each λ, each started from the one before: (len(penalties), P).

    Go from large λ to small: θ is zero from λ = 2 ‖Xᵀ y‖_∞ upwards, then features come in.

    Source: Friedman et al., 2010, "Regularization Paths for Generalized Linear Models
    via Coordinate Descent".

    >>> lasso_path(torch.eye(2), torch.tensor([2.0, 1.0]), [4.0, 2.0, 0.0])
    tensor([[0., 0.],
            [1., 0.],
            [2., 1.]])
    """
    path = [features.new_zeros(features.shape[1])]
    for penalty in penalties:
        path.append(ista(features, targets, penalty, steps, start=path[-1]))
    return torch.stack(path[1:])
