"""Ranks under a budget: beside brute force, never beyond, and never fewer for more."""

from itertools import product

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from course_lib.low_rank.budgets import even_ranks, numbers, ranks_by_energy, ranks_by_loss
from course_lib.low_rank.svd import saving_rank

SHAPES = {"query": (6, 6), "up": (12, 5), "down": (5, 9), "norm": (1, 7)}  # of the last none saves
TOTAL = 6 * 6 + 12 * 5 + 5 * 9 + 7
LEAST = 12 + 17 + 14 + 7  # a rank each, and the last one whole


def choices(shapes):
    """Every way to give each layer a rank that saves, or to leave it whole."""
    each = [[*range(1, saving_rank(*shape) + 1), None] for shape in shapes.values()]
    for ranks in product(*each):
        yield {n: r for n, r in zip(shapes, ranks, strict=True) if r is not None}


def energy(spectra, ranks):
    return sum(s[: ranks.get(name)].square().sum().item() for name, s in spectra.items())


def random_spectra(seed, shapes=SHAPES):
    """Flat, falling slowly, falling fast: another one for each layer."""
    draw = torch.Generator().manual_seed(seed)
    return {
        name: torch.rand(min(shape), generator=draw, dtype=torch.float64)
        .pow(4 * torch.rand(1, generator=draw))
        .sort(descending=True)
        .values
        for name, shape in shapes.items()
    }


def random_losses(seed, shapes=SHAPES):
    """Of one or two ranks of each layer that can save; what was measured need not rise."""
    draw = torch.Generator().manual_seed(seed)
    losses = {}
    for name, shape in shapes.items():
        ranks = range(1, saving_rank(*shape) + 1)[: 1 + seed % 2]
        losses[name] = {r: 1.9 + torch.rand(1, generator=draw).item() for r in ranks}
    return losses


@pytest.mark.parametrize("seed", range(6))
def test_no_choice_gains_more_at_budgets_that_are_just_used_up(seed):
    """There, for a price λ of a number, no choice has more of energy − λ · numbers."""
    spectra = random_spectra(seed)
    every = [(numbers(SHAPES, ranks), energy(spectra, ranks)) for ranks in choices(SHAPES)]
    budgets = {max(every, key=lambda c: c[1] - 1.1**-k * c[0])[0] for k in range(99)}
    assert len(budgets) > 2
    for budget in budgets:
        best = max(gain for cost, gain in every if cost <= budget)
        gained = energy(spectra, ranks_by_energy(spectra, SHAPES, budget))
        assert gained == pytest.approx(best, abs=1e-9)


@pytest.mark.parametrize("seed", range(6))
def test_at_other_budgets_it_is_behind_the_best_choice_by_less_than_a_layer(seed):
    spectra, best_ones = random_spectra(seed), 0
    every = [(numbers(SHAPES, ranks), energy(spectra, ranks)) for ranks in choices(SHAPES)]
    largest = max(s.square().sum().item() for s in spectra.values())
    for budget in range(LEAST, TOTAL + 1):
        gained = energy(spectra, ranks_by_energy(spectra, SHAPES, budget))
        best = max(gain for cost, gain in every if cost <= budget)
        assert best - largest < gained <= best + 1e-9
        best_ones += gained >= best - 1e-9
    assert best_ones > (TOTAL - LEAST) / 5


@pytest.mark.parametrize("seed", range(6))
def test_where_each_rank_gains_less_than_the_one_before_greedy_is_plain(seed):
    """As long as no layer is whole, the budget goes rank by rank to the most energy per number."""
    spectra = {"a": 3 * 0.5 ** torch.arange(9.0), "b": 0.6 ** torch.arange(9.0)}
    shapes, ranks = {"a": (9, 60 + seed), "b": (40, 9)}, {"a": 1, "b": 1}
    for _ in range(6):
        gains = {n: spectra[n][r].item() ** 2 / sum(shapes[n]) for n, r in ranks.items()}
        ranks[max(gains, key=gains.get)] += 1
        assert ranks_by_energy(spectra, shapes, numbers(shapes, ranks)) == ranks


def tail(spectrum, rank):
    return spectrum[rank:].square().sum().item()


