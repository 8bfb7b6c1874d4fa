"""Exercises of 09_low_rank: when two factors save, and the two that are nearest to a weight.

Axes: O outputs, I inputs, r rank.
"""

import math
from functools import partial

import torch
from torch import Tensor

from course_lib.exercises.engine.seeded import Draw
from course_lib.exercises.engine.spec import Case, Exercise, Misconception, Property, labelled_cases

# ---------------------------------------------------------------------- rank_that_saves


def rank_that_saves(outputs: int, inputs: int) -> int:
    """The largest rank r at which B (O, r) and A (r, I) together hold fewer numbers than W (O, I).

    O = outputs and I = inputs are at least 1. As many numbers as W is not fewer; where no rank
    saves, r is 0. The answer is an int, and exact, however large O · I is.
    """
    return (outputs * inputs - 1) // (outputs + inputs)


def _shapes(seed: int) -> list[Case]:
    draw = Draw(seed)
    side = draw.number(100, 2000)
    labelled = {
        "a square of even side": (2 * side, 2 * side),
        "a square of odd side": (2 * side + 1, 2 * side + 1),
        "SmolLM2's gate": (1536, 576),
        "TinyLM's down": (192, 512),
        "an embedding": (49152, draw.number(500, 1000)),
        "more inputs than outputs": (draw.number(20, 90), draw.number(3000, 9000)),
        "wide: at r = 2 the numbers are as many": (3, 6),
        "tall: r (O + I) is O · I": (side * (side + 1), side + 1),
        "one number": (1, 1),
        "one output": (1, draw.number(2, 90)),
        "one input": (draw.number(2, 90), 1),
        "a square whose reciprocals are rounded": (98, 98),
        "two by two": (2, 2),
        "two by three": (2, 3),
        "sides that are even and odd": (2 * draw.number(10, 90), 2 * draw.number(100, 900) + 1),
    }
    # Whoever reckons in floats meets the bound by luck, and four times seldom.
    for turn in ("first", "second", "third", "fourth"):
        many = draw.number(300_000, 400_000)
        labelled |= {
            f"very wide: r (O + I) is O · I ({turn})": (many + 1, many * (many + 1)),
            f"very wide: r (O + I) is one less ({turn})": (many, many * many + 1 - many),
            f"very tall: r (O + I) is one less ({turn})": (many * many + 1 - many, many),
        }
    return labelled_cases(("outputs", "inputs"), labelled)


RANK_THAT_SAVES = Exercise(
    reference=rank_that_saves,
    cases=_shapes,
    relative_tolerance=0.0,
    absolute_tolerance=0.0,
    hints=(
        "How many numbers are in B (O, r)? How many in A (r, I)? And in W?",
        "r · O + r · I < O · I. Solve it for r, and mind the <: what if O + I divides O · I?",
        "The largest whole r with r · n < m is (m − 1) // n. Whole numbers stay exact; a quotient "
        "of floats is rounded.",
    ),
    properties=(Property("the rank is an int", lambda _, value: type(value) is int, form=True),),
    misconceptions=(
        Misconception(
            "as many counts as fewer",
            lambda outputs, inputs: outputs * inputs // (outputs + inputs),
            "where O + I divides O · I, your rank needs exactly as many numbers as W. That saves "
            "nothing: the answer is one less.",
        ),
        Misconception(
            "anything below full rank",
            lambda outputs, inputs: min(outputs, inputs) - 1,
            "you gave the largest rank below full. A matrix of low rank is not yet a small one: "
            "at r = min(O, I) − 1 the factors of a square hold nearly twice as many numbers as W.",
        ),
        Misconception(
            "half of the smaller side",
            lambda outputs, inputs: (min(outputs, inputs) - 1) // 2,
            "half of the side is right for squares alone. A long, thin matrix saves at nearly "
            "every rank below its smaller side.",
        ),
        Misconception(
            "one factor",
            lambda outputs, inputs: (outputs * inputs - 1) // outputs,
            "only B was counted. A is stored as well, r · I numbers.",
        ),
        Misconception(
            "singular values stored, too",
            lambda outputs, inputs: (outputs * inputs - 1) // (outputs + inputs + 1),
            "you counted r singular values beside the factors. They are multiplied into B and A, "
            "and take no room of their own.",
        ),
        Misconception(
            "in floating point",
            lambda outputs, inputs: math.ceil(outputs * inputs / (outputs + inputs)) - 1,
            "the idea is right, but a float has 16 digits: for the largest shapes the quotient is "
            "rounded to a whole number that it is not. // stays exact.",
        ),
    ),
)

# --------------------------------------------------------------------- low_rank_factors

_thin_svd = partial(torch.linalg.svd, full_matrices=False)  # U (O, k), S (k,), Vᵀ (k, I)


