"""Exercises of 01_redundancy: equal texts, similar texts, and parts that a model has twice.

Axes: V vocabulary, S shingles, K hash functions, N documents or tokens, F hidden units, I inputs,
O outputs.
"""

from collections import Counter
from collections.abc import Callable

import torch
from torch import Tensor

from course_lib.exercises.engine.spec import Case, Exercise, Misconception, Property


def _cases(names: tuple[str, ...], inputs: dict[str, tuple]) -> list[Case]:
    return [Case(label, dict(zip(names, v, strict=True))) for label, v in inputs.items()]


def _generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# ------------------------------------------------------------------- interpolated_bigram


def interpolated_bigram(pairs: Tensor, unigram: Tensor) -> Tensor:
    """p(w | v) after Witten and Bell, row v for each token v: (V, V).

    pairs: (V, V), how often w (column) followed v (row). unigram: (V,), p(w).
    """
    total = pairs.sum(dim=1, keepdim=True)
    followers = (pairs > 0).sum(dim=1, keepdim=True)
    mixed = (pairs + followers * unigram) / (total + followers)
    return torch.where(total > 0, mixed, unigram)


def _counts() -> list[Case]:
    some = torch.tensor([[0, 3, 1], [2, 0, 0], [1, 1, 5]])
    once = torch.tensor([[0, 1, 0], [4, 0, 2], [1, 0, 0]])
    last = torch.tensor([[2, 1, 1], [0, 0, 0], [0, 1, 0]])
    many = torch.poisson(torch.full((6, 6), 0.7), generator=_generator()).long()
    even = torch.full((3,), 1 / 3)
    uneven = torch.tensor([0.6, 0.3, 0.1])
    inputs = {
        "three tokens": (some, even),
        "tokens differ in how common they are": (some, uneven),
        "contexts seen once": (once, uneven),
        "a context never seen": (last, uneven),
        "six tokens": (many, torch.tensor([0.3, 0.25, 0.2, 0.15, 0.06, 0.04])),
    }
    return _cases(("pairs", "unigram"), inputs)


def _add_one(pairs, unigram):
    return (pairs + 1) / (pairs.sum(dim=1, keepdim=True) + len(unigram))


def _more_than_one(pairs, unigram):
    total = pairs.sum(dim=1, keepdim=True)
    followers = (pairs > 0).sum(dim=1, keepdim=True)
    return torch.where(total > 0, (pairs + followers * unigram) / total, unigram)


def _only_where_unseen(pairs, unigram):
    total = pairs.sum(dim=1, keepdim=True)
    return torch.where(pairs > 0, pairs / total.clamp(min=1), unigram)


def _no_fallback(pairs, unigram):
    followers = (pairs > 0).sum(dim=1, keepdim=True)
    return (pairs + followers * unigram) / (pairs.sum(dim=1, keepdim=True) + followers)


def _columns(pairs, unigram):
    total = pairs.sum(dim=0, keepdim=True)
    followers = (pairs > 0).sum(dim=0, keepdim=True)
    return torch.where(total > 0, (pairs + followers * unigram) / (total + followers), unigram)


def _no_unigram(pairs, unigram):
    total = pairs.sum(dim=1, keepdim=True)
    return torch.where(total > 0, pairs / total.clamp(min=1), unigram)


