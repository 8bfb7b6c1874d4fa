"""Schedules: the papers' curves, and training under one that ends exactly at its budget."""

import copy

import pytest
import torch
from torch import nn

from course_lib.models.muon import Muon
from course_lib.models.parts import prunable_weights
from course_lib.models.training import train
from course_lib.pruning.masks import hold_masks, magnitude_masks
from course_lib.pruning.schedules import cubic_density, follow_density, geometric_density

OPTIMIZERS = {
    "momentum": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=0.01),
    "AdamW": lambda p: torch.optim.AdamW(p, lr=0.01, weight_decay=0.1),
    "Muon": lambda p: Muon([w for w in p if w.dim() == 2], lr=0.02),
}
SIZE = 96 + 192 + 36


def network():
    return nn.Sequential(
        nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 12), nn.ReLU(), nn.Linear(12, 3)
    )


def learn(model, optimizer, steps=1, seed=1):
    """A few steps of the training loop towards the first three inputs."""
    generator = torch.Generator().manual_seed(seed)
    batches = (torch.randn(20, 6, generator=generator) for _ in range(steps))
    train(model, batches, lambda m, x: (m(x) - x[:, :3]).square().mean(), [optimizer])


def cubic(step):
    return cubic_density(step, start=2, stop=12, final=0.1)


def signed(weights):
    """A score with a sign: large positive weights are worth most."""
    return {name: weight.detach() for name, weight in weights.items()}


def taylor(weights):
    """|g · w|, from the gradients of the step."""
    return {name: (w.grad * w).detach().abs() for name, w in weights.items()}


def count(masks):
    return sum(int(mask.sum()) for mask in masks.values())


def test_cubic_density_is_the_papers_schedule():
    """s_t = s_f + (s_i − s_f)(1 − (t − t₀) / (n Δt))³; s_i = 0, s_f = 0.9, t₀ = 10, n Δt = 40."""
    for t in range(10, 51):
        sparsity = 0.9 + (0 - 0.9) * (1 - (t - 10) / 40) ** 3
        assert cubic_density(t, start=10, stop=50, final=0.1) == pytest.approx(1 - sparsity)
    assert [cubic_density(t, 10, 50, 0.1) for t in (0, 10, 50, 99)] == [1, 1, 0.1, 0.1]


def test_each_round_leaves_the_same_share_and_the_last_one_the_budget():
    """The lottery ticket's rounds: 20 % of what is left, 8 times."""
    for round in range(9):
        assert geometric_density(round, 8, 0.8**8) == pytest.approx(0.8**round)
    assert geometric_density(8, 8, 0.07) == geometric_density(99, 8, 0.07) == 0.07
    assert geometric_density(0, 8, 0.07) == geometric_density(5, 8, 1) == 1


@pytest.mark.parametrize("score", [None, signed, taylor])
@pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_training_ends_exactly_at_the_budget_and_brings_nothing_back(make, score):
    model = network()
    optimizer = make(list(model.parameters()))
    learn(model, optimizer, steps=3)  # momentum from before points at weights that will go
    weights = prunable_weights(model)
    masks = follow_density(optimizer, weights, cubic, *[score] * (score is not None))
    before = copy.deepcopy(masks)
    for step in range(1, 18):
        learn(model, optimizer, seed=step)
        assert count(masks) == round(cubic(step) * SIZE)
        for name, weight in weights.items():
            assert not (masks[name] & ~before[name]).any()
            assert (weight != 0).equal(masks[name])
            for value in optimizer.state[weight].values():
                if torch.is_tensor(value) and value.shape == weight.shape:
                    assert not value[~masks[name]].any()
        before = copy.deepcopy(masks)
    assert count(masks) == round(0.1 * SIZE)


def test_the_lowest_scores_go():
    weight = nn.Parameter(torch.tensor([[3.0, -5.0], [1.0, -2.0]]))
    optimizer = torch.optim.SGD([weight], lr=0.1)
    by_size = follow_density(optimizer, {"w": weight}, lambda step: 0.5)
    assert by_size["w"].tolist() == [[True, True], [False, False]]
    weight = nn.Parameter(torch.tensor([[3.0, -5.0], [1.0, -2.0]]))
    by_sign = follow_density(optimizer, {"w": weight}, lambda step: 0.5, signed)
    assert by_sign["w"].tolist() == [[True, False], [True, False]]
    assert weight.tolist() == [[3, 0], [1, 0]]


def test_it_is_what_masks_chosen_anew_after_each_step_give():
    """Among magnitudes a pruned weight, zero, is never chosen again: so that can be the peer."""
    ours, peer = network(), network()
    peer.load_state_dict(ours.state_dict())
    optimizers = [OPTIMIZERS["AdamW"](model.parameters()) for model in (ours, peer)]
    follow_density(optimizers[0], prunable_weights(ours), cubic)
    weights = prunable_weights(peer)
    for step in range(1, 18):
        learn(ours, optimizers[0], seed=step)
        learn(peer, optimizers[1], seed=step)
        hold_masks(optimizers[1], weights, magnitude_masks(weights, cubic(step)))
    for ours_weight, weight in zip(prunable_weights(ours).values(), weights.values(), strict=True):
        assert ours_weight.equal(weight)


