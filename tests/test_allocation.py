"""Sensitivity by hand; the budget's split against brute force over all combinations."""

import copy
from itertools import product

import pytest
import torch
from torch import nn

from course_lib.models.parts import prunable_weights
from course_lib.pruning.allocation import Sensitivity, masks_at, sensitivity, split_budget
from course_lib.pruning.masks import apply_masks, magnitude_masks


def network():
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 2))


def loss(model):
    """Squared error on fixed inputs; what it learns from is its own business."""
    x = torch.linspace(-1, 1, 40).view(10, 4)
    return (model(x) - x[:, :2]).square().mean().item()


def by_brute_force(losses, sizes, densities, density):
    """The least loss of all S^L combinations that fit; None if none does."""
    budget, best = round(density * sum(sizes)), None
    for choice in product(range(len(densities)), repeat=len(sizes)):
        kept = sum(round(densities[s] * n) for s, n in zip(choice, sizes, strict=True))
        total = sum(losses[layer][s] for layer, s in enumerate(choice))
        if kept <= budget and (best is None or total < best - 1e-9):
            best = total
    return best


def total(losses, densities, chosen):
    return sum(float(losses[layer, densities.index(d)]) for layer, d in enumerate(chosen))


def kept(sizes, chosen):
    return sum(round(d * n) for d, n in zip(chosen, sizes, strict=True))


def random_problem(seed, shape):
    """Losses that fall with the density, or do not, of layers whose sizes differ a hundredfold."""
    generator = torch.Generator().manual_seed(seed)
    L, S = shape
    sizes = torch.randint(10, 1000, (L,), generator=generator).tolist()
    densities = torch.linspace(0.1, 1, S).tolist()
    losses = torch.randn(L, S, dtype=torch.float64, generator=generator)
    if seed % 3 == 0:
        losses = losses.sort(dim=1, descending=True).values
    if seed % 3 == 1:  # convex, of very different steepness
        steep = 10 ** (2 * losses[:, :1])
        losses = steep * (1 - torch.tensor(densities).double()) ** 3
    return losses, sizes, densities


@pytest.mark.parametrize("shape", [(1, 1), (1, 5), (2, 4), (4, 5), (6, 4), (5, 7)])
@pytest.mark.parametrize("seed", range(6))
def test_the_split_is_the_best_of_all(seed, shape):
    losses, sizes, densities = random_problem(seed, shape)
    for density in (0.1, 0.25, 0.5, 0.77, 1.0):
        best = by_brute_force(losses.tolist(), sizes, densities, density)
        if best is None:
            with pytest.raises(ValueError, match="density must let"):
                split_budget(losses, sizes, densities, density)
            continue
        chosen = split_budget(losses, sizes, densities, density)
        assert kept(sizes, chosen) <= round(density * sum(sizes))
        assert total(losses, densities, chosen) == pytest.approx(best, abs=1e-9)


def test_equal_layers_share_a_convex_loss_equally():
    losses = torch.tensor([[4.0, 1.0, 0.0]] * 5)
    assert split_budget(losses, [10] * 5, [0.0, 0.5, 1.0], 0.5) == [0.5] * 5


def test_a_loss_that_is_not_convex_is_all_or_nothing():
    losses = torch.tensor([[4.0, 3.9, 0.0]] * 4)
    assert sorted(split_budget(losses, [10] * 4, [0.0, 0.5, 1.0], 0.5)) == [0, 0, 1, 1]


def test_the_order_of_the_densities_and_a_constant_of_a_layer_change_nothing():
    losses, sizes, densities = random_problem(0, (4, 5))
    chosen = split_budget(losses, sizes, densities, 0.5)
    turned = split_budget(losses.flip(1) + torch.arange(4)[:, None], sizes, densities[::-1], 0.5)
    assert turned == chosen


@pytest.mark.parametrize("scale", [1e-30, 1e-9, 1e9, 1e30])
def test_the_unit_of_the_loss_changes_nothing(scale):
    losses, sizes, densities = random_problem(1, (5, 5))
    chosen = split_budget(losses, sizes, densities, 0.4)
    assert split_budget(losses * scale, sizes, densities, 0.4) == chosen


def test_no_weight_is_spent_for_nothing():
    assert split_budget(torch.zeros(3, 3), [5, 5, 5], [1.0, 0.2, 0.6], 1.0) == [0.2] * 3


def test_nothing_may_stay_and_everything_may():
    losses = torch.tensor([[3.0, 1.0], [2.0, 1.0]])
    assert split_budget(losses, [5, 7], [0.0, 1.0], 0.0) == [0, 0]
    assert split_budget(losses, [5, 7], [0.0, 1.0], 1.0) == [1, 1]