def low_rank_factors(weight: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """(left, right), B (O, r) and A (r, I), of the truncated SVD: B A is nearest to W of rank r.

    Column k of B is √σ_k u_k and row k of A is √σ_k v_kᵀ, largest σ first: both factors take the
    same share of it. The sign of a pair is free, and so are the vectors of equal σ. weight W (O, I)
    is float, in any precision; rank r is from 0 to min(O, I). Reckon in float32, in float64 if W
    is; both factors are in the dtype of W.
    """
    wide = weight.to(torch.promote_types(weight.dtype, torch.float32))
    U, S, Vt = _thin_svd(wide)
    root = S[:rank].sqrt()
    left, right = U[:, :rank] * root, root[:, None] * Vt[:rank]
    return left.to(weight.dtype), right.to(weight.dtype)


def with_spectrum(draw: Draw, outputs: int, inputs: int, *sigma: float) -> Tensor:
    """(O, I) in float64 with these singular values, as many as there are; the others are 0."""
    U, V = (torch.linalg.qr(draw.normal(n, len(sigma)).double()).Q for n in (outputs, inputs))
    return U * torch.tensor(sigma).double() @ V.T


def _weights(seed: int) -> list[Case]:
    draw = Draw(seed)
    normal, size = draw.normal, draw.number(1, 9)
    by_hand = torch.tensor([[0.0, 9.0], [4.0, 0.0]]) * size**2
    low = draw.integers(-4, 5, 7, 2).float() @ draw.integers(-4, 5, 2, 6).float()
    symmetric = normal(5, 5)
    labelled = {
        "by hand: σ = 9 and 4, times a square": (by_hand, 1),
        "more inputs than outputs": (normal(5, 8), 3),
        "more outputs than inputs": (normal(9, 4), 2),
        "as many outputs as inputs": (normal(6, 6), 2),
        "symmetric, with negative eigenvalues": (symmetric + symmetric.T, 3),
        "rank 0": (normal(4, 6), 0),
        "full rank, wide": (normal(4, 7), 4),
        "full rank, tall": (normal(7, 4), 4),
        "full rank, square": (normal(5, 5), 5),
        "one output": (normal(1, 6), 1),
        "one input": (normal(6, 1), 1),
        "one number": (-1 - draw.uniform(1, 1), 1),
        "a matrix of zeros": (torch.zeros(draw.number(3, 9), 4), 2),
        "all singular values are equal": (torch.linalg.qr(normal(5, 5)).Q * size, 2),
        "equal ones, all of which stay": (with_spectrum(draw, 6, 7, 5, 5, 5, 1, 1).float(), 3),
        "a higher rank than the matrix has": (low, 4),
        "singular values of very different size": (
            with_spectrum(draw, 8, 7, 1e3, 1, 0.1).float(),
            2,
        ),
        "float64, and the third is a hundred thousandth of the first": (
            with_spectrum(draw, 8, 7, 1e3, 1, 1e-2, 1e-3),
            3,
        ),
        "views": (normal(6, 5).T[:, ::2], 2),
        **_in_scales_and_dtypes(draw),
    }
    return labelled_cases(("weight", "rank"), labelled)


def _in_scales_and_dtypes(draw: Draw) -> dict[str, tuple[Tensor, int]]:
    def matrix(size: float = 1.0, dtype: torch.dtype = torch.float32) -> Tensor:
        return (size * draw.normal(6, 8).double()).to(dtype)

    return {
        "very small": (matrix(1e-20), 3),
        "very large": (matrix(1e20), 3),
        "float16": (matrix(dtype=torch.float16), 3),
        "float16, singular values that do not fit": (
            (4e4 - 1e4 * draw.uniform(6, 8)).half(),
            draw.number(1, 4),
        ),
        "bfloat16": (matrix(dtype=torch.bfloat16), 4),
        "float64": (matrix(dtype=torch.float64), 3),
        "float64, full rank": (matrix(dtype=torch.float64), 6),
        "float64, smaller than float32 knows": (matrix(1e-60, torch.float64), 2),
    }


# What a number may be off by, beside the largest: more than rounding, less than a slip.
ROUNDING = {torch.float16: 2e-3, torch.bfloat16: 2e-2, torch.float32: 1e-5, torch.float64: 1e-9}


def are_factors(inputs: dict, value: list) -> bool:
    """Whether a value is a pair (O, r), (r, I) in the dtype of the weight."""
    weight, rank = inputs["weight"], inputs["rank"]
    (outputs, columns), pair = weight.shape, isinstance(value, list) and len(value) == 2
    shapes = [(outputs, rank), (rank, columns)]
    return (
        pair
        and [tuple(part.shape) for part in value] == shapes
        and all(part.dtype == weight.dtype for part in value)
    )


def all_finite(_: dict, value: list) -> bool:
    """Whether neither factor holds a NaN or an infinity."""
    return all(bool(part.isfinite().all()) for part in value)


def _error(inputs: dict, value: list) -> float:
    left, right = (part.double() for part in value)
    return float(torch.linalg.norm(inputs["weight"].double() - left @ right))


def _least_error(inputs: dict) -> float:
    sigma = torch.linalg.svdvals(inputs["weight"].double())
    return float(torch.linalg.norm(sigma[inputs["rank"] :]))


def _nearest(inputs: dict, value: list) -> bool:
    weight = inputs["weight"]
    rounding = ROUNDING[weight.dtype] * float(torch.linalg.norm(weight.double()))
    return _error(inputs, value) <= _least_error(inputs) + rounding


def _shared(inputs: dict, value: list) -> bool:
    sigma = torch.linalg.svdvals(inputs["weight"].double())
    rounding = ROUNDING[inputs["weight"].dtype] * sigma[0]
    left, right = (part.double() for part in value)
    wanted = torch.diag(sigma[: inputs["rank"]])
    return all(
        bool(((gram - wanted).abs() <= rounding).all()) for gram in (left.T @ left, right @ right.T)
    )


def _error_reached(inputs: dict, value: list) -> str:
    return f"‖W − B A‖ = {_error(inputs, value):.6g} (the least: {_least_error(inputs):.6g})"


def _split(left_of, right_of):
    """Factors from (U, S, Vᵀ) cut to the rank, in the dtype of W."""

    def wrong(weight, rank):
        U, S, Vt = _thin_svd(weight.to(torch.promote_types(weight.dtype, torch.float32)))
        U, S, Vt = U[:, :rank], S[:rank], Vt[:rank]
        return left_of(U, S).to(weight.dtype), right_of(S[:, None], Vt).to(weight.dtype)

    return wrong


def _not_transposed(weight, rank):
    U, S, Vt = _thin_svd(weight.to(torch.promote_types(weight.dtype, torch.float32)))
    root = S[:rank].sqrt()
    right = (Vt[:, :rank] * root).T  # as if it were V
    return (U[:, :rank] * root).to(weight.dtype), right.to(weight.dtype)


def _last_directions(weight, rank):
    U, S, Vt = _thin_svd(weight.to(torch.promote_types(weight.dtype, torch.float32)))
    first = len(S) - rank
    root = S[first:].sqrt()
    left, right = U[:, first:] * root, root[:, None] * Vt[first:]
    return left.to(weight.dtype), right.to(weight.dtype)


LOW_RANK_FACTORS = Exercise(
    reference=low_rank_factors,
    cases=_weights,
    compare=False,
    reached=_error_reached,
    hints=(
        "torch.linalg.svd writes W as U · diag(S) · Vᵀ, S sorted, largest first. Which columns of "
        "U, and which rows of Vᵀ, belong to the r largest?",
        "U[:, :rank], S[:rank], Vt[:rank]. Their product is the best of rank r. Now σ has to go "
        "somewhere: what must each factor take, so that both take the same?",
        "root = S[:rank].sqrt(); U[:, :rank] * root is B, root[:, None] * Vt[:rank] is A. Half "
        "precision first becomes float32, and the factors go back at the end. full_matrices=False "
        "leaves out what you cut off anyway.",
    ),
    properties=(
        Property("left is (O, r) and right is (r, I), both in W's dtype", are_factors, form=True),
        Property("all numbers are finite", all_finite),
        Property("no product of rank r is nearer to W: ‖W − B A‖ is the least", _nearest),
        Property("σ is shared evenly: BᵀB = A Aᵀ = diag(σ₁, …, σ_r), largest first", _shared),
    ),
    misconceptions=(
        Misconception(
            "all of σ in one factor",
            _split(lambda U, S: U * S, lambda S, Vt: Vt),
            "the product is right, but B took all of σ. In float16 that may not even fit; and "
            "whoever trains or rounds the factors wants them of one size: √σ each.",
        ),
        Misconception(
            "σ in both factors",
            _split(lambda U, S: U * S, lambda S, Vt: S * Vt),
            "both factors took σ, so the product has σ². Each gets the root.",
        ),
        Misconception(
            "σ in neither",
            _split(lambda U, S: U, lambda S, Vt: Vt),
            "σ was left out: the product turns its input, and stretches nothing.",
        ),
        Misconception(
            "V taken for its transpose",
            _not_transposed,
            "torch.linalg.svd gives Vᵀ, with a direction in each *row*. You cut its columns, as if "
            "it were V.",
        ),
        Misconception(
            "the last directions",
            _last_directions,
            "these are the r smallest σ. torch.linalg.svd sorts them with the largest first (eigh "
            "the other way round).",
        ),
        Misconception(
            "factors in another dtype",
            lambda weight, rank: tuple(
                part.float() for part in low_rank_factors(weight.float(), rank)
            ),
            "the factors are float32, whatever W is. Convert them back at the end: for a float16 "
            "weight they are twice as large as they should be, for a float64 one half as fine.",
        ),
    ),
)
