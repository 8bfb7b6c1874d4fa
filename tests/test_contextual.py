"""Units by token: beside brute force, a regression by SVD, and the units fetched for real."""

import pytest
import torch

from course_lib.measure.yardstick import tiny_calibration, tiny_quality
from course_lib.models.layers import contributions
from course_lib.models.llama import MLP, Llama, LlamaConfig
from course_lib.models.parts import record_inputs
from course_lib.pruning.contextual import (
    contextual,
    contextual_products,
    fetched,
    fit_predictor,
    fit_predictors,
    oracles,
    static_scorers,
    top_units,
    unit_effects,
)

CONFIG = LlamaConfig(
    vocabulary=17, width=16, layers=3, heads=4, kv_heads=2, mlp_width=24, context=12
)
TOKENS = torch.randint(17, (3, 10), generator=torch.Generator().manual_seed(1))


@pytest.fixture
def model():
    return Llama(CONFIG).double().requires_grad_(False)


@pytest.fixture
def mlp():
    return MLP(CONFIG).double().requires_grad_(False)


def test_effects_are_the_lengths_of_what_units_add(mlp):
    x = torch.randn(5, 16).double()
    a = mlp.products(x)
    by_hand = (a[:, :, None] * mlp.down.weight.T).norm(dim=-1)  # (N, F, D) -> (N, F)
    torch.testing.assert_close(unit_effects(mlp, x), by_hand)
    mean = contributions(a, mlp.down.weight, 24)
    torch.testing.assert_close(unit_effects(mlp, x).mean(0), mean)


@pytest.mark.parametrize("k", [1, 5, 24])
def test_fetching_the_units_is_zeroing_the_others(mlp, model, k):
    x = torch.randn(16).double()
    used = top_units(unit_effects(mlp, x), k)
    assert used.sum() == k
    rows = mlp.down.weight.T.contiguous()
    y = fetched(mlp.gate.weight, mlp.up.weight, rows, x, used.nonzero()[:, 0])
    zeroed = mlp.down(mlp.products(x).masked_fill(~used, 0))
    torch.testing.assert_close(y, zeroed)
    changed = contextual(model, oracles(model), k)
    (given,) = record_inputs(changed, TOKENS, [changed.blocks[0].mlp.down])
    assert ((given != 0).sum(dim=1) == k).all()


def test_with_all_units_nothing_changes(model):
    for scorers in (
        oracles(model),
        static_scorers(model, TOKENS),
        fit_predictors(model, TOKENS, 4),
    ):
        assert torch.equal(contextual(model, scorers, 24)(TOKENS), model(TOKENS))


def test_the_best_k_units_one_by_one_have_the_largest_effects(mlp):
    x = torch.randn(7, 16).double()
    used = top_units(unit_effects(mlp, x), 6)
    for effects, mask in zip(unit_effects(mlp, x), used, strict=True):
        assert effects[mask].min() >= effects[~mask].max()


@pytest.mark.parametrize("rank", [1, 3, 8])
def test_a_predictor_is_the_best_of_its_rank(rank):
    """Against least squares and an SVD of what it foretells."""
    x, noise = torch.randn(200, 8).double(), torch.randn(200, 12).double()
    y = x @ torch.randn(8, 12).double() + noise + 3
    found = fit_predictor(x, y, rank)(x)
    xc, yc = x - x.mean(0), y - y.mean(0)
    foretold = xc @ torch.linalg.lstsq(xc, yc).solution
    u, s, vt = torch.linalg.svd(foretold, full_matrices=False)
    best = (u[:, :rank] * s[:rank]) @ vt[:rank] + y.mean(0)
    error = (best - y).square().sum()
    assert error * (1 - 1e-9) <= (found - y).square().sum() <= error * (1 + 1e-4)
    assert torch.linalg.matrix_rank(found - found.mean(0), rtol=1e-9) == rank


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_predictor_of_constants_has_a_bias_alone(dtype):
    made = fit_predictor(torch.ones(5, 3, dtype=dtype), torch.full((5, 2), 4.0, dtype=dtype), 1)
    assert made[0].weight.dtype == dtype and made(torch.randn(2, 3, dtype=dtype)).eq(4).all()


def test_static_units_are_the_same_for_all_tokens(model):
    mlp, scorer = model.blocks[0].mlp, static_scorers(model, TOKENS)[0]
    (x,) = record_inputs(model, TOKENS, [mlp])
    torch.testing.assert_close(scorer(x)[0], unit_effects(mlp, x).mean(0))
    assert (scorer(x) == scorer(x)[:1]).all()


def test_products():
    mlp = MLP(CONFIG)
    predictor = fit_predictor(torch.randn(40, 16), torch.randn(40, 24), 2)
    weights = sum(p.numel() for p in mlp.parameters())
    assert contextual_products(16, 24, 24) == weights
    foretell = sum(p.numel() for p in predictor.parameters() if p.dim() == 2)
    assert contextual_products(16, 6, 24, rank=2) == weights // 4 + foretell


def test_bad_input_is_refused(model):
    for k in (0, 25):
        with pytest.raises(ValueError, match=f"k from 1 to 24; got 3 and {k}"):
            contextual(model, oracles(model), k)
        with pytest.raises(ValueError, match=f"k must be from 1 to 24; got {k}"):
            top_units(torch.ones(24), k)
    with pytest.raises(ValueError, match="scorers must be 3, one a layer"):
        contextual(model, oracles(model)[:2], 5)
    x, y = torch.ones(5, 3), torch.ones(5, 2)
    for rank in (0, 3):
        with pytest.raises(ValueError, match=f"rank must be from 1 to 2; got {rank}"):
            fit_predictor(x, y, rank)
    with pytest.raises(ValueError, match=r"wanted \(N, F\); got \(5, 3\) and \(4, 2\)"):
        fit_predictor(x, y[:4], 1)
    with pytest.raises(ValueError, match="wanted must be finite"):
        fit_predictor(x, y.log().log(), 1)


def test_tinylm_needs_other_units_for_other_tokens(tiny):
    """A quarter of the units: as the token needs them, foretold, or the same for all."""
    model, tokenizer = tiny
    tokens = tiny_calibration(tokenizer)
    ways = {
        "oracle": oracles(model),
        "predictor": fit_predictors(model, tokens, 64),
        "static": static_scorers(model, tokens),
    }
    dense = tiny_quality(model, tokenizer).bits_per_byte
    lost = {
        name: tiny_quality(contextual(model, scorers, 128), tokenizer).bits_per_byte - dense
        for name, scorers in ways.items()
    }
    assert lost["oracle"] < 0.015 < lost["predictor"] < 0.05 and lost["static"] > 0.5
    assert contextual_products(192, 128, 512, rank=64) < 0.41 * contextual_products(192, 512, 512)
