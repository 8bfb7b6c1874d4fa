"""Exercises of 01_redundancy: similar texts, found without comparing everything with everything.

Axes: S shingles, K hash functions, N documents.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from course_lib.exercises.engine.seeded import Draw
from course_lib.exercises.engine.spec import Case, Exercise, Misconception, Property, labelled_cases

# --------------------------------------------------------------------- minhash_signature


def minhash_signature(shingles: Tensor, factors: Tensor, shifts: Tensor, prime: int) -> Tensor:
    """The minimum over the shingles of (factor · x + shift) mod prime, for each of K hashes: (K,).

    shingles: (S,) numbers from 0 to prime − 1. factors, shifts: (K,), below prime, too. All int64,
    and prime is below 2³¹, so that no product is too large.
    """
    hashed = (factors[:, None] * shingles + shifts[:, None]) % prime
    return hashed.amin(dim=1)


def _shingle_numbers(seed: int) -> list[Case]:
    draw = Draw(seed)
    big = 2**31 - 1
    small = torch.tensor([3, 14, 15, 92, 65])
    by_hand = (small, torch.tensor([7, 3, 50]), torch.tensor([1, 0, 40]), 101)
    some, factors = draw.integers(0, 89, 6), draw.integers(1, 89, 7)
    to_zero = (
        -factors * some[draw.number(0, 6)]
    ) % 89  # with these shifts, one shingle hashes to 0
    inputs = {
        "numbers to check by hand": by_hand,
        "one shingle": (torch.tensor([8]), torch.tensor([5, 9]), torch.tensor([2, 30]), 31),
        "one hash": _hash_inputs(draw, 5, 1, 61),
        "as many hashes as shingles": _hash_inputs(draw, 4, 4, 97),
        "large numbers": _hash_inputs(draw, 40, 16, big),
        "numbers as large as they come": (
            big - 1 - draw.integers(0, 4, 12),
            big - 1 - draw.integers(0, 9, 5),
            big - 1 - draw.integers(0, 9, 5),
            big,
        ),
        "a minimum of zero": (some, factors, to_zero, 89),
        "the smallest prime": (torch.tensor([0, 1]), torch.tensor([1, 1]), torch.tensor([0, 1]), 2),
        "the same shingles in another order": (small.flip(0), *by_hand[1:]),
    }
    return labelled_cases(("shingles", "factors", "shifts", "prime"), inputs)


def _hash_inputs(draw: Draw, shingles: int, hashes: int, prime: int) -> tuple:
    some = draw.integers(0, prime, shingles)
    return some, draw.integers(1, prime, hashes), draw.integers(0, prime, hashes), prime


def _hashed(shingles, factors, shifts, prime):
    return (factors[:, None] * shingles + shifts[:, None]) % prime


MINHASH_SIGNATURE = Exercise(
    reference=minhash_signature,
    cases=_shingle_numbers,
    hints=(
        "Every hash function looks at every shingle: make a table with K rows and S columns.",
        "factors[:, None] is a column, and a column times a row is a table.",
        "First the remainder by prime, which mixes the order; then the minimum of each row.",
    ),
    properties=(
        Property(
            "one number for each hash function",
            lambda inputs, value: value.shape == inputs["factors"].shape,
        ),
    ),
    misconceptions=(
        Misconception(
            "no remainder",
            lambda x, a, c, p: (a[:, None] * x + c[:, None]).amin(dim=1),
            "without the remainder the order of the shingles stays as it was: every hash function "
            "picks the smallest number, and all K positions ask the same question.",
        ),
        Misconception(
            "remainder of the minimum",
            lambda x, a, c, p: (a[:, None] * x + c[:, None]).amin(dim=1) % p,
            "you took the minimum first and the remainder after it. The remainder is what mixes "
            "the order; so every hash function picked the same shingle.",
        ),
        Misconception(
            "one minimum for all",
            lambda x, a, c, p: _hashed(x, a, c, p).amin(),
            "that is the minimum over all hash functions together: one number. A signature has one "
            "for each function; only their share of equal positions estimates J.",
        ),
        Misconception(
            "which instead of what",
            lambda x, a, c, p: _hashed(x, a, c, p).argmin(dim=1),
            "argmin says at which place the minimum stands. The place depends on how the shingles "
            "are listed, and a set has no order.",
        ),
        Misconception(
            "a minimum for each shingle",
            lambda x, a, c, p: _hashed(x, a, c, p).amin(dim=0),
            "the minimum went over the hash functions and left one number for each shingle. "
            "Signatures of texts of different lengths could not be compared.",
        ),
        Misconception(
            "the largest",
            lambda x, a, c, p: _hashed(x, a, c, p).amax(dim=1),
            "the maximum works as well as the minimum, but signatures can be compared only if "
            "everyone takes the same one.",
        ),
    ),
)

# ---------------------------------------------------------------------- estimate_jaccard


def estimate_jaccard(signatures: Tensor) -> Tensor:
    """The share of equal positions of every two signatures: (N, K) -> (N, N), float32."""
    equal = signatures[:, None] == signatures[None, :]  # (N, K) -> (N, N, K)
    return equal.float().mean(dim=2)


def _signatures(seed: int) -> list[Case]:
    draw = Draw(seed)
    mixed = torch.tensor([[3, 1, 4, 1], [1, 3, 1, 4], [3, 1, 5, 9]])
    near = torch.tensor([[2147480000, 2147483645], [2147480001, 2147483646]])
    inputs = {
        "three signatures": (mixed,),
        "two equal ones": (torch.tensor([[2, 7, 1], [2, 7, 1], [8, 2, 8]]),),
        "one signature": (torch.tensor([[5, 6]]),),
        "signatures of one number": (torch.tensor([[4], [0], [4], [0]]),),
        "nothing but zeros": (torch.zeros(2, 5, dtype=torch.long),),
        "five of twenty positions": (draw.integers(0, 3, 5, 20),),
        "many of seven positions": (draw.integers(0, 2, 12, 7),),
        "close is not equal": (torch.tensor([[10, 20, 30, 40], [11, 20, 29, 41]]),),
        "large and close is not equal": (near,),
        "large, close or equal": (2**31 - 3 + draw.integers(0, 2, 4, 30),),
    }
    return labelled_cases(("signatures",), inputs)


def _as_sets(signatures):
    sets = [set(row) for row in signatures.tolist()]
    table = [[len(a & b) / len(a | b) for b in sets] for a in sets]
    return torch.tensor(table, device=signatures.device)


def _equal_positions(signatures):
    return (signatures[:, None] == signatures[None, :]).float()


def _whole_signature(signatures):
    return _equal_positions(signatures).amin(dim=2)


def _anywhere(signatures):
    rows = list(signatures)
    shares = [[torch.isin(a, b).float().mean() for b in rows] for a in rows]
    return torch.stack([torch.stack(row) for row in shares])


ESTIMATE_JACCARD = Exercise(
    reference=estimate_jaccard,
    cases=_signatures,
    hints=(
        "Position k of two signatures is equal with probability J. So what does a share estimate?",
        "signatures[:, None] == signatures[None, :] compares every two at every position.",
        "Convert to float, then the mean over the last axis.",
    ),
    properties=(
        Property(
            "a signature is equal to itself", lambda inputs, v: bool((v.diagonal() == 1).all())
        ),
    ),
    misconceptions=(
        Misconception(
            "Jaccard of the signatures",
            _as_sets,
            "you took the signatures for sets. They are lists: position k belongs to hash function "
            "k, and a 3 there has nothing to do with a 3 elsewhere.",
        ),
        Misconception(
            "equal anywhere",
            _anywhere,
            "a number counted if it stands anywhere in the other signature. Only the same hash "
            "function may be compared: position by position.",
        ),
        Misconception(
            "count instead of share",
            lambda s: _equal_positions(s).sum(dim=2),
            "that is the number of equal positions. Divide by K.",
        ),
        Misconception(
            "all or nothing",
            _whole_signature,
            "you asked whether the whole signature is equal. That has probability J to the power "
            "K, next to nothing for everything but copies.",
        ),
        Misconception(
            "averaged over documents",
            lambda s: _equal_positions(s).mean(dim=1),
            "the mean went over documents instead of over positions.",
        ),
    ),
)

# ---------------------------------------------------------------------- band_probability


def band_probability(similarity: Tensor, bands: int, rows: int) -> Tensor:
    """How likely at least one of `bands` bands of `rows` positions is equal throughout.

    similarity: of any shape, from 0 to 1. The result has its shape and dtype.
    """
    return 1 - (1 - similarity**rows) ** bands


def _bandings(seed: int) -> list[Case]:
    draw = Draw(seed)
    grid = torch.linspace(0, 1, 6)
    # The step of the S-curve of 1000 bands of 10 rows is at 0.5.
    steep = 0.4 + 0.2 * draw.uniform(20).double()
    inputs = {
        "20 bands of 5 rows": (grid, 20, 5),
        "5 bands of 20 rows": (grid, 5, 20),
        "one band": (grid, 1, 4),
        "bands of one row": (grid, 4, 1),
        "one band of one row": (grid, 1, 1),
        "one pair": (0.5 + 0.4 * draw.uniform(1)[0], 32, 4),
        "any similarities": (draw.uniform(7), draw.number(2, 9), draw.number(2, 5)),
        "a table of them": (draw.uniform(3, 4), draw.number(10, 16), draw.number(3, 6)),
        "a thousand bands, in float64": (steep, 1000, 10),
        "strangers and copies": (torch.tensor([0.0, 1.0]), draw.number(2, 30), draw.number(2, 9)),
    }
    return labelled_cases(("similarity", "bands", "rows"), inputs)


def _rises(inputs, value) -> bool:
    order = inputs["similarity"].reshape(-1).argsort()
    return bool((value.reshape(-1)[order].diff() >= -1e-6).all())


BAND_PROBABILITY = Exercise(
    reference=band_probability,
    cases=_bandings,
    absolute_tolerance=1e-5,  # 1 − p loses the last digits, and each way of writing it other ones
    hints=(
        "One position is equal with probability J. What about all rows of one band at once?",
        "A band is equal with probability Jʳ, so it differs with probability 1 − Jʳ.",
        "A pair is missed only if every band differs: (1 − Jʳ)ᵇ. The rest is found.",
    ),
    properties=(
        Property(
            "more similar pairs are found no less often",
            _rises,
        ),
    ),
    misconceptions=(
        Misconception(
            "bands and rows swapped",
            lambda s, bands, rows: 1 - (1 - s**bands) ** rows,
            "bands and rows are swapped. The rows of one band must all be equal (J to the power "
            "rows); of the bands, one is enough.",
        ),
        Misconception(
            "the missed ones",
            lambda s, bands, rows: (1 - s**rows) ** bands,
            "this is the chance that a pair is missed. The chance that it is found is the rest.",
        ),
        Misconception(
            "chances added up",
            lambda s, bands, rows: (bands * s**rows).clamp(max=1),
            "you added up the chances of the bands. Two bands may be equal at once, and such pairs "
            "were counted twice: at high similarity the sum passes one.",
        ),
        Misconception(
            "all bands",
            lambda s, bands, rows: s ** (rows * bands),
            "you asked for all bands to be equal: the whole signature. One band is enough.",
        ),
        Misconception(
            "one row is enough",
            lambda s, bands, rows: (1 - (1 - s) ** rows) ** bands,
            "here one equal row makes a band and all bands are needed. It is the other way round.",
        ),
    ),
)

# -------------------------------------------------------------------------- choose_bands


def choose_bands(hashes: int, similarity: float, missed: float) -> tuple[int, int]:
    """(bands, rows), bands · rows = hashes, with the most rows that a demand allows.

    The demand: a pair of this similarity is missed with probability `missed` or less.
    """
    splits = [(*divmod(hashes, rows), rows) for rows in range(hashes, 0, -1)]
    whole = [(bands, rows) for bands, rest, rows in splits if rest == 0]
    return [(b, r) for b, r in whole if (1 - similarity**r) ** b <= missed][0]


def _demands(seed: int) -> list[Case]:
    draw = Draw(seed)
    inputs = {
        "128 hashes, pairs from 0.7 on": (128, 0.7, 0.01),
        "similar pairs only": (128, 0.9, 0.01),
        "less similar pairs too": (128, 0.4, 0.01),
        "hardly any may be missed": (128, 0.7, 1e-6),
        "a hundred hashes": (100, 0.8, 0.05),
        "only equal texts": (64, 1.0, 0.01),
        "no equal text may be missed": (60, 1.0, 0.0),
        "all may be missed": (360, 0.2, 1.0),
        "a little less than two rows need": (4, 0.5, 0.5624),
        "one in a hundred trillion": (240, 0.9, 1e-14),
        "as many as allowed": (2, 0.5, 0.25),
        "bands of one row": (16, 0.25, 0.1),
        "one hash": (1, 0.9, 0.2),
        "a prime number of hashes": (127, 0.95, 0.001),
        "one in a billion": (240, 0.9, 1e-9),
        "any demand": _clear_demand(draw, (60, 72, 84, 90, 96)),
        "another demand": _clear_demand(draw, (120, 144, 180, 200, 210)),
        "a third demand": _clear_demand(draw, (225, 256, 300, 315, 360)),
    }
    return labelled_cases(("hashes", "similarity", "missed"), inputs)


def _clear_demand(draw: Draw, choices: tuple[int, ...]) -> tuple[int, float, float]:
    """A demand that some rows meet with room to spare, and the next larger number fails clearly."""
    hashes = choices[draw.number(0, len(choices))]
    similarity = draw.number(60, 90) / 100
    divisors = [rows for rows in range(1, hashes + 1) if hashes % rows == 0]
    misses = [(1 - similarity**rows) ** (hashes / rows) for rows in divisors]
    near = [i for i in range(len(divisors) - 1) if misses[i + 1] > 1e-6]
    at = near[0] + draw.number(0, 2)
    return hashes, similarity, math.sqrt(misses[at] * misses[at + 1])


def _choose(rows_of) -> Callable:
    def choose(hashes, similarity, missed):
        divisors = [r for r in range(1, hashes + 1) if hashes % r == 0]
        rows = rows_of(divisors, hashes, similarity, missed)
        return hashes // rows, rows

    return choose


def _steepest(divisors, hashes, similarity, missed):
    return min(divisors, key=lambda r: abs((r / hashes) ** (1 / r) - similarity))


def _found_as_missed(divisors, hashes, similarity, missed):
    good = [r for r in divisors if 1 - (1 - similarity**r) ** (hashes / r) <= missed]
    return max(good, default=1)


def _any_rows(divisors, hashes, similarity, missed):
    rows = range(1, hashes + 1)
    return max(r for r in rows if (1 - similarity**r) ** (hashes // r) <= missed)


def _one_band(divisors, hashes, similarity, missed):
    return max([r for r in divisors if 1 - similarity**r <= missed], default=1)


CHOOSE_BANDS = Exercise(
    reference=choose_bands,
    cases=_demands,
    hints=(
        "Which numbers of rows are possible at all? Those that divide `hashes`.",
        "With r rows there are hashes / r bands, and a pair is missed with (1 − Jʳ)^(hashes / r).",
        "More rows mean fewer candidates to compare in vain, and more pairs missed: take the "
        "largest r that still keeps the demand.",
    ),
    properties=(
        Property(
            "bands times rows is the number of hashes",
            lambda inputs, value: value[0] * value[1] == inputs["hashes"],
        ),
        Property(
            "no more pairs are missed than allowed",
            lambda inputs, value: (
                (1 - inputs["similarity"] ** value[1]) ** value[0] <= inputs["missed"]
            ),
        ),
    ),
    misconceptions=(
        Misconception(
            "the steepest part",
            _choose(_steepest),
            "you put the steep part of the S-curve, (1 / b)^(1 / r), on the similarity asked for. "
            "There a good third of the pairs is missed: the curve must be high by then.",
        ),
        Misconception(
            "fewest rows",
            _choose(lambda divisors, *_: 1),
            "with one row a band almost nothing is missed, but nearly every pair becomes a "
            "candidate, and you compare everything with everything. Ask for no more than needed.",
        ),
        Misconception(
            "found taken for missed",
            _choose(_found_as_missed),
            "1 − (1 − Jʳ)ᵇ is the chance to be found. `missed` limits the chance to be missed.",
        ),
        Misconception(
            "rows that do not divide",
            _choose(_any_rows),
            "these rows do not divide the signature: some of its positions are left over.",
        ),
        Misconception(
            "one band only",
            _choose(_one_band),
            "you asked one band to find the pair. All the bands try, and one success is enough.",
        ),
        Misconception(
            "rows before bands",
            lambda *inputs: choose_bands(*inputs)[::-1],
            "the numbers are right, but in the wrong order: bands first, then rows.",
        ),
    ),
)