def test_a_model_of_210_layers():
    """SmolLM2's, with S = 9: more sums than could be listed, so the bound must do its work."""
    sizes = [576 * 576, 192 * 576, 192 * 576, 576 * 576, *[576 * 1536] * 3] * 30
    densities = [s / 10 for s in range(1, 10)]
    steep = torch.rand(210, 1, dtype=torch.float64)
    losses = steep * (1 - torch.tensor(densities).double()) ** 3
    losses = losses + 0.001 * torch.randn(210, 9, dtype=torch.float64)
    chosen = split_budget(losses, sizes, densities, 0.5)
    assert kept(sizes, chosen) <= round(0.5 * sum(sizes))
    assert total(losses, densities, chosen) < float(losses[:, 4].sum())
    # No layer can afford a step up that lowers the loss.
    at = [densities.index(d) for d in chosen]
    left = round(0.5 * sum(sizes)) - kept(sizes, chosen)
    up = [
        (losses[i, s + 1] - losses[i, s], round(densities[s + 1] * n) - round(densities[s] * n))
        for i, (s, n) in enumerate(zip(at, sizes, strict=True))
        if s < 8
    ]
    assert all(gain >= 0 or more > left for gain, more in up)


def test_sensitivity_prunes_each_layer_alone():
    model = network()
    before = copy.deepcopy(model.state_dict())
    densities = [0.0, 0.25, 0.5, 1.0]
    found = sensitivity(model, densities, loss)
    assert found.names == ("0.weight", "2.weight", "4.weight")
    assert found.sizes == (32, 48, 12) and found.densities == tuple(densities)
    assert found.dense == loss(model)
    for layer, name in enumerate(found.names):
        for s, density in enumerate(densities):
            pruned = copy.deepcopy(model)
            weights = {name: prunable_weights(pruned)[name]}
            apply_masks(weights, magnitude_masks(weights, density))
            assert found.losses[layer, s] == loss(pruned)
    assert found.losses[:, -1].tolist() == [found.dense] * 3
    assert not found.increases[:, -1].any()
    assert all(model.state_dict()[name].equal(old) for name, old in before.items())


def test_scores_decide_what_goes_and_which_layers():
    model = network()
    score = {"2.weight": prunable_weights(model)["2.weight"].detach()}  # with its sign
    found = sensitivity(model, [0.5], loss, score)
    pruned = copy.deepcopy(model)
    lowest = score["2.weight"].flatten().argsort()[:24]
    with torch.no_grad():
        pruned[2].weight.view(-1)[lowest] = 0
    assert found == Sensitivity(("2.weight",), (48,), (0.5,), loss(model), found.losses)
    assert found.losses.tolist() == [[loss(pruned)]]


def test_tied_weights_are_one_layer_and_frozen_ones_are_layers():
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4), nn.Linear(4, 2))
    model[2].weight = model[0].weight
    model[3].requires_grad_(False)
    found = sensitivity(model, [0.0], loss)
    assert found.names == ("0.weight", "3.weight") and found.sizes == (16, 8)
    both = copy.deepcopy(model)
    with torch.no_grad():
        both[0].weight.zero_()
    assert both[2].weight is both[0].weight
    assert found.losses[0, 0] == loss(both)


def test_from_sensitivity_to_masks():
    model = network()
    found = sensitivity(model, [0.25, 0.5, 0.75, 1.0], loss)
    chosen = split_budget(found.losses, found.sizes, found.densities, 0.6)
    weights = prunable_weights(model)
    masks = masks_at(
        {name: w.detach().abs() for name, w in weights.items()},
        dict(zip(found.names, chosen, strict=True)),
    )
    assert sum(int(mask.sum()) for mask in masks.values()) == kept(found.sizes, chosen) <= 55
    for name, density in zip(found.names, chosen, strict=True):
        assert masks[name].equal(magnitude_masks({name: weights[name]}, density)[name])


ONES = torch.ones(2, 2)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: split_budget(ONES, [5, 7, 9], [0, 1], 0.5), "losses must have shape .3, 2."),
        (lambda: split_budget(ONES[0], [5], [0, 1], 0.5), "got .2,."),
        (lambda: split_budget(ONES * torch.nan, [5, 7], [0, 1], 0.5), "losses must be finite"),
        (lambda: split_budget(ONES * torch.inf, [5, 7], [0, 1], 0.5), "losses must be finite"),
        (lambda: split_budget(ONES, [5, 7], [0, 1.5], 0.5), "densities must be from 0 to 1; got 1"),
        (lambda: split_budget(ONES, [5, 7], [0, 1], torch.nan), "densities must be from 0 to 1"),
        (
            lambda: split_budget(ONES, [10, 10], [0.3, 1], 0.25),
            "density must let 6 weights stay, as the lowest densities do; 0.25 of 20 are 5",
        ),
        (lambda: sensitivity(network(), [0.5], lambda _: torch.nan), "losses that measure gives"),
        (lambda: sensitivity(network(), [1.1], loss), "of '0.weight' must be from 0 to 1; got 1.1"),
        (
            lambda: sensitivity(network(), [0.5], loss, {"1.weight": torch.ones(2)}),
            "scores must fit the weights .*; got '1.weight'",
        ),
        (
            lambda: sensitivity(network(), [0.5], loss, {"0.weight": torch.ones(4, 8)}),
            "scores must fit the weights",
        ),
        (lambda: masks_at({"a": torch.tensor([torch.nan])}, {"a": 0.5}), "NaN; 'a' does"),
    ],
)
def test_bad_input_is_refused(call, says):
    with pytest.raises(ValueError, match=says):
        call()
