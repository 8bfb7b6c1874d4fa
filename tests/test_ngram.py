from collections import Counter, defaultdict

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from course_lib.models.ngram import fit_ngram, token_probabilities

V = 4
TOKENS = st.lists(st.integers(0, V - 1), min_size=3, max_size=30)


def plain_probability(text, history, token, vocabulary):
    """Witten and Bell's formula by recursion over Python's own counters."""
    lower = 1 / vocabulary
    for order in range(1, len(history) + 2):
        context = tuple(history[len(history) - order + 1 :])
        followers = defaultdict(Counter)
        for i in range(order - 1, len(text)):
            followers[tuple(text[i - order + 1 : i])][text[i]] += 1
        seen = followers[context]
        if seen:
            lower = (seen[token] + len(seen) * lower) / (seen.total() + len(seen))
    return lower


@given(TOKENS, st.lists(st.integers(0, V - 1), min_size=3, max_size=8))
@settings(max_examples=50, deadline=None)
def test_probabilities_are_those_of_the_formula(text, other):
    found = token_probabilities(fit_ngram(torch.tensor(text), 3, V), torch.tensor(other))
    for order in (1, 2, 3):
        for i, token in enumerate(other):
            history = other[max(0, i - order + 1) : i]
            expected = plain_probability(text, history, token, V)
            assert float(found[order - 1, i]) == pytest.approx(expected, rel=1e-5)  # float32


@given(TOKENS, st.lists(st.integers(0, V - 1), max_size=4))
@settings(max_examples=50, deadline=None)
def test_probabilities_sum_to_one_after_every_context(text, context):
    model = fit_ngram(torch.tensor(text), 3, V)
    each = torch.tensor([[*context, token] for token in range(V)])
    total = token_probabilities(model, each)[:, :, -1].sum(dim=1)
    torch.testing.assert_close(total, torch.ones(3), rtol=0, atol=1e-6)


@given(TOKENS)
@settings(deadline=None)
def test_parameters_are_the_different_runs_of_the_text(text):
    model = fit_ngram(torch.tensor(text), 3, V)
    runs = [len({tuple(text[i : i + k]) for i in range(len(text) - k + 1)}) for k in (1, 2, 3)]
    assert [model.parameters(order) for order in (1, 2, 3)] == [sum(runs[:k]) for k in (1, 2, 3)]


def test_lower_orders_do_not_depend_on_the_highest():
    text = torch.randint(V, (200,), generator=torch.Generator().manual_seed(0))
    low, high = fit_ngram(text, 2, V), fit_ngram(text, 5, V)
    assert torch.equal(token_probabilities(low, text), token_probabilities(high, text)[:2])


def test_a_longer_memory_solves_what_a_short_one_cannot():
    """1 2 3 3 1 and 2 2 3 3 2: the last token repeats the first (claim C36 of the sources)."""
    text = torch.tensor([1, 2, 3, 3, 1, 0, 2, 2, 3, 3, 2, 0] * 50)
    probability = token_probabilities(fit_ngram(text, 4, V), text)
    endings = torch.zeros(len(text), dtype=torch.bool)
    endings[4::12] = endings[10::12] = True
    assert float(probability[2, endings].mean()) == pytest.approx(0.5, abs=0.02)
    longer = token_probabilities(fit_ngram(text, 5, V), text)
    assert float(longer[4, endings].mean()) > 0.95


def test_a_new_token_is_unlikely_but_possible():
    model = fit_ngram(torch.tensor([0, 1, 0, 1, 0]), 2, V)
    probability = token_probabilities(model, torch.tensor([3, 3]))
    assert (probability > 0).all()
    assert (probability < 1 / V).all()


@pytest.mark.parametrize(("tokens", "order"), [([[0, 1]], 1), ([0, 1], 3), ([0, 1], 0), ([], 1)])
def test_bad_arguments(tokens, order):
    with pytest.raises(ValueError, match="tokens must have shape"):
        fit_ngram(torch.tensor(tokens, dtype=torch.long), order, V)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int32], ids=str)
def test_tokens_of_any_integer_type(dtype):
    tokens = torch.arange(200) * 7 % 50
    wide, small = (fit_ngram(t, 3, 50) for t in (tokens, tokens.to(dtype)))
    found = token_probabilities(small, tokens.to(dtype))
    assert found.equal(token_probabilities(wide, tokens))
