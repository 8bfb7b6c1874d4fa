"""Guess and check: the rule enumerated, greedy text against `generate`, samples by chi-square."""

import itertools
import math
from collections import Counter

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chi2
from transformers.generation.utils import _speculative_sampling

from course_lib.acceleration.drafts import LookUp, ModelDraft
from course_lib.acceleration.speculative import (
    Guess,
    Speculated,
    accept_or_resample,
    acceptance_rate,
    expected_tokens,
    keep_matching,
    probabilities,
    roll_back,
    speculative_generate,
    speed_up,
)
from course_lib.models.layers import view_without_layers
from course_lib.models.llama import Llama, LlamaConfig, generate, initialize
from course_lib.models.pretrained import tiny
from course_lib.pruning.depth import layers_off

CONFIG = LlamaConfig(
    vocabulary=13, width=16, layers=3, heads=4, kv_heads=2, mlp_width=24, context=48
)
WEIGHTS = st.lists(st.integers(0, 4), min_size=3, max_size=3).filter(any)


def small(seed=0, **changes) -> Llama:
    """In float64: a pass over five tokens and one over one agree to 1e-15, no logits tie."""
    torch.manual_seed(seed)
    model = Llama(LlamaConfig(**{**vars(CONFIG), **changes})).double().requires_grad_(False)
    initialize(model)
    model.embedding.weight.mul_(40)
    return model


class Wrong:
    """A draft that guesses at random, and not always the same number of tokens."""

    def propose(self, tokens, gamma, temperature, generator):
        made = int(torch.randint(gamma + 1, (), generator=generator))
        return Guess(torch.randint(13, (made,), generator=generator))


def drafts(model):
    torch.manual_seed(5)
    return {
        "itself": ModelDraft(model),
        "its first layer": ModelDraft(view_without_layers(model, layers_off([1, 2], 3))),
        "another": ModelDraft(small(7, layers=1)),
        "look-up": LookUp(),
        "wrong": Wrong(),
    }


@pytest.mark.parametrize("gamma", [1, 2, 5])
@pytest.mark.parametrize("name", ["itself", "its first layer", "another", "look-up", "wrong"])
def test_greedy_text_is_that_of_generate(name, gamma):
    model = small()
    for start in ([[3]], [[1, 2, 3, 1, 2]], [[0, 12, 7, 7, 7, 7]]):
        found = speculative_generate(model, drafts(model)[name], torch.tensor(start), 30, gamma)
        assert torch.equal(found.tokens, generate(model, torch.tensor(start), 30))
        assert found.accepted + found.rounds == 30
        assert found.accepted + found.rejected <= found.drafted <= gamma * found.rounds
        assert found.rejected <= found.rounds


def test_a_draft_that_is_the_model_is_never_wrong():
    model = small()
    found = speculative_generate(model, ModelDraft(model), torch.tensor([[3, 4]]), 30, gamma=4)
    assert (found.rounds, found.drafted, found.accepted, found.rejected) == (6, 24, 24, 0)
    assert found.acceptance == 1.0 and found.tokens_per_round == 5.0


def test_greedy_text_of_tinylm_by_its_first_two_layers():
    model, tokenizer = tiny()
    tokens = torch.tensor([tokenizer.encode("And it came to pass").ids])
    draft = ModelDraft(view_without_layers(model, layers_off([2, 3], 4)))
    for found in (
        speculative_generate(model, draft, tokens, 60, gamma=3),
        speculative_generate(model, LookUp(), tokens, 60, gamma=3),
    ):
        assert torch.equal(found.tokens, generate(model, tokens, 60))


def test_one_draft_may_write_several_texts():
    model = small()
    draft = ModelDraft(small(7, layers=1))
    for start in ([[3, 3, 3]], [[3, 3]], [[5, 1, 2, 3, 4, 5]], [[3, 3, 3]]):
        found = speculative_generate(model, draft, torch.tensor(start), 12, gamma=3)
        assert torch.equal(found.tokens, generate(model, torch.tensor(start), 12))


