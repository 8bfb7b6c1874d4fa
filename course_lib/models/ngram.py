"""An n-gram model: the next token's probability from counts of the n − 1 tokens before it.

Most long contexts are rare, so each order is mixed with the one below (h' is h without its first
token). Witten and Bell's weights have nothing to tune: c(h, w) and c(h) are counts, d(h) says how
many different tokens have followed h, and new tokens are expected as often as they came up so far:

    p(w | h) = (c(h, w) + d(h) · p(w | h')) / (c(h) + d(h)),        at the bottom 1 / V

By induction it sums to one over w, since Σ c(h, w) = c(h). After an unseen h, p(w | h) = p(w | h').

Sources: Shannon, 1948, "A Mathematical Theory of Communication"; Jelinek and Mercer, 1980,
"Interpolated Estimation of Markov Source Parameters from Sparse Data"; Witten and Bell, 1991, "The
Zero-Frequency Problem".

Axes: N (or …, T) tokens, K entries of one order, C contexts of one order, V vocabulary.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Counts:
    """The k-grams of one order k. A context is the number of its entry in the order below."""

    keys: Tensor  # (K,), sorted: context · V + token
    counts: Tensor  # (K,): c(h, w)
    totals: Tensor  # (C,): c(h)
    followers: Tensor  # (C,): d(h)


@dataclass(frozen=True)
class NGram:
    """Counts of every order from 1 to n, from `fit_ngram`."""

    vocabulary: int
    orders: tuple[Counts, ...]

    def parameters(self, order: int) -> int:
        """How many counts a model of this order stores, its lower orders included."""
        return sum(len(counts.keys) for counts in self.orders[:order])


def fit_ngram(tokens: Tensor, order: int, vocabulary: int) -> NGram:
    """Count all runs of 1 to n tokens.

    Args:
        tokens: integers from 0 to V − 1: (N,), with N ≥ n.
        order: n, at least 1.
        vocabulary: V.

    >>> model = fit_ngram(torch.tensor([0, 1, 0, 1, 1]), order=2, vocabulary=3)
    >>> model.parameters(1), model.parameters(2)
    (2, 5)
    """
    if tokens.dim() != 1 or not 1 <= order <= len(tokens):
        raise ValueError(
            f"tokens must have shape (N,) with N ≥ order ≥ 1; got {tuple(tokens.shape)}, {order=}"
        )
    tokens = tokens.long()  # keys are up to contexts · V
    contexts = torch.zeros_like(tokens)  # before the first token stands the empty context, number 0
    context_count, orders = 1, []
    for _ in range(order):
        keys, entry, counts = torch.unique(
            contexts * vocabulary + tokens, return_inverse=True, return_counts=True
        )
        owner = keys // vocabulary
        none = torch.zeros(context_count, dtype=counts.dtype, device=tokens.device)
        totals = none.index_add(0, owner, counts)
        followers = none.index_add(0, owner, torch.ones_like(counts))
        orders.append(Counts(keys, counts, totals, followers))
        contexts, tokens, context_count = entry[:-1], tokens[1:], len(keys)
    return NGram(vocabulary, tuple(orders))


def token_probabilities(model: NGram, tokens: Tensor) -> Tensor:
    """The probability of each token after those before it, by order 1, 2, … n: (n, …, T).

    One model of order n thus answers for every lower order, too.

    >>> model = fit_ngram(torch.tensor([0, 1, 0, 1, 1]), order=2, vocabulary=3)
    >>> after_zero = torch.tensor([[0, 0], [0, 1], [0, 2]])
    >>> token_probabilities(model, after_zero)[1, :, 1].numpy().round(4)
    array([0.127 , 0.8413, 0.0317], dtype=float32)
    """
    tokens = tokens.long()
    contexts = torch.zeros_like(tokens)
    probability = torch.full(tokens.shape, 1 / model.vocabulary, device=tokens.device)
    by_order = []
    for order in model.orders:
        key = contexts * model.vocabulary + tokens
        place = torch.searchsorted(order.keys, key).clamp(max=len(order.keys) - 1)
        known = contexts >= 0  # −1 stands for a context that was never seen
        found = known & (order.keys[place] == key)
        total = torch.where(known, order.totals[contexts], 0)
        followers = torch.where(known, order.followers[contexts], 0)
        mixed = (torch.where(found, order.counts[place], 0) + followers * probability) / (
            total + followers
        )
        probability = torch.where(total > 0, mixed, probability)
        by_order.append(probability)
        contexts = F.pad(torch.where(found, place, -1)[..., :-1], (1, 0), value=-1)
    return torch.stack(by_order)
