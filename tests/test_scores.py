"""Scores of weights: against their formulas, PyTorch's pruning and Torch-Pruning's importances."""

import copy

import pytest
import torch
import torch.nn.functional as F
from on_accelerator import run_on_accelerator
from torch import nn
from torch.nn.utils import prune

from course_lib.models.parts import prunable_weights
from course_lib.pruning.masks import hold_masks, masks_by_score
from course_lib.pruning.scores import (
    collect_movement,
    gradient_magnitude,
    magnitude,
    random_scores,
    saliency,
    snip,
    taylor,
)

HALVES = (torch.float16, torch.bfloat16)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def network():
    return nn.Sequential(
        nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 12), nn.ReLU(), nn.Linear(12, 3)
    )


def examples(count=40):
    x = torch.randn(count, 6, generator=seeded(1))
    return x, torch.randint(3, (count,), generator=seeded(2))


def gradients(model, x, y):
    model.zero_grad()
    F.cross_entropy(model(x), y).backward()
    return {name: p.grad for name, p in model.named_parameters()}


# ---------------------------------------------------------------- against others


def channel_scores(importance, model):
    """Torch-Pruning's scores of the outputs of model[2], taken alone, without its normalization.

    Its group is the layer's rows and the next layer's columns. Its scores of a channel are sums of
    those of the channel's weights; "first" keeps the rows alone, "sum" adds the columns.
    """
    import torch_pruning

    graph = torch_pruning.DependencyGraph().build_dependency(model, example_inputs=torch.ones(1, 6))
    group = graph.get_pruning_group(
        model[2], torch_pruning.prune_linear_out_channels, idxs=list(range(12))
    )
    return importance(group)


@pytest.mark.parametrize("reduction", ["first", "sum"])
def test_taylor_is_torch_prunings(reduction):
    """Summed over each channel's weights, |g w| gives its TaylorImportance: values and order."""
    torch_pruning = pytest.importorskip("torch_pruning")
    model, (x, y) = network(), examples()
    g = gradients(model, x, y)
    ours = taylor(model[2].weight, g["2.weight"]).sum(1)
    if reduction == "sum":
        ours = ours + taylor(model[4].weight, g["4.weight"]).sum(0)
    peer = torch_pruning.importance.TaylorImportance(group_reduction=reduction, normalizer=None)
    theirs = channel_scores(peer, model)
    torch.testing.assert_close(ours, theirs)
    assert ours.argsort(stable=True).equal(theirs.argsort(stable=True))


@pytest.mark.parametrize("reduction", ["first", "sum"])
@pytest.mark.parametrize("count", [1, 40])
def test_saliency_with_squared_gradients_is_half_of_torch_prunings(reduction, count):
    """Its HessianImportance of a channel is Σ h w², with the mean of per-example g² as h.

    In 1.6.1 its `accumulate_grad` keeps the last example alone: it looks for a name among tensors,
    and does not find it. So only one example is given to it; of 40, the mean is put where it reads
    h if nothing was accumulated.
    """
    torch_pruning = pytest.importorskip("torch_pruning")
    model, (x, y) = network(), examples(count)
    peer = torch_pruning.importance.HessianImportance(group_reduction=reduction, normalizer=None)
    h = {name: torch.zeros_like(p) for name, p in model.named_parameters()}
    for i in range(count):
        for name, g in gradients(model, x[i : i + 1], y[i : i + 1]).items():
            h[name] += g.square() / count
    if count == 1:
        peer.accumulate_grad(model)
    else:
        for name, parameter in model.named_parameters():
            parameter.grad = h[name].clone()
    ours = saliency(model[2].weight, h["2.weight"]).sum(1)
    if reduction == "sum":
        ours = ours + saliency(model[4].weight, h["4.weight"]).sum(0)
    theirs = channel_scores(peer, model)
    torch.testing.assert_close(2 * ours, theirs)
    assert ours.argsort(stable=True).equal(theirs.argsort(stable=True))


def test_random_removes_as_many_as_pytorch_does():
    layer = nn.Linear(30, 20)
    for amount in (0.0, 0.1, 0.5, 0.987):
        mask = masks_by_score({"w": random_scores(layer.weight, seeded())}, 1 - amount)["w"]
        peer = prune.random_unstructured(copy.deepcopy(layer), "weight", amount).weight_mask
        assert mask.sum() == peer.sum()


def test_random_removes_every_weight_as_often_as_pytorch_does():
    """300 draws of 6 of 20: each weight goes 90 times on average, σ = 7.9; six σ are never seen."""
    generator, layer = seeded(), nn.Linear(5, 4)
    gone, peer = torch.zeros(4, 5), torch.zeros(4, 5)
    for _ in range(300):
        gone += ~masks_by_score({"w": random_scores(layer.weight, generator)}, 0.7)["w"]
        peer += 1 - prune.random_unstructured(copy.deepcopy(layer), "weight", 6).weight_mask
    assert (gone - 90).abs().max() < 6 * 7.9
    assert (peer - 90).abs().max() < 6 * 7.9
    assert gone.sum() == peer.sum() == 300 * 6


