"""The walk through a decoder: what each stage is given, how often each part runs, how to go on."""

import copy
from collections import Counter

import pytest
import torch

from course_lib.models.llama import Llama, LlamaConfig, initialize
from course_lib.models.moments import Moments
from course_lib.models.parts import DOWN, OUTPUT, QKV, STAGES, record_inputs
from course_lib.models.walk import treat_blocks

CONFIG = LlamaConfig(
    vocabulary=50, width=24, layers=3, heads=6, kv_heads=2, mlp_width=40, context=32
)


@pytest.fixture
def model():
    made = Llama(CONFIG).eval().requires_grad_(False)
    initialize(made)
    return made


@pytest.fixture
def tokens():
    return torch.randint(50, (11, 9))  # more windows than go through a block together, and odd


def nothing(stage):
    return None


def halve(stage):
    for layer in stage.layers:
        layer.weight.mul_(0.5)


def test_stages_name_every_linear_layer_of_a_block_once(model):
    linear = [n for n, m in model.blocks[0].named_modules() if isinstance(m, torch.nn.Linear)]
    assert sorted(linear) == sorted(name for names in STAGES for name in names)


def test_states_are_those_of_the_model(model, tokens):
    states = treat_blocks(model, tokens, nothing)
    logits = torch.nn.functional.linear(model.norm(states), model.embedding.weight)
    torch.testing.assert_close(logits, model(tokens))


def test_each_stage_sees_what_the_treated_layers_before_it_give(model, tokens):
    """Recorded in the model as it is when the stage's turn has come."""
    original = copy.deepcopy(model)

    def compare(stage):
        x = record_inputs(model, tokens, [stage.layers[0]])[0]
        expected = Moments.empty(x.shape[1]).add(x)
        torch.testing.assert_close(stage.moments.gram, expected.gram, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(stage.moments.mean_abs, expected.mean_abs)
        assert stage.moments.count == tokens.numel()
        assert stage.block is model.blocks[stage.number]
        halve(stage)

    treat_blocks(model, tokens, compare)
    for name, weight in original.state_dict().items():
        factor = 1 if "norm" in name or "embedding" in name else 0.5
        assert torch.equal(model.state_dict()[name], factor * weight)


def test_each_part_runs_once(model, tokens):
    runs = Counter()
    for name, module in model.named_modules():
        module.register_forward_hook(
            lambda module, inputs, output, name=name: runs.update({name: len(inputs[0])})
        )
    treat_blocks(model, tokens, nothing)
    layers = {n for n, m in model.named_modules() if isinstance(m, torch.nn.Linear)}
    assert len(layers) == 21 and all(runs[name] == len(tokens) for name in layers)


def test_weight_names_are_those_of_the_model(model, tokens):
    names = []
    treat_blocks(model, tokens, lambda stage: names.extend(stage.weight_names))
    assert sorted(names) == sorted(
        n for n, m in model.named_parameters() if "blocks" in n and "norm" not in n
    )


def test_a_walk_goes_on_where_it_stopped(model, tokens):
    whole, parts = copy.deepcopy(model), copy.deepcopy(model)
    end = treat_blocks(whole, tokens, halve)
    states = treat_blocks(parts, tokens, halve, blocks=range(2))
    before = states.clone()
    again = treat_blocks(parts, tokens, halve, blocks=range(2, 3), states=states)
    assert torch.equal(again, end) and torch.equal(states, before)
    for one, other in zip(whole.parameters(), parts.parameters(), strict=True):
        assert torch.equal(one, other)


def test_a_scale_that_treat_folds_away_leaves_the_model_the_same(model, tokens):
    """Into the norm before query, key and value; into the rows of `up` before `down`."""
    expected = treat_blocks(model, tokens, nothing)

    def fold(stage):
        if stage.names not in (QKV, DOWN):
            return None
        before = stage.block.attention_norm if stage.names == QKV else stage.block.mlp.up
        scale = torch.rand(len(stage.moments.gram)) + 0.5
        before.weight.div_(scale if stage.names == QKV else scale[:, None])
        for layer in stage.layers:
            layer.weight.mul_(scale)
        return scale

    torch.testing.assert_close(treat_blocks(model, tokens, fold), expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(treat_blocks(model, tokens, nothing), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_a_scale_of_another_float_type_leaves_the_states_in_theirs(model, tokens, dtype):
    model = model.to(dtype)
    seen = []

    def scale(stage):
        seen.append(stage.moments.gram.dtype)
        return torch.full((len(stage.moments.gram),), 2.0, dtype=torch.float32)

    assert treat_blocks(model, tokens, scale).dtype == dtype
    assert set(seen) == {torch.promote_types(dtype, torch.float32)}


def test_places_of_a_window_may_count_more(model, tokens):
    """A first token that counts twice: as if each window's first token were there twice."""
    weights = torch.ones(9).index_fill(0, torch.tensor(0), 2.0)

    def compare(stage):
        x = record_inputs(model, tokens, [stage.layers[0]])[0].view(*tokens.shape, -1)
        expected = Moments.empty(x.shape[-1]).add(torch.cat([x, x[:, :1]], dim=1))
        torch.testing.assert_close(stage.moments.gram, expected.gram, rtol=1e-4, atol=1e-5)
        assert stage.moments.count == 11 * 10

    treat_blocks(model, tokens, compare, weights=weights)


def test_layers_may_be_replaced(model, tokens):
    def replace(stage):
        if stage.names == OUTPUT:
            stage.block.attention.output = torch.nn.Identity()

    states = treat_blocks(model, tokens, replace)
    assert isinstance(model.blocks[2].attention.output, torch.nn.Identity)
    torch.testing.assert_close(states, treat_blocks(model, tokens, nothing))


def test_bad_input_is_refused(model, tokens):
    for wrong in (tokens[0], tokens[:0], torch.zeros(1, 33).long()):
        with pytest.raises(ValueError, match=r"tokens must have shape \(B, T\), T at most 32"):
            treat_blocks(model, wrong, nothing)
    for blocks in (range(4), range(-1, 2), range(0, 3, 2), range(2, 1)):
        with pytest.raises(ValueError, match=r"blocks must lie in range\(0, 3\)"):
            treat_blocks(model, tokens, nothing, blocks)
    with pytest.raises(ValueError, match="blocks from 1 on need states"):
        treat_blocks(model, tokens, nothing, range(1, 3))
    with pytest.raises(ValueError, match=r"states must have shape \(11, 9, 24\)"):
        treat_blocks(model, tokens, nothing, range(1, 3), torch.zeros(11, 9, 25))
