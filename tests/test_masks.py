"""Masks: the same weights as PyTorch's pruning, and no step of training that brings one back."""

import copy

import pytest
import torch
from torch import nn
from torch.nn.utils import prune

from course_lib.models.llama import Llama, LlamaConfig
from course_lib.models.muon import Muon
from course_lib.models.parts import prunable_weights
from course_lib.pruning.masks import (
    apply_masks,
    hold_masks,
    magnitude_masks,
    magnitude_pruned,
    masks_by_score,
)

OPTIMIZERS = {
    "SGD": lambda p: torch.optim.SGD(p, lr=0.1),
    "momentum": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=0.01),
    "Nesterov": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True),
    "Adam": lambda p: torch.optim.Adam(p, lr=0.01, amsgrad=True),
    "AdamW": lambda p: torch.optim.AdamW(p, lr=0.01, weight_decay=0.1),
    "RMSprop": lambda p: torch.optim.RMSprop(p, lr=0.01, momentum=0.9),
    "Muon": lambda p: Muon([w for w in p if w.dim() == 2], lr=0.02),
}


def network():
    return nn.Sequential(
        nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 12), nn.ReLU(), nn.Linear(12, 3)
    )


def train(model, optimizer, steps):
    generator = torch.Generator().manual_seed(1)
    for _ in range(steps):
        x = torch.randn(20, 6, generator=generator)
        optimizer.zero_grad()
        (model(x) - x[:, :3]).square().mean().backward()
        optimizer.step()


def nonzeros(tensors):
    return sum(int((t != 0).sum()) for t in tensors.values())


def test_only_linear_and_convolution_weights_are_pruned():
    model = Llama(LlamaConfig(11, width=8, layers=2, heads=2, kv_heads=1, mlp_width=12, context=16))
    names = list(prunable_weights(model))
    assert len(names) == 2 * 7
    assert not [name for name in names if "embedding" in name or "norm" in name]
    assert list(prunable_weights(nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2)))) == [
        "0.weight"
    ]


def test_a_shared_weight_counts_once():
    model = network()
    model[2] = model[0]
    assert list(prunable_weights(model)) == ["0.weight", "4.weight"]


@pytest.mark.parametrize("amount", [0.0, 0.1, 0.5, 0.9, 0.987])
def test_global_masks_remove_what_pytorch_removes(amount):
    model = network()
    peer = copy.deepcopy(model)
    layers = [(layer, "weight") for layer in peer if isinstance(layer, nn.Linear)]
    prune.global_unstructured(layers, pruning_method=prune.L1Unstructured, amount=amount)
    pruned = magnitude_pruned(model, 1 - amount)
    for (layer, _), weight in zip(layers, prunable_weights(pruned).values(), strict=True):
        assert weight.equal(layer.weight)


@pytest.mark.parametrize("amount", [0.0, 0.1, 0.5, 0.9])
def test_layer_masks_remove_what_pytorch_removes(amount):
    weights = prunable_weights(network())
    for name, mask in magnitude_masks(weights, 1 - amount, per_layer=True).items():
        layer = nn.Linear(*weights[name].T.shape)
        layer.weight = weights[name]
        left = weights[name].numel() - round((1 - amount) * weights[name].numel())
        assert prune.l1_unstructured(layer, "weight", amount=left).weight_mask.bool().equal(mask)


def test_exactly_k_weights_stay_even_if_all_are_equal():
    weights = {"a": torch.ones(10, 10), "b": -torch.ones(50)}
    masks = magnitude_masks(weights, 0.7)
    assert masks["a"].all()
    assert masks["b"].tolist() == [True] * 5 + [False] * 45


def test_signed_scores_keep_the_highest_and_exactly_k():
    scores = {"a": torch.tensor([[-5.0, 0.0], [3.0, -1.0]]), "b": torch.tensor([-0.0, -2.0])}
    kept = [
        [name + str(at) for name, mask in masks_by_score(scores, k / 6).items()
         for at in mask.flatten().nonzero().flatten().tolist()]
        for k in range(7)
    ]  # fmt: skip
    assert [len(names) for names in kept] == list(range(7))
    assert kept[1:6] == [
        ["a2"],
        ["a1", "a2"],  # of the two zeros, the first
        ["a1", "a2", "b0"],
        ["a1", "a2", "a3", "b0"],
        ["a1", "a2", "a3", "b0", "b1"],
    ]