INTERPOLATED_BIGRAM = Exercise(
    reference=interpolated_bigram,
    cases=_counts,
    hints=(
        "For each row you need two numbers: how often v came at all, and how many different tokens "
        "followed it.",
        "keepdim=True keeps them as a column, so that they spread over the row.",
        "(pairs + followers · unigram) / (total + followers); a row without any count is the "
        "unigram itself.",
    ),
    properties=(
        Property(
            "every row sums to one",
            lambda inputs, p: bool(torch.isclose(p.sum(1), torch.ones(len(p)), atol=1e-5).all()),
        ),
        Property(
            "nothing that the unigram allows is impossible", lambda inputs, p: bool((p > 0).all())
        ),
    ),
    misconceptions=(
        Misconception(
            "add one",
            _add_one,
            "you added one to every count (Laplace). That sums to one too, but it gives every "
            "unseen pair the same chance: after a rare word, `the` and `Nebuchadnezzar` would be "
            "equally likely. The unigram knows better.",
        ),
        Misconception(
            "more than one",
            _more_than_one,
            "the shares handed to the unigram were added on top: your rows sum to more than one. "
            "What goes to unseen tokens has to come from somewhere: divide by total + followers.",
        ),
        Misconception(
            "unigram only where unseen",
            _only_where_unseen,
            "seen pairs kept all of the probability, and unseen pairs got some on top. Such a row "
            "sums to more than one. Every seen pair has to give up a little.",
        ),
        Misconception(
            "no fallback",
            _no_fallback,
            "a token that was never followed by anything has total 0 and followers 0, and 0 / 0 is "
            "no number. There the unigram is all that you know.",
        ),
        Misconception(
            "columns",
            _columns,
            "you added up columns. Row v holds what followed v; a column holds what came before w.",
        ),
        Misconception(
            "nothing for the unseen",
            _no_unigram,
            "these are the raw shares. A pair that was never seen gets probability zero, and the "
            "first such pair in a new text costs infinitely many bits.",
        ),
    ),
)

# ---------------------------------------------------------------------------- keep_first


def keep_first(documents: list[str]) -> list[int]:
    """Indices of the first copy of each text, where case and white space do not matter."""
    first: dict[str, int] = {}
    for index, text in enumerate(documents):
        first.setdefault(" ".join(text.casefold().split()), index)
    return list(first.values())


def _documents() -> list[Case]:
    mat = ["The cat sat on the mat", "the  cat sat on the mat", "the mat sat on the cat", "A dog"]
    inputs = {
        "case and white space": (mat,),
        "three copies, not side by side": (["a b", "c", "A B", "d", "a\tb\n", "c"],),
        "white space inside a word": (["no where", "nowhere", "No  Where"],),
        "an empty text, twice": (["", "a", " \n"],),
        "letters of other alphabets": (["STRASSE", "straße", "Ωmega", "ωMEGA"],),
        "no text": ([],),
    }
    return _cases(("documents",), inputs)


def _keep_by(key) -> Callable:
    def keep(documents):
        keys = [key(text) for text in documents]
        return [i for i, k in enumerate(keys) if keys.index(k) == i]

    return keep


def _normal(text):
    return " ".join(text.casefold().split())


def _remove_every_copy(documents):
    keys = [_normal(text) for text in documents]
    return [i for i, k in enumerate(keys) if keys.count(k) == 1]


def _keep_last(documents):
    keys = [_normal(text) for text in documents]
    return [i for i, k in enumerate(keys) if k not in keys[i + 1 :]]


def _neighbours_only(documents):
    keys = [_normal(text) for text in documents]
    return [i for i, k in enumerate(keys) if i == 0 or keys[i - 1] != k]


KEEP_FIRST = Exercise(
    reference=keep_first,
    cases=_documents,
    hints=(
        "Bring each text into a form that is the same for all copies, and remember which you met.",
        'text.casefold() does away with case, " ".join(text.split()) with white space.',
        "A dictionary from form to index, filled with setdefault, keeps the first index.",
    ),
    misconceptions=(
        Misconception(
            "raw text",
            _keep_by(lambda text: text),
            "you compared the texts letter by letter. A second blank or a capital makes a copy "
            "look new: exact matching always depends on what is done before.",
        ),
        Misconception(
            "bag of words",
            _keep_by(lambda text: tuple(sorted(text.casefold().split()))),
            "the order of the words was lost. The cat on the mat is not the mat on the cat.",
        ),
        Misconception(
            "every copy removed",
            _remove_every_copy,
            "all copies are gone, the first one too. Its content is not redundant: it is redundant "
            "as long as another copy stays.",
        ),
        Misconception(
            "last copy kept",
            _keep_last,
            "you kept the last copy. Which one stays is a rule to agree on; here it is the first.",
        ),
        Misconception(
            "white space deleted",
            _keep_by(lambda text: "".join(text.casefold().split())),
            "white space was deleted instead of made equal, so that `no where` became `nowhere`.",
        ),
        Misconception(
            "neighbours only",
            _neighbours_only,
            "each text was compared with the one before it only. Copies need not be neighbours.",
        ),
    ),
)

# ----------------------------------------------------------------------- shingle_jaccard


