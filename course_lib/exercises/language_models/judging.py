"""Exercises of 11_language_models: how far apart two models are.

Axes: N tokens, V vocabulary.
"""

import math
from functools import partial

import torch
from torch import Tensor

from course_lib.exercises.engine.seeded import Draw
from course_lib.exercises.engine.spec import Case, Exercise, Misconception, Property, labelled_cases

# ------------------------------------------------------------------------------- mean_kl


def mean_kl(logits: Tensor, dense_logits: Tensor) -> Tensor:
    """The mean over the tokens of KL(dense ‖ other) = Σ_v p_v ln(p_v / q_v), in nats.

    A row of logits (N, V) is a token's: p is softmax of dense_logits, q of logits. Reckon in
    float64; the answer is a 0-d tensor of it. A logit may be −∞: a word that is never said. Where
    p_v is 0 it adds nothing; where only q_v is 0 the answer is infinite.
    """
    q = logits.double().log_softmax(dim=1)  # ln q, (N, V)
    p = dense_logits.double().log_softmax(dim=1)
    terms = (p.exp() * (p - q)).where(p > -torch.inf, 0.0)
    return terms.sum(dim=1).mean()


def _two_models(seed: int) -> list[Case]:
    draw = Draw(seed)

    def pair(tokens: int, vocabulary: int, apart: float = 1.0) -> tuple[Tensor, Tensor]:
        dense = 2 * draw.normal(tokens, vocabulary)
        return dense + apart * draw.normal(tokens, vocabulary), dense

    exact = 100 + draw.normal(3, 4).double()
    never, dense = pair(4, 6)
    never[:, 1] = dense[:, 1] = -torch.inf
    dense[2, 3] = -torch.inf
    lost, kept = pair(3, 5)
    lost[1, 2], kept[1, 2] = -torch.inf, -40.0  # hardly ever, but not never
    shifted = pair(4, 5)
    near = pair(6, 9, apart=1e-4)
    half = (40 * draw.normal(3, 6)).half()
    levels, level = pair(4, 5), 1000 * draw.normal(4, 1)
    sure = 1000 * draw.normal(4, 5)
    labelled = {
        "two tokens": pair(2, 3),
        "two models": pair(4, 6),
        "as many tokens as words": pair(5, 5),
        "one token": pair(1, 7),
        "equal models": (shifted[1].clone(), shifted[1]),
        "logits far from zero": (shifted[0] + 1000.0, shifted[1] - 500.0),
        "each token at a level of its own": (levels[0] + level, levels[1] + level.flip(0)),
        "very sure": tuple(20 * part for part in pair(4, 5)),
        "so sure that a softmax is 0": (sure.roll(1, dims=1), sure),
        "nearly equal models": near,
        "words that are never said": (never, dense),
        "a word that only the dense model says": (lost, kept),
        "one word": pair(3, 1),
        "float16": (half, (half + draw.normal(3, 6)).half()),
        "float64, nearly equal": (exact + 1e-5 * draw.normal(3, 4).double(), exact),
    }
    return labelled_cases(("logits", "dense_logits"), labelled)


def _kl(first: Tensor, second: Tensor) -> Tensor:
    """KL of each row, softmax(first) to softmax(second): (N,)."""
    p, q = (logits.double().log_softmax(dim=1) for logits in (first, second))
    return (p.exp() * (p - q)).where(p > -torch.inf, 0.0).sum(dim=1)


def _unguarded(logits, dense_logits):
    p, q = (one.double().log_softmax(dim=1) for one in (dense_logits, logits))
    return (p.exp() * (p - q)).sum(dim=1).mean()


def _cross_entropy(logits, dense_logits):
    p, q = (one.double().log_softmax(dim=1) for one in (dense_logits, logits))
    return -(p.exp() * q).where(p > -torch.inf, 0.0).sum(dim=1).mean()


MEAN_KL = Exercise(
    reference=mean_kl,
    cases=_two_models,
    absolute_tolerance=1e-13,
    hints=(
        "log_softmax gives ln p without computing a tiny p first: dense_logits.double()"
        ".log_softmax(dim=1).",
        "KL is the dense model's mean of ln p − ln q: (p.exp() * (p − q)).sum(dim=1), with p and q "
        "in logarithms. Then the mean over tokens.",
        "−∞ − (−∞) is NaN, and 0 · NaN, too. Replace the terms whose ln p is −∞: "
        "terms.where(p > −torch.inf, 0.0).",
    ),
    properties=(Property("KL is a number, 0 or more", lambda inputs, value: value >= -1e-13),),
    misconceptions=(
        Misconception(
            "the other way round",
            lambda logits, dense: _kl(logits, dense).mean(),
            "that is KL(other ‖ dense), weighed by what the small model says. Asked is what the "
            "dense model says: p of dense_logits in front. The two differ.",
        ),
        Misconception(
            "sum over the tokens",
            lambda logits, dense: _kl(dense, logits).sum(),
            "you added up the tokens. The mean does not grow with the length of the text.",
        ),
        Misconception(
            "mean over the words, too",
            lambda logits, dense: _kl(dense, logits).mean() / logits.shape[1],
            "you took the mean over all N · V entries (as F.kl_div does by default). A token's KL "
            "is the sum over its words.",
        ),
        Misconception(
            "in bits",
            lambda logits, dense: _kl(dense, logits).mean().div(math.log(2)),
            "you used log2: the number is in bits. Nats have the natural logarithm.",
        ),
        Misconception(
            "cross entropy",
            _cross_entropy,
            "that is the cross entropy, −Σ p ln q. It is not zero for equal models: the dense "
            "model's own entropy has to be taken off, Σ p (ln p − ln q).",
        ),
        Misconception(
            "NaN where neither says a word",
            _unguarded,
            "where both logits are −∞, you subtracted infinity from infinity. A word that the "
            "dense model never says adds nothing: replace such terms by 0.",
        ),
    ),
)