@pytest.mark.parametrize("per_layer", [False, True])
def test_scores_are_kept_as_sorting_keeps_them(per_layer):
    generator = torch.Generator().manual_seed(0)
    scores = {n: torch.randn(20, 30, generator=generator) for n in ("a", "b", "c")}
    for density in (0.0, 0.013, 0.5, 0.9, 1.0):
        masks = masks_by_score(scores, density, per_layer)
        groups = [[n] for n in scores] if per_layer else [list(scores)]
        for names in groups:
            joined = torch.cat([scores[n].flatten() for n in names])
            kept = torch.cat([masks[n].flatten() for n in names])
            assert kept.sum() == round(density * len(joined))
            order = joined.argsort(descending=True)
            assert kept[order[: int(kept.sum())]].all()


@pytest.mark.parametrize("value", [0.0, 1.0, -1.0, float("inf"), -float("inf")])
def test_of_equal_scores_the_first_stay(value):
    masks = masks_by_score({"a": torch.full((2, 3), value), "b": torch.full((4,), value)}, 0.7)
    assert masks["a"].all()
    assert masks["b"].tolist() == [True, False, False, False]


def test_infinite_scores_are_scores():
    scores = {"w": torch.tensor([-torch.inf, 1.0, torch.inf, -1e38])}
    assert masks_by_score(scores, 0.25)["w"].tolist() == [False, False, True, False]
    assert masks_by_score(scores, 0.75)["w"].tolist() == [False, True, True, True]


def test_magnitude_masks_are_masks_by_magnitude():
    weights = prunable_weights(network())
    magnitudes = {name: w.abs() for name, w in weights.items()}
    for per_layer in (False, True):
        masks = magnitude_masks(weights, 0.3, per_layer)
        assert all(
            mask.equal(masks[name])
            for name, mask in masks_by_score(magnitudes, 0.3, per_layer).items()
        )


def test_pruning_returns_a_copy_and_is_idempotent():
    model = network()
    before = copy.deepcopy(model.state_dict())
    pruned = magnitude_pruned(model, 0.25)
    assert all(model.state_dict()[name].equal(old) for name, old in before.items())
    assert nonzeros(prunable_weights(pruned)) == round(0.25 * (96 + 192 + 36))
    again = magnitude_pruned(pruned, 0.25)
    assert all(pruned.state_dict()[n].equal(w) for n, w in again.state_dict().items())


def test_a_pruned_weight_is_zero_whatever_it_was():
    weights = {"w": torch.tensor([float("nan"), float("inf"), -1.0])}
    apply_masks(weights, {"w": torch.tensor([False, False, True])})
    assert weights["w"].tolist() == [0, 0, -1]


@pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_a_mask_stays_a_mask(make):
    """Momentum is collected before the weights are pruned, so it does point at them."""
    model = network()
    optimizer = make(list(model.parameters()))
    train(model, optimizer, steps=3)
    weights = prunable_weights(model)
    masks = magnitude_masks(weights, 0.3)
    hold_masks(optimizer, weights, masks)
    kept = {name: weights[name].detach()[masks[name]].clone() for name in weights}
    for _ in range(10):
        train(model, optimizer, steps=1)
        for name, weight in weights.items():
            gone = ~masks[name]
            assert not weight[gone].any()
            for value in optimizer.state[weight].values():
                if torch.is_tensor(value) and value.shape == weight.shape:
                    assert not value[gone].any()
    assert all(not weights[name][masks[name]].equal(kept[name]) for name in weights)