def shingle_jaccard(first: list[str], second: list[str], width: int) -> float:
    """|A ∩ B| / |A ∪ B| of the sets of runs of `width` words (each text has at least that many)."""
    a = {tuple(first[i : i + width]) for i in range(len(first) - width + 1)}
    b = {tuple(second[i : i + width]) for i in range(len(second) - width + 1)}
    return len(a & b) / len(a | b)


def _word_lists() -> list[Case]:
    cat = "the cat sat on the mat"
    said = "and he said and he said and he said unto them"
    texts = {
        "one word replaced": (cat, "the cat sat on a mat", 3),
        "equal texts": (cat, cat, 3),
        "the same words in another order": (cat, "the mat sat on the cat", 2),
        "a text that repeats itself": (said, "and he said unto them go", 3),
        "both repeat themselves": (said, "he said and he said nothing", 2),
        "one is part of the other": (cat, "so the cat sat on the mat again", 3),
        "nothing in common": (cat, "a dog ran off", 2),
        "as long as a shingle": ("a b c", "a b c d", 3),
    }
    inputs = {label: (a.split(), b.split(), width) for label, (a, b, width) in texts.items()}
    return _cases(("first", "second", "width"), inputs)


def _runs(words, width):
    return [tuple(words[i : i + width]) for i in range(len(words) - width + 1)]


def _multiset(first, second, width):
    a, b = Counter(_runs(first, width)), Counter(_runs(second, width))
    return (a & b).total() / (a | b).total()


def _bag(first, second, width):
    return len({*first} & {*second}) / len({*first} | {*second})


def _containment(first, second, width):
    a, b = {*_runs(first, width)}, {*_runs(second, width)}
    return len(a & b) / len(a)


def _dice(first, second, width):
    a, b = {*_runs(first, width)}, {*_runs(second, width)}
    return 2 * len(a & b) / (len(a) + len(b))


def _chunks(first, second, width):
    a, b = ({*_runs(words, width)[::width]} for words in (first, second))
    return len(a & b) / len(a | b)


def _one_short(first, second, width):
    a, b = {*_runs(first[:-1], width)}, {*_runs(second[:-1], width)}
    return len(a & b) / len(a | b)


SHINGLE_JACCARD = Exercise(
    reference=shingle_jaccard,
    cases=_word_lists,
    hints=(
        "List the runs of `width` words: the first begins at word 0, the next at word 1, …",
        "n words have n − width + 1 runs. Lists cannot be in a set; tuples can.",
        "With sets a and b, a & b holds what both have and a | b what either has.",
    ),
    properties=(
        Property("from 0 to 1", lambda inputs, value: 0 <= value <= 1),
        Property(
            "equal texts give 1", lambda inputs, v: inputs["first"] != inputs["second"] or v == 1
        ),
    ),
    misconceptions=(
        Misconception(
            "multisets",
            _multiset,
            "you counted how often each shingle occurs. In a set it occurs once: a text that says "
            "`and he said` ten times is no more like another for it. MinHash, which comes next, "
            "estimates the similarity of sets.",
        ),
        Misconception(
            "single words",
            _bag,
            "you compared single words, so their order does not matter. `The mat sat on the cat` "
            "came out equal to `the cat sat on the mat`.",
        ),
        Misconception(
            "containment",
            _containment,
            "you divided by the first text's shingles. That is containment: it is 1 for a passage "
            "inside a long text, and swapping the texts changes it.",
        ),
        Misconception(
            "sum instead of union",
            _dice,
            "you divided by the sum of both sizes, in which common shingles count twice. That is "
            "Dice's coefficient, another measure.",
        ),
        Misconception(
            "cut into chunks",
            _chunks,
            "your runs do not overlap. One word inserted at the start moves every later chunk, and "
            "an otherwise equal text looks new. Begin a run at every word.",
        ),
        Misconception(
            "last shingle missed",
            _one_short,
            "the last run is missing. n words have n − width + 1 runs; range(n − width) stops one "
            "early.",
        ),
    ),
)

# --------------------------------------------------------------------- minhash_signature


