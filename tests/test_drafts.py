"""Who guesses: look-up against brute force, a model's guesses against `generate`."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from course_lib.acceleration.acceptance import probabilities
from course_lib.acceleration.drafts import LookUp, ModelDraft
from course_lib.models.llama import Llama, LlamaConfig, generate, initialize

CONFIG = LlamaConfig(
    vocabulary=13, width=16, layers=2, heads=4, kv_heads=2, mlp_width=24, context=48
)


@given(st.lists(st.integers(0, 2), min_size=1, max_size=14), st.integers(0, 5), st.data())
def test_look_up_is_brute_force(text, gamma, data):
    longest = data.draw(st.integers(1, 4))
    shortest = data.draw(st.integers(1, longest))
    guess = LookUp(longest, shortest).propose(torch.tensor([text]), gamma)
    assert guess.tokens.tolist() == brute_force(text, gamma, longest, shortest)
    assert guess.tokens.dtype == torch.int64 and guess.probabilities is None


def brute_force(text, gamma, longest, shortest):
    for n in range(longest, shortest - 1, -1):
        for start in range(len(text) - n - 1, -1, -1):  # the latest place first
            if n < len(text) and text[start : start + n] == text[len(text) - n :]:
                written = list(text)
                for step in range(gamma):
                    written.append(
                        written[start + n + step]
                    )  # it may copy what it has just written
                return written[len(text) :]
    return []


@pytest.mark.parametrize("sizes", [(0, 0), (2, 0), (1, 2)])
def test_look_up_refuses_sizes_that_cannot_be(sizes):
    with pytest.raises(ValueError, match="1 ≤ shortest ≤ longest must hold"):
        LookUp(*sizes)


def model():
    torch.manual_seed(0)
    model = Llama(CONFIG).double().requires_grad_(False)
    initialize(model)
    model.embedding.weight.mul_(40)
    return model


def test_a_models_guesses_are_its_greedy_text_whatever_it_read_before():
    small = model()
    draft = ModelDraft(small)
    for text in ([1, 2, 3], [1, 2, 3, 9, 9], [1, 2], [4], [4, 4, 4, 4], [4, 4, 4, 4]):
        tokens = torch.tensor([text])
        guess = draft.propose(tokens, gamma=4)
        assert torch.equal(guess.tokens, generate(small, tokens, 4)[0, len(text) :])
        assert guess.probabilities is None


def test_q_is_what_the_model_says_of_each_guess():
    small = model()
    draft, tokens = ModelDraft(small), torch.tensor([[1, 2, 3]])
    for seed in range(3):
        guess = draft.propose(tokens, 4, 0.7, torch.Generator().manual_seed(seed))
        whole = torch.cat([tokens, guess.tokens[None]], dim=1)
        expected = probabilities(small(whole)[0, 2:-1], 0.7)
        torch.testing.assert_close(guess.probabilities, expected, rtol=0, atol=1e-12)


def test_no_guess_is_asked_for():
    for draft in (LookUp(), ModelDraft(model())):
        assert draft.propose(torch.tensor([[1, 1]]), 0).tokens.shape == (0,)
        assert draft.propose(torch.tensor([[1, 1]]), 0, 1.0).tokens.shape == (0,)