def test_momentum_alone_would_bring_weights_back():
    """What the mask is needed for: after one step the pruned weights are back."""
    model = network()
    optimizer = OPTIMIZERS["momentum"](model.parameters())
    train(model, optimizer, steps=3)
    weights = prunable_weights(model)
    apply_masks(weights, magnitude_masks(weights, 0.3))
    train(model, optimizer, steps=1)
    assert nonzeros(weights) > 0.9 * (96 + 192 + 36)


def test_a_step_with_momentum_by_hand():
    weight = nn.Parameter(torch.tensor([0.0, 2.0]))
    optimizer = torch.optim.SGD([weight], lr=0.5, momentum=0.9)
    optimizer.state[weight]["momentum_buffer"] = torch.tensor([1.0, 1.0])  # from before pruning
    hold_masks(optimizer, {"w": weight}, {"w": torch.tensor([False, True])})
    weight.grad = torch.tensor([1.0, 1.0])
    optimizer.step()
    assert weight.tolist() == [0, pytest.approx(1.05)]  # 2 − 0.5 · (0.9 · 1 + 1)


@pytest.mark.parametrize("make", [OPTIMIZERS[n] for n in ("momentum", "AdamW")])
def test_a_pruned_neuron_trains_like_one_that_is_not_there(make):
    """All weights out of eight hidden neurons are pruned: the rest must train as a network of 8."""
    large, small = network()[:3], nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 12))
    with torch.no_grad():
        small[0].weight.copy_(large[0].weight[:8])
        small[0].bias.copy_(large[0].bias[:8])
        small[2].weight.copy_(large[2].weight[:, :8])
        small[2].bias.copy_(large[2].bias)
    masks = {"2.weight": torch.arange(16).expand(12, 16) < 8}
    optimizer = make(large.parameters())
    hold_masks(optimizer, dict(large.named_parameters()), masks)
    generator = torch.Generator().manual_seed(1)
    others = make(small.parameters())
    for _ in range(20):
        x = torch.randn(20, 6, generator=generator)
        for model, step in ((large, optimizer), (small, others)):
            step.zero_grad()
            model(x).square().mean().backward()
            step.step()
    torch.testing.assert_close(large[2].weight[:, :8], small[2].weight)


def test_masks_may_be_tightened_while_training():
    model = network()
    optimizer = OPTIMIZERS["AdamW"](model.parameters())
    weights = prunable_weights(model)
    masks = magnitude_masks(weights, 1.0)
    hold_masks(optimizer, weights, masks)
    left = []
    for density in (1, 0.48, 0.21, 0.1, 0.1):
        masks.update(magnitude_masks(weights, density))
        train(model, optimizer, steps=1)
        left.append(nonzeros(weights))
    assert left == [round(d * 324) for d in (1, 0.48, 0.21, 0.1, 0.1)]


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda w: magnitude_masks(w, 1.1), "density must be from 0 to 1; got 1.1"),
        (lambda w: magnitude_masks(w, float("nan"), per_layer=True), "density must be"),
        (lambda w: masks_by_score(w, -0.1), "density must be from 0 to 1; got -0.1"),
        (lambda w: masks_by_score({"w": w["w"] * torch.nan}, 0.5), "not hold NaN; 'w' does"),
        (lambda w: masks_by_score({"w": w["w"].int()}, 0.5), "one floating dtype"),
        (lambda w: masks_by_score({"w": w["w"].int()}, 0.5, per_layer=True), "one floating dtype"),
        (lambda w: masks_by_score({**w, "h": w["w"].half()}, 0.5), "one floating dtype"),
        (lambda w: masks_by_score({}, 0.5), "one floating dtype"),
        (lambda w: apply_masks(w, {"w": torch.ones(3, dtype=torch.bool)}), "the mask of 'w'"),
    ],
)
def test_bad_input_is_refused(call, says):
    with pytest.raises(ValueError, match=says):
        call({"w": torch.ones(2)})


def test_a_frozen_layer_leaves_the_optimizers_state_as_it_is():
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    optimizer = torch.optim.Adam(model[0].parameters())
    weights = prunable_weights(model)
    hold_masks(optimizer, weights, magnitude_masks(weights, 0.5))
    model(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    assert optimizer.state_dict()["state"].keys() == {0, 1}
