import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from course_lib.measure import quality as module
from course_lib.measure.quality import Quality, accuracy, quality, token_losses
from course_lib.models.llama import Llama, LlamaConfig
from course_lib.models.tokenizer import train_tokenizer

TEXT = "a cat — eine Äsche, 猫 — sat on the mat. " * 3
TOKENIZER = train_tokenizer(TEXT, 280)
CONFIG = LlamaConfig(
    vocabulary=280, width=8, layers=1, heads=2, kv_heads=1, mlp_width=12, context=16
)


class Constant(nn.Module):
    """Gives the same logits whatever it reads."""

    def __init__(self, logits):
        super().__init__()
        self.logits = nn.Parameter(logits)

    def forward(self, tokens):
        return self.logits.expand(*tokens.shape, -1)


@pytest.mark.parametrize("length", [1, 5, 16])
@torch.no_grad()
def test_agrees_with_a_computation_by_hand(length):
    """One token after the other, each from those before it in its window alone."""
    model, ids = Llama(CONFIG), TOKENIZER.encode(TEXT).ids
    nats = 0.0
    for t in range(1, len(ids)):
        window = (t - 1) // length * length
        probabilities = model(torch.tensor([ids[window:t]]))[0, -1].softmax(0)
        nats += math.log(1 / probabilities[ids[t]])
    found = quality(model, TOKENIZER, TEXT, length)
    assert found.tokens == len(ids) - 1
    assert found.bytes == len(TEXT.encode()) - 1  # the first token is "a"
    assert found.nats == pytest.approx(nats, rel=1e-5)
    assert found.bits_per_byte == pytest.approx(nats / math.log(2) / found.bytes, rel=1e-5)
    assert found.perplexity == pytest.approx(math.exp(nats / found.tokens), rel=1e-5)


def test_the_length_is_the_context_if_none_is_given():
    model = Llama(CONFIG)
    assert quality(model, TOKENIZER, TEXT) == quality(model, TOKENIZER, TEXT, length=16)
    assert quality(model, TOKENIZER, TEXT) != quality(model, TOKENIZER, TEXT, length=15)


def test_how_many_windows_go_at_once_changes_nothing(monkeypatch):
    model, tokens = Llama(CONFIG), torch.randint(280, (70,))
    together = token_losses(model, tokens)
    monkeypatch.setattr(module, "TOKENS_AT_ONCE", 1)
    torch.testing.assert_close(token_losses(model, tokens), together)


def test_a_model_that_knows_nothing_pays_for_every_token_alike():
    found = quality(Constant(torch.zeros(280)), TOKENIZER, TEXT, 8)
    assert found.perplexity == pytest.approx(280)
    assert found.bits_per_byte == pytest.approx(math.log2(280) * found.tokens / found.bytes)


@given(st.text(min_size=2))
def test_the_bytes_are_those_of_the_tokens_that_count(text):
    """Also where a token is a part of a character."""
    tokens = TOKENIZER.encode(text).tokens
    found = quality(Constant(torch.zeros(280)), TOKENIZER, text, 8) if len(tokens) > 1 else None
    assert found is None or found.bytes == sum(len(token) for token in tokens[1:])
    assert sum(len(token) for token in tokens) == len(text.encode())


def test_the_first_byte_of_a_character_may_be_the_first_token():
    found = quality(Constant(torch.zeros(280)), TOKENIZER, "😀", 8)
    assert (found.tokens, found.bytes) == (3, 3)


def test_a_broken_model_gets_a_figure_too():
    assert Quality(nats=1e6, tokens=10, bytes=10).perplexity == math.inf
    broken = quality(Constant(torch.full((280,), math.nan)), TOKENIZER, TEXT, 8)
    assert math.isnan(broken.perplexity) and math.isnan(broken.bits_per_byte)


@pytest.mark.parametrize(("text", "length"), [("", 8), ("a", 8), (TEXT, 0)])
def test_what_cannot_be_predicted_is_refused(text, length):
    with pytest.raises(ValueError, match="N ≥ 2, and length must be at least 1"):
        quality(Constant(torch.zeros(280)), TOKENIZER, text, length)


def test_accuracy_is_the_share_of_right_answers():
    images = F.one_hot(torch.tensor([1, 0, 1, 2, 2, 0]), 3).float()
    labels = torch.tensor([1, 1, 1, 2, 0, 1])
    assert accuracy(nn.Identity(), images, labels) == 0.5


@pytest.mark.parametrize("labels", [torch.zeros(0), torch.zeros(3), torch.zeros(2, 1)])
def test_labels_that_do_not_fit_are_refused(labels):
    with pytest.raises(ValueError, match=r"labels must have shape \(B,\)"):
        accuracy(nn.Identity(), torch.zeros(len(labels) and 2, 3), labels)
