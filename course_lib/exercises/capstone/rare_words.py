"""Exercise of 12_capstone: for which words a smaller model got worse, the rare or the common.

Axes: N tokens, V vocabulary, B buckets.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from course_lib.exercises.engine.seeded import Draw
from course_lib.exercises.engine.spec import Case, Exercise, Misconception, Property, labelled_cases


def flips_by_frequency(
    logits: Tensor, dense_logits: Tensor, targets: Tensor, counts: Tensor, edges: list[int]
) -> Tensor:
    """(B, 2) in float64: of each bucket of tokens the share of flips, and the mean rise in loss.

    A row of logits (N, V), float, is a token's; targets (N,), int64, are the words that came;
    counts (V,), int64, say how often each word stands in the training text. Bucket 0 has the tokens
    whose target's count is below edges[0], bucket b those from edges[b − 1] on (it belongs to b)
    and below edges[b], the last all others: the edges rise, and B is their number + 1. A token is a
    flip if its word of the largest logit, of equal ones the first, is another under `logits` than
    under dense_logits. Its rise is its cross entropy under `logits` less that under dense_logits,
    in nats, in float64 from the start: +∞ where only `logits` has −∞ for the target, −∞ where only
    dense_logits has. A bucket without tokens has NaN twice.
    """
    above = torch.tensor(edges, device=counts.device)
    bucket = torch.bucketize(counts[targets], above, right=True)  # (N,)
    flipped = logits.argmax(dim=1) != dense_logits.argmax(dim=1)
    losses = [
        F.cross_entropy(one.double(), targets, reduction="none") for one in (logits, dense_logits)
    ]
    values = torch.stack([flipped, losses[0] - losses[1]], dim=1)  # (N, 2)
    inside = bucket == torch.arange(len(edges) + 1, device=bucket.device)[:, None]  # (B, N)
    sums = values.where(inside[:, :, None], 0).sum(dim=1)  # (B, N, 2) -> (B, 2)
    return sums / inside.sum(dim=1, keepdim=True)


def _two_models(seed: int) -> list[Case]:
    draw = Draw(seed)
    many, some = _tokens(draw, 200, 40), _tokens(draw, 24, 10)
    a = draw.number(3, 9)
    flat = _tokens(draw, 9, 5)
    labelled = {
        "three buckets": (*some, [5, 50]),
        "many tokens": (*many, [2, 10, 100, 1000]),
        "one edge": (*some, [a]),
        "no edge: one bucket": (*some, []),
        "counts that are edges": (*some[:3], torch.arange(10) * 10, [10, 40, 70]),
        "edges one apart": (*some[:3], draw.order(10), [1, 2, 3, 4, 5]),
        "a bucket without tokens": (*some, [5, 50, 10**6, 10**7]),
        "all counts are below the edge": (*some, [10**6]),
        "all counts are above the edges": (*some[:3], 50 + draw.order(10), [1, 20]),
        "counts that float32 and int32 do not hold": (
            *some[:3], 10**10 + draw.order(10), [10**10 + 3, 10**10 + 7],
        ),
        "words that never stood in the text": (*some[:3], some[3] * (draw.order(10) % 2), [1, 20]),
        "equal models": (some[1].clone(), some[1], *some[2:], [5, 50]),
        "all logits equal": (flat[0], torch.zeros(9, 5), *flat[2:], [8]),
        "one token": (*(part[:1] for part in some[:3]), some[3], [5, 50]),
        "no tokens": (*(part[:0] for part in some[:3]), some[3], [5, 50]),
        "one word": (draw.normal(6, 1), draw.normal(6, 1), some[2][:6] * 0, some[3][:1], [a]),
        **_with_ties_and_infinities(draw, some),
        **_in_dtypes(draw),
    }  # fmt: skip
    return labelled_cases(("logits", "dense_logits", "targets", "counts", "edges"), labelled)


def _with_ties_and_infinities(draw: Draw, some: tuple) -> dict[str, tuple]:
    tied = _tokens(draw, 12, 6)
    dense = tied[1].scatter(1, torch.tensor([[1, 4]]).expand(12, 2), 9.0)
    broken = dense.scatter(1, 1 + 3 * draw.integers(0, 2, 12, 1), 8.0)
    silent = [part.scatter(1, some[2][:1, None], -torch.inf) for part in some[:2]]
    never = [part.clone() for part in some[:2]]
    unused = (int(some[2][0]) + 1) % 10
    for part in never:
        part[some[2] != unused, unused] = -torch.inf
    return {
        "equal logits": (broken.where(draw.uniform(12, 1) < 0.5, dense), dense, *tied[2:], [10]),
        "equal logits of the smaller model": (dense, broken, *tied[2:], [10]),
        "a target that the smaller model never says": (silent[0], *some[1:], [5, 50]),
        "a target that the dense model never says": (some[0], silent[1], *some[2:], [5, 50]),
        "a word that neither says": (*never, *some[2:], [5, 50]),
        "very sure": (*(400 * part for part in some[:2]), *some[2:], [5, 50]),
    }


def _in_dtypes(draw: Draw) -> dict[str, tuple]:
    big = _tokens(draw, 30, 8)
    near = big[1].double() + 100
    return {
        "float16": (*((15 * part).half() for part in big[:2]), *big[2:], [20]),
        "bfloat16": (*(part.bfloat16() for part in big[:2]), *big[2:], [20]),
        "float64, nearly equal": (near + 1e-6 * draw.normal(30, 8), near, *big[2:], [20]),
    }


def _tokens(draw: Draw, tokens: int, words: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Two models that often agree, targets, and counts from 1 to some thousands."""
    dense = 2 * draw.normal(tokens, words)
    counts = (10 ** (3.5 * draw.uniform(words))).long()
    targets = draw.integers(0, words, tokens)
    return dense + 1.5 * draw.normal(tokens, words), dense, targets, counts