@pytest.mark.parametrize("seed", range(4))
def test_rises_that_are_a_factor_of_energies_are_found(seed):
    """Then the ranks are those by energy, of spectra times the roots of the factors."""
    spectra, factors = random_spectra(seed), {"query": 3.0, "up": 0.2, "down": 1.0, "norm": 1.0}
    scaled = {name: s * factors[name] ** 0.5 for name, s in spectra.items()}
    losses = {
        name: {rank: 5.0 + factors[name] * tail(s, rank) for rank in (1, 2)}
        for name, s in spectra.items()
    } | {"norm": {}}
    for budget in range(LEAST, TOTAL, 7):
        expected = ranks_by_energy(scaled, SHAPES, budget)
        assert ranks_by_loss(losses, 5.0, spectra, SHAPES, budget) == expected


def test_the_factor_is_least_squares():
    spectra = {"a": 0.7 ** torch.arange(20.0), "b": 0.8 ** torch.arange(20.0)}
    shapes = dict.fromkeys("ab", (20, 20))
    losses = {"a": {2: 1.3, 5: 1.2}, "b": {2: 1.5, 8: 1.1}}
    scaled = {}
    for name, s in spectra.items():
        tails = torch.tensor([[tail(s, rank)] for rank in losses[name]])
        rises = torch.tensor([[loss - 1.0] for loss in losses[name].values()])
        scaled[name] = s * torch.linalg.lstsq(tails, rises).solution.sqrt().squeeze()
    for budget in range(160, 800, 40):
        chosen = ranks_by_loss(losses, 1.0, spectra, shapes, budget)
        expected = ranks_by_energy(scaled, shapes, budget)
        lowest = {name: max(rank, 2) for name, rank in expected.items()}
        assert expected != lowest or chosen == expected


def test_no_layer_gets_less_than_was_measured():
    spectra, shapes = dict.fromkeys("ab", 0.7 ** torch.arange(20.0)), dict.fromkeys("ab", (20, 20))
    losses = {"a": {5: 0.9}, "b": {3: 7.0}}  # better without most of a: not for a reason to go on
    for budget in (320, 400, 500, 800):
        assert ranks_by_loss(losses, 1.0, spectra, shapes, budget)["a"] == 5
    with pytest.raises(ValueError, match="budget must pay for the lowest ranks, 320; got 319"):
        ranks_by_loss(losses, 1.0, spectra, shapes, 319)


sizes = st.tuples(st.integers(1, 40), st.integers(1, 40))


@given(st.lists(sizes, min_size=1, max_size=4), st.integers(0, 99), st.integers(0, 2000))
def test_never_beyond_the_budget_and_never_fewer_for_more(found, seed, budget):
    shapes = {str(number): shape for number, shape in enumerate(found)}
    spectra, losses = random_spectra(seed, shapes), random_losses(seed, shapes)
    for rule in (
        lambda budget: even_ranks(shapes, budget),
        lambda budget: ranks_by_energy(spectra, shapes, budget),
        lambda budget: ranks_by_loss(losses, 2.0, spectra, shapes, budget),
    ):
        try:
            fewer = rule(budget)
        except ValueError as error:
            assert "budget must" in str(error)
            continue
        for more in (rule(budget + 1), rule(budget + 100)):
            assert more.keys() <= fewer.keys()
            assert all(rank >= fewer[name] for name, rank in more.items())
        assert numbers(shapes, fewer) <= budget
        assert all(1 <= rank <= saving_rank(*shapes[name]) for name, rank in fewer.items())


def test_even_gives_each_layer_the_same_share():
    shapes = {"a": (576, 576), "b": (1536, 576)}
    total = numbers(shapes, {})
    for share in (0.1, 0.5, 0.9):
        ranks = even_ranks(shapes, round(share * total))
        for name, (outputs, inputs) in shapes.items():
            given = ranks[name] * (outputs + inputs) / (outputs * inputs)
            assert share - (outputs + inputs) / (outputs * inputs) <= given <= share
    assert even_ranks(shapes, total) == even_ranks(shapes, 2 * total) == {}
    assert even_ranks(SHAPES, TOTAL - 1).keys() == {"query", "up", "down"}


