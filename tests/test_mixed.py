"""Bits under a budget of bytes: greedy and order beside the exact choice, and the file's bytes."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from course_lib.formats.linear import Format, Scheme
from course_lib.formats.model_file import pack_model, stored_bytes
from course_lib.measure.size import size
from course_lib.models.parts import linear_weights
from course_lib.models.pretrained import tiny
from course_lib.quantization.mixed import exact_bits, greedy_bits, order_bits, total_of

CHOOSERS = {
    "exact": exact_bits,
    "greedy": greedy_bits,
    "order": lambda costs, sizes, budget: order_bits(costs[:, 0], sizes, budget),
}


def drawn(seed: int, L: int = 5, K: int = 3) -> tuple[torch.Tensor, torch.Tensor, int]:
    """Costs that fall with the bytes, but for one layer, and a budget from least to most."""
    generator = torch.Generator().manual_seed(seed)
    costs = torch.rand(L, K, generator=generator).sort(dim=1, descending=True).values
    costs[0] = costs[0].flip(0)
    sizes = torch.randint(0, 40, (L, K), generator=generator).cumsum(1)  # steps of 0 bytes, too
    ends = sizes[:, 0].sum().item(), sizes[:, -1].sum().item()
    share = torch.rand((), generator=generator).item()
    return costs, sizes, round(ends[0] + share * (ends[1] - ends[0]))


def brute_force(costs, sizes, budget) -> float:
    every = map(torch.tensor, itertools.product(range(costs.shape[1]), repeat=len(costs)))
    return min(total_of(costs.double(), c) for c in every if total_of(sizes, c) <= budget)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6))
def test_all_keep_the_budget_exact_is_the_best_there_is_and_greedy_no_better(seed):
    costs, sizes, budget = drawn(seed, L=4)
    least = brute_force(costs, sizes, budget)
    for name, choose in CHOOSERS.items():
        choice = choose(costs, sizes, budget)
        assert choice.shape == (4,) and total_of(sizes, choice) <= budget
        found = total_of(costs.double(), choice)
        assert found == pytest.approx(least, abs=1e-9) if name == "exact" else found > least - 1e-9


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


@pytest.mark.parametrize("seed", range(4))
def test_at_the_least_budget_there_is_one_size_and_at_the_most_all_is_free(seed):
    costs, sizes, _ = drawn(seed)
    least, most = sizes.amin(1), sizes.amax(1)
    for choose in CHOOSERS.values():
        choice = choose(costs, sizes, int(least.sum()))
        assert torch.equal(sizes.gather(1, choice[:, None])[:, 0], least)
        with pytest.raises(ValueError, match=f"budget must be at least {least.sum()}, or nothing"):
            choose(costs, sizes, int(least.sum()) - 1)
    for budget in (int(most.sum()), 10**15):
        for choose in (exact_bits, greedy_bits):
            assert choose(costs, sizes, budget).tolist() == costs.argmin(1).tolist()
        choice = order_bits(costs[:, 0], sizes, budget)
        assert torch.equal(sizes.gather(1, choice[:, None])[:, 0], most)


def test_ties_equal_costs_one_layer_one_choice_and_no_bytes():
    same = torch.zeros(3, 2), torch.ones(3, 2).long()
    one = torch.tensor([[5.0]]), torch.tensor([[7]])
    free = torch.tensor([[2.0, 1.0]]), torch.tensor([[0, 0]])
    cheaper = torch.tensor([[3.0, 1.0, 2.0]]), torch.tensor([[5, 5, 1]])
    for choose in (exact_bits, greedy_bits):
        assert choose(*same, 3).tolist() == [0, 0, 0]
        assert choose(*one, 7).tolist() == [0]
        assert choose(*free, 0).tolist() == [1]
        assert choose(*cheaper, 5).tolist() == [1]


def test_order_goes_by_sensitivity_alone():
    sizes = torch.tensor([[1, 4], [1, 4], [1, 4]])
    assert order_bits(torch.tensor([1.0, 3.0, 2.0]), sizes, budget=6).tolist() == [0, 1, 0]
    assert order_bits(torch.tensor([2.0, 2.0, 2.0]), sizes, budget=9).tolist() == [1, 1, 0]
    assert order_bits(torch.tensor([-1.0, -2.0, -3.0]), sizes, budget=6).tolist() == [1, 0, 0]


@pytest.mark.parametrize("chooser", CHOOSERS)
def test_a_file_of_tinylm_is_within_the_bytes_that_it_may_have(chooser):
    """And not far below: the widest step of a layer is 49,152 bytes, from 4 to 8 bits."""
    model, _ = tiny()
    weights, bits = linear_weights(model), (2, 3, 4, 8)
    assert len(weights) == 28
    schemes = [Scheme(Format(n), "channel") for n in bits]
    sizes = stored_bytes(weights, schemes)
    errors = torch.stack([(0.5 * weight.detach().std()) ** 2 for weight in weights.values()])
    costs = errors[:, None] / 4.0 ** torch.tensor(bits)  # any will do

    def file_bytes(choice):
        chosen = zip(weights, choice.tolist(), strict=True)
        return size(pack_model(model, {name: schemes[k] for name, k in chosen})).bytes

    widest = torch.full((28,), 3)
    rest = file_bytes(widest) - total_of(sizes, widest)
    for budget in (2_100_000, 2_250_000, 2_400_001):
        choice = CHOOSERS[chooser](costs, sizes, budget - rest)
        assert budget - 50_000 < file_bytes(choice) <= budget
        assert len(choice.unique()) > 1


def test_bad_input_is_refused():
    costs, sizes, budget = drawn(0)
    for choose in (exact_bits, greedy_bits):
        with pytest.raises(ValueError, match="costs must be finite"):
            choose(costs * torch.nan, sizes, budget)
        with pytest.raises(TypeError, match="sizes must be integers"):
            choose(costs, sizes.float(), budget)
        with pytest.raises(ValueError, match=r"one shape \(L, K\)"):
            choose(costs, sizes[:, :2], budget)
        with pytest.raises(ValueError, match=r"sizes must have shape \(L, K\) and be at least 0"):
            choose(costs, -sizes - 1, budget)
    with pytest.raises(ValueError, match=r"sensitivity must have shape \(5,\); got \(2,\)"):
        order_bits(costs[:2, 0], sizes, budget)
    with pytest.raises(ValueError, match="sensitivity must be finite"):
        order_bits(costs[:, 0] * torch.inf, sizes, budget)
    with pytest.raises(ValueError, match=r"sizes must have shape \(L, K\)"):
        order_bits(costs[:, 0], sizes[:, 0], budget)
    with pytest.raises(TypeError, match="sizes must be integers"):
        order_bits(costs[:, 0], sizes.double(), budget)