def test_the_context_is_used_to_its_end_and_not_beyond():
    model, tokens = small(), torch.tensor([[1, 2, 3, 1, 2]])
    full = CONFIG.context + 1 - tokens.shape[1]  # the last token need not be read
    found = speculative_generate(model, ModelDraft(model), tokens, full, gamma=7)
    assert torch.equal(found.tokens, generate(model, tokens, full))
    with pytest.raises(ValueError, match="the context holds 48 tokens; got 49"):
        speculative_generate(model, LookUp(), tokens, full + 1, gamma=7)


@given(WEIGHTS, WEIGHTS, st.integers(0, 1))
def test_the_rule_gives_p_whatever_q_is(p, q, place):
    """All guesses at a place, all stretches of the uniforms; those before it stay (u = 0)."""
    P = torch.tensor([[1, 2, 3]] * place + [p, [1, 1, 0], [1, 1, 0]], dtype=torch.float64)
    Q = torch.tensor([[3, 2, 1]] * place + [q, [0, 1, 1]], dtype=torch.float64)
    P, Q = P / P.sum(dim=1, keepdim=True), Q / Q.sum(dim=1, keepdim=True)
    left = (P[place] - Q[place]).clamp(min=0)
    found = torch.zeros(3, dtype=torch.float64)
    for x in Q[place].nonzero().flatten().tolist():
        stays = min(1.0, (P[place, x] / Q[place, x]).item())
        for u, chance in ((stays / 2, stays), ((1 + stays) / 2, 1 - stays)):
            for v, share in stretches(left) if u > stays else [(0.5, 1.0)]:
                uniforms = torch.tensor([0.0] * place + [u, 1 - 1e-9, v], dtype=torch.float64)
                new = accept_or_resample(Q, P, torch.tensor([2] * place + [x, 2]), uniforms)
                found[new[place]] += Q[place, x] * chance * share
    torch.testing.assert_close(found, P[place], rtol=0, atol=1e-12)


def stretches(weights):
    """For each token, the middle of the stretch of uniforms that draws it, and its length."""
    if not weights.any():
        return []
    ends = (weights / weights.sum()).cumsum(dim=0).tolist()
    return [((a + b) / 2, b - a) for a, b in itertools.pairwise([0.0, *ends]) if b > a]


@given(st.lists(st.integers(0, 2), min_size=0, max_size=4), st.data())
def test_at_temperature_0_both_rules_are_one(drafted, data):
    size = len(drafted) + 1
    chosen = data.draw(st.lists(st.integers(0, 2), min_size=size, max_size=size))
    uniforms = torch.tensor(
        data.draw(st.lists(st.floats(0, 1, exclude_max=True), min_size=size, max_size=size))
    )
    drafted, chosen = torch.tensor(drafted, dtype=torch.int64), torch.tensor(chosen)
    one = torch.eye(3)
    by_rule = accept_or_resample(one[drafted], one[chosen], drafted, uniforms)
    assert torch.equal(by_rule, keep_matching(drafted, chosen))