def test_random_scores_come_from_their_generator_alone():
    weight = torch.ones(3, 4, dtype=torch.float16)
    assert random_scores(weight, seeded(5)).equal(random_scores(-weight, seeded(5)))
    assert not random_scores(weight, seeded(5)).equal(random_scores(weight, seeded(6)))


# ---------------------------------------------------------------- properties


def test_snip_is_taylor_as_shares_of_a_whole():
    model = network()
    g, weights = gradients(model, *examples()), prunable_weights(model)
    shares = snip(weights, g)
    assert sum(share.sum() for share in shares.values()) == pytest.approx(1, abs=1e-5)
    first_order = {name: taylor(w, g[name]) for name, w in weights.items()}
    masks, others = (masks_by_score(scores, 0.3) for scores in (shares, first_order))
    assert all(masks[name].equal(others[name]) for name in weights)
    joined, others = (torch.cat([s.flatten() for s in t.values()]) for t in (shares, first_order))
    torch.testing.assert_close(joined * others.sum(), others)


def test_scores_do_not_carry_a_graph():
    w = nn.Parameter(torch.ones(3))
    found = [
        magnitude(w),
        gradient_magnitude(w),
        taylor(w, w),
        saliency(w, w),
        snip({"": w}, {"": w})[""],
    ]
    assert not any(score.requires_grad for score in found)


def test_without_curvature_all_orders_are_magnitudes():
    """Where h is the same for all, Optimal Brain Damage removes the smallest weights."""
    w = torch.randn(200, generator=seeded())
    assert saliency(w, torch.full_like(w, 3.0)).argsort().equal(magnitude(w).argsort())


def test_saliency_is_the_increase_of_a_quadratic_loss():
    """L = ½ Σ h (w − w₀)² at its minimum w₀: without w_i the loss is ½ h_i w_i² larger."""
    w, h = torch.randn(50, generator=seeded()), torch.rand(50, generator=seeded(1))
    losses = torch.stack(
        [(h * ((w * (torch.arange(50) != i)) - w) ** 2).sum() / 2 for i in range(50)]
    )
    torch.testing.assert_close(saliency(w, h), losses)


def test_a_negative_curvature_goes_first():
    score = saliency(torch.tensor([1.0, 3.0, 2.0]), torch.tensor([1.0, -1.0, 0.0]))
    assert score.tolist() == [0.5, -4.5, 0.0]
    assert masks_by_score({"w": score}, 2 / 3)["w"].tolist() == [True, False, True]


# ---------------------------------------------------------------- half precision, extremes


@pytest.mark.parametrize("dtype", HALVES)
def test_products_of_halves_are_computed_in_float32(dtype):
    """In float16 1e-4 · 1e-4 is 0 and 300 · 300 is infinite: all such weights would tie."""
    w = torch.tensor([1e-4, 2e-4, 300.0, 400.0], dtype=dtype)
    g = torch.tensor([1e-4, 2e-4, 300.0, 400.0], dtype=dtype)
    exact = (w.double() * g.double()).float()
    assert taylor(w, g).equal(exact)
    shares = snip({"w": w}, {"w": g})["w"]
    torch.testing.assert_close(shares, exact / exact.sum())
    assert (shares > 0).all() and shares.isfinite().all()
    torch.testing.assert_close(saliency(w, g), (w.double() ** 2 * g.double() / 2).float())
    assert len(taylor(w, g).unique()) == len(saliency(w, g).unique()) == 4


@pytest.mark.parametrize("dtype", (*HALVES, torch.float32, torch.float64))
def test_dtypes_of_scores(dtype):
    w = torch.ones(3, dtype=dtype)
    product = torch.float64 if dtype == torch.float64 else torch.float32
    assert magnitude(w).dtype == gradient_magnitude(w).dtype == dtype
    assert (
        taylor(w, w).dtype == saliency(w, w).dtype == snip({"w": w}, {"w": w})["w"].dtype == product
    )


def test_snip_of_the_smallest_halves_still_sums_to_one():
    tiny = torch.full((1000,), 6e-8, dtype=torch.float16)
    assert snip({"w": tiny}, {"w": tiny})["w"].sum() == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("score", [magnitude, lambda w: taylor(w, w), lambda w: saliency(w, w)])
def test_a_nan_is_not_hidden_by_a_score_and_refused_by_the_mask(score):
    weight = torch.tensor([1.0, float("nan"), 2.0])
    with pytest.raises(ValueError, match="must not hold NaN; 'w' does"):
        masks_by_score({"w": score(weight)}, 0.5)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda w: taylor(w, w[:2]), r"gradient must have the weight's shape \(3,\); got \(2,\)"),
        (lambda w: saliency(w, w[None]), r"curvature must have .* \(3,\); got \(1, 3\)"),
        (lambda w: snip({"a": w, "b": w}, {"a": w}), "one for each weight; 'b' has none"),
        (lambda w: snip({"a": w}, {"a": 0 * w}), r"positive and finite; got 0\.0"),
        (lambda w: snip({"a": w}, {"a": w / 0}), "positive and finite; got inf"),
        (lambda w: snip({"a": w}, {"a": w * torch.nan}), "positive and finite; got nan"),
        (lambda w: snip({}, {}), r"positive and finite; got 0\.0"),
    ],
)
def test_bad_input_is_refused(call, says):
    with pytest.raises(ValueError, match=says):
        call(torch.ones(3))


