"""Closed forms, brute force and greedy search, against NumPy, scikit-learn and each other."""

from itertools import combinations

import numpy as np
import pytest
import torch
from sklearn.linear_model import OrthogonalMatchingPursuit, Ridge

from course_lib.pruning.least_squares import (
    best_subset,
    gradient,
    lipschitz_constant,
    orthogonal_matching_pursuit,
    ridge,
    squared_error,
)

# The documents' regression: θ = [1, 2].
X = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0], [2.0, 1.0]])
Y = torch.tensor([1.0, 2.0, 3.0, 5.0])


def regression(seed, rows=30, features=8, correlation=0.0):
    """Seeded data in float64 with columns of length 1, three of which make the targets."""
    generator = torch.Generator().manual_seed(seed)
    columns = torch.randn(rows, features, dtype=torch.float64, generator=generator)
    columns = columns + correlation * columns[:, :1]
    columns = columns / columns.norm(dim=0)
    noise = torch.randn(rows, dtype=torch.float64, generator=generator)
    true = torch.tensor([3.0, -2.0, 1.0]).double()[:features]
    return columns, columns[:, :3] @ true + 0.1 * noise


def test_the_documents_regression():
    theta = torch.tensor([1.0, 2.0])
    assert float(squared_error(X, Y, theta)) == 1
    assert gradient(X, Y, theta).tolist() == [-4, -2]
    # largest eigenvalue of XᵀX = [[6, 3], [3, 3]] is (9 + √45) / 2
    assert float(lipschitz_constant(X)) == pytest.approx(9 + 45**0.5, rel=1e-6)
    torch.testing.assert_close(ridge(X, Y, 0.0), torch.tensor([4 / 3, 2.0]))


def test_gradient_is_that_of_the_loss():
    theta = torch.tensor([0.3, -0.7], requires_grad=True)
    squared_error(X, Y, theta).backward()
    torch.testing.assert_close(gradient(X, Y, theta.detach()), theta.grad)


def test_no_smaller_lipschitz_constant_will_do():
    columns, targets = regression(0)
    a, b = torch.zeros(8).double(), torch.linalg.svd(columns).Vh[0]
    steepest = (gradient(columns, targets, a) - gradient(columns, targets, b)).norm()
    torch.testing.assert_close(steepest, lipschitz_constant(columns))


@pytest.mark.parametrize("penalty", [0.0, 0.3, 10.0])
def test_ridge_agrees_with_sklearn(penalty):
    columns, targets = regression(0)
    peer = Ridge(alpha=penalty, fit_intercept=False).fit(columns.numpy(), targets.numpy()).coef_
    np.testing.assert_allclose(ridge(columns, targets, penalty).numpy(), peer, atol=1e-10)


@pytest.mark.parametrize(
    ("features", "k"), [(1, 0), (1, 1), (5, 2), (5, 5), (12, 1), (12, 3), (12, 6)]
)
def test_best_subset_is_the_best_of_all(features, k):
    columns, targets = regression(features, features=features, correlation=2.0)
    losses = []
    for support in combinations(range(features), k):
        part = columns[:, list(support)].numpy()
        theta = np.linalg.lstsq(part, targets.numpy(), rcond=None)[0]
        losses.append(((part @ theta - targets.numpy()) ** 2).sum())
    found = best_subset(columns, targets, k)
    assert int((found != 0).sum()) == k
    assert float(squared_error(columns, targets, found)) == pytest.approx(min(losses))


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("correlation", [0.0, 3.0])
def test_matching_pursuit_agrees_with_sklearn(seed, correlation):
    columns, targets = regression(seed, correlation=correlation)
    for k in (1, 3, 6):
        peer = OrthogonalMatchingPursuit(n_nonzero_coefs=k, fit_intercept=False)
        peer.fit(columns.numpy(), targets.numpy())
        found = orthogonal_matching_pursuit(columns, targets, k)
        np.testing.assert_allclose(found.numpy(), peer.coef_, atol=1e-9)


def test_greedy_is_no_better_than_the_best_and_sometimes_worse():
    gaps = []
    for seed in range(20):
        columns, targets = regression(seed, correlation=3.0)
        best, greedy = (f(columns, targets, 2) for f in (best_subset, orthogonal_matching_pursuit))
        gap = squared_error(columns, targets, greedy) - squared_error(columns, targets, best)
        gaps.append(float(gap))
    assert min(gaps) > -1e-9
    assert max(gaps) > 1e-3


def test_matching_pursuit_does_not_depend_on_the_columns_length():
    columns, targets = regression(0)
    scale = torch.linspace(0.1, 10, 8).double()
    found = orthogonal_matching_pursuit(columns * scale, targets, 3)
    torch.testing.assert_close(found * scale, orthogonal_matching_pursuit(columns, targets, 3))


def test_a_column_of_zeros_is_never_worth_choosing():
    columns, targets = regression(0)
    columns = torch.cat([torch.zeros(30, 1).double(), columns], dim=1)
    for function in (best_subset, orthogonal_matching_pursuit):
        assert function(columns, targets, 3)[0] == 0


@pytest.mark.parametrize("function", [best_subset, orthogonal_matching_pursuit, ridge])
def test_shapes_must_fit(function):
    for columns, targets in ((X, Y[:3]), (X, Y[:, None]), (Y, Y), (X[:0], Y[:0])):
        with pytest.raises(ValueError, match="features must have shape"):
            function(columns, targets, 1)


@pytest.mark.parametrize("function", [best_subset, orthogonal_matching_pursuit])
@pytest.mark.parametrize("k", [-1, 3])
def test_k_must_fit(function, k):
    with pytest.raises(ValueError, match="k must be from 0 to 2"):
        function(X, Y, k)


def test_too_many_subsets_are_refused():
    with pytest.raises(ValueError, match="at most 20000 supports"):
        best_subset(torch.randn(3, 40), torch.randn(3), 20)


def test_a_penalty_is_not_negative():
    with pytest.raises(ValueError, match="penalty must be at least 0; got -1"):
        ridge(X, Y, -1)
