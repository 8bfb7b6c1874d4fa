"""Sparse activations: exact counts, thresholds that give their share, dynamic against static."""

import copy

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from course_lib.data.batches import consecutive_windows
from course_lib.data.text import bible_chapters, split
from course_lib.measure.yardstick import held_out_sample, tiny_quality
from course_lib.pruning.activations import (
    products,
    threshold_activations,
    thresholds_for,
    top_k_activations,
    zero_shares,
)


@given(st.integers(1, 4), st.integers(1, 9), st.data())
def test_top_k_is_brute_force(rows, length, data):
    """Few different values, so that ties are the rule."""
    x = torch.tensor(
        data.draw(st.lists(st.integers(-3, 3), min_size=rows * length, max_size=rows * length))
    )
    x = x.float().view(rows, length)
    k = data.draw(st.integers(0, length))
    found = top_k_activations(x, k)
    for row, got in zip(x.tolist(), found.tolist(), strict=True):
        kept = sorted(range(length), key=lambda i: (-abs(row[i]), i))[:k]
        assert got == [v if i in kept else 0 for i, v in enumerate(row)]


def test_top_k_agrees_with_topk_where_nothing_is_tied():
    x = torch.randn(4, 5, 32)
    found = top_k_activations(x, 7)
    assert ((found != 0).sum(-1) == 7).all()
    lowest = x.abs().topk(7, dim=-1).values[..., -1:]
    assert found.equal(torch.where(x.abs() >= lowest, x, 0))


def test_top_k_passes_gradients_to_what_stays():
    x = torch.tensor([[1.0, -3.0, 2.0]], requires_grad=True)
    top_k_activations(x, 2).square().sum().backward()
    assert x.grad.tolist() == [[0, -6, 4]]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_top_k_keeps_the_dtype_and_counts_infinity_as_large(dtype):
    x = torch.tensor([float("-inf"), 1.0, 2.0], dtype=dtype)
    found = top_k_activations(x, 2)
    assert found.dtype == dtype
    assert found.tolist() == [float("-inf"), 0, 2]


@pytest.mark.parametrize(
    ("x", "k", "says"),
    [
        (torch.ones(2, 3), 4, r"k must be from 0 to the length of x's rows; got 4, \(2, 3\)"),
        (torch.ones(2, 3), -1, "k must be"),
        (torch.tensor(1.0), 1, "k must be"),
        (torch.tensor([1.0, float("nan")]), 1, "x must not hold NaN; got 1 of 2"),
        (torch.ones(0, 3), 1, "x must not be empty"),
    ],
)
def test_top_k_refuses(x, k, says):
    with pytest.raises(ValueError, match=says):
        top_k_activations(x, k)


@pytest.fixture(scope="module")
def calibration(tiny):
    """Eight windows of the training text, and what the MLPs made of them."""
    model, tokenizer = tiny
    text, _ = split(bible_chapters("kjv"))
    tokens = torch.tensor(tokenizer.encode(text[: 8 * 256 * 6]).ids)
    windows, _ = consecutive_windows(tokens, 256)
    return windows[:8], products(model, windows[:8])


def test_threshold_zero_changes_nothing(tiny):
    model, tokens = tiny[0], torch.arange(60)[None]
    assert threshold_activations(model, 0.0)(tokens).equal(model(tokens))
    assert threshold_activations(model, [0, 0, 0, 0])(tokens).equal(model(tokens))


def test_an_infinite_threshold_leaves_the_attention_alone(tiny):
    model = copy.deepcopy(tiny[0])
    tokens = torch.arange(60)[None]
    without = threshold_activations(model, float("inf"))(tokens)
    for block in model.blocks:
        block.mlp.down.weight.zero_()
    torch.testing.assert_close(without, model(tokens))


def test_the_model_given_is_left_alone_and_the_hand_computes_the_same(tiny):
    model, tokens = tiny[0], torch.arange(60)[None]
    before = model(tokens)
    changed = threshold_activations(model, [0.3, 0, 0, 0])
    assert model(tokens).equal(before)
    block, found = model.blocks[0], products(model, tokens)[0]
    by_hand = block.mlp.down(found * (found.abs() > 0.3))
    seen = products(changed, tokens)[0]
    torch.testing.assert_close(changed.blocks[0].mlp.down(seen), by_hand)
    assert zero_shares(changed, tokens)[0] == pytest.approx(
        float((found.abs() <= 0.3).float().mean())
    )


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.93, 1.0])
def test_thresholds_give_their_share(calibration, share):
    _, found = calibration
    whole = torch.cat([a.flatten() for a in found])
    (one,) = set(thresholds_for(found, share))
    assert float((whole.abs() <= one).float().mean()) == pytest.approx(share, abs=1e-5)
    for a, threshold in zip(found, thresholds_for(found, share, per_layer=True), strict=True):
        assert float((a.abs() <= threshold).float().mean()) == pytest.approx(share, abs=1e-5)


@pytest.mark.parametrize(
    ("threshold", "says"),
    [
        (-0.1, "threshold must be one number of at least 0, or 4, one a layer; got -0.1"),
        (float("nan"), "threshold must be"),
        ([0.1, 0.1], "threshold must be"),
        ([0.1, 0.1, 0.1, -1.0], "threshold must be"),
    ],
)
def test_bad_thresholds_are_refused(tiny, threshold, says):
    with pytest.raises(ValueError, match=says):
        threshold_activations(tiny[0], threshold)


def test_bad_shares_are_refused():
    with pytest.raises(ValueError, match="share must be from 0 to 1; got 1.5"):
        thresholds_for([torch.ones(1, 2)], 1.5)


def test_half_of_the_products_of_tinylm_hardly_matter(tiny, calibration):
    """Half of them go for almost nothing; as many for all tokens alike cost far more."""
    model, tokenizer = tiny
    _, found = calibration
    dense = tiny_quality(model, tokenizer).bits_per_byte
    small = [a.abs().flatten().sort().values[: a.numel() // 2].square().sum() for a in found]
    assert all(s < 0.002 * a.square().sum() for s, a in zip(small, found, strict=True))

    def loss(share):
        changed = threshold_activations(model, thresholds_for(found, share, per_layer=True))
        return tiny_quality(changed, tokenizer).bits_per_byte - dense

    assert loss(0.5) < 0.005
    assert 0.03 < loss(0.95) < 0.2
    static = copy.deepcopy(model)
    for block, a in zip(static.blocks, found, strict=True):
        down = block.mlp.down.weight
        scores = a.square().mean(0) * down.square().sum(0)
        down[:, scores.argsort()[: len(scores) // 2]] = 0
    tokens = consecutive_windows(torch.tensor(tokenizer.encode(held_out_sample()).ids), 256)[0]
    assert zero_shares(static, tokens) == [0.0] * 4  # its products are whole: its columns are not
    assert tiny_quality(static, tokenizer).bits_per_byte - dense > 0.15
