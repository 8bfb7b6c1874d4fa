import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from course_lib.measure.quality import Quality, accuracy, quality
from course_lib.models.tokenizer import train_tokenizer

TEXT = "a cat — eine Äsche, 猫 — sat on the mat. " * 6
TOKENIZER = train_tokenizer(TEXT, 300)


class Unigram(nn.Module):
    """Ignores its input: always the same logits."""

    def __init__(self, logits):
        super().__init__()
        self.logits = nn.Parameter(logits)

    def forward(self, tokens):
        return self.logits.expand(*tokens.shape, -1)


@pytest.mark.parametrize("length", [5, 16])
@pytest.mark.parametrize("batch", [1, 3])
def test_agrees_with_a_sum_by_hand(length, batch):
    model = Unigram(torch.randn(300))
    found = quality(model, TOKENIZER, TEXT, length, batch)
    ids = TOKENIZER.encode(TEXT).ids
    predicted = ids[1 : 1 + (len(ids) - 1) // length * length]
    nats = -F.log_softmax(model.logits, 0)[predicted].sum().item()
    assert found.tokens == len(predicted)
    assert found.nats == pytest.approx(nats, rel=1e-5)
    assert found.bytes == len(TOKENIZER.decode(predicted).encode())
    assert found.bits_per_byte == pytest.approx(nats / math.log(2) / found.bytes, rel=1e-5)


def test_a_model_that_knows_nothing_has_a_perplexity_of_its_vocabulary():
    found = quality(Unigram(torch.zeros(300)), TOKENIZER, TEXT, 8)
    assert found.perplexity == pytest.approx(300)


def test_units():
    one_bit_a_byte = Quality(nats=10 * math.log(2), tokens=5, bytes=10)
    assert one_bit_a_byte.bits_per_byte == pytest.approx(1)
    assert one_bit_a_byte.perplexity == pytest.approx(4)


def test_a_text_that_is_too_short_is_refused():
    with pytest.raises(ValueError, match="N > length"):
        quality(Unigram(torch.zeros(300)), TOKENIZER, "a cat", 64)


def test_accuracy():
    scores = torch.tensor([[0.1, 0.9], [0.8, 0.2], [0.3, 0.7]])
    assert accuracy(lambda x: x, scores, torch.tensor([1, 1, 1])) == pytest.approx(2 / 3)
