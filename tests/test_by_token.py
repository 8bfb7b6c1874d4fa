"""Tokens that go through some layers: layers left out, causes, products counted by hand."""

import pytest
import torch
from on_accelerator import run_on_accelerator

from course_lib.measure.quality import token_losses
from course_lib.models.llama import Llama, LlamaConfig
from course_lib.models.llama_config import BlockShape
from course_lib.models.parts import embed, read_logits
from course_lib.pruning.by_token import RunByToken, run_by_token, token_products

CONFIG = LlamaConfig(
    vocabulary=17, width=16, layers=4, heads=4, kv_heads=2, mlp_width=24, context=12
)
SHAPES = [BlockShape((2, 2), 24), BlockShape((2, 1), 5), BlockShape((3,), 9), BlockShape((1, 1), 7)]
TOKENS = torch.randint(17, (3, 10), generator=torch.Generator().manual_seed(1))
EXACT = {"rtol": 0, "atol": 1e-12}


@pytest.fixture(params=[CONFIG, CONFIG.with_shapes(SHAPES)], ids=["alike", "uneven"])
def model(request):
    return Llama(request.param).double().requires_grad_(False)


def test_products_are_counted_by_hand(model):
    used = torch.rand(4, 2, 5) < 0.5
    found = token_products(model, used, heads=3)
    for b in range(2):
        for t in range(5):
            total = 3 * 17 * 16
            for shape, inside in zip(model.config.shapes, used[:, b, t], strict=True):
                H, G, E, D = sum(shape.groups), len(shape.groups), 4, 16
                total += 2 * D * G * E
                if inside:
                    total += 2 * D * H * E + 3 * D * shape.mlp_width + 2 * H * E * (t + 1)
            assert found[b, t] == total


def test_a_token_that_skips_a_layer_keeps_its_x(model):
    """All tokens skip layer 2 of 4: keys, too, of no use then; it is the model without it."""
    run = run_by_token(model, TOKENS, lambda number, x: torch.full(x.shape[:2], number != 1))
    x, cos, sin = embed(model, TOKENS)
    for number in (0, 2, 3):
        x = model.blocks[number](x, cos, sin)
    torch.testing.assert_close(run.logits, read_logits(model, x), **EXACT)
    assert run.layers.eq(3).all()


def test_who_goes_in_is_what_tokens_before_see(model):
    """A token that skips layer 2 changes what follows it, and nothing before."""
    used = torch.ones(4, *TOKENS.shape, dtype=torch.bool)
    used[1, :, 5] = False
    run, dense = run_by_token(model, TOKENS, lambda number, x: used[number]), model(TOKENS)
    torch.testing.assert_close(run.logits[:, :5], dense[:, :5], **EXACT)
    changed = (run.logits - dense).abs().amax(dim=-1) > 1e-9
    assert changed[:, 5:].all() and torch.equal(run.used, used)


def test_it_can_be_measured_like_any_model(model):
    all_in = RunByToken(model, lambda number, x: torch.ones(x.shape[:2], dtype=torch.bool))
    torch.testing.assert_close(
        token_losses(all_in, TOKENS.flatten()), token_losses(model, TOKENS.flatten())
    )


def test_bad_input_is_refused(model):
    with pytest.raises(ValueError, match=r"what the rule gives must be bool of shape \(3, 10\)"):
        run_by_token(model, TOKENS, lambda number, x: x[..., 0] > 0 if number else x > 0)
    with pytest.raises(ValueError, match="used must be bool of shape"):
        token_products(model, torch.ones(3, 1, 1, dtype=torch.bool))
    with pytest.raises(ValueError, match=r"used must be \(L, B, T\)"):
        token_products(model, torch.ones(4, 1, dtype=torch.bool))


ON_AN_ACCELERATOR = """
import torch
from fake_accelerator import accelerator
from course_lib.models.llama import Llama, LlamaConfig
from course_lib.pruning import by_token, contextual, early_exit, skipping

config = LlamaConfig(
    vocabulary=17, width=16, layers=3, heads=4, kv_heads=2, mlp_width=24, context=12
)
with accelerator() as put:
    model = put(Llama(config).requires_grad_(False))
    tokens = put(torch.zeros(2, 9, dtype=torch.long))
    exits = early_exit.early_exit(model, tokens, 0.5, asked=[])
    found = [exits.logits, exits.used, exits.heads, exits.products(model)]
    found.append(early_exit.exit_layers(early_exit.confidences(model, tokens), 0.5))
    given, influence = skipping.token_influence(model, tokens)
    rule = skipping.at_random([1], 0.5, torch.Generator())
    run = by_token.run_by_token(model, tokens, rule)
    found += [given, influence, run.logits, by_token.token_products(model, run.used)]
    for scorers in (contextual.oracles(model), contextual.static_scorers(model, tokens),
                    contextual.fit_predictors(model, tokens, 2)):
        found.append(contextual.contextual(model, scorers, 5)(tokens))
    mlp = model.blocks[0].mlp
    units = put(torch.zeros(3, dtype=torch.long))
    found.append(contextual.fetched(
        mlp.gate.weight, mlp.up.weight, mlp.down.weight.T, given[0, 0, 0], units
    ))
    assert all(tensor.device.type == "toygpu" for tensor in found)
"""


@pytest.mark.slow
def test_all_that_is_dynamic_runs_on_an_accelerator():
    """All but asking the head of some tokens alone: how many, a tensor without numbers hides."""
    run_on_accelerator(ON_AN_ACCELERATOR)
