"""Exercise of 09_low_rank: an embedding without the tokens that nobody uses.

Axes: M tokens of the vocabulary, m of them that stay, D width.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from course_lib.exercises.engine.seeded import Draw
from course_lib.exercises.engine.spec import Case, Exercise, Misconception, Property, labelled_cases


def trim_vocabulary(
    embedding: Tensor, texts: list[list[int]], always: list[int]
) -> tuple[Tensor, Tensor]:
    """The rows of an embedding (M, D) that some texts use, and each token's new number.

    A token stays if it occurs in a text or in `always`. Those that stay keep their order: the
    lowest becomes 0. Returns small (m, D), their rows in the dtype of the embedding, and new_ids
    (M,), int64: the new number of each old one, −1 where it is gone. Tokens may occur often; texts
    and `always` may be empty, and if nothing stays, m is 0. The embedding stays as it is.
    """
    device, used = embedding.device, {*always, *(token for text in texts for token in text)}
    kept = torch.tensor(sorted(used), dtype=torch.int64, device=device)  # (m,)
    new_ids = torch.full((len(embedding),), -1, device=device)
    new_ids[kept] = torch.arange(kept.numel(), device=device)
    return embedding.index_select(0, kept), new_ids


def _vocabularies(seed: int) -> list[Case]:
    draw = Draw(seed)

    def texts(size: int, *lengths: int) -> list[list[int]]:
        return [draw.integers(0, size, length).tolist() for length in lengths]

    def case(size: int, *lengths: int, always=(), width: int = 3, dtype=torch.float32):
        return draw.normal(size, width).to(dtype), texts(size, *lengths), list(always)

    one, first = draw.number(1, 8), draw.order(20).tolist()
    codes = draw.integers(-128, 128, 10, 4).to(torch.int8)
    labelled = {
        "by hand": (draw.integers(1, 9, 4, 2).float(), [[3, 1], [3]], []),
        "one text": case(12, 5),
        "some texts": case(30, 6, 3, 8),
        "the same token again and again": (draw.normal(9, 2), [[one] * 5, [one]], []),
        "always, and not in a text": case(12, 3, always=(9, 2)),
        "always, and in a text, too": (draw.normal(10, 2), [[4, one, 0]], [9, one, 0, 9]),
        "always alone": case(10, always=(7, one)),
        "empty texts among the others": case(12, 0, 4, 0),
        "no texts": case(9, always=(0,)),
        "nothing stays": case(6),
        "nothing but empty texts": case(6, 0, 0),
        "everything stays": (draw.normal(20, 2), [first[:11], first[11:]], []),
        "both ends": (draw.normal(15, 2), [[14, one], [0]], []),
        "a vocabulary of one token": (draw.normal(1, 4), [[0, 0]], []),
        "the first goes, the last goes": (draw.normal(9, 2), [[5, one], [4]], []),
        "one number wide": case(12, 6, width=1),
        "a large vocabulary": case(5000, 40, 300, always=(0, 4999), width=2),
        "a large vocabulary, most of it stays": case(5000, 40, 6000, width=2),
        "rows of infinity and NaN": (_odd(draw), texts(9, 5), [0, 3]),
        "equal rows": (torch.ones(8, 2) * draw.uniform(2), [[2, one], [6]], []),
        "a view": (draw.normal(4, 11).T, texts(11, 4, 4), [3]),
        **{
            name: case(12, 5, always=(1,), dtype=getattr(torch, name))
            for name in ("float16", "bfloat16", "float64")
        },
        "codes, int8": (codes, texts(10, 4), [0]),
    }
    return labelled_cases(("embedding", "texts", "always"), labelled)


def _odd(draw: Draw) -> Tensor:
    """Of the first six rows one is infinite and one NaN."""
    rows = draw.normal(9, 3)
    rows[draw.number(0, 3)], rows[draw.number(3, 6)] = torch.inf, torch.nan
    return rows


def _fits(inputs: dict, value: list[Tensor]) -> bool:
    """The row of each token that stays is found at its new number."""
    small, new_ids = value
    stay = new_ids >= 0
    rows = inputs["embedding"].cpu()[stay].double()
    return small[new_ids[stay]].double().allclose(rows, rtol=0, atol=0, equal_nan=True)


def _trim(order: Callable = sorted, with_always: bool = True, gone: int = -1):
    """trim_vocabulary that keeps other tokens, in another order, or says otherwise what is gone."""

    def wrong(embedding, texts, always):
        used = [token for text in texts for token in text] + (always if with_always else [])
        kept = torch.tensor(order(dict.fromkeys(used))).long().to(embedding.device)
        new_ids = torch.full((len(embedding),), gone, device=embedding.device)
        new_ids[kept] = torch.arange(len(kept), device=embedding.device)
        return embedding[kept], new_ids

    return wrong


def _up_to_the_last(tokens) -> list[int]:
    return list(range(max(tokens, default=-1) + 1))


def _old_ids(embedding, texts, always):
    small, new_ids = trim_vocabulary(embedding, texts, always)
    return small, (new_ids >= 0).nonzero()[:, 0]


def _zeroed(embedding, texts, always):
    _, new_ids = trim_vocabulary(embedding, texts, always)
    gone = (new_ids < 0)[:, None]
    return embedding.masked_fill(gone, 0), new_ids


TRIM_VOCABULARY = Exercise(
    reference=trim_vocabulary,
    cases=_vocabularies,
    relative_tolerance=0.0,
    absolute_tolerance=0.0,
    hints=(
        "Which tokens stay? A set forgets how often. Then put them in order.",
        "`kept`, the old numbers of those that stay, in order, picks the rows: embedding[kept]. "
        "new_ids goes the other way: at place kept[j] stands j, and −1 everywhere else.",
        "kept = torch.tensor(sorted({*always, *(token for text in texts for token in text)}), "
        "dtype=torch.int64); without the dtype an empty list gives floats. new_ids = "
        "torch.full((len(embedding),), -1); new_ids[kept] = torch.arange(len(kept)).",
    ),
    properties=(Property("each token that stays finds its old row at its new number", _fits),),
    misconceptions=(
        Misconception(
            "in the order of the texts",
            _trim(order=list),
            "the tokens stand in the order in which they occur first. They should keep the "
            "vocabulary's order: then the result does not hang on which text came first.",
        ),
        Misconception(
            "always forgotten",
            _trim(with_always=False),
            "tokens of `always` went. They are those that must never be missing: the bytes, the "
            "end of a text.",
        ),
        Misconception(
            "0 where gone",
            _trim(gone=0),
            "new_ids is 0 where a token is gone. But 0 is a token: whoever asks for a lost one "
            "would get another, and nobody would see it. −1 says so.",
        ),
        Misconception(
            "up to the last",
            _trim(order=_up_to_the_last),
            "every token up to the highest that is used stays. What is in between and unused was "
            "to go, too.",
        ),
        Misconception(
            "the old numbers",
            _old_ids,
            "you gave the old number of each new token. new_ids is the other way round: at the "
            "place of each of the M old ones its new number, or −1.",
        ),
        Misconception(
            "zeroed and not removed",
            _zeroed,
            "the unused rows are zeros and still there: no byte is saved, and the numbers do not "
            "fit new_ids. Take the others out: embedding[kept].",
        ),
    ),
)