# ---------------------------------------------------------------- movement


def test_movement_over_two_steps_by_hand():
    """L = ½ (w − 1)², so g = w − 1; rate 0.5. w: 3, 2; g: 2, 1. S = −(3 · 2 + 2 · 1) = −8."""
    w = nn.Parameter(torch.tensor([3.0, -1.0]))
    optimizer = torch.optim.SGD([w], lr=0.5)
    scores = collect_movement(optimizer, {"w": w})
    for seen in ([-6.0, -2.0], [-8.0, -2.0]):  # second weight: −1, 0; g: −2, −1; S = −2, −2
        optimizer.zero_grad()
        ((w - 1).square().sum() / 2).backward()
        optimizer.step()
        assert scores["w"].tolist() == seen


@pytest.mark.parametrize("make", [torch.optim.SGD, torch.optim.AdamW])
def test_movement_is_the_sum_over_a_loop_that_keeps_everything(make):
    model, (x, y) = network(), examples()
    weights, optimizer = prunable_weights(model), make(model.parameters(), lr=0.05)
    scores = collect_movement(optimizer, weights)
    expected = {name: torch.zeros_like(w) for name, w in weights.items()}
    for _ in range(5):
        g = gradients(model, x, y)
        for name, w in weights.items():
            expected[name] -= w.detach() * g[name]
        optimizer.step()
    for name in weights:
        torch.testing.assert_close(scores[name], expected[name])
        assert scores[name].min() < 0 < scores[name].max()


def test_a_weight_that_shrinks_goes_before_a_smaller_one_that_grows():
    w = nn.Parameter(torch.tensor([5.0, 0.1]))
    optimizer = torch.optim.SGD([w], lr=0.01)
    scores = collect_movement(optimizer, {"w": w})
    w.grad = torch.tensor([1.0, -1.0])
    optimizer.step()
    assert masks_by_score(scores, 0.5)["w"].tolist() == [False, True]
    assert masks_by_score({"w": magnitude(w)}, 0.5)["w"].tolist() == [True, False]


def test_movement_of_frozen_and_masked_weights_stands_still():
    model, (x, y) = network(), examples()
    model[0].requires_grad_(False)
    weights = prunable_weights(model)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.01)
    masks = {"2.weight": torch.arange(16).expand(12, 16) < 8}
    hold_masks(optimizer, weights, masks)
    scores = collect_movement(optimizer, weights)
    for _ in range(3):
        gradients(model, x, y)
        optimizer.step()
    assert not scores["0.weight"].any()
    assert not scores["2.weight"][~masks["2.weight"]].any()
    assert scores["2.weight"][masks["2.weight"]].any() and scores["4.weight"].any()


def test_movement_in_half_precision_collects_what_halves_would_lose():
    """2048 + 1 is 2048 in float16: 3000 steps that add 1 would stop there."""
    w = nn.Parameter(torch.ones(1, dtype=torch.float16))
    optimizer = torch.optim.SGD([w], lr=0.0)
    scores = collect_movement(optimizer, {"w": w})
    w.grad = -torch.ones_like(w)
    for _ in range(3000):
        optimizer.step()
    assert scores["w"].tolist() == [3000] and scores["w"].dtype == torch.float32


ON_AN_ACCELERATOR = """
import torch
from torch import nn
from fake_accelerator import accelerator
from course_lib.pruning import activity, curvature, evidence, scores

def cube(weights):
    return (weights["w"] ** 3).sum()

with accelerator() as put:
    w, generator = put(torch.ones(4, 3)), torch.Generator().manual_seed(0)
    found = [scores.magnitude(w), scores.random_scores(w, generator), scores.taylor(w, w)]
    found += [scores.snip({"w": w}, {"w": w})["w"], scores.saliency(w, w)]
    found += [activity.mean_activation(w), activity.average_zeros(w)]
    model = nn.Linear(3, 2)
    model._apply(put)
    seen = evidence.collect_evidence(model, [w, w], lambda model, x: model(x).square().mean())
    found += [*seen.gradient.values(), *seen.squared.values()]
    matrix = curvature.exact_hessian(cube, {"w": w})
    found += [matrix, *curvature.hessian_diagonal(matrix, {"w": w}).values()]
    found += curvature.hutchinson_diagonal(cube, {"w": w}, 2, generator).values()
    found.append(curvature.predicted_increase(w.flatten(), w.flatten(), matrix))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    movement = scores.collect_movement(optimizer, {"weight": model.weight})
    model(w).sum().backward()
    optimizer.step()
    found += movement.values()
    assert all(tensor.device.type == "toygpu" for tensor in found)
"""


@pytest.mark.slow
def test_everything_runs_on_an_accelerator():
    run_on_accelerator(ON_AN_ACCELERATOR)