def test_one_shot_is_a_schedule_too():
    model = network()
    weights = prunable_weights(model)
    expected = magnitude_masks(weights, 0.3)
    masks = follow_density(torch.optim.SGD(model.parameters(), lr=0.1), weights, lambda _: 0.3)
    assert all(masks[name].equal(expected[name]) for name in weights)


def test_a_density_that_rises_changes_nothing():
    model = network()
    optimizer = OPTIMIZERS["AdamW"](model.parameters())
    densities = [0.5, 0.3, 0.8, 0.31, 0.2, 1.0]
    masks = follow_density(optimizer, prunable_weights(model), lambda step: densities[step])
    left = [count(masks)]
    for step in range(1, 6):
        learn(model, optimizer, seed=step)
        left.append(count(masks))
    assert left == [round(d * SIZE) for d in (0.5, 0.3, 0.3, 0.3, 0.2, 0.2)]


def test_all_weights_equal_and_none_left():
    weight = nn.Parameter(torch.ones(10))
    optimizer = torch.optim.SGD([weight], lr=0.1)
    masks = follow_density(optimizer, {"w": weight}, lambda step: [0.7, 0.0][step])
    assert masks["w"].tolist() == [True] * 7 + [False] * 3
    weight.grad = torch.ones(10)
    optimizer.step()
    assert not masks["w"].any() and not weight.any()


def test_weights_that_have_become_zero_by_themselves_are_not_confused_with_pruned_ones():
    weight = nn.Parameter(torch.tensor([0.0, 0.0, 5.0, 1.0]))
    optimizer = torch.optim.SGD([weight], lr=1.0)
    masks = follow_density(optimizer, {"w": weight}, lambda step: [0.75, 0.5][step], signed)
    assert masks["w"].tolist() == [True, False, True, True]
    weight.grad = torch.tensor([0.0, -9.0, 7.0, 2.0])
    optimizer.step()  # now all scores are at most 0, the pruned weight's among the highest
    assert masks["w"].tolist() == [True, False, False, True]


def test_the_optimizer_sees_no_gradient_of_what_is_gone():
    weight = nn.Parameter(torch.tensor([1.0, 2.0]))
    optimizer = torch.optim.SGD([weight], lr=0.5, momentum=0.9)
    follow_density(optimizer, {"w": weight}, lambda step: 0.5)
    weight.grad = torch.tensor([1.0, 1.0])
    optimizer.step()
    assert weight.tolist() == [0, 1.5]
    assert optimizer.state[weight]["momentum_buffer"].tolist() == [0, 1]


def test_a_frozen_weight_is_pruned_with_the_others():
    model = network()
    model[0].requires_grad_(False)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad])
    masks = follow_density(optimizer, prunable_weights(model), cubic)
    learn(model, optimizer, steps=14)
    assert (model[0].weight != 0).equal(masks["0.weight"])
    assert count(masks) == round(0.1 * SIZE)


def test_half_precision_and_infinite_scores():
    weight = nn.Parameter(torch.tensor([1.0, 2.0, 3.0]).half())
    optimizer = torch.optim.SGD([weight], lr=0.1)
    endless = {"w": torch.tensor([torch.inf, -torch.inf, 0.0])}
    masks = follow_density(optimizer, {"w": weight}, lambda step: 2 / 3, lambda _: endless)
    assert masks["w"].tolist() == [True, False, True] and weight.tolist() == [1, 0, 3]


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda o, w: cubic_density(1, 5, 5, 0.1), "stop must be after start=5; got 5"),
        (lambda o, w: cubic_density(1, 0, 5, -0.1), "final must be from 0 to 1"),
        (lambda o, w: geometric_density(1, 5, 0.0), "final must be above 0 and at most 1; got 0"),
        (lambda o, w: geometric_density(1, 5, float("nan")), "final must be above 0"),
        (lambda o, w: geometric_density(-1, 5, 0.1), "round must be at least 0"),
        (lambda o, w: geometric_density(0, 0, 0.1), "rounds at least 1; got 0, 0"),
        (lambda o, w: follow_density(o, w, lambda _: 1.1), "density_at.0. must be from 0 to 1"),
        (lambda o, w: follow_density(o, w, lambda _: float("nan")), "must be from 0 to 1; got nan"),
        (
            lambda o, w: follow_density(o, w, lambda _: 0.5, lambda w: {"w": w["w"] * torch.nan}),
            "must not hold NaN; 'w' does",
        ),
        (
            lambda o, w: follow_density(o, w, lambda _: 0.5, lambda w: {"w": torch.ones(2)}),
            "score of 'w' must have the weight's shape .3,.; got .2,.",
        ),
    ],
)
def test_bad_input_is_refused(call, says):
    weight = nn.Parameter(torch.ones(3))
    with pytest.raises(ValueError, match=says):
        call(torch.optim.SGD([weight], lr=0.1), {"w": weight})
