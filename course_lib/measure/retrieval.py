"""How often the right one of N is the most alike: the share of questions that find their answer.

    top-1 = mean over i of [s_ii > s_ij for every j ≠ i]

where s_ij says how alike question i and answer j are. Where k answers are equally alike and the
right one is among the best, it counts 1/k: what drawing one of them would give. So a model that
finds all alike gets 1/N, not 1.

Axes: N questions, and as many answers.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor


class Share(NamedTuple):
    """A share of N trials, and the standard error that such a number of trials leaves it."""

    value: float
    error: float


def top_one(similarities: Tensor) -> Share:
    """The share of questions whose own answer is the most alike, with its standard error.

        error = (p (1 − p) / N)^½

    It is that of other paragraphs' being drawn. Two models on the same ones differ by less.

    Args:
        similarities: s, (N, N); the right answers on the diagonal.

    Raises:
        ValueError: it is not square, is empty, or holds NaN.

    >>> top_one(torch.tensor([[0.9, 0.1], [0.8, 0.7]]))
    Share(value=0.5, error=0.3535533905932738)
    """
    s = similarities
    if s.dim() != 2 or s.shape[0] != s.shape[1] or not s.numel() or s.isnan().any():
        raise ValueError(
            "similarities must have shape (N, N), N at least 1, and no NaN; "
            f"got {tuple(s.shape)} with {int(s.isnan().sum())} NaN"
        )
    best = s == s.amax(dim=1, keepdim=True)
    value = (best.diagonal() / best.sum(dim=1)).double().mean().item()
    return Share(value, math.sqrt(value * (1 - value) / len(s)))


def agreement(similarities: Tensor, others: Tensor) -> float:
    """Pearson's correlation of all N² similarities with those of another model.

    Raises:
        ValueError: the shapes differ, or one of them is constant, empty or not finite.

    >>> round(agreement(torch.eye(2), 1 + 2 * torch.eye(2)), 6)
    1.0
    """
    if similarities.shape != others.shape:
        raise ValueError(
            "similarities and others must have one shape; "
            f"got {tuple(similarities.shape)} and {tuple(others.shape)}"
        )
    both = torch.stack([similarities.flatten(), others.flatten()]).double()  # (2, N²)
    centred = both - both.mean(dim=1, keepdim=True)
    lengths = centred.norm(dim=1)
    if not both.numel() or not both.isfinite().all() or (lengths == 0).any():
        raise ValueError("similarities and others must be finite and not constant; one of them is")
    return float(centred[0] @ centred[1] / lengths.prod())
