"""Claims about the problem itself: budgets, penalties, gradient descent."""

import itertools

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from course_lib.sources.checks.registry import checks, normal


def _best_subset(features: np.ndarray, targets: np.ndarray, k: int) -> tuple[float, tuple]:
    """Least loss over all sets of k columns, and the set."""
    found = []
    for columns in itertools.combinations(range(features.shape[1]), k):
        theta = np.linalg.lstsq(features[:, columns], targets, rcond=None)[0]
        found.append((float(np.sum((features[:, columns] @ theta - targets) ** 2)), columns))
    return min(found)


def _correlated() -> tuple[np.ndarray, np.ndarray]:
    """Thirty samples of six features; two pairs of features are nearly equal."""
    features = normal(30, 6)
    features[:, 1] = features[:, 0] + 0.1 * normal(30, seed=1)
    features[:, 3] = features[:, 2] + 0.1 * normal(30, seed=2)
    return features, features @ np.array([3.0, -1.5, 2.0, 1.5, 1.0, 0.8]) + 0.3 * normal(30, seed=3)


@checks("C09")
def compare_budget_and_count() -> str:
    """The least loss within a budget of five weights, and the fewest weights within a loss."""
    features, targets = _correlated()
    loss = {k: _best_subset(features, targets, k)[0] for k in range(1, 7)}
    limit = 1.5 * loss[5]
    fewest = min(k for k, value in loss.items() if value <= limit)
    assert fewest < 5
    return (
        f"least loss with at most 5 weights: {loss[5]:.2f}, with 5; fewest weights with a loss of "
        f"at most {limit:.2f}: {fewest}, with {loss[fewest]:.2f}"
    )


@checks("C10")
def compare_magnitude_with_exhaustive_search() -> str:
    """Magnitude's three weights and the best three, for orthonormal and correlated features."""
    q, _ = np.linalg.qr(normal(30, 6))
    targets = normal(30, seed=4)
    largest = tuple(sorted(np.argsort(-np.abs(q.T @ targets))[:3].tolist()))
    assert largest == _best_subset(q, targets, 3)[1]
    features, targets = _correlated()
    theta = np.linalg.lstsq(features, targets, rcond=None)[0]
    kept = np.argsort(-np.abs(theta))[:3]
    cut = float(np.sum((features[:, kept] @ theta[kept] - targets) ** 2))
    best = _best_subset(features, targets, 3)[0]
    assert cut > 2 * best
    return (
        "orthonormal features: magnitude keeps the best three; correlated ones: "
        f"loss {cut:.0f} after the cut, {best:.0f} for the best three"
    )


def _lasso(features: np.ndarray, targets: np.ndarray, penalty: float, steps: int) -> np.ndarray:
    """min ‖Xθ − y‖² + λ‖θ‖₁ by iterative soft thresholding."""
    theta = np.zeros(features.shape[1])
    curvature = 2 * np.linalg.eigvalsh(features.T @ features)[-1]
    for _ in range(steps):
        moved = theta - 2 * features.T @ (features @ theta - targets) / curvature
        theta = np.sign(moved) * np.maximum(np.abs(moved) - penalty / curvature, 0)
    return theta


def _sparse_problem() -> tuple[np.ndarray, np.ndarray]:
    features = normal(60, 20)
    truth = np.zeros(20)
    truth[:4] = [3, -2, 1.5, 1]
    return features, features @ truth + 0.5 * normal(60, seed=1)


@checks("C110")
def trade_loss_for_zeros() -> str:
    """Loss and number of weights of the lasso for three penalties."""
    features, targets = _sparse_problem()
    thetas = [_lasso(features, targets, penalty, 500) for penalty in (0, 20, 300)]
    losses = [np.sum((features @ theta - targets) ** 2) for theta in thetas]
    counts = [int(np.sum(theta != 0)) for theta in thetas]
    assert losses == sorted(losses) and counts == sorted(counts, reverse=True)
    pairs = ", ".join(f"{k} weights {loss:.0f}" for k, loss in zip(counts, losses, strict=True))
    return f"loss with {pairs}: neither has both at their least"


