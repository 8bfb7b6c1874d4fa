"""Gradients and squared gradients of one pass: against a plain loop, one example after another."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from course_lib.models.llama import Llama, LlamaConfig, initialize
from course_lib.models.training import next_token_loss
from course_lib.pruning.curvature import exact_hessian, hessian_diagonal
from course_lib.pruning.evidence import collect_evidence


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def network():
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, 3))


def examples(count=25):
    x = torch.randn(count, 6, generator=seeded(1))
    y = torch.randint(3, (count,), generator=seeded(2))
    return list(zip(x.split(1), y.split(1), strict=True))


def cross_entropy(model, example):
    return F.cross_entropy(model(example[0]), example[1])


def plain_loop(model, batches, loss):
    """The same by hand: a backward pass for each example, everything kept, averages at the end."""
    model.eval()
    seen = {name: [] for name, _ in model.named_parameters()}
    for batch in batches:
        model.zero_grad()
        loss(model, batch).backward()
        for name, parameter in model.named_parameters():
            seen[name].append(parameter.grad.clone())
    model.zero_grad()
    return {name: torch.stack(each) for name, each in seen.items()}


def decoder():
    model = Llama(LlamaConfig(11, width=8, layers=2, heads=2, kv_heads=1, mlp_width=12, context=16))
    initialize(model)
    tokens = torch.randint(11, (6, 1, 9), generator=seeded(1))
    return model, [(t[:, :-1], t[:, 1:]) for t in tokens]


def test_means_are_those_of_a_plain_loop():
    model, batches = network(), examples()
    evidence = collect_evidence(model, batches, cross_entropy)
    loop = plain_loop(model, batches, cross_entropy)
    assert list(evidence.gradient) == list(evidence.squared) == list(loop)
    for name, each in loop.items():
        torch.testing.assert_close(evidence.gradient[name], each.mean(0))
        torch.testing.assert_close(evidence.squared[name], each.square().mean(0))


def test_the_mean_gradient_is_that_of_all_examples_together():
    model, batches = network(), examples()
    x, y = (torch.cat(parts) for parts in zip(*batches, strict=True))
    evidence = collect_evidence(model, batches, cross_entropy)
    F.cross_entropy(model.eval()(x), y).backward()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(evidence.gradient[name], parameter.grad)


def test_a_tied_embedding_is_one_entry_with_the_gradients_of_both_uses():
    model, batches = decoder()
    model.requires_grad_(False)  # as the course's models arrive
    evidence = collect_evidence(model, batches, next_token_loss)
    assert [name for name in evidence.gradient if "embedding" in name] == ["embedding.weight"]
    weight, (inputs, targets) = model.embedding.weight, batches[0]
    uses = [weight.detach().clone().requires_grad_() for _ in range(2)]
    x = F.embedding(inputs, uses[0])
    hidden = []
    model.norm.register_forward_hook(lambda module, given, output: hidden.append(output))
    model.embedding.register_forward_hook(lambda module, given, output: x)
    model(inputs)
    F.cross_entropy(F.linear(hidden[0], uses[1]).flatten(0, 1), targets.flatten()).backward()
    model.embedding._forward_hooks.clear()
    first = collect_evidence(model, batches[:1], next_token_loss).gradient["embedding.weight"]
    torch.testing.assert_close(first, uses[0].grad + uses[1].grad)
    assert uses[0].grad.any() and uses[1].grad.any()


def test_a_module_in_two_places_is_one_entry():
    layer = nn.Linear(6, 6)
    model = nn.Sequential(layer, nn.Tanh(), layer)
    evidence = collect_evidence(model, [torch.ones(1, 6)], lambda m, x: m(x).square().sum())
    assert list(evidence.gradient) == ["0.weight", "0.bias"]
    loop = plain_loop(model, [torch.ones(1, 6)], lambda m, x: m(x).square().sum())
    torch.testing.assert_close(evidence.gradient["0.weight"], loop["0.weight"][0])


def test_frozen_layers_have_evidence_and_stay_frozen():
    model, batches = network(), examples(5)
    expected = collect_evidence(model, batches, cross_entropy)
    model[0].requires_grad_(False)
    with torch.no_grad():
        found = collect_evidence(model, batches, cross_entropy)
    assert [p.requires_grad for p in model.parameters()] == [False, False, True, True]
    for name in expected.gradient:
        assert found.gradient[name].equal(expected.gradient[name])
        assert not found.squared[name].requires_grad


def test_a_layer_that_is_not_used_has_zeros():
    model = network()
    model.spare = nn.Linear(2, 2)
    model.forward = lambda x: model[3](model[1](model[0](x)))
    evidence = collect_evidence(model, examples(3), cross_entropy)
    assert not evidence.gradient["spare.weight"].any() and not evidence.squared["spare.bias"].any()
    assert evidence.squared["0.weight"].any()


def test_the_model_is_left_as_it_was():
    model, batches = network().train(), examples(3)
    model[1].eval()
    model[0].weight.grad = torch.full_like(model[0].weight, 7.0)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    first, again = (collect_evidence(model, batches, cross_entropy) for _ in range(2))
    assert first.squared["0.weight"].equal(again.squared["0.weight"])  # no dropout
    assert [m.training for m in model.modules()] == [True, True, False, True, True]
    assert (model[0].weight.grad == 7).all() and model[3].weight.grad is None
    assert all(p.equal(before[name]) for name, p in model.named_parameters())

    def broken(model, batch):
        raise RuntimeError("the data ended early")

    model.requires_grad_(False)
    with pytest.raises(RuntimeError, match="ended early"):
        collect_evidence(model, batches, broken)
    assert not any(p.requires_grad for p in model.parameters()) and model.training


def test_squares_of_small_half_precision_gradients_do_not_vanish():
    """1e-5 squared is 0 in float16."""
    model = nn.Linear(2, 1, bias=False).half()
    evidence = collect_evidence(model, [1e-5], lambda m, x: (m.weight * x).sum())
    assert evidence.squared["weight"].dtype == torch.float32
    torch.testing.assert_close(
        evidence.squared["weight"], torch.full((1, 2), 1e-10), rtol=1e-2, atol=0
    )


def test_the_empirical_fisher_is_the_hessian_where_the_model_is_right():
    """Labels drawn from the model's own probabilities: both have one mean; 4000 examples.

    Of an entry the relative standard error is √((E g⁴ / (E g²)² − 1) / 4000), below 5 % here.
    """
    model = nn.Linear(3, 2, bias=False)
    x = torch.randn(4000, 3, generator=seeded(1))
    y = torch.multinomial(model(x).softmax(1).detach(), 1, generator=seeded(2)).squeeze(1)
    batches = list(zip(x.split(1), y.split(1), strict=True))
    fisher = collect_evidence(model, batches, cross_entropy).squared["weight"]
    weights = {"weight": model.weight.detach()}
    hessian = exact_hessian(lambda w: F.cross_entropy(x @ w["weight"].T, y), weights)
    torch.testing.assert_close(
        fisher, hessian_diagonal(hessian, weights)["weight"], rtol=0.2, atol=0
    )


@pytest.mark.parametrize(
    ("batches", "loss", "says"),
    [
        ([], cross_entropy, "batches must hold at least one; got none"),
        (examples(2), lambda m, b: m(b[0]), r"loss must be a 0-d tensor; got shape \(1, 3\)"),
        (
            examples(2),
            lambda m, b: cross_entropy(m, b) * torch.nan,
            "the squared gradient of 0.weight must be finite",
        ),
        (examples(2), lambda m, b: cross_entropy(m, b) * 1e30, "must be finite"),
    ],
)
def test_bad_input_is_refused(batches, loss, says):
    with pytest.raises(ValueError, match=says):
        collect_evidence(network(), batches, loss)
