"""What all methods ask a model for: weights by kind, inputs, a walk, one module for another."""

import copy

import pytest
import torch
from torch import nn

from course_lib.models.parts import (
    WithFeatures,
    first_names,
    linear_weights,
    prunable_weights,
    record_inputs,
    replace_modules,
    walk_blocks,
)


class Twice(nn.Module):
    """One layer that stands in two places."""

    def __init__(self):
        super().__init__()
        self.first = self.second = nn.Linear(3, 3)
        self.rest = nn.ModuleList([self.first, nn.ReLU()])

    def forward(self, x):
        return self.rest[1](self.second(self.first(x)))


def test_weights_by_kind_each_once():
    model = nn.Sequential(Twice(), nn.Conv2d(1, 2, 3), nn.Embedding(4, 3), nn.LayerNorm(3))
    assert list(linear_weights(model)) == ["0.first.weight"]
    assert list(prunable_weights(model)) == ["0.first.weight", "1.weight"]


def test_a_module_in_several_places_is_replaced_by_one():
    model = Twice()
    made = replace_modules(model, nn.Linear, lambda layer: nn.Linear(3, 3, bias=False))
    assert made.first is made.second is made.rest[0] and made.first.bias is None
    assert model.first.bias is not None and model.first is not made.first


def test_only_just_this_kind_is_replaced_and_the_mode_stays():
    class Other(nn.Linear):
        pass

    model = nn.Sequential(Other(2, 2), nn.Linear(2, 2)).eval()
    made = replace_modules(model, nn.Linear, lambda layer: nn.Identity())
    assert type(made[0]) is Other and type(made[1]) is nn.Identity and not made[1].training
    assert type(replace_modules(nn.Linear(2, 2), nn.Linear, lambda _: nn.ReLU())) is nn.ReLU


def test_tied_tensors_have_one_first_name_and_views_their_own():
    weight = torch.ones(4, 4)
    names = first_names({"a": weight, "b": weight, "row": weight[0], "c": weight.clone()})
    assert names == {"a": "a", "b": "a", "row": "row", "c": "c"}
    assert first_names({"x": torch.empty(0), "y": torch.empty(0)}) == {"x": "x", "y": "y"}


def test_a_walk_ends_where_the_model_does(tiny):
    model, _ = tiny
    tokens = torch.arange(10 * 7).view(10, 7)
    for block, arguments in walk_blocks(model, tokens):  # noqa: B007
        pass
    after = block(*arguments)
    with torch.no_grad():
        expected = model(tokens)
        found = nn.functional.linear(model.norm(after), model.embedding.weight)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)


def test_a_changed_block_is_what_the_next_one_sees(tiny):
    model, _ = tiny
    tokens = torch.arange(6)[None]
    straight = [x for _, (x, _, _) in walk_blocks(model, tokens)]
    model = replace_modules(model, nn.ReLU, lambda m: m)  # a copy
    changed = []
    for block, (x, _, _) in walk_blocks(model, tokens):
        changed.append(x)
        block.mlp.down.weight.zero_()
    assert changed[0].equal(straight[0])
    assert not any(a.equal(b) for a, b in zip(changed[1:], straight[1:], strict=True))


def test_the_inputs_of_a_block_are_those_of_the_whole_model(tiny):
    model, _ = tiny
    tokens = torch.arange(12).view(2, 6)
    downs = [block.mlp.down for block in model.blocks]
    whole = record_inputs(model, tokens, downs)
    for (block, arguments), expected in zip(walk_blocks(model, tokens), whole, strict=True):
        (found,) = record_inputs(block, arguments, [block.mlp.down])
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


def test_hooks_are_gone_after_an_error():
    model = nn.Sequential(nn.Linear(2, 2))
    with pytest.raises(RuntimeError):
        record_inputs(model, torch.ones(3, 5), [model[0]])
    assert not model[0]._forward_pre_hooks


def test_a_weight_that_an_embedding_shares_is_listed_once():
    model = nn.ModuleDict({"embedding": nn.Embedding(5, 3), "head": nn.Linear(3, 5)})
    model.head.weight = model.embedding.weight
    assert list(prunable_weights(model)) == ["embedding.weight"]


def test_a_computed_weight_is_named():
    model = nn.Sequential(nn.Linear(3, 3), nn.utils.parametrizations.weight_norm(nn.Linear(3, 3)))
    with pytest.raises(ValueError, match="the weight of 1 must be a parameter; it is computed"):
        prunable_weights(model)


def test_what_is_recorded_is_what_the_module_was_given():
    """An in-place layer changes it afterwards."""
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(inplace=True), nn.Linear(4, 2))
    x = torch.randn(50, 4)
    (found,) = record_inputs(model, x, [model[1]])
    assert found.equal(model[0](x)) and (found < 0).any()
    output, features = WithFeatures(model, "0")(x)
    assert features.equal(model[0](x)) and output.equal(model(x))


def test_features_keep_nothing_and_survive_a_copy():
    model = nn.Sequential(nn.Linear(2, 2), nn.ReLU())
    watched = WithFeatures(model, "0")
    twin = copy.deepcopy(watched)
    model(torch.ones(1, 2))
    assert watched(torch.ones(1, 2))[1].equal(twin(torch.ones(1, 2))[1])
    assert not model[0]._forward_hooks
    with pytest.raises(AttributeError):
        WithFeatures(model, "no such layer")