def test_what_gains_nothing_is_not_paid_for():
    spectra = {"a": torch.tensor([3.0, 2.0, 0, 0, 0, 0]), "b": torch.ones(6)}
    shapes = {"a": (6, 6), "b": (6, 6)}
    assert ranks_by_energy(spectra, shapes, 1000) == {"a": 2}
    losses = {"a": {1: 3.0}, "b": {1: 3.0}}
    assert ranks_by_loss(losses, 2.0, spectra, shapes, 1000) == {"a": 2}


def test_a_flat_spectrum_is_all_or_nothing():
    """A rank of a square layer costs two rows and gains one: whole layers gain more per number."""
    spectra, shapes = {"a": torch.ones(8), "b": 0.9 * torch.ones(8)}, {"a": (8, 8), "b": (8, 8)}
    assert ranks_by_energy(spectra, shapes, 64 + 16) == {"b": 1}


def test_layers_whose_errors_weigh_more_get_more():
    spectra = dict.fromkeys("ab", 0.7 ** torch.arange(20.0))
    shapes = dict.fromkeys("ab", (20, 20))
    even = ranks_by_energy(spectra, shapes, 400)
    weighted = ranks_by_energy(spectra | {"a": 10 * spectra["a"]}, shapes, 400)
    assert even["a"] == even["b"] and weighted["a"] > even["a"] > weighted["b"]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("factor", [1e-4, 1.0, 1e4])
def test_other_dtypes_and_scales(dtype, factor):
    spectra = {"a": torch.tensor([4.0, 2.0, 1.0, 0.5]), "b": torch.tensor([3.0, 0.5, 0.5, 0.5])}
    shapes = {"a": (8, 4), "b": (4, 9)}
    expected = ranks_by_energy(spectra, shapes, 40)
    scaled = {name: (s * factor).to(dtype) for name, s in spectra.items()}
    assert ranks_by_energy(scaled, shapes, 40) == expected == {"a": 2, "b": 1}


def test_bad_input_is_refused():
    spectra, losses = random_spectra(0), random_losses(1)
    for rule in (
        lambda shapes: even_ranks(shapes, 9),
        lambda shapes: ranks_by_energy({name: torch.ones(1) for name in shapes}, shapes, 9),
        lambda shapes: ranks_by_loss({}, 1.0, {}, shapes, 9),
    ):
        for shapes in ({}, {"a": (3, 0)}):
            with pytest.raises(ValueError, match=r"shapes must hold \(O, I\)"):
                rule(shapes)
    with pytest.raises(ValueError, match="budget must give each layer a rank"):
        even_ranks(SHAPES, LEAST - 1)
    for rule in (
        lambda budget: ranks_by_energy(spectra, SHAPES, budget),
        lambda budget: ranks_by_loss(losses, 2.0, spectra, SHAPES, budget),
    ):
        with pytest.raises(ValueError, match="budget must pay for the lowest ranks, 50; got 49"):
            rule(LEAST - 1)
    with pytest.raises(ValueError, match=r"spectra must be of the layers .*; got \['up'\]"):
        ranks_by_energy({"up": torch.ones(5)}, SHAPES, TOTAL)
    for wrong, said in (
        (torch.ones(4), "must be 5 falling numbers"),
        (torch.arange(5.0), "must be 5 falling numbers"),
        (-torch.arange(5.0), "must be 5 falling numbers"),
        (torch.tensor([torch.inf, 1, 1, 1, 1]), "the spectrum of up must be finite"),
        (torch.tensor([torch.nan, 1, 1, 1, 1]), "the spectrum of up must be finite"),
    ):
        with pytest.raises(ValueError, match=said):
            ranks_by_energy(spectra | {"up": wrong}, SHAPES, TOTAL)
    with pytest.raises(ValueError, match="losses must be of the layers"):
        ranks_by_loss({}, 2.0, spectra, SHAPES, TOTAL)
    for ranks in ({0: 3.0}, {4: 2.5}):
        with pytest.raises(ValueError, match="ranks of up must be from 1 to 3 to save"):
            ranks_by_loss(losses | {"up": ranks}, 2.0, spectra, SHAPES, TOTAL)
    for bad in (torch.nan, torch.inf):
        with pytest.raises(ValueError, match="the loss of up, or the dense one, must be"):
            ranks_by_loss(losses | {"up": {1: bad}}, 2.0, spectra, SHAPES, TOTAL)
    with pytest.raises(ValueError, match=r"ranks must name layers that there are; got \['x'\]"):
        numbers(SHAPES, {"x": 3})