def minhash_signature(shingles: Tensor, factors: Tensor, shifts: Tensor, prime: int) -> Tensor:
    """The minimum over the shingles of (factor · x + shift) mod prime, for each of K hashes: (K,).

    shingles: (S,) numbers from 0 to prime − 1. factors, shifts: (K,). All int64.
    """
    hashed = (factors[:, None] * shingles + shifts[:, None]) % prime
    return hashed.amin(dim=1)


def _shingle_numbers() -> list[Case]:
    def draw(high, count, low=0):
        return torch.randint(low, high, (count,), generator=generator)

    generator = _generator()
    big = 2**31 - 1
    small = torch.tensor([3, 14, 15, 92, 65])
    by_hand = (small, torch.tensor([7, 3, 50]), torch.tensor([1, 0, 40]), 101)
    inputs = {
        "numbers to check by hand": by_hand,
        "one shingle": (torch.tensor([8]), torch.tensor([5, 9]), torch.tensor([2, 30]), 31),
        "as many hashes as shingles": (draw(97, 4), draw(97, 4, 1), draw(97, 4), 97),
        "large numbers": (draw(big, 40), draw(big, 16, 1), draw(big, 16), big),
        "the same shingles in another order": (small.flip(0), *by_hand[1:]),
    }
    return _cases(("shingles", "factors", "shifts", "prime"), inputs)


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


def _signatures() -> list[Case]:
    mixed = torch.tensor([[3, 1, 4, 1], [1, 3, 1, 4], [3, 1, 5, 9]])
    random = torch.randint(0, 3, (5, 20), generator=_generator())
    inputs = {
        "three signatures": (mixed,),
        "two equal ones": (torch.tensor([[2, 7, 1], [2, 7, 1], [8, 2, 8]]),),
        "one signature": (torch.tensor([[5, 6]]),),
        "five of twenty positions": (random,),
        "close is not equal": (torch.tensor([[10, 20, 30, 40], [11, 20, 29, 41]]),),
    }
    return _cases(("signatures",), inputs)


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
    """How likely at least one of `bands` bands of `rows` positions is equal throughout."""
    return 1 - (1 - similarity**rows) ** bands


def _bandings() -> list[Case]:
    grid = torch.linspace(0, 1, 6)
    inputs = {
        "20 bands of 5 rows": (grid, 20, 5),
        "5 bands of 20 rows": (grid, 5, 20),
        "one band": (grid, 1, 4),
        "bands of one row": (grid, 4, 1),
        "one pair": (torch.tensor(0.7), 32, 4),
    }
    return _cases(("similarity", "bands", "rows"), inputs)


