import math

import numpy as np
import pytest
import scipy.stats
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.special import rel_entr
from torch import nn

from course_lib.measure import divergence as module
from course_lib.measure.divergence import (
    divergence,
    estimate,
    paired_difference,
    token_divergences,
)
from course_lib.measure.quality import token_losses
from course_lib.models.llama import Llama, LlamaConfig

CONFIG = LlamaConfig(
    vocabulary=50, width=8, layers=1, heads=2, kv_heads=1, mlp_width=12, context=16
)
TOKENS = torch.randint(50, (70,), generator=torch.Generator().manual_seed(0))


def table(*rows: list[float]) -> nn.Embedding:
    """A model whose logits depend on the last token only."""
    return nn.Embedding.from_pretrained(torch.tensor(rows))


def pair() -> tuple[Llama, Llama]:
    torch.manual_seed(0)
    return Llama(CONFIG), Llama(CONFIG)


@pytest.mark.parametrize("length", [1, 5, 16])
@torch.no_grad()
def test_agrees_with_a_plain_loop_and_scipy(length):
    model, dense = pair()
    kl, flipped = token_divergences(model, dense, TOKENS, length)
    for t in range(len(TOKENS) - 1):
        window = TOKENS[t // length * length : t + 1][None]
        q, p = (m(window)[0, -1].double().softmax(0).numpy() for m in (model, dense))
        assert kl[t].item() == pytest.approx(rel_entr(p, q).sum(), rel=1e-4, abs=1e-6)
        assert flipped[t].item() == (q.argmax() != p.argmax())
    assert len(kl) == len(flipped) == len(TOKENS) - 1
    found = divergence(model, dense, TOKENS, length)
    assert found.kl.mean == pytest.approx(kl.double().mean().item())
    assert found.kl.error == pytest.approx(scipy.stats.sem(kl.double().numpy()))
    assert found.flips.mean == pytest.approx(flipped.double().mean().item())


def test_the_length_is_the_dense_models_context_if_none_is_given():
    model, dense = pair()
    assert divergence(model, dense, TOKENS) == divergence(model, dense, TOKENS, length=16)


def test_how_many_tokens_go_at_once_changes_nothing(monkeypatch):
    model, dense = pair()
    together, _ = token_divergences(model, dense, TOKENS, 5)
    monkeypatch.setattr(module, "TOKENS_AT_ONCE", 1)
    monkeypatch.setattr(module, "ROWS_AT_ONCE", 3)
    torch.testing.assert_close(token_divergences(model, dense, TOKENS, 5)[0], together)


def test_a_model_does_not_differ_from_itself_nor_from_one_with_shifted_logits():
    """Logits are known but for a constant; that of the shift by 2 is rounded."""
    dense = pair()[1]
    own = divergence(dense, dense, TOKENS)
    assert own.kl.mean == own.flips.mean == own.kl.error == 0
    shifted = nn.Embedding.from_pretrained(torch.randn(50, 50))
    other = nn.Embedding.from_pretrained(shifted.weight + 2)
    assert divergence(other, shifted, TOKENS, 7).kl.mean == pytest.approx(0, abs=1e-6)


@given(arrays(np.float32, (2, 6), elements=st.floats(-60, 60, width=32)))
def test_kl_is_never_negative_and_that_of_scipy(logits):
    q, p = torch.from_numpy(logits)
    kl, _ = token_divergences(table(q.tolist()), table(p.tolist()), torch.tensor([0, 0]), 1)
    q, p = (x.double().softmax(0).numpy() for x in (q, p))
    assert kl.item() >= 0
    # An eps of a log-probability near 120 is 1.5e-5, and the terms are a sum of six such.
    assert kl.item() == pytest.approx(rel_entr(p, q).sum(), rel=1e-4, abs=5e-5)


def test_what_the_dense_model_never_says_adds_nothing():
    inf = math.inf
    dense = table([0.0, 0.0, -inf])
    for other in ([0.0, 0.0, -inf], [1.0, 1.0, -inf]):
        assert token_divergences(table(other), dense, torch.tensor([0, 0]), 1)[0].item() == 0
    kl, _ = token_divergences(table([0.0, 0.0, 0.0]), dense, torch.tensor([0, 0]), 1)
    assert kl.item() == pytest.approx(math.log(3 / 2))


def test_a_model_that_rules_out_what_the_dense_one_says_is_infinitely_far():
    model, dense = table([0.0, -math.inf]), table([0.0, 0.0])
    found = divergence(model, dense, torch.tensor([0, 0]), 1)
    assert found.kl.mean == math.inf
    assert found.flips.mean == 0  # of equal logits the first is chosen


def test_half_precision_logits_are_compared_in_float32():
    rows = torch.tensor([[4.0, 0.0, -2.0], [1.0, 8.0, 8.5]])
    others = rows + torch.tensor([0.0, 0.5, 0.25])  # all of it is exact in float16
    tokens = torch.tensor([0, 1, 1])
    models = [nn.Embedding.from_pretrained(x) for x in (others, rows)]
    kl, flipped = token_divergences(*models, tokens, 2)
    for half in (torch.float16, torch.bfloat16):
        halves = [nn.Embedding.from_pretrained(x.to(half)) for x in (others, rows)]
        found, found_flipped = token_divergences(*halves, tokens, 2)
        assert found.dtype == torch.float32
        torch.testing.assert_close(found, kl)
        assert found_flipped.equal(flipped)


@pytest.mark.parametrize("logits", [[math.nan, 0.0], [math.inf, 0.0], [-math.inf, -math.inf]])
@pytest.mark.parametrize("name", ["model", "dense"])
def test_what_is_no_distribution_is_refused(logits, name):
    models = {"model": table([0.0, 0.0]), "dense": table([0.0, 0.0])} | {name: table(logits)}
    with pytest.raises(ValueError, match=rf"logits of {name} must not be NaN"):
        divergence(**models, tokens=torch.tensor([0, 0]), length=1)


def test_models_of_different_vocabularies_are_refused():
    with pytest.raises(ValueError, match="same vocabulary; got 2 and 3"):
        divergence(table([0.0, 0.0]), table([0.0, 0.0, 0.0]), torch.tensor([0, 0]), 1)


@pytest.mark.parametrize("tokens", [torch.tensor([1]), torch.zeros(2, 2, dtype=torch.int64)])
def test_too_few_tokens_are_refused(tokens):
    with pytest.raises(ValueError, match="N ≥ 2"):
        divergence(*pair(), tokens)


def test_an_estimate_is_scipys_mean_and_standard_error():
    values = torch.randn(30, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    found = estimate(values)
    assert found.mean == pytest.approx(values.mean().item())
    assert found.error == pytest.approx(scipy.stats.sem(values.numpy()))


def test_one_token_has_a_mean_but_no_error():
    found = divergence(table([0.0, 1.0]), table([1.0, 0.0]), torch.tensor([0, 0]), 1)
    assert found.flips.mean == 1
    assert math.isnan(found.kl.error) and math.isnan(found.flips.error)


@pytest.mark.parametrize("values", [torch.zeros(0), torch.zeros(2, 2), torch.tensor([math.nan])])
def test_what_has_no_mean_is_refused(values):
    with pytest.raises(ValueError, match="values must"):
        estimate(values)


def test_the_paired_difference_is_that_of_scipys_paired_t_test():
    model, dense = pair()
    losses, others = (token_losses(m, TOKENS) for m in (model, dense))
    found = paired_difference(losses, others)
    theirs = scipy.stats.ttest_rel(losses.double(), others.double())
    assert found.mean / found.error == pytest.approx(theirs.statistic, rel=1e-9)
    assert paired_difference(others, losses).mean == -found.mean


def test_a_common_difficulty_cancels():
    """Hard and easy tokens differ by 100, the models by 1 ± 0.5: alone, they could not be told."""
    hard = torch.tensor([0.0, 100.0]).repeat(50)
    better = hard + torch.tensor([0.0, 0.0, 1.0, 1.0]).repeat(25)
    found = paired_difference(hard + 1, better)
    assert found.mean == pytest.approx(0.5)
    assert found.error == pytest.approx(0.05, rel=0.01)
    assert estimate(hard).error > 4


@pytest.mark.parametrize("others", [torch.zeros(3), torch.tensor([0.0, math.nan])])
def test_losses_that_cannot_be_paired_are_refused(others):
    with pytest.raises(ValueError, match="others must be"):
        paired_difference(torch.zeros(2), others)