def _wrong(
    asked: Callable = lambda logits, dense, targets: targets,
    right: bool = True,
    truth: bool = False,
    share: Callable = lambda inside: inside.sum(),
    sign: int = 1,
    widen: Callable = Tensor.double,
) -> Callable:
    """The reference with one rule changed. truth: a flip is what is not the target."""

    def wrong(logits, dense, targets, counts, edges):
        above = torch.tensor(edges, dtype=counts.dtype)
        bucket = torch.bucketize(counts[asked(logits, dense, targets)], above, right=right)
        flipped = logits.argmax(dim=1) != (targets if truth else dense.argmax(dim=1))
        new, old = (
            F.cross_entropy(widen(one), targets, reduction="none") for one in (logits, dense)
        )
        values = torch.stack([flipped.double(), sign * (new - old).double()], dim=1)
        insides = [bucket == b for b in range(len(edges) + 1)]
        return torch.stack([values[inside].sum(dim=0) / share(inside) for inside in insides])

    return wrong


FLIPS_BY_FREQUENCY = Exercise(
    reference=flips_by_frequency,
    cases=_two_models,
    relative_tolerance=1e-9,
    absolute_tolerance=1e-12,
    hints=(
        "Three vectors of N: how often each token's target stands in the training text, "
        "counts[targets]; whether it is a flip; and its rise in loss. The rest is sorting.",
        "torch.bucketize(counts[targets], edges as a tensor, right=True) gives each token's "
        "bucket: right=True sends what equals an edge above it. F.cross_entropy(…, "
        "reduction='none') keeps a number for each token; widen the logits with .double() first.",
        "For each b from 0 to len(edges): inside = bucket == b, and the means of flips[inside] and "
        "of rise[inside], in float64. The mean of nothing is NaN already; that is what is asked.",
    ),
    properties=(
        Property(
            "(B, 2) in float64",
            lambda inputs, value: (
                value.shape == (len(inputs["edges"]) + 1, 2) and value.dtype == torch.float64
            ),
            form=True,
        ),
    ),
    misconceptions=(
        Misconception(
            "by the word that the model chose",
            _wrong(asked=lambda logits, dense, targets: dense.argmax(dim=1)),
            "tokens were sorted by the count of the dense model's first choice. Asked is for which "
            "words of the text it got worse: the count of the target.",
        ),
        Misconception(
            "an edge belongs below",
            _wrong(right=False),
            "a count that equals an edge went to the bucket below it. It belongs above: "
            "torch.bucketize with right=True.",
        ),
        Misconception(
            "wrong instead of changed",
            _wrong(truth=True),
            "you counted the tokens where the smaller model's first choice is not the target. The "
            "dense model is wrong there often enough; a flip is another choice than its own.",
        ),
        Misconception(
            "as a share of all tokens",
            _wrong(share=len),
            "you divided by all N tokens. Divide by those in the bucket: else a bucket of few "
            "tokens looks unhurt.",
        ),
        Misconception(
            "0 where there is no token",
            _wrong(share=lambda inside: inside.sum().clamp(min=1)),
            "a bucket without tokens got 0, as if nothing had got worse there. Nothing is known: "
            "NaN.",
        ),
        Misconception(
            "the loss of the dense less that of the smaller",
            _wrong(sign=-1),
            "your rise has the other sign. It is above 0 where the smaller model is worse: its own "
            "cross entropy less the dense model's.",
        ),
    ),
)
