"""Bits under a budget: the solver against brute force; greedy and order beside it."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from course_lib.quantization.mixed import (
    curvature_costs,
    exact_bits,
    greedy_bits,
    measured_costs,
    order_bits,
    total_of,
)


def drawn(seed: int, L: int = 5, K: int = 3) -> tuple[torch.Tensor, torch.Tensor, int]:
    """Costs that fall with the bytes, in general, and a budget somewhere between least and most."""
    generator = torch.Generator().manual_seed(seed)
    costs = torch.rand(L, K, generator=generator).sort(dim=1, descending=True).values
    costs[0] = costs[0].flip(0)  # a layer that more bits make worse
    sizes = torch.randint(1, 40, (L, K), generator=generator).cumsum(1)
    ends = sizes[:, 0].sum().item(), sizes[:, -1].sum().item()
    share = torch.rand((), generator=generator).item()
    return costs, sizes, round(ends[0] + share * (ends[1] - ends[0]))


def brute_force(costs, sizes, budget) -> float:
    every = itertools.product(range(costs.shape[1]), repeat=len(costs))
    return min(
        total_of(costs.double(), torch.tensor(choice))
        for choice in every
        if total_of(sizes, torch.tensor(choice)) <= budget
    )


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("unit", [1e-12, 1.0, 1e12])
def test_the_solver_finds_what_brute_force_finds(seed, unit):
    costs, sizes, budget = drawn(seed)
    costs = costs.double() * unit
    choice = exact_bits(costs, 1000 * sizes, 1000 * budget + 999)
    assert total_of(sizes, choice) <= budget
    assert total_of(costs, choice) == pytest.approx(brute_force(costs, sizes, budget), rel=1e-9)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6))
def test_greedy_and_order_keep_the_budget_and_are_no_better(seed):
    costs, sizes, budget = drawn(seed, L=4)
    least = brute_force(costs, sizes, budget)
    sensitivity = costs[:, 0] - costs[:, -1]
    for choice in (greedy_bits(costs, sizes, budget), order_bits(sensitivity, sizes, budget)):
        assert choice.shape == (4,) and total_of(sizes, choice) <= budget
        assert total_of(costs.double(), choice) >= least - 1e-9


@pytest.mark.parametrize("seed", range(4))
def test_greedy_leaves_no_step_that_fits_and_saves(seed):
    costs, sizes, budget = drawn(seed, L=6)
    choice = greedy_bits(costs, sizes, budget)
    for l, k in itertools.product(range(6), range(3)):  # noqa: E741
        other = choice.clone()
        other[l] = k
        fits = total_of(sizes, other) <= budget
        assert not fits or total_of(costs, other) >= total_of(costs, choice)


def test_greedy_is_fooled_where_a_cheap_step_blocks_a_good_one():
    costs = torch.tensor([[10.0, 9.0], [10.0, 0.0]])
    sizes = torch.tensor([[1, 2], [1, 101]])
    assert greedy_bits(costs, sizes, 102).tolist() == [1, 0]
    assert exact_bits(costs, sizes, 102).tolist() == [0, 1]


def test_room_for_all_gives_each_layer_its_least_cost_and_none_gives_the_least_bytes():
    costs, sizes, _ = drawn(3)
    everything, nothing = sizes.amax(1).sum().item(), sizes.amin(1).sum().item()
    for function in (exact_bits, greedy_bits):
        assert function(costs, sizes, everything).tolist() == costs.argmin(1).tolist()
        assert function(costs, sizes, nothing).tolist() == sizes.argmin(1).tolist()
    assert order_bits(costs[:, 0], sizes, everything).tolist() == sizes.argmax(1).tolist()
    assert order_bits(costs[:, 0], sizes, nothing).tolist() == sizes.argmin(1).tolist()


def test_ties_equal_costs_one_layer_one_choice_and_empty_bytes():
    same = torch.zeros(3, 2), torch.ones(3, 2).long()
    assert total_of(same[1], exact_bits(*same, 3)) == 3
    assert greedy_bits(*same, 3).tolist() == [0, 0, 0]
    one = torch.tensor([[5.0]]), torch.tensor([[7]])
    for function in (exact_bits, greedy_bits):
        assert function(*one, 7).tolist() == [0]
    free = torch.tensor([[2.0, 1.0]]), torch.tensor([[0, 0]])
    for function in (exact_bits, greedy_bits):
        assert function(*free, 0).tolist() == [1]
    cheaper = torch.tensor([[3.0, 1.0, 2.0]]), torch.tensor([[5, 5, 1]])
    assert greedy_bits(*cheaper, 5).tolist() == exact_bits(*cheaper, 5).tolist() == [1]


def test_order_goes_by_sensitivity_alone():
    sizes = torch.tensor([[1, 4], [1, 4], [1, 4]])
    assert order_bits(torch.tensor([1.0, 3.0, 2.0]), sizes, budget=6).tolist() == [0, 1, 0]
    assert order_bits(torch.tensor([2.0, 2.0, 2.0]), sizes, budget=9).tolist() == [1, 1, 0]


def test_as_many_layers_as_tinylm_has_are_no_trouble():
    costs, sizes, budget = drawn(0, L=28, K=4)
    exact, greedy = exact_bits(costs, sizes, budget), greedy_bits(costs, sizes, budget)
    assert total_of(sizes, exact) <= budget
    assert total_of(costs, exact) <= total_of(costs, greedy) + 1e-6


def test_measured_costs_are_the_losses_of_one_layer_at_a_time_and_the_model_is_as_before():
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 1)), torch.randn(20, 4)
    rounded = {
        name: [(getattr(model, name[0]).weight * n).round() / n for n in (1, 3)]
        for name in ("0.weight", "2.weight")
    }

    def loss(m):
        return m(x).square().mean().item()

    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    costs = measured_costs(model, rounded, loss)
    for l, (name, choices) in enumerate(rounded.items()):  # noqa: E741
        for k, weight in enumerate(choices):
            changed = torch.func.functional_call(model, {name: weight}, (x,))
            expected = changed.square().mean().item() - loss(model)
            assert costs[l, k].item() == pytest.approx(expected, abs=1e-6)

    def breaks(m):
        return 1 / m[0].weight.equal(before["0.weight"])

    with pytest.raises(ZeroDivisionError):
        measured_costs(model, rounded, breaks)
    assert all(torch.equal(before[name], now) for name, now in model.state_dict().items())


def test_curvature_costs_are_exact_for_a_quadratic_whose_hessian_is_a_multiple_of_one():
    weight = torch.randn(30, dtype=torch.float64)
    change = torch.stack([torch.randn(30, dtype=torch.float64) for _ in range(3)])
    hessian = torch.tensor([2.5 * 30], dtype=torch.float64)
    costs = curvature_costs(hessian, torch.tensor([30]), change.square().sum(1)[None])

    def loss(w):
        return 2.5 / 2 * (w - weight).square().sum()

    for k in range(3):
        assert costs[0, k].item() == pytest.approx(loss(weight + change[k]).item())


def test_bad_input_is_refused():
    costs, sizes, budget = drawn(0)
    for function in (exact_bits, greedy_bits):
        with pytest.raises(ValueError, match="costs must be finite"):
            function(costs * torch.nan, sizes, budget)
        with pytest.raises(ValueError, match="sizes of integers"):
            function(costs, sizes.float(), budget)
        with pytest.raises(ValueError, match=r"one shape \(L, K\)"):
            function(costs, sizes[:, :2], budget)
        with pytest.raises(ValueError, match="sizes must be from 0"):
            function(costs, -sizes, budget)
        with pytest.raises(ValueError, match="budget must be at least"):
            function(costs, sizes, int(sizes.amin(1).sum()) - 1)
    with pytest.raises(ValueError, match=r"sensitivity must have shape \(5,\)"):
        order_bits(costs[:2, 0], sizes, budget)
    with pytest.raises(ValueError, match="rounded must name parameters"):
        measured_costs(nn.Linear(2, 1), {"w": [torch.ones(1, 2)]}, lambda m: 0.0)
    with pytest.raises(ValueError, match="as many choices for each layer"):
        measured_costs(nn.Linear(2, 1), {}, lambda m: 0.0)
    with pytest.raises(ValueError, match=r"must be \(L,\), \(L,\), \(L, K\)"):
        curvature_costs(torch.ones(2), torch.ones(3), torch.ones(2, 2))
