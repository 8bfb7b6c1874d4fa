"""The rule of guess and check: enumerated, against a library, and its formula against counts."""

import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers.generation.utils import _speculative_sampling

from course_lib.acceleration.acceptance import (
    accept_or_resample,
    acceptance_rate,
    expected_tokens,
    keep_matching,
    probabilities,
    speed_up,
)

WEIGHTS = st.lists(st.integers(0, 4), min_size=3, max_size=3).filter(any)


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
        below, above = (stays / 2, stays), ((1 + stays) / 2, 1 - stays)
        for u, chance in (below, above) if stays < 1 else (below,):
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
        data.draw(
            st.lists(st.floats(0, 1, exclude_max=True, width=32), min_size=size, max_size=size)
        )
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


def test_probabilities_in_half_precision_and_at_extremes():
    logits = torch.tensor([[60000.0, -60000.0, 0.0]], dtype=torch.float16)
    assert probabilities(logits, 0.5).dtype == torch.float32
    assert probabilities(logits, 0.5).tolist() == [[1.0, 0.0, 0.0]]
    torch.testing.assert_close(
        probabilities(logits, 1e9), torch.full((1, 3), 1 / 3), atol=1e-3, rtol=0
    )


def test_bad_input_is_refused():
    one = torch.eye(3)
    with pytest.raises(ValueError, match="target must be finite"):
        nan = torch.full((2, 3), torch.nan)
        accept_or_resample(one[:1], nan, torch.tensor([0]), torch.zeros(2))
    with pytest.raises(ValueError, match=r"must be \(γ, V\)"):
        accept_or_resample(one, one, torch.tensor([0]), torch.zeros(2))
    for wrong in (1.0, -0.1, torch.nan):
        with pytest.raises(ValueError, match="uniforms must be from 0 to below 1"):
            accept_or_resample(one[:1], one[:2], torch.tensor([0]), torch.tensor([0.5, wrong]))
    with pytest.raises(ValueError, match="one token more than drafted"):
        keep_matching(torch.tensor([0, 1]), torch.tensor([0, 1]))
    with pytest.raises(ValueError, match="temperature must be finite and at least 0; got inf"):
        probabilities(one, float("inf"))
    with pytest.raises(ValueError, match="alpha must be from 0 to 1"):
        expected_tokens(1.1, 2)
    with pytest.raises(ValueError, match="check_cost above 0"):
        speed_up(0.5, 2, 0.1, 0.0)