# --------------------------------------------------------------------------------- flips


def flips(logits: Tensor, dense_logits: Tensor) -> Tensor:
    """Share of the tokens whose first choice changed, from 0 to 1: a 0-d tensor in float64.

    A token's first choice is the word with the largest logit in its row of (N, V); of equal logits
    the first. Logits are compared as they are, −∞ included.
    """
    changed = logits.argmax(dim=1) != dense_logits.argmax(dim=1)  # (N,)
    return changed.double().mean()


def _choosing(draw: Draw, tokens: int, vocabulary: int, changed: int) -> tuple[Tensor, Tensor]:
    """`changed` of the tokens, anywhere, have another first choice; the rest is noise.

    The first choices have logits of 7 to 9, no other is near.
    """
    dense, logits = draw.normal(2, tokens, vocabulary)
    first = draw.integers(0, vocabulary, tokens, 1)
    moved = draw.order(tokens)[:, None] < changed
    step = draw.integers(1, max(vocabulary, 2), tokens, 1)
    other = torch.where(moved, (first + step) % vocabulary, first)
    return logits.scatter(1, other, 7.0 + draw.number(0, 2)), dense.scatter(1, first, 9.0)


def _choices(seed: int) -> list[Case]:
    draw = Draw(seed)
    pair = partial(_choosing, draw)
    tied, losers = 5 * draw.uniform(5, 24), torch.tensor([[8], [8], [17], [8], [8]])[draw.order(5)]
    tied[:, [8, 17]] = 9.0
    broken = (
        tied.scatter(1, losers, 6.0) if draw.number(0, 2) else tied.scatter(1, 25 - losers, 6.0)
    )
    never, dense = (part - 20 for part in pair(7, 5, draw.number(2, 5)))
    for other, own in zip(never, dense, strict=True):
        choice = own.argmax()
        if other.argmax() == choice:  # so it stays, and by no other word
            own[(choice + 2) % 5] = -torch.inf
            other[torch.arange(5) != choice] = -torch.inf
    order = draw.order(8)
    fine = 1 + 1e-12 * torch.stack([draw.order(8) for _ in range(9)]).double()
    labelled = {
        "two tokens": pair(2, 3, 1),
        "some changed": pair(9, 6, draw.number(2, 7)),
        "many tokens": pair(60, 12, draw.number(5, 50)),
        "none changed": pair(8, 5, 0),
        "all changed": pair(5, 4, 5),
        "as many tokens as words": pair(6, 6, draw.number(1, 5)),
        "one token": pair(1, 5, 1),
        "one word": pair(4, 1, 0),
        "equal logits": (broken, tied),
        "all logits below zero": tuple(part - 20 for part in pair(7, 5, draw.number(2, 6))),
        "words that are never said": (never, dense),
        "very large logits": tuple(1e9 * part for part in pair(7, 5, draw.number(1, 6))),
        "very small logits": tuple(1e-30 * part for part in pair(7, 5, draw.number(1, 6))),
        "float16": tuple(part.half() for part in pair(7, 5, draw.number(1, 6))),
        "float64, nearly equal logits": (fine[:, order].roll(1, 0), fine),
    }
    return labelled_cases(("logits", "dense_logits"), labelled)


def _share(changed: Tensor) -> Tensor:
    return changed.double().mean()


def _last_choice(logits: Tensor) -> Tensor:
    return logits.shape[1] - 1 - logits.flip(1).argmax(dim=1)


FLIPS = Exercise(
    reference=flips,
    cases=_choices,
    relative_tolerance=1e-12,
    absolute_tolerance=1e-12,
    hints=(
        "The first choice of each token: logits.argmax(dim=1), one word number for each row.",
        "Compare the two rows of word numbers with !=. How many are True, as a share?",
        "(a != b).double().mean(): bool has no mean, so convert it first.",
    ),
    properties=(
        Property("the answer is a share from 0 to 1", lambda inputs, value: 0 <= value <= 1),
    ),
    misconceptions=(
        Misconception(
            "share that stayed",
            lambda logits, dense: _share(logits.argmax(dim=1) == dense.argmax(dim=1)),
            "you counted the tokens whose first choice is the same. Flips are the others.",
        ),
        Misconception(
            "number instead of share",
            lambda logits, dense: (logits.argmax(dim=1) != dense.argmax(dim=1)).sum().double(),
            "you gave the number of tokens. Divide by how many there are.",
        ),
        Misconception(
            "along the tokens",
            lambda logits, dense: _share(logits.argmax(dim=0) != dense.argmax(dim=0)),
            "argmax went along the tokens: for each word, where it is likeliest. Each row is a "
            "token; the first choice is within the row, dim=1.",
        ),
        Misconception(
            "any logit changed",
            lambda logits, dense: _share((logits != dense).any(dim=1)),
            "you counted the tokens whose logits changed at all. Nearly every logit changes when "
            "a weight is rounded; a flip is another first choice.",
        ),
        Misconception(
            "last of equal logits",
            lambda logits, dense: _share(_last_choice(logits) != _last_choice(dense)),
            "of equal logits you took the last. argmax takes the first.",
        ),
    ),
)
