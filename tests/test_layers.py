import pytest
import torch
from torch import nn

from course_lib.models.layers import (
    contributions,
    head_contributions,
    layer_influence,
    unit_contributions,
)
from course_lib.models.llama import Llama, LlamaConfig
from course_lib.models.parts import record_inputs

CONFIG = LlamaConfig(
    vocabulary=17, width=16, layers=3, heads=4, kv_heads=2, mlp_width=24, context=8
)


@pytest.fixture
def model():
    torch.manual_seed(0)
    return Llama(CONFIG)


@pytest.fixture
def tokens():
    return torch.randint(17, (2, 8), generator=torch.Generator().manual_seed(1))


def test_inputs_are_those_of_a_plain_forward_pass():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    x = torch.randn(5, 3)
    first, last = record_inputs(model, x, [model[0], model[2]])
    assert torch.equal(first, x)
    assert torch.equal(last, torch.relu(model[0](x)))
    assert not last.requires_grad


def test_tokens_of_a_batch_become_rows(model, tokens):
    (states,) = record_inputs(model, tokens, [model.blocks[0]])
    assert torch.equal(states, model.embedding(tokens).flatten(0, 1))


def test_hooks_are_removed_even_after_an_error(model):
    with pytest.raises(ValueError, match="the context holds"):
        record_inputs(model, torch.zeros(1, 99, dtype=torch.long), list(model.blocks))
    assert not any(block._forward_pre_hooks for block in model.blocks)


def test_a_layer_that_changes_nothing_has_no_influence(model, tokens):
    nn.init.zeros_(model.blocks[1].attention.output.weight)
    nn.init.zeros_(model.blocks[1].mlp.down.weight)
    influence = layer_influence(model, tokens)
    assert influence.shape == (3,)
    assert abs(float(influence[1])) < 1e-6
    assert influence[[0, 2]].min() > 1e-3


def test_a_layer_that_turns_its_input_round_has_influence_two(model, tokens):
    class Opposite(nn.Module):
        def forward(self, x, *_):
            return -3 * x

    model.blocks[1] = Opposite()
    assert float(layer_influence(model, tokens)[1]) == pytest.approx(2)


def test_contributions_are_those_of_the_definition():
    torch.manual_seed(0)
    x, weight = torch.randn(9, 12), torch.randn(5, 12)
    for parts in (1, 3, 12):
        width = 12 // parts
        for part, found in enumerate(contributions(x, weight, parts)):
            columns = slice(part * width, (part + 1) * width)
            expected = (x[:, columns] @ weight[:, columns].T).norm(dim=1).mean()
            torch.testing.assert_close(found, expected)


def test_contributions_of_heads_and_units(model, tokens):
    with torch.no_grad():
        model.blocks[1].attention.output.weight[:, 8:12] = 0  # head 2
        model.blocks[2].mlp.down.weight[:, 5] = 0
    heads, units = head_contributions(model, tokens), unit_contributions(model, tokens)
    assert heads.shape == (3, 4)
    assert units.shape == (3, 24)
    assert (heads == 0).nonzero().tolist() == [[1, 2]]
    assert (units == 0).nonzero().tolist() == [[2, 5]]
    block = model.blocks[0]
    hidden, x = record_inputs(model, tokens, [block.mlp.down, block])
    expected = hidden.abs().mean(dim=0) * block.mlp.down.weight.detach().norm(dim=0)
    torch.testing.assert_close(units[0], expected / x.norm(dim=1).mean())


def test_parts_must_divide_the_inputs():
    with pytest.raises(ValueError, match="parts must divide the 4 inputs"):
        contributions(torch.ones(2, 4), torch.ones(3, 4), parts=3)
