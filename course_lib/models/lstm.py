"""A small recurrent language model: it reads one token after the other and keeps a state.

    i, f, o = σ(W_i [x, h]), σ(W_f [x, h]), σ(W_o [x, h])      what to write, keep and show
    c ← f · c + i · tanh(W_c [x, h]),      h ← o · tanh(c)

(biases left out). All that it knows of the text before stands in h and c, and step t waits for step
t − 1: a Transformer trains on all positions of a window at once, which is why it took over.

Source: Hochreiter and Schmidhuber, 1997, "Long Short-Term Memory"; forget gate: Gers, Schmidhuber,
Cummins, 2000, "Learning to Forget".

Axes: B batch, T tokens, N tokens of the whole text, D width, V vocabulary.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from course_lib.data.batches import random_windows
from course_lib.models.training import follow_rate, next_token_loss, train

BATCH, LENGTH, RATE = 16, 32, 0.02


class LSTM(nn.Module):
    """Token numbers in, logits of each next token out; the embedding is used twice, as in Llama.

    >>> LSTM(vocabulary=11, width=8)(torch.tensor([[1, 2, 3]])).shape
    torch.Size([1, 3, 11])
    """

    def __init__(self, vocabulary: int, width: int):
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, width)
        nn.init.normal_(self.embedding.weight, std=width**-0.5)
        self.recurrent = nn.LSTM(width, width, batch_first=True)

    def forward(self, tokens: Tensor) -> Tensor:
        states, _ = self.recurrent(self.embedding(tokens))  # (B, T) -> (B, T, D)
        return F.linear(states, self.embedding.weight)  # (B, T, D) -> (B, T, V)


def train_briefly(model: nn.Module, tokens: Tensor, steps: int, seed: int = 0) -> Tensor:
    """Train a language model in place, on `steps` batches of 16 windows of 32 tokens, with AdamW.

    The learning rate rises to 0.02 over 20 steps, stays there, and falls over the last half.

    Args:
        model: any module from tokens (B, T) to logits (B, T, V).
        tokens: (N,), with N > 32.
        steps: at least 1.
        seed: of the windows; the model's own weights are the caller's.

    Returns:
        The loss of each step in nats per token, before the step: (steps,).

    >>> _ = torch.manual_seed(0)
    >>> losses = train_briefly(LSTM(vocabulary=3, width=8), torch.arange(99) % 3, steps=20)
    >>> bool(losses[-1] < losses[0])
    True
    """
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=0.0)
    schedules = follow_rate(
        [optimizer], lambda step: min(1, (step + 1) / 20, 2 * (steps - step) / steps)
    )
    batches = (random_windows(tokens, BATCH, LENGTH, generator) for _ in range(steps))
    return train(model, batches, next_token_loss, [optimizer], schedules, longest=1.0)