@checks("C111")
def count_zeros_of_l1_and_l2() -> str:
    """Zeros among ten weights with an orthonormal design, λ = 0.5."""
    z = np.array([3, 2, 1.5, 1, 0.6, 0.3, 0.2, 0.1, 0.05, 0.02])
    l1, l2 = np.maximum(z - 0.25, 0), z / 1.5
    zeros = int(np.sum(l1 == 0)), int(np.sum(l2 == 0))
    assert zeros == (4, 0)
    return f"λ = 0.5: L1 makes {zeros[0]} of 10 weights zero, L2 {zeros[1]}"


def _after_steps(optimizer: type, decay: float, as_penalty: bool) -> torch.Tensor:
    """Weights after five steps with weight_decay, or with (wd/2)·‖θ‖² in the loss."""
    generator = torch.Generator().manual_seed(0)
    x, y = (torch.randn(50, n, dtype=torch.float64, generator=generator) for n in (10, 1))
    theta = nn.Parameter(torch.linspace(-1, 1, 10, dtype=torch.float64)[:, None])
    steps = optimizer([theta], lr=0.01, weight_decay=0.0 if as_penalty else decay)
    for _ in range(5):
        steps.zero_grad()
        penalty = decay / 2 * theta.square().sum() if as_penalty else 0
        (F.mse_loss(x @ theta, y) + penalty).backward()
        steps.step()
    return theta.detach()


@checks("C112")
def compare_weight_decay_with_l2() -> str:
    """weight_decay against the penalty in the loss, for SGD and for AdamW."""
    gaps = {
        kind.__name__: (
            (_after_steps(kind, 0.5, False) - _after_steps(plain, 0.5, True)).abs().max().item()
        )
        for kind, plain in (
            (torch.optim.SGD, torch.optim.SGD),
            (torch.optim.AdamW, torch.optim.Adam),
        )
    }
    assert gaps["SGD"] < 1e-12 and gaps["AdamW"] > 1e-3
    return f"difference to the penalty after 5 steps: SGD 0, AdamW {gaps['AdamW']:.3f}"


@checks("C114")
def descend_without_threshold() -> str:
    """Exact zeros of subgradient descent and of iterative soft thresholding on one problem."""
    features, targets = _sparse_problem()
    theta = np.zeros(20)
    for _ in range(3000):
        theta -= 1e-3 * (2 * features.T @ (features @ theta - targets) + 100 * np.sign(theta))
    plain, soft = np.sum(theta == 0), np.sum(_lasso(features, targets, 100, 500) == 0)
    assert plain == 0 and soft >= 10
    return f"exact zeros among 20 weights: {plain} by subgradient descent, {soft} with thresholding"


@checks("C115")
def descend_in_two_step_sizes() -> str:
    """θ = [1, 2] on four samples: the gradient, and steps below and above the bound."""
    x, y = np.array([[1.0, 0], [0, 1], [1, 1], [2, 1]]), np.array([1.0, 2, 3, 5])
    bound = 1 / np.linalg.eigvalsh(x.T @ x)[-1]
    ends = []
    for rate in (0.9 * bound, 1.1 * bound):
        theta = np.array([1.0, 2.0])
        for _ in range(300):
            theta = theta - rate * 2 * x.T @ (x @ theta - y)
        ends.append(theta)
    assert np.allclose(ends[0], [4 / 3, 2]) and np.abs(ends[1]).max() > 1e6
    gradient = (2 * x.T @ (x @ np.array([1.0, 2.0]) - y)).round(2).tolist()
    return f"gradient {gradient}; a step of 0.9/μ reaches [1.33, 2.00], a step of 1.1/μ diverges"


@checks("C119")
def train_too_long() -> str:
    """Training and held-out error of least squares with 25 weights on 30 noisy samples."""
    truth = 0.3 * normal(25)
    x, fresh = normal(30, 25, seed=1), normal(500, 25, seed=2)
    y, fresh_y = x @ truth + 2 * normal(30, seed=3), fresh @ truth + 2 * normal(500, seed=4)
    theta, train, held_out = np.zeros(25), [], []
    for _ in range(3000):
        residual = x @ theta - y
        train.append(np.mean(residual**2))
        held_out.append(np.mean((fresh @ theta - fresh_y) ** 2))
        theta -= 0.01 * (2 / 30 * x.T @ residual + 0.01 * theta)
    assert train[-1] < 0.3 * train[0] and held_out[-1] > 1.5 * min(held_out)
    return (
        f"training error falls from {train[0]:.1f} to {train[-1]:.1f}; held-out error falls to "
        f"{min(held_out):.1f} and rises to {held_out[-1]:.1f}"
    )
