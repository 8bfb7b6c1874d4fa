"""IHT and ISTA: what they promise, and what scikit-learn and brute force find."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import Lasso
from test_least_squares import X, Y, regression

from course_lib.pruning.iterative_thresholding import ista, iterative_hard_thresholding, lasso_path
from course_lib.pruning.least_squares import best_subset, gradient, squared_error
from course_lib.pruning.objective import project


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.integers(0, 8), st.sampled_from([0.0, 1.0, 5.0]))
def test_iht_never_raises_the_loss(seed, k, correlation):
    columns, targets = regression(seed, correlation=correlation)
    losses = []
    for steps in range(0, 12):
        theta = iterative_hard_thresholding(columns, targets, k, steps)
        assert int((theta != 0).sum()) <= k
        losses.append(float(squared_error(columns, targets, theta)))
    assert (np.diff(losses) <= 1e-12).all()


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.floats(0, 5))
def test_ista_never_raises_the_penalised_loss(seed, penalty):
    columns, targets = regression(seed, correlation=1.0)
    costs = []
    for steps in range(0, 12):
        theta = ista(columns, targets, penalty, steps)
        costs.append(float(squared_error(columns, targets, theta) + penalty * theta.abs().sum()))
    assert (np.diff(costs) <= 1e-12).all()


def test_one_step_of_iht():
    theta = iterative_hard_thresholding(X, Y, 1, steps=1)
    step = 1 / (9 + 45**0.5)  # 1/Λ of the documents' features
    torch.testing.assert_close(theta, project(-step * gradient(X, Y, torch.zeros(2)), 1))


@pytest.mark.parametrize("seed", range(5))
def test_iht_finds_the_best_subset_of_independent_features(seed):
    columns, targets = regression(seed, rows=200)
    for k in (1, 2, 3):
        found = iterative_hard_thresholding(columns, targets, k)
        torch.testing.assert_close(found, best_subset(columns, targets, k), atol=1e-9, rtol=0)


def test_iht_never_beats_the_best_subset_and_misses_it_among_correlated_features():
    gaps = []
    for seed in range(10):
        columns, targets = regression(seed, correlation=3.0)
        found = iterative_hard_thresholding(columns, targets, 2)
        best = best_subset(columns, targets, 2)
        gap = squared_error(columns, targets, found) - squared_error(columns, targets, best)
        gaps.append(float(gap))
    assert min(gaps) > -1e-9
    assert max(gaps) > 1e-3


@pytest.mark.parametrize("penalty", [0.01, 0.3, 1.0, 3.0])
@pytest.mark.parametrize("correlation", [0.0, 1.0])
def test_ista_agrees_with_sklearn(penalty, correlation):
    columns, targets = regression(0, correlation=correlation)
    peer = Lasso(alpha=penalty / (2 * len(targets)), fit_intercept=False, tol=1e-12, max_iter=10**5)
    peer.fit(columns.numpy(), targets.numpy())
    found = ista(columns, targets, penalty).numpy()
    np.testing.assert_allclose(found, peer.coef_, atol=1e-7)
    assert ((found == 0) == (peer.coef_ == 0)).all()


def test_the_path_is_the_lasso_at_each_penalty():
    columns, targets = regression(0)
    largest = 2 * float((columns.T @ targets).abs().max())
    penalties = [1.001 * largest, 0.999 * largest, 1.0, 0.1]
    path = lasso_path(columns, targets, penalties)
    for theta, penalty in zip(path, penalties, strict=True):
        torch.testing.assert_close(theta, ista(columns, targets, penalty), atol=1e-8, rtol=0)
    assert (path[:2] != 0).sum(dim=1).tolist() == [0, 1]


def test_features_of_zeros_give_zeros():
    assert ista(torch.zeros(4, 2), Y, 0.0).tolist() == [0, 0]
    assert iterative_hard_thresholding(torch.zeros(4, 2), Y, 1).tolist() == [0, 0]


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="penalty must be at least 0"):
        ista(X, Y, -1.0)
    with pytest.raises(ValueError, match="k must be from 0 to 2"):
        iterative_hard_thresholding(X, Y, 3)
    with pytest.raises(ValueError, match="features must have shape"):
        ista(X, Y[:2], 1.0)