def test_the_library_transformers_keeps_and_draws_the_same(monkeypatch):
    """Its rule on 200 rounds of three guesses, given the same uniforms; all ends occur."""
    generator, lengths = torch.Generator().manual_seed(4), set()
    for _ in range(200):
        q, p = torch.randn(2, 4, 5, generator=generator, dtype=torch.float64)
        uniforms = torch.rand(4, generator=generator, dtype=torch.float64)
        drafted = torch.multinomial(q[:3].softmax(dim=-1), 1, generator=generator).flatten()
        mine = accept_or_resample(q[:3].softmax(dim=-1), p.softmax(dim=-1), drafted, uniforms)
        with monkeypatch.context() as patch:
            patch.setattr(torch, "rand_like", lambda _, given=uniforms: given[:3])
            patch.setattr(
                torch,
                "multinomial",
                lambda left, num_samples, given=uniforms: torch.searchsorted(
                    left.cumsum(dim=-1), given[-1:].expand(1, 1), right=True
                ),
            )
            theirs, _ = _speculative_sampling(drafted[None], q[None, :3], 3, p[None])
        assert torch.equal(mine, theirs[0])
        lengths.add(len(mine))
    assert lengths == {1, 2, 3, 4}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_no_token_of_probability_0_is_drawn_at_either_end(dtype):
    p = torch.tensor([[0.0, 0.3, 0.0, 0.7, 0.0]], dtype=dtype)
    none = torch.empty(0, dtype=torch.int64)
    below = 1 - torch.finfo(dtype).eps / 2
    for u, token in ((0.0, 1), (0.299, 1), (0.301, 3), (below, 3)):
        uniforms = torch.tensor([u], dtype=dtype)
        assert accept_or_resample(p[:0], p, none, uniforms).tolist() == [token]
    q = torch.tensor([[0.0, 0.0, 0.0, 0.0, 1.0]], dtype=dtype)
    for u, token in ((0.0, 1), (below, 3)):
        uniforms = torch.tensor([0.0, u], dtype=dtype)
        new = accept_or_resample(q, torch.cat([p, p]), torch.tensor([4]), uniforms)
        assert new.tolist() == [token]  # u q = p = 0: a guess that cannot be goes


@pytest.mark.parametrize("gamma, draft", [(1, "look-up"), (2, "its first layer"), (3, "another")])
def test_samples_are_distributed_as_the_models_own(gamma, draft):
    """All 27 texts of three tokens: exact probabilities against 1,500 draws of one seed."""
    model = small(2, vocabulary=3, layers=1, context=8)
    other = {
        "look-up": LookUp(),
        "its first layer": ModelDraft(view_without_layers(model, layers_off([], 1))),
        "another": ModelDraft(small(9, vocabulary=3, layers=1, context=8)),
    }[draft]
    start, temperature, draws = torch.tensor([[0, 1, 0]]), 8.0, 1500
    generator = torch.Generator().manual_seed(gamma)
    seen = Counter(
        tuple(
            speculative_generate(model, other, start, 3, gamma, temperature, generator)
            .tokens[0, 3:]
            .tolist()
        )
        for _ in range(draws)
    )
    statistic = 0.0
    for text in itertools.product(range(3), repeat=3):
        whole = torch.cat([start, torch.tensor([text])], dim=1)
        p = probabilities(model(whole)[0, 2:5], temperature)[range(3), list(text)].prod().item()
        assert draws * p > 5
        statistic += (seen[text] - draws * p) ** 2 / (draws * p)
    assert chi2.sf(statistic, df=26) > 0.001


@pytest.mark.parametrize("gamma", [1, 3, 6])
def test_counts_are_those_of_the_formula(gamma):
    """Context-free p and q, 4,000 rounds: within four standard errors, as σ is at most γ / 2."""
    p, q = torch.tensor([0.6, 0.3, 0.1]), torch.tensor([0.3, 0.3, 0.4])
    alpha = acceptance_rate(q, p).item()
    assert alpha == pytest.approx(0.7)
    generator, rounds = torch.Generator().manual_seed(3), 4000
    Q, P = q.repeat(gamma, 1), p.repeat(gamma + 1, 1)
    made = 0
    for _ in range(rounds):
        drafted = torch.multinomial(q, gamma, replacement=True, generator=generator)
        uniforms = torch.rand(gamma + 1, generator=generator)
        made += len(accept_or_resample(Q, P, drafted, uniforms))
    error = 4 * gamma / 2 / rounds**0.5
    assert abs(made / rounds - expected_tokens(alpha, gamma)) < error


@given(st.floats(0, 0.999), st.integers(1, 12), st.floats(0, 2))
def test_speed_up_is_theorem_3_8(alpha, gamma, cost):
    theorem = (1 - alpha ** (gamma + 1)) / ((1 - alpha) * (gamma * cost + 1))
    assert math.isclose(speed_up(alpha, gamma, cost), theorem, rel_tol=1e-9)
    assert speed_up(1.0, gamma, cost) == (gamma + 1) / (gamma * cost + 1)
    assert math.isclose(speed_up(alpha, gamma, cost, 2.0), speed_up(alpha, gamma, cost / 2) / 2)


