"""How well a language model predicts a text, and a classifier its images.

A model gives token t of a text the probability p_t, having read some of the tokens before it. The
loss of the token is ln(1 / p_t) nats, and one bit is ln 2 nats.

    bits per byte  =  Σ ln(1 / p_t) / (ln 2 · bytes)     compares models with different tokenizers
    perplexity     =  exp(Σ ln(1 / p_t) / tokens)        only models with the same tokenizer

Every token counts except the first, which nothing foretells; so do the bytes of these tokens, and
no others. The text is read in windows of T tokens that stand side by side, and nothing before a
window is seen: the t-th token foretold there has t tokens to go by. So shorter windows give worse
figures: compare at equal T.

Source: bits per byte after Gao et al., 2020, "The Pile: An 800GB Dataset of Diverse Text".

Axes: N tokens of the text, B windows (or images), T tokens of a window, V vocabulary, C classes.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from tokenizers import Tokenizer
from torch import Tensor, nn

from course_lib.data.batches import consecutive_windows

TOKENS_AT_ONCE = 2048  # so that their logits, 4 V bytes each, fit into memory


@dataclass(frozen=True)
class Quality:
    """What a model lost on a text: the sum of the losses, and how much they were for.

    >>> two_bits_each = Quality(nats=6 * math.log(2), tokens=3, bytes=12)
    >>> two_bits_each.bits_per_byte, round(two_bits_each.perplexity, 6)
    (0.5, 4.0)
    """

    nats: float
    tokens: int
    bytes: int

    @property
    def bits_per_byte(self) -> float:
        """nats / (ln 2 · bytes)."""
        return self.nats / (math.log(2) * self.bytes)

    @property
    def perplexity(self) -> float:
        """exp(nats / tokens): among how many equally likely tokens the model seems to choose."""
        mean = torch.tensor(self.nats / self.tokens, dtype=torch.float64)
        return mean.exp().item()  # where math.exp raises an error, this is infinite


def quality(
    model: nn.Module, tokenizer: Tokenizer, text: str, length: int | None = None
) -> Quality:
    """The model's quality on a text.

    Args:
        model: takes tokens (B, T), gives logits (B, T, V); used in the mode that it is in.
        tokenizer: of byte-level tokens, as both language models of the course have.
        text: at least two tokens long.
        length: T, in tokens; by default the model's context.
    """
    tokens = tokenizer.encode(text).ids
    device = next(model.parameters()).device
    losses = token_losses(model, torch.tensor(tokens, device=device), length)
    first = len(tokenizer.id_to_token(tokens[0]))  # a byte-level token has one symbol for each byte
    return Quality(losses.cpu().double().sum().item(), len(losses), len(text.encode()) - first)


@torch.no_grad()
def token_losses(model: nn.Module, tokens: Tensor, length: int | None = None) -> Tensor:
    """The loss in nats of each of the tokens (N,) but the first: (N − 1,).

    Args and windows as for `quality`.

    >>> torch.manual_seed(0)  # doctest: +ELLIPSIS
    <torch...>
    >>> model = nn.Embedding(5, 5)  # logits that depend on the last token only
    >>> token_losses(model, torch.tensor([3, 1, 4]), length=2).shape
    torch.Size([2])
    """
    length = model.config.context if length is None else length
    losses = []
    for inputs, targets in windows_at_once(tokens, length, TOKENS_AT_ONCE):
        logits = model(inputs).float().flatten(0, 1)  # (B, T, V) -> (B · T, V)
        losses.append(F.cross_entropy(logits, targets.flatten(), reduction="none"))
    return torch.cat(losses)[: len(tokens) - 1]


def windows_at_once(tokens: Tensor, length: int, at_once: int) -> Iterator[tuple[Tensor, Tensor]]:
    """The windows of a text, about `at_once` tokens of them at a time: inputs and targets (B, T).

    The last window is filled up with zeros; targets beyond the N − 1 that there are do not count.

    >>> [inputs.tolist() for inputs, _ in windows_at_once(torch.tensor([3, 1, 4, 1]), 2, 2)]
    [[[3, 1]], [[4, 1]]]
    """
    if tokens.dim() != 1 or len(tokens) < 2 or length < 1:
        raise ValueError(
            "tokens must have shape (N,) with N ≥ 2, and length must be at least 1; "
            f"got {tuple(tokens.shape)}, {length=}"
        )
    count = len(tokens) - 1
    length = min(length, count)
    filled = F.pad(tokens, (0, -count % length))  # after the end, where no token looks
    inputs, targets = consecutive_windows(filled, length)  # (N,) -> (B, T)
    windows = max(1, at_once // length)
    return zip(inputs.split(windows), targets.split(windows), strict=True)


@torch.no_grad()
def accuracy(model: nn.Module, images: Tensor, labels: Tensor) -> float:
    """Share, from 0 to 1, of the images whose class has the largest logit.

    Args:
        model: takes images (B, …), gives logits (B, C); used in the mode that it is in.
        images: (B, …), with B ≥ 1.
        labels: (B,), from 0 to C − 1.

    >>> accuracy(nn.Identity(), torch.tensor([[2.0, 1.0], [0.0, 3.0]]), torch.tensor([0, 0]))
    0.5
    """
    if len(images) == 0 or labels.shape != images.shape[:1]:
        raise ValueError(
            f"labels must have shape (B,) with B ≥ 1 images; got {tuple(labels.shape)} "
            f"for images {tuple(images.shape)}"
        )
    return (model(images).argmax(dim=-1) == labels).sum().item() / len(labels)
