"""Tokens that leave early: one by one against all at once, the future unseen, products by hand."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from course_lib.data.batches import consecutive_windows
from course_lib.measure.yardstick import held_out_sample, tiny_quality
from course_lib.models.llama import Llama, LlamaConfig, generate
from course_lib.models.llama_config import BlockShape
from course_lib.models.parts import linear_weights, read_logits, walk_blocks
from course_lib.pruning.by_token import token_products
from course_lib.pruning.early_exit import (
    EarlyExit,
    confidences,
    early_exit,
    exit_layers,
    exit_step,
    generate_early,
)

CONFIG = LlamaConfig(
    vocabulary=17, width=16, layers=4, heads=4, kv_heads=2, mlp_width=24, context=12
)
SHAPES = [BlockShape((2, 2), 24), BlockShape((2, 1), 5), BlockShape((3,), 9), BlockShape((1, 1), 7)]
TOKENS = torch.randint(17, (3, 10), generator=torch.Generator().manual_seed(1))
EXACT = {"rtol": 0, "atol": 1e-12}


@pytest.fixture(params=["alike", "uneven, untied"])
def model(request):
    """Its blocks turn x much, and its head is sure now and then: at 0.3 tokens leave everywhere."""
    torch.manual_seed(0)
    config = CONFIG
    if request.param != "alike":
        config = LlamaConfig(**{**vars(CONFIG), "tied": False}).with_shapes(SHAPES)
    model = Llama(config).double().requires_grad_(False)
    model.norm.weight.mul_(0.3 if config.tied else 3.2)
    for weight in linear_weights(model.blocks).values():
        weight.mul_(4)
    return model


def test_one_by_one_gives_what_all_at_once_give(model):
    exits = early_exit(model, TOKENS, 0.3)
    assert set(exits.layers.flatten().tolist()) == {1, 2, 3, 4}
    for b, window in enumerate(TOKENS):
        cache = model.empty_cache()
        for t, token in enumerate(window):
            logits, layers = exit_step(model, token.view(1, 1), cache, 0.3)
            torch.testing.assert_close(logits[0, 0], exits.logits[b, t], **EXACT)
            assert layers == exits.layers[b, t]
        assert {layer["value"].shape[2] for layer in cache} == {len(window)}


def test_no_later_layer_and_no_later_token_is_looked_at(model):
    before = early_exit(model, TOKENS, 0.3)
    changed = early_exit(model, torch.cat([TOKENS[:, :6], TOKENS[:, 6:].flip(1)], dim=1), 0.3)
    assert torch.equal(changed.layers[:, :6], before.layers[:, :6])
    assert torch.equal(changed.heads[:, :6], before.heads[:, :6])
    for parameter in model.blocks[2].parameters():
        parameter.fill_(torch.nan)
    after, left = early_exit(model, TOKENS, 0.3), before.layers <= 2
    assert left.any() and torch.equal(before.logits[left], after.logits[left])
    assert torch.equal(left, after.layers <= 2)


def test_at_1_it_is_the_dense_model_and_at_0_the_first_layer_with_the_head(model):
    exits = early_exit(model, TOKENS, 1.0)
    torch.testing.assert_close(exits.logits, model(TOKENS), **EXACT)
    assert exits.layers.eq(4).all() and exits.heads.eq(4).all()
    x = list(walk_blocks(model, TOKENS))[1][1][0]  # what the second block is given
    exits = early_exit(model, TOKENS, 0.0)
    torch.testing.assert_close(exits.logits, read_logits(model, x), **EXACT)
    assert exits.layers.eq(1).all() and exits.heads.eq(1).all()


def test_who_is_asked_once_pays_once(model):
    exits = early_exit(model, TOKENS, 0.3, asked=[2])
    assert set(exits.layers.flatten().tolist()) == {2, 4}
    assert torch.equal(exits.heads, 1 + exits.layers.eq(4).long())
    exits = early_exit(model, TOKENS, 0.3)
    asked = torch.where(exits.layers == 4, 4, exits.layers)  # after 1, 2, 3 and, if needed, 4
    assert torch.equal(exits.heads, asked)


@given(st.integers(1, 5), st.floats(0, 1), st.data())
def test_exit_layers_is_brute_force(layers, threshold, data):
    found = data.draw(st.lists(st.floats(0, 1, width=32), min_size=layers, max_size=layers))
    by_hand = next((n for n, c in enumerate(found[:-1], 1) if c > threshold), layers)
    found = torch.tensor(found, dtype=torch.float64)
    assert exit_layers(found, threshold) == by_hand
    found[by_hand:] = torch.nan
    assert exit_layers(found, threshold) == by_hand


def test_the_rule_is_that_of_one_token_alone(model):
    """Where no other token has left before it: the first of each window."""
    for threshold in (0.2, 0.3, 0.4):
        layers = exit_layers(confidences(model, TOKENS), threshold)
        assert torch.equal(layers[:, 0], early_exit(model, TOKENS, threshold).layers[:, 0])
    last = model(TOKENS).softmax(-1).amax(-1)
    torch.testing.assert_close(confidences(model, TOKENS)[-1], last, **EXACT)


def test_products_count_the_heads_that_were_asked(model):
    exits = early_exit(model, TOKENS, 0.3)
    by_hand = token_products(model, exits.used, 0) + exits.heads * 17 * 16
    assert torch.equal(exits.products(model), by_hand)


def test_generation(model):
    start = TOKENS[:1, :4]
    tokens, layers = generate_early(model, start, 5, 1.0)
    assert torch.equal(tokens, generate(model, start, 5)) and layers == [4] * 8
    tokens, layers = generate_early(model, start, 5, 0.3)
    exits = early_exit(model, tokens[:, :-1], 0.3)
    assert torch.equal(exits.logits[0, 3:].argmax(-1), tokens[0, 4:])
    assert exits.layers[0].tolist() == layers


def test_bad_input_is_refused(model):
    for threshold in (-0.1, 1.1, float("nan")):
        with pytest.raises(ValueError, match="threshold must be from 0 to 1; got"):
            early_exit(model, TOKENS, threshold)
        with pytest.raises(ValueError, match="threshold must be from 0 to 1; got"):
            exit_layers(torch.ones(2, 3), threshold)
    for asked in ([0], [4], [1, 7]):
        with pytest.raises(ValueError, match="asked must be from 1 to 3; got"):
            early_exit(model, TOKENS, 0.5, asked)
    with pytest.raises(ValueError, match=r"token must have shape \(1, 1\)"):
        exit_step(model, TOKENS, model.empty_cache(), 0.5)
    with pytest.raises(ValueError, match=r"tokens must be \(1, T\)"):
        generate_early(model, TOKENS, 5, 0.5)


def test_for_tinylm_the_heads_asked_cost_more_than_the_layers_left_out(tiny):
    """Each token that is sure at 0.8 leaves, and the whole is dearer and worse than the dense."""
    model, tokenizer = tiny
    tokens = torch.tensor(tokenizer.encode(held_out_sample()).ids)
    windows = consecutive_windows(tokens, 256)[0]
    dense = token_products(model, torch.ones(4, *windows.shape, dtype=torch.bool)).sum()
    exits = early_exit(model, windows, 0.8)
    assert 3 < exits.layers.double().mean() < 3.5
    assert exits.products(model).sum() > 1.2 * dense
    loss = tiny_quality(EarlyExit(model, 0.8), tokenizer).bits_per_byte
    assert loss > tiny_quality(model, tokenizer).bits_per_byte + 0.2