def test_alpha_is_estimated_over_the_guesses_that_were_tested():
    found = Speculated(torch.zeros(1, 9), rounds=4, drafted=12, accepted=5, rejected=3)
    assert found.acceptance == 5 / 8 and found.tokens_per_round == 9 / 4
    none = Speculated(torch.zeros(1, 1), rounds=0, drafted=0, accepted=0, rejected=0)
    assert none.acceptance == 0.0


def test_roll_back_gives_the_cache_of_the_shorter_text():
    model, tokens = small(), torch.tensor([[1, 2, 3, 4, 5, 6]])
    long, short = model.empty_cache(), model.empty_cache()
    model(tokens, long)
    model(tokens[:, :4], short)
    roll_back(long, 4)
    for mine, theirs in zip(long, short, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-12)
    torch.testing.assert_close(model(tokens[:, 4:], long), model(tokens)[:, 4:])
    roll_back(long, 0)
    torch.testing.assert_close(model(tokens, long), model(tokens))
    with pytest.raises(ValueError, match="from 0 to the 6 tokens of the cache; got 7"):
        roll_back(long, 7)
    empty = model.empty_cache()
    roll_back(empty, 0)
    assert empty == [{}, {}, {}]


def test_probabilities_in_half_precision_and_at_extremes():
    logits = torch.tensor([[60000.0, -60000.0, 0.0]], dtype=torch.float16)
    assert probabilities(logits, 0.5).dtype == torch.float32
    assert probabilities(logits, 0.5).tolist() == [[1.0, 0.0, 0.0]]
    torch.testing.assert_close(
        probabilities(logits, 1e9), torch.full((1, 3), 1 / 3), atol=1e-3, rtol=0
    )


@pytest.mark.parametrize(
    "change, message",
    [
        ({"tokens": torch.tensor([1, 2])}, r"tokens must be \(1, T\) with T ≥ 1; got \(2,\)"),
        ({"tokens": torch.ones(2, 3).long()}, r"got \(2, 3\)"),
        ({"tokens": torch.ones(1, 0).long()}, r"got \(1, 0\)"),
        ({"count": -1}, "count must be at least 0 and gamma at least 1; got -1, 2"),
        ({"gamma": 0}, "got 3, 0"),
        ({"temperature": -0.5}, "temperature must be finite and at least 0; got -0.5"),
        ({"temperature": float("nan")}, "got nan"),
    ],
)
def test_bad_input_is_refused(change, message):
    given = {"tokens": torch.tensor([[1, 2]]), "count": 3, "gamma": 2, **change}
    with pytest.raises(ValueError, match=message):
        speculative_generate(small(), LookUp(), **given)


def test_nothing_is_silent():
    model, tokens = small(), torch.tensor([[1, 2]])
    assert torch.equal(speculative_generate(model, LookUp(), tokens, 0, 2).tokens, tokens)
    model.norm.weight[0] = torch.nan
    with pytest.raises(ValueError, match="the model's logits must be finite"):
        speculative_generate(model, LookUp(), tokens, 3, 2)
    with pytest.raises(ValueError, match="target must be finite"):
        one = torch.eye(3)
        nan = torch.full((2, 3), torch.nan)
        accept_or_resample(one[:1], nan, torch.tensor([0]), torch.zeros(2))
    with pytest.raises(ValueError, match=r"must be \(γ, V\)"):
        accept_or_resample(torch.eye(3), torch.eye(3), torch.tensor([0]), torch.zeros(2))
    with pytest.raises(ValueError, match="one token more than drafted"):
        keep_matching(torch.tensor([0, 1]), torch.tensor([0, 1]))
    with pytest.raises(ValueError, match="alpha must be from 0 to 1"):
        expected_tokens(1.1, 2)
    with pytest.raises(ValueError, match="check_cost above 0"):
        speed_up(0.5, 2, 0.1, 0.0)
