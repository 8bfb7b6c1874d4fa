"""Norms, thresholds and the projection onto k weights, against brute force."""

from itertools import combinations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from course_lib.pruning.objective import (
    hard_threshold,
    l0,
    l1,
    largest_mask,
    project,
    soft_threshold,
    squared_l2,
)

# Multiples of 1/4 are exact in float32, and ties among them are frequent.
weights = st.lists(st.integers(-12, 12), min_size=1, max_size=9).map(lambda w: torch.tensor(w) / 4)
GRID = torch.arange(-400, 401) / 100


def test_norms_of_a_known_vector():
    theta = torch.tensor([0.5, -3.0, 0.0, 2.0, -0.1, 1.0])
    assert int(l0(theta)) == 5
    torch.testing.assert_close(l1(theta), torch.tensor(6.6))
    torch.testing.assert_close(squared_l2(theta), torch.tensor(14.26))


def test_l0_is_not_a_norm():
    theta = torch.tensor([0.5, 0.0, -3.0])
    assert l0(2 * theta) == l0(theta)


@given(weights, st.integers(0, 8))
def test_soft_threshold_is_the_minimiser(theta, eighths):
    t = eighths / 8
    cost = (GRID[:, None] - theta).square() / 2 + t * GRID[:, None].abs()
    best = GRID[cost.argmin(dim=0)]  # the grid's step is 0.01
    torch.testing.assert_close(soft_threshold(theta, t), best, atol=0.011, rtol=0)


@given(weights, st.integers(0, 8))
def test_hard_threshold_is_the_minimiser(theta, eighths):
    t = eighths / 8

    def cost(x):
        return (x - theta).square() / 2 + t**2 / 2 * (x != 0)

    found = cost(hard_threshold(theta, t))
    assert (found <= torch.minimum(cost(theta), cost(torch.zeros_like(theta))) + 1e-6).all()


def test_a_weight_at_the_threshold_goes():
    theta = torch.tensor([[0.1, -0.1], [0.3, -0.5]])
    assert hard_threshold(theta, 0.1).equal(torch.tensor([[0.0, 0.0], [0.3, -0.5]]))
    assert l0(soft_threshold(theta, 0.1)) == 2


def test_a_threshold_for_each_row():
    theta = torch.tensor([[1.0, -2.0], [1.0, -2.0]])
    assert soft_threshold(theta, torch.tensor([[1.0], [0.5]])).tolist() == [[0, -1], [0.5, -1.5]]


@given(weights, st.data())
def test_projection_is_the_nearest_point_with_k_weights(theta, data):
    k = data.draw(st.integers(0, len(theta)))
    supports = combinations(range(len(theta)), k)
    distances = [float((theta**2).sum() - (theta[list(s)] ** 2).sum()) for s in supports]
    found = project(theta, k)
    assert float((found - theta).square().sum()) == pytest.approx(min(distances), abs=1e-4)
    assert int(largest_mask(theta, k).sum()) == k
    assert l0(found) <= k
    assert project(found, k).equal(found)


@given(weights, st.data())
def test_nothing_kept_is_smaller_than_something_dropped(theta, data):
    k = data.draw(st.integers(1, len(theta)))
    kept = largest_mask(theta, k)
    assert theta.abs()[kept].min() >= theta.abs()[~kept].max() if k < len(theta) else kept.all()


def test_of_equal_weights_the_first_stay():
    theta = torch.tensor([[1.0, -1.0], [2.0, 1.0]])
    assert project(theta, 2).tolist() == [[1, 0], [2, 0]]


def test_order_of_indices_holds_for_a_transposed_tensor():
    theta = torch.ones(2, 3).T
    assert largest_mask(theta, 2).tolist() == [[True, True], [False, False], [False, False]]


@pytest.mark.parametrize("k", [-1, 4])
def test_k_must_fit(k):
    with pytest.raises(ValueError, match=f"k must be from 0 to 3.*got {k}"):
        project(torch.ones(3), k)


@pytest.mark.parametrize("function", [soft_threshold, hard_threshold])
@pytest.mark.parametrize("threshold", [-0.1, float("nan")])
def test_a_threshold_is_not_negative(function, threshold):
    with pytest.raises(ValueError, match="threshold must be at least 0"):
        function(torch.ones(3), threshold)


def test_nothing_in_nothing_out():
    assert project(torch.empty(0), 0).shape == (0,)
    assert int(l0(torch.empty(0))) == 0


def test_dtype_and_input_stay():
    theta = torch.tensor([1.0, -2.0], dtype=torch.float64)
    for value in (project(theta, 1), soft_threshold(theta, 0.5), hard_threshold(theta, 1.0)):
        assert value.dtype == torch.float64
    assert theta.tolist() == [1, -2]
