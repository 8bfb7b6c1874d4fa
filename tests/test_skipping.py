"""Tokens that skip a layer: the measure beside the layers' own, routers, controls."""

import pytest
import torch

from course_lib.measure.yardstick import tiny_calibration, tiny_quality
from course_lib.models.layers import layer_influence
from course_lib.models.llama import Llama, LlamaConfig
from course_lib.pruning.by_token import RunByToken, run_by_token
from course_lib.pruning.skipping import at_random, by_routers, fit_routers, token_influence

CONFIG = LlamaConfig(
    vocabulary=17, width=16, layers=3, heads=4, kv_heads=2, mlp_width=24, context=12
)
TOKENS = torch.randint(17, (9, 12), generator=torch.Generator().manual_seed(1))


@pytest.fixture
def model():
    return Llama(CONFIG).double().requires_grad_(False)


def test_a_layers_influence_is_the_mean_over_its_tokens(model):
    given, influence = token_influence(model, TOKENS)
    torch.testing.assert_close(influence.mean((1, 2)), layer_influence(model, TOKENS))
    assert torch.equal(given[0], model.embedding(TOKENS))


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_a_router_keeps_its_share_and_no_more_than_its_layers(model, share):
    run = run_by_token(model, TOKENS, by_routers(fit_routers(model, TOKENS, [1], share)))
    assert run.used[[0, 2]].all()
    assert run.used[1].sum() == round((1 - share) * TOKENS.numel())
    if not share:
        torch.testing.assert_close(run.logits, model(TOKENS))


def test_those_who_would_be_turned_least_skip(model):
    _, influence = token_influence(model, TOKENS)
    used = run_by_token(model, TOKENS, by_routers(fit_routers(model, TOKENS, [1], 0.5))).used[1]
    assert influence[1][used].mean() > influence[1].mean() > influence[1][~used].mean()


def test_random_rules_draw_their_share(model):
    draw = torch.Generator().manual_seed(0)
    used = run_by_token(model, TOKENS, at_random([0, 1], 0.25, draw)).used
    assert used[2].all() and 0.6 < used[:2].double().mean() < 0.9
    assert not torch.equal(used[0], used[1])


def test_bad_input_is_refused(model):
    for layers, share in (([3], 0.5), ([-1], 0.5), ([1], 1.5)):
        with pytest.raises(ValueError, match="share must be from 0 to 1, layers from 0 to 2; got"):
            fit_routers(model, TOKENS, layers, share)


def test_a_router_of_tinylm_beats_chance(tiny):
    """A quarter of the tokens skips the third layer."""
    model, tokenizer = tiny
    dense = tiny_quality(model, tokenizer).bits_per_byte
    routers = fit_routers(model, tiny_calibration(tokenizer), [2], 0.25)
    rules = {
        "router": by_routers(routers),
        "chance": at_random([2], 0.25, torch.Generator().manual_seed(0)),
        "nobody goes in": at_random([2], 1.0, torch.Generator()),
    }
    lost = {
        name: tiny_quality(RunByToken(model, rule), tokenizer).bits_per_byte - dense
        for name, rule in rules.items()
    }
    assert lost["router"] < 0.6 * lost["chance"] and lost["router"] < 0.03
    assert lost["nobody goes in"] > 0.1
