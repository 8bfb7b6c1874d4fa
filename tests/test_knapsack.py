"""The least sum under a budget: brute force over all choices, and a solver of integer programs."""

import itertools

import pytest
import torch
from scipy.optimize import LinearConstraint, milp

from course_lib.models.knapsack import cheapest_choice


def drawn(seed: int, L: int, K: int, largest: int = 40):
    """Costs that fall with the size, but for one layer, and of very different heights."""
    generator = torch.Generator().manual_seed(seed)
    height = 10.0 ** torch.randint(-3, 1, (L, 1), generator=generator)
    costs = height * torch.rand(L, K, generator=generator, dtype=torch.float64)
    costs = costs.sort(dim=1, descending=True).values
    costs[0] = costs[0].flip(0)
    sizes = torch.randint(0, largest, (L, K), generator=generator).cumsum(1)  # steps of 0, too
    return costs, sizes


def sums(costs, sizes) -> tuple[torch.Tensor, torch.Tensor]:
    """The cost and the size of each of the Kᴸ choices."""
    every = torch.tensor(list(itertools.product(range(costs.shape[1]), repeat=len(costs))))
    layers = torch.arange(len(costs))
    return costs[layers, every].sum(1), sizes[layers, every].sum(1)


def chosen_sums(costs, sizes, choice) -> tuple[float, int]:
    layers = torch.arange(len(costs))
    return costs[layers, choice].sum().item(), sizes[layers, choice].sum().item()


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("shape", [(1, 1), (1, 4), (3, 2), (5, 4)], ids=str)
def test_no_choice_that_fits_has_less(seed, shape):
    costs, sizes = drawn(seed, *shape)
    cost_of, size_of = sums(costs, sizes)
    least, most = int(sizes.amin(1).sum()), int(sizes.amax(1).sum())
    for budget in (least, least + 1, (least + most) // 2, most - 1, most, 10 * most + 1):
        if budget < least:
            continue
        cost, size = chosen_sums(costs, sizes, cheapest_choice(costs, sizes, budget))
        best = cost_of[size_of <= budget].amin().item()
        assert size <= budget and cost == pytest.approx(best, rel=1e-12)


@pytest.mark.parametrize("seed", range(12))
def test_ties_of_whole_numbers_go_to_the_smallest(seed):
    """Costs 0, 1, 2: many choices are equally good, and sums are exact."""
    generator = torch.Generator().manual_seed(seed)
    costs = torch.randint(3, (5, 4), generator=generator).double()
    sizes = torch.randint(4, (5, 4), generator=generator)
    cost_of, size_of = sums(costs, sizes)
    for budget in range(int(sizes.amin(1).sum()), int(sizes.amax(1).sum()) + 1):
        found = chosen_sums(costs, sizes, cheapest_choice(costs, sizes, budget))
        best = cost_of[size_of <= budget].amin()
        assert found == (best, size_of[(cost_of == best) & (size_of <= budget)].amin())


@pytest.mark.parametrize("largest", [50, 10**6, 10**11])
@pytest.mark.parametrize("seed", range(3))
def test_at_tinylms_size_it_finds_what_an_integer_program_finds(seed, largest):
    """HiGHS stops at 10⁻⁶ of the objective that it is given; so may it here."""
    costs, sizes = drawn(seed, 28, 4, largest)
    budget = int(sizes.amin(1).sum() + sizes.amax(1).sum()) // 2
    cost, size = chosen_sums(costs, sizes, cheapest_choice(costs, sizes, budget))
    once = torch.eye(28).repeat_interleave(4, dim=1)
    rows = torch.cat([once, sizes.flatten()[None] / budget]).numpy()
    program = milp(
        costs.flatten().numpy(),
        constraints=LinearConstraint(rows, [1.0] * 28 + [0.0], [1.0] * 29),
        integrality=torch.ones(112).numpy(),
        bounds=(0, 1),
        options={"mip_rel_gap": 0.0},
    )
    assert size <= budget and cost == pytest.approx(program.fun, rel=1e-5)


def test_costs_may_be_negative_and_a_constant_of_a_layer_changes_nothing():
    costs, sizes = drawn(1, 5, 4)
    choice = cheapest_choice(costs, sizes, 150)
    for shift in (-3.0, 5.0):
        moved = costs + shift * torch.arange(5)[:, None]
        assert cheapest_choice(moved, sizes, 150).tolist() == choice.tolist()
    assert cheapest_choice(costs.float() * 2.0**-60, sizes, 150).tolist() == choice.tolist()


def test_inputs_are_left_as_they_were():
    costs, sizes = drawn(2, 5, 4)
    before = costs.clone(), sizes.clone()
    cheapest_choice(costs.requires_grad_(), sizes, 150)
    assert torch.equal(costs, before[0]) and torch.equal(sizes, before[1])


def test_bad_input_is_refused():
    costs, sizes = drawn(0, 5, 3)
    for bad in (torch.nan, torch.inf):
        with pytest.raises(ValueError, match="costs must be finite"):
            cheapest_choice(costs * bad, sizes, 999)
    with pytest.raises(TypeError, match="costs must be a tensor of floats"):
        cheapest_choice(costs.long(), sizes, 999)
    with pytest.raises(TypeError, match=r"sizes must be integers; got torch\.float32"):
        cheapest_choice(costs, sizes.float(), 999)
    with pytest.raises(ValueError, match=r"one shape \(L, K\); got \(5, 3\) and \(5, 2\)"):
        cheapest_choice(costs, sizes[:, :2], 999)
    with pytest.raises(ValueError, match=r"one shape \(L, K\)"):
        cheapest_choice(costs[0], sizes[0], 999)
    with pytest.raises(ValueError, match="costs must not be empty"):
        cheapest_choice(costs[:0], sizes[:0], 999)
    with pytest.raises(ValueError, match="be at least 0; got .*, at least -1"):
        cheapest_choice(costs, sizes.clamp(max=0) - 1, 999)
    least = int(sizes.amin(1).sum())
    for budget in (least - 1, float("nan")):
        with pytest.raises(ValueError, match=f"budget must be at least {least}, or nothing fits"):
            cheapest_choice(costs, sizes, budget)
