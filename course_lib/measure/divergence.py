"""How far a compressed model is from the dense one, token by token, whatever the text says.

Two models may lose equally much on a text and still not say the same: what one got better, it got
worse elsewhere. So their next-token distributions are compared: p of the dense model, q of the
other, at every token that counts in `quality`.

    KL      mean over the tokens of  Σ_v p_v ln(p_v / q_v)         nats, ≥ 0; 0 only if q = p
    flips   share of the tokens where  argmax q ≠ argmax p         0 … 1

Both are means over tokens, and come with a standard error: σ / √N, as if each token were drawn by
itself. Neighbours in a text are alike, which makes it somewhat too small: for KL of TinyLM with 4
bits by about a fifth.

Source: Dutta et al., 2024, "Accuracy is Not All You Need". They count flips among the answers to
multiple-choice questions, right to wrong or wrong to right; here each next token is an answer, and
any change of the first choice counts.

Axes: N tokens of the text, B windows, T tokens of a window, V vocabulary.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from course_lib.measure.quality import TOKENS_AT_ONCE, windows_at_once
from course_lib.models.finite import check_finite

ROWS_AT_ONCE = 64  # tokens whose distributions are held besides the logits


@dataclass(frozen=True)
class Estimate:
    """A mean over tokens and its standard error, in the same unit; of one token the error is NaN.

    >>> print(Estimate(mean=0.25, error=0.03))
    0.25 ± 0.03
    """

    mean: float
    error: float

    def __str__(self) -> str:
        return f"{self.mean:.3g} ± {self.error:.2g}"


@dataclass(frozen=True)
class Divergence:
    """A model's distance to the dense one: kl in nats a token, flips as a share from 0 to 1."""

    kl: Estimate
    flips: Estimate


def estimate(values: Tensor) -> Estimate:
    """The mean of N values, and its standard error σ / √N, where σ² = Σ (x − mean)² / (N − 1).

    Raises:
        ValueError: values are not (N,) with N ≥ 1, or hold NaN; infinity is a value.

    >>> estimate(torch.tensor([1.0, 2.0, 3.0]))
    Estimate(mean=2.0, error=0.5773502691896258)
    """
    if values.dim() != 1 or len(values) == 0:
        raise ValueError(f"values must have shape (N,) with N ≥ 1; got {tuple(values.shape)}")
    if values.isnan().any():
        raise ValueError(f"values must not be NaN; got {int(values.isnan().sum())} of them")
    values = values.double()
    error = values.std().item() / math.sqrt(len(values)) if len(values) > 1 else math.nan
    return Estimate(values.mean().item(), error)


def paired_difference(losses: Tensor, others: Tensor) -> Estimate:
    """How much more one model loses than another on the same tokens: mean of a − b, with its error.

    Both find the same tokens hard. That part of the spread cancels in the difference, so its error
    is far smaller than the errors of the two means, and so is what can be told apart.

    Args:
        losses, others: a and b, as `quality.token_losses` gives them for two models: (N,) each.

    >>> paired_difference(torch.tensor([3.0, 9.0, 1.0]), torch.tensor([2.0, 8.0, 0.0]))
    Estimate(mean=1.0, error=0.0)
    """
    if losses.shape != others.shape:
        raise ValueError(
            "losses and others must be of the same tokens; "
            f"got shapes {tuple(losses.shape)} and {tuple(others.shape)}"
        )
    check_finite(losses, "losses")
    check_finite(others, "others")
    return estimate(losses.double() - others.double())


def divergence(
    model: nn.Module, dense: nn.Module, tokens: Tensor, length: int | None = None
) -> Divergence:
    """Mean KL and flips of a model against the dense one.

    Args:
        model, dense: take tokens (B, T), give logits (B, T, V); used in the mode that they are in.
        tokens: (N,), with N ≥ 2.
        length: T; by default the dense model's context. Windows as in `quality`.

    Raises: as for `token_divergences`.

    >>> torch.manual_seed(0)  # doctest: +ELLIPSIS
    <torch...>
    >>> model = nn.Embedding(5, 5)  # logits that depend on the last token only
    >>> divergence(model, model, torch.tensor([3, 1, 4]), length=2)
    Divergence(kl=Estimate(mean=0.0, error=0.0), flips=Estimate(mean=0.0, error=0.0))
    """
    kl, flipped = token_divergences(model, dense, tokens, length)
    return Divergence(estimate(kl), estimate(flipped.float()))


@torch.no_grad()
def token_divergences(
    model: nn.Module, dense: nn.Module, tokens: Tensor, length: int | None = None
) -> tuple[Tensor, Tensor]:
    """KL, float32, and whether flipped, at each of the tokens (N,) but the first: (N − 1,) each.

    Where q is 0 and p is not, KL is infinite. Of equal first choices, the one with the smallest
    number is meant.

    Args: as for `divergence`.

    Raises:
        ValueError: the models' vocabularies differ; a logit is NaN or +∞, or all of a token's are
            −∞, so that there is no distribution.

    >>> model = nn.Embedding.from_pretrained(torch.tensor([[0.0, 1.0], [2.0, 0.0]]))
    >>> dense = nn.Embedding.from_pretrained(torch.tensor([[1.0, 0.0], [2.0, 0.0]]))
    >>> token_divergences(model, dense, torch.tensor([0, 1, 1]), length=2)
    (tensor([0.4621, 0.0000]), tensor([ True, False]))
    """
    length = dense.config.context if length is None else length
    kl, flipped = [], []
    for inputs, _ in windows_at_once(tokens, length, TOKENS_AT_ONCE // 2):  # two models' logits
        q, p = model(inputs).flatten(0, 1), dense(inputs).flatten(0, 1)  # (B, T, V) -> (B · T, V)
        if q.shape != p.shape:
            raise ValueError(
                "model and dense must have the same vocabulary; "
                f"got {q.shape[1]} and {p.shape[1]} logits a token"
            )
        for q_rows, p_rows in zip(q.split(ROWS_AT_ONCE), p.split(ROWS_AT_ONCE), strict=True):
            flipped.append(q_rows.argmax(dim=1) != p_rows.argmax(dim=1))
            kl.append(_kl(_log_probabilities(q_rows, "model"), _log_probabilities(p_rows, "dense")))
    count = len(tokens) - 1
    return torch.cat(kl)[:count], torch.cat(flipped)[:count]


def _log_probabilities(logits: Tensor, name: str) -> Tensor:
    logs = logits.float().log_softmax(dim=1)
    if logs.isnan().any():
        raise ValueError(
            f"the logits of {name} must not be NaN or +inf, nor all of a token's -inf; "
            f"they are for {int(logs.isnan().any(dim=1).sum())} of {len(logs)} tokens"
        )
    return logs


def _kl(log_q: Tensor, log_p: Tensor) -> Tensor:
    """Σ p (ln p − ln q) of each row, (R, V) -> (R,); what p never says adds 0, as p ln p → 0."""
    terms = log_p.exp() * (log_p - log_q)
    terms = torch.where(log_p > -torch.inf, terms, 0)
    return terms.sum(dim=1).clamp(min=0)  # float32's rounding takes 0 down to −1e-7