BAND_PROBABILITY = Exercise(
    reference=band_probability,
    cases=_bandings,
    hints=(
        "One position is equal with probability J. What about all rows of one band at once?",
        "A band is equal with probability Jʳ, so it differs with probability 1 − Jʳ.",
        "A pair is missed only if every band differs: (1 − Jʳ)ᵇ. The rest is found.",
    ),
    properties=(
        Property(
            "more similar pairs are found no less often",
            lambda inputs, value: bool((value.reshape(-1).diff() >= 0).all()),
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
    divisors = [rows for rows in range(hashes, 0, -1) if hashes % rows == 0]
    good = [r for r in divisors if (1 - similarity**r) ** (hashes / r) <= missed]
    return hashes // max(good), max(good)


def _demands() -> list[Case]:
    inputs = {
        "128 hashes, pairs from 0.7 on": (128, 0.7, 0.01),
        "similar pairs only": (128, 0.9, 0.01),
        "less similar pairs too": (128, 0.4, 0.01),
        "hardly any may be missed": (128, 0.7, 1e-6),
        "a hundred hashes": (100, 0.8, 0.05),
        "only equal texts": (64, 1.0, 0.01),
        "as many as allowed": (2, 0.5, 0.25),
        "bands of one row": (16, 0.25, 0.1),
    }
    return _cases(("hashes", "similarity", "missed"), inputs)


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

# ------------------------------------------------------------------------ effective_rank


def effective_rank(matrix: Tensor) -> Tensor:
    """exp of the entropy (in nats) of the singular values, taken as shares of their sum."""
    values = torch.linalg.svdvals(matrix)
    return torch.special.entr(values / values.sum()).sum().exp()


def _matrices() -> list[Case]:
    generator = _generator()
    wide = torch.randn(4, 9, generator=generator)
    left, right = torch.randn(6, 2, generator=generator), torch.randn(2, 5, generator=generator)
    turned = torch.linalg.qr(torch.randn(4, 4, generator=generator)).Q
    inputs = {
        "three equal directions": (torch.eye(3),),
        "two and a half": (torch.diag(torch.tensor([2.0, 2.0, 1.0])),),
        "a zero among the singular values": (torch.diag(torch.tensor([3.0, 1.0, 0.0])),),
        "a random matrix": (wide,),
        "a product of thin matrices": (left @ right,),
        "a rotated diagonal": (turned @ torch.diag(torch.tensor([4.0, 1.0, 0.5, 0.1])),),
        "the same, a hundred times larger": (100 * wide,),
    }
    return _cases(("matrix",), inputs)


def _rank_of_shares(shares):
    return torch.special.entr(shares).sum().exp()


def _energy_shares(matrix):
    energy = torch.linalg.svdvals(matrix).square()
    return _rank_of_shares(energy / energy.sum())


def _stable(matrix):
    energy = torch.linalg.svdvals(matrix).square()
    return energy.sum() / energy[0]


def _entropy_only(matrix):
    values = torch.linalg.svdvals(matrix)
    return torch.special.entr(values / values.sum()).sum()


def _bits_and_exp(matrix):
    values = torch.linalg.svdvals(matrix)
    return (torch.special.entr(values / values.sum()).sum() / torch.tensor(2.0).log()).exp()


def _zero_times_log(matrix):
    values = torch.linalg.svdvals(matrix)
    shares = values / values.sum()
    return (-(shares * shares.log()).sum()).exp()


EFFECTIVE_RANK = Exercise(
    reference=effective_rank,
    cases=_matrices,
    relative_tolerance=1e-4,
    hints=(
        "torch.linalg.svdvals gives the singular values. Divided by their sum they are shares.",
        "The entropy is −Σ p ln p. torch.special.entr(p) is −p ln p, and 0 where p is 0.",
        "n equal shares have the entropy ln n. exp turns it back into n.",
    ),
    properties=(
        Property(
            "between one and the smaller side of the matrix",
            lambda inputs, v: bool(0.999 <= v <= 1.001 * min(inputs["matrix"].shape)),
        ),
    ),
    misconceptions=(
        Misconception(
            "squares",
            _energy_shares,
            "you took shares of σ², the energy. It is a useful count as well, and smaller; the "
            "effective rank of Roy and Vetterli takes shares of σ.",
        ),
        Misconception(
            "stable rank",
            _stable,
            "Σ σ² / σ₁² is the stable rank. It looks at the largest singular value alone.",
        ),
        Misconception(
            "entropy left as it is",
            _entropy_only,
            "that is the entropy, in nats. Its exponential is a number of directions.",
        ),
        Misconception(
            "bits and exp",
            _bits_and_exp,
            "the entropy is in bits (log₂) but was raised to a power of e. Use ln and exp, or log₂ "
            "and 2 to the power.",
        ),
        Misconception(
            "rank",
            lambda matrix: torch.linalg.matrix_rank(matrix).float(),
            "that is the ordinary rank. It counts every direction that is not exactly zero, and "
            "noise makes all of them so.",
        ),
        Misconception(
            "zero times minus infinity",
            _zero_times_log,
            "where a singular value is zero, ln 0 is −∞ and 0 · ∞ is no number. The term −p ln p "
            "goes to 0 with p: use torch.special.entr, or leave such values out.",
        ),
    ),
)

# ---------------------------------------------------------------------------- dead_units


def dead_units(batches: list[Tensor], tolerance: float) -> Tensor:
    """True for each unit whose largest |h| over all batches is at most tolerance · RMS: (F,).

    batches: values after the activation, (N, F) each. RMS: root mean square of all of them.
    """
    hidden = torch.cat(batches)
    return hidden.abs().amax(dim=0) <= tolerance * hidden.square().mean().sqrt()


def _batches() -> list[Case]:
    generator = _generator()
    inputs = {
        "two batches after ReLU": (_hidden(generator, torch.relu), 0.0),
        "two batches after SiLU": (_hidden(generator, torch.nn.functional.silu), 0.02),
        "the same, ten times larger": (_hidden(generator, torch.nn.functional.silu, 10), 0.02),
        "a unit that wakes up once": ([torch.eye(4)[:, :3], torch.zeros(4, 3)], 0.0),
        "a unit that cancels itself": ([torch.tensor([[1.0, 2.0, 0.0], [1.0, -2.0, 0.01]])], 0.1),
        "batches of different sizes": (
            [torch.zeros(1, 2), torch.tensor([[0.0, 1.0]] * 5), torch.tensor([[0.2, 0.0]])],
            0.25,
        ),
    }
    return _cases(("batches", "tolerance"), inputs)


def _hidden(generator, activation, gain=1.0) -> list[Tensor]:
    """Six units: usual, asleep in the first batch, dead, tiny, negative only, usual."""
    batches = []
    for number in range(2):
        h = torch.randn(8, 6, generator=generator)
        h[:, 1] = h[:, 1].abs() if number else -9 - h[:, 1].abs()
        h[:, 2] = -12 - h[:, 2].abs()
        h[:, 3] = 0.01 * h[:, 3]
        h[:, 4] = -1 - h[:, 4].abs()
        batches.append(gain * activation(h))
    return batches


def _rms(hidden):
    return hidden.square().mean().sqrt()


def _any_batch(batches, tolerance):
    small = [h.abs().amax(dim=0) <= tolerance * _rms(torch.cat(batches)) for h in batches]
    return torch.stack(small).any(dim=0)


def _mean_of_values(batches, tolerance):
    hidden = torch.cat(batches)
    return hidden.mean(dim=0).abs() <= tolerance * _rms(hidden)


def _no_abs(batches, tolerance):
    hidden = torch.cat(batches)
    return hidden.amax(dim=0) <= tolerance * _rms(hidden)


DEAD_UNITS = Exercise(
    reference=dead_units,
    cases=_batches,
    hints=(
        "A unit is dead if nothing ever wakes it. Look at all the data at once: torch.cat.",
        "Its largest absolute value decides: .abs().amax(dim=0) goes over tokens, not over units.",
        "Compare it with tolerance times the root mean square of all values, with ≤, so that "
        "tolerance 0 finds exact zeros.",
    ),
    misconceptions=(
        Misconception(
            "first batch only",
            lambda batches, t: batches[0].abs().amax(dim=0) <= t * _rms(batches[0]),
            "you looked at one batch. A unit may sleep there and be all that knows the next one: "
            "remove it, and the damage shows where you did not look.",
        ),
        Misconception(
            "dead in some batch",
            _any_batch,
            "a unit that sleeps in one batch was called dead. It has to sleep in all of them.",
        ),
        Misconception(
            "mean of the values",
            _mean_of_values,
            "positive and negative values cancelled in the mean, and rare large ones vanished in "
            "it. What counts is the largest absolute value.",
        ),
        Misconception(
            "sign forgotten",
            _no_abs,
            "you took the largest value instead of the largest absolute value. SiLU goes below "
            "zero, and a unit that is always at −0.2 does something.",
        ),
        Misconception(
            "exactly zero",
            lambda batches, t: (torch.cat(batches) == 0).all(dim=0),
            "you asked for exact zeros. ReLU gives them; SiLU and GELU never do, and so no unit of "
            "theirs would ever be called dead.",
        ),
        Misconception(
            "absolute tolerance",
            lambda batches, t: torch.cat(batches).abs().amax(dim=0) <= t,
            "the tolerance was taken as a value instead of as a share of the root mean square. "
            "Then multiplying everything by ten brings units back to life.",
        ),
    ),
)

# --------------------------------------------------------------------------- merge_twins


def merge_twins(incoming: Tensor, outgoing: Tensor, keep: int, drop: int) -> tuple[Tensor, Tensor]:
    """(incoming, outgoing) without unit `drop`, and the same outgoing · relu(incoming · x) as ever.

    incoming (F, I), outgoing (O, F), and incoming[drop] = c · incoming[keep] for some c > 0.
    """
    c = incoming[drop].norm() / incoming[keep].norm()
    merged = outgoing.clone()
    merged[:, keep] += c * outgoing[:, drop]
    return (
        torch.cat([incoming[:drop], incoming[drop + 1 :]]),
        torch.cat([merged[:, :drop], merged[:, drop + 1 :]], dim=1),
    )


def _layers() -> list[Case]:
    generator = _generator()
    names = ("incoming", "outgoing", "keep", "drop")
    settings = {
        "equal rows": (4, 3, 2, 0, 2, 1.0),
        "a twin of twice the length": (5, 4, 3, 1, 3, 2.0),
        "a shorter twin": (5, 4, 3, 2, 4, 0.3),
        "the first unit goes": (4, 3, 2, 3, 0, 1.7),
        "two units in all": (2, 3, 1, 0, 1, 0.5),
    }
    inputs = {}
    for label, (units, width, outputs, keep, drop, c) in settings.items():
        incoming = torch.randn(units, width, generator=generator)
        incoming[drop] = c * incoming[keep]
        inputs[label] = (incoming, torch.randn(outputs, units, generator=generator), keep, drop)
    return _cases(names, inputs)


def _without(matrix, drop, dim):
    rest = [unit for unit in range(matrix.shape[dim]) if unit != drop]
    return matrix[rest] if dim == 0 else matrix[:, rest]


def _merged(new_column, new_row=None) -> Callable:
    """Wrong mergers: what becomes of the kept unit's outgoing column, and incoming row."""

    def merge(incoming, outgoing, keep, drop):
        c = incoming[drop].norm() / incoming[keep].norm()
        first, second = incoming.clone(), outgoing.clone()
        second[:, keep] = new_column(outgoing[:, keep], outgoing[:, drop], c)
        if new_row:
            first[keep] = new_row(incoming[keep], incoming[drop])
        return _without(first, drop, 0), _without(second, drop, 1)

    return merge


def _same_function(inputs, value) -> bool:
    x = torch.randn(inputs["incoming"].shape[1], 7, generator=_generator(3))
    before = inputs["outgoing"] @ (inputs["incoming"] @ x).relu()
    return bool(torch.allclose(value[1] @ (value[0] @ x).relu(), before, atol=1e-4))


MERGE_TWINS = Exercise(
    reference=merge_twins,
    cases=_layers,
    hints=(
        "Write down what the two units add to y: outgoing_k h_k + outgoing_d h_d. What is h_d?",
        "relu(c z) = c relu(z) for c > 0, so h_d = c h_k: the kept unit needs outgoing_k + c · "
        "outgoing_d. And c is the ratio of the lengths of the two incoming rows.",
        "Change a clone of `outgoing`, then leave row `drop` out of one matrix and column `drop` "
        "out of the other.",
    ),
    properties=(Property("the layer computes the same as before", _same_function),),
    misconceptions=(
        Misconception(
            "dropped without a word",
            _merged(lambda kept, gone, c: kept),
            "the twin is gone, and so is what it added to the output. Each of two twins is needed "
            "as long as the other has not taken over its outgoing weights.",
        ),
        Misconception(
            "scale forgotten",
            _merged(lambda kept, gone, c: kept + gone),
            "you added the outgoing weights as they are. The twin was c times as loud, so its "
            "weights count c times; equal rows (c = 1) hide the mistake.",
        ),
        Misconception(
            "scale upside down",
            _merged(lambda kept, gone, c: kept + gone / c),
            "the ratio is upside down. If the dropped row was twice as long, its values were twice "
            "as large, and the kept unit has to do twice the work for it.",
        ),
        Misconception(
            "averaged",
            _merged(lambda kept, gone, c: (kept + c * gone) / 2),
            "you took the mean of the outgoing weights. Two units were adding up; one alone has to "
            "give their sum.",
        ),
        Misconception(
            "both sides added",
            _merged(lambda kept, gone, c: kept + gone, lambda kept, gone: kept + gone),
            "you added the incoming rows as well as the outgoing columns. The unit is louder now "
            "and also counted more: the product grows twice.",
        ),
    ),
)

CHAPTER = "01_redundancy"
EXERCISES = (
    INTERPOLATED_BIGRAM,
    KEEP_FIRST,
    SHINGLE_JACCARD,
    MINHASH_SIGNATURE,
    ESTIMATE_JACCARD,
    BAND_PROBABILITY,
    CHOOSE_BANDS,
    EFFECTIVE_RANK,
    DEAD_UNITS,
    MERGE_TWINS,
)
