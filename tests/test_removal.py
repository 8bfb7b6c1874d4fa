import copy

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from course_lib.models.layers import without_layers
from course_lib.models.llama import Llama, LlamaConfig
from course_lib.models.parts import record_inputs
from course_lib.redundancy.removal import (
    loss_without_each,
    lowest,
    without_heads,
    without_units,
    without_weights,
)

CONFIG = LlamaConfig(
    vocabulary=17, width=16, layers=3, heads=4, kv_heads=2, mlp_width=24, context=8
)
HEADS, UNITS, LAYERS = (3, 4), (3, 24), (3,)
REMOVALS = [(without_heads, HEADS), (without_units, UNITS), (without_layers, LAYERS)]


@pytest.fixture
def model():
    torch.manual_seed(0)
    return Llama(CONFIG)


@pytest.fixture
def tokens():
    return torch.randint(17, (2, 8), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(("remove", "shape"), REMOVALS)
def test_removing_nothing_changes_nothing_and_removing_all_leaves_the_embedding(
    model, tokens, remove, shape
):
    before = copy.deepcopy(model.state_dict())
    none = torch.zeros(shape, dtype=torch.bool)
    assert torch.equal(remove(model, none)(tokens), model(tokens))
    remove(model, ~none)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    empty = without_units(without_heads(model, torch.ones(HEADS).bool()), torch.ones(UNITS).bool())
    bare = model.norm(model.embedding(tokens)) @ model.embedding.weight.T
    torch.testing.assert_close(empty(tokens), bare)
    torch.testing.assert_close(without_layers(model, torch.ones(3).bool())(tokens), bare)


def test_a_layer_is_its_heads_and_its_units(model, tokens):
    off = torch.tensor([False, True, False])
    parts = without_heads(model, off[:, None].expand(HEADS))
    parts = without_units(parts, off[:, None].expand(UNITS))
    shorter = without_layers(model, off)
    torch.testing.assert_close(shorter(tokens), parts(tokens))
    assert shorter.config.layers == len(shorter.blocks) == 2
    assert [b.mlp.down.weight[0, 0] for b in shorter.blocks] == [
        model.blocks[i].mlp.down.weight[0, 0] for i in (0, 2)
    ]


def test_a_head_is_off_when_its_values_are_replaced_by_zeros(model, tokens):
    """The other way to switch head 1 of layer 0 off: where its output enters the last matrix."""
    off = torch.zeros(HEADS, dtype=torch.bool)
    off[0, 1] = True

    def silence(module, arguments):
        x = arguments[0].clone()
        x[..., 4:8] = 0
        return (x,)

    found = without_heads(model, off)(tokens)
    model.blocks[0].attention.output.register_forward_pre_hook(silence)
    torch.testing.assert_close(found, model(tokens))


def test_a_unit_that_is_off_no_longer_counts(model, tokens):
    off = torch.zeros(UNITS, dtype=torch.bool)
    off[2, 7] = True
    changed = without_units(model, off)
    down = changed.blocks[2].mlp.down
    (hidden,) = record_inputs(changed, tokens, [down])
    hidden[:, 7] = 1e6
    assert (down(hidden).abs() < 1e3).all()


@given(st.lists(st.integers(0, 3), min_size=1, max_size=20), st.floats(0, 1))
def test_lowest_chooses_exactly_that_many_and_none_above_one_that_stays(scores, share):
    scores = torch.tensor(scores)
    chosen = lowest(scores, share)
    assert int(chosen.sum()) == round(share * len(scores))
    if 0 < chosen.sum() < len(scores):
        assert scores[chosen].max() <= scores[~chosen].min()


@pytest.mark.parametrize("score", [torch.abs, torch.rand_like])
def test_without_weights_zeroes_that_share_of_each_matrix(model, score):
    torch.manual_seed(0)
    changed = without_weights(model, 0.25, score)
    for old, new in zip(model.modules(), changed.modules(), strict=True):
        if isinstance(new, nn.Linear):
            gone = new.weight == 0
            assert int(gone.sum()) == round(0.25 * gone.numel())
            assert torch.equal(new.weight[~gone], old.weight[~gone])
            if score is torch.abs:
                assert old.weight[gone].abs().max() <= old.weight[~gone].abs().min()
    assert torch.equal(changed.embedding.weight, model.embedding.weight)


def test_loss_without_each_part(model, tokens):
    def loss(some):
        with torch.no_grad():
            return float(some(tokens).square().mean())

    found = loss_without_each(model, without_heads, HEADS, loss)
    off = torch.zeros(HEADS, dtype=torch.bool)
    off[2, 1] = True
    assert found.shape == HEADS
    assert float(found[2, 1]) == pytest.approx(loss(without_heads(model, off)))
    assert len(found.unique()) == 12


@pytest.mark.parametrize(("remove", "shape"), REMOVALS)
def test_masks_of_the_wrong_shape_or_type(model, remove, shape):
    with pytest.raises(ValueError, match="off must be bool of shape"):
        remove(model, torch.zeros(5, dtype=torch.bool))
    with pytest.raises(ValueError, match=r"got torch\.float32"):
        remove(model, torch.zeros(shape))


def test_share_out_of_range():
    with pytest.raises(ValueError, match="share must be from 0 to 1"):
        lowest(torch.ones(3), 1.5)
