import math

import pytest
import torch
from torch import nn

from course_lib.models.lstm import LSTM, train_briefly


def test_the_recurrent_layer_follows_the_equations():
    torch.manual_seed(0)
    model = LSTM(vocabulary=7, width=5)
    tokens = torch.tensor([[1, 4, 4, 0], [6, 2, 0, 3]])
    layer = model.recurrent
    x, h, c = model.embedding(tokens), torch.zeros(2, 5), torch.zeros(2, 5)
    for t in range(4):
        gates = x[:, t] @ layer.weight_ih_l0.T + layer.bias_ih_l0
        gates = gates + h @ layer.weight_hh_l0.T + layer.bias_hh_l0
        write, keep, new, show = gates.chunk(4, dim=1)
        c = keep.sigmoid() * c + write.sigmoid() * new.tanh()
        h = show.sigmoid() * c.tanh()
        torch.testing.assert_close(model(tokens)[:, t], h @ model.embedding.weight.T)


def test_the_parameter_count_of_the_sources():
    """An LSTM of width 128 has 4 · ((128 + 128) · 128 + 128), and here a second bias (C74)."""
    recurrent = LSTM(vocabulary=10, width=128).recurrent
    assert sum(p.numel() for p in recurrent.parameters()) == 131_584 + 4 * 128


def test_training_learns_a_pattern_that_needs_memory():
    """0 1 0 2 0 1 0 2 …: after 0, only the token before tells what follows."""
    torch.manual_seed(0)
    model = LSTM(vocabulary=3, width=16)
    losses = train_briefly(model, torch.tensor([0, 1, 0, 2] * 100), steps=60)
    assert losses.shape == (60,)
    without_memory = math.log(2) / 2  # a bigram's loss: every second token is a coin toss
    assert float(losses[-1]) < without_memory / 2


def test_the_same_seed_gives_the_same_model_and_another_one_does_not():
    tokens = torch.randint(5, (200,), generator=torch.Generator().manual_seed(0))
    results = []
    for seed in (0, 0, 1):
        torch.manual_seed(0)
        model = LSTM(vocabulary=5, width=4)
        train_briefly(model, tokens, steps=3, seed=seed)
        results.append(model.embedding.weight.detach())
    assert torch.equal(results[0], results[1])
    assert not torch.equal(results[0], results[2])


def test_any_language_model_can_be_trained():
    torch.manual_seed(0)
    bigram = nn.Embedding(4, 4)
    losses = train_briefly(bigram, torch.arange(400) % 4, steps=200)
    assert float(losses[-1]) < 0.5 * float(losses[0])


def test_too_short_a_text():
    with pytest.raises(ValueError, match="tokens must have shape"):
        train_briefly(LSTM(vocabulary=3, width=4), torch.zeros(20, dtype=torch.long), steps=1)
