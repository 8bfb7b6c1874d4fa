"""Exercises of 01_redundancy: a bigram that sums to one, equal texts, similar texts.

Axes: V vocabulary.
"""

from collections import Counter
from collections.abc import Callable

import torch
from torch import Tensor

from course_lib.exercises.engine.seeded import Draw
from course_lib.exercises.engine.spec import Case, Exercise, Misconception, Property, labelled_cases

# ------------------------------------------------------------------- interpolated_bigram


def interpolated_bigram(pairs: Tensor, unigram: Tensor) -> Tensor:
    """p(w | v) after Witten and Bell, row v for each token v: (V, V), float32.

    pairs: (V, V), int64, how often w (column) followed v (row). unigram: (V,), float32, p(w).
    """
    total = pairs.sum(dim=1, keepdim=True)
    followers = (pairs > 0).sum(dim=1, keepdim=True)
    mixed = (pairs + followers * unigram) / (total + followers)  # 0 / 0 where nothing followed
    return torch.where(mixed.isnan(), unigram, mixed)


def _counts(seed: int) -> list[Case]:
    draw = Draw(seed)
    some = torch.tensor([[0, 3, 1], [2, 0, 0], [1, 1, 5]])
    once = torch.tensor([[0, 1, 0], [4, 0, 2], [1, 0, 0]])
    last = torch.tensor([[2, 1, 1], [0, 0, 0], [0, 1, 0]])
    even = torch.full((3,), 1 / 3)
    uneven = torch.tensor([0.6, 0.3, 0.1])
    inputs = {
        "three tokens": (some, even),
        "tokens differ in how common they are": (some, uneven),
        "contexts seen once": (once, uneven),
        "a context never seen": (last, uneven),
        "six tokens": (_pair_counts(draw, 6), _shares(draw, 6)),
        "a token that the unigram forbids": (some, torch.tensor([0.0, 0.3, 0.7])),
        "rare tokens": (_pair_counts(draw, 5), torch.tensor([1e-9, 0.5, 2e-6, 0.5, 3e-8])),
        "billions of pairs": (3_000_000_000 * _pair_counts(draw, 4), _shares(draw, 4)),
        "nothing seen at all": (torch.zeros(4, 4, dtype=torch.long), _shares(draw, 4)),
        "one token": (torch.tensor([[3]]), torch.tensor([1.0])),
        "many tokens": (_pair_counts(draw, 30), _shares(draw, 30)),
    }
    return labelled_cases(("pairs", "unigram"), inputs)


def _pair_counts(draw: Draw, tokens: int) -> Tensor:
    """Small counts, half of them 0; one row is all 0."""
    counts = draw.integers(-3, 4, tokens, tokens).clamp(min=0)
    counts[draw.number(0, tokens)] = 0
    return counts


def _shares(draw: Draw, tokens: int) -> Tensor:
    """A unigram: positive, and its sum is one."""
    shares = 0.05 + draw.uniform(tokens)
    return shares / shares.sum()


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
    absolute_tolerance=0.0,
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
            lambda inputs, p: bool(((p.sum(1) - 1).abs() < 1e-5).all()),
        ),
        Property(
            "nothing that the unigram allows is impossible",
            lambda inputs, p: bool((p[:, inputs["unigram"] > 0] > 0).all()),
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
    """Indices of the first copy of each text, where case and white space do not matter.

    A run of white space (whatever str.split() splits at) is as good as one blank, and none
    counts at the ends of a text. Case is what str.casefold() takes away. All else is kept.
    """
    first: dict[str, int] = {}
    for index, text in enumerate(documents):
        first.setdefault(" ".join(text.casefold().split()), index)
    return list(first.values())


def _documents(seed: int) -> list[Case]:
    draw = Draw(seed)
    mat = ["The cat sat on the mat", "the  cat sat on the mat", "the mat sat on the cat", "A dog"]
    inputs = {
        "case and white space": (mat,),
        "three copies, not side by side": (["a b", "c", "A B", "d", "a\tb\n", "c"],),
        "white space inside a word": (["no where", "nowhere", "No  Where"],),
        "an empty text, twice": (["", "a", " \n"],),
        "letters of other alphabets": (
            ["STRASSE", "straße", "Ωmega", "ωMEGA", "ΣΑΣ", "σας", "σασ", "ılı", "ili"],
        ),
        "other white space": (
            ["a b", "a\u00a0b", "\u2003A\u3000B", "a\r\nb\v", "a\u2028b", "a\x1fb"],
        ),
        "punctuation": (["He came.", "He came?", "he came", "He, came.", "...", "he came?"],),
        "digits and signs": (["1 + 1", "1 - 1", "2 + 1", "11", "1 +  1"],),
        "accents": (["resume", "résumé", "Résumé", "re\u0301sume\u0301", "m2", "m²"],),
        "a word said twice": (["the the cat", "the cat", "the cat cat", "The The cat"],),
        "long texts that begin alike": (_long_texts(draw),),
        "many short texts": (_copies(draw, 40),),
        "no text": ([],),
    }
    return labelled_cases(("documents",), inputs)


def _long_texts(draw: Draw) -> list[str]:
    """Texts of 120 letters and more; only the last, the first or a middle word differs."""
    body = " ".join(["word", "and", "word"][i] for i in draw.integers(0, 3, 40))
    ends = [f"end {i}" for i in draw.integers(0, 3, 8)]
    return [f"{body} {end}" for end in ends] + [f"a {body} b", f"b {body} b", f"{body} or {body}"]


def _copies(draw: Draw, count: int) -> list[str]:
    """Texts of three words from a small vocabulary, written in different ways."""
    words, blanks = ("eins", "Zwei", "DREI"), (" ", "  ", "\t", " \n")
    ways = (str, str.upper, str.lower)
    texts = []
    for first, second, third, blank, way in draw.integers(0, 3, count, 5).tolist():
        text = blanks[blank].join((words[first], words[second], words[third]))
        texts.append(ways[way](text) + blanks[blank + 1] * (first == 0))
    return texts


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
            "lower",
            _keep_by(lambda text: " ".join(text.lower().split())),
            "lower() leaves ß as it is, though its capital is SS. casefold() is made to compare.",
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
    """|A ∩ B| / |A ∪ B| of the sets of runs of `width` words.

    first, second: words as they are, at least `width` of them. A run is equal to another if all
    its words are, in their order.
    """
    a = {tuple(first[i : i + width]) for i in range(len(first) - width + 1)}
    b = {tuple(second[i : i + width]) for i in range(len(second) - width + 1)}
    return len(a & b) / len(a | b)


def _word_lists(seed: int) -> list[Case]:
    draw = Draw(seed)
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
        "said backwards": ("one two three four", "four three two one", 2),
        "words cut at other places": ("no where to go here", "now here to gohere x", 2),
        "marks between the words": ("a, b c- d e_ f g| h i/ j", "a ,b c -d e _f g |h i /j", 2),
        "capitals are other words": ("The cat sat on it", "the Cat sat on it", 2),
        "single words": (_text(draw, 30), _text(draw, 20), 1),
        "two of the same vocabulary": (_text(draw, 60), _text(draw, 70), 2),
        "a long passage in common": _with_common_passage(draw),
    }
    inputs = {label: (a.split(), b.split(), width) for label, (a, b, width) in texts.items()}
    return labelled_cases(("first", "second", "width"), inputs)


def _text(draw: Draw, words: int, vocabulary: int = 9) -> str:
    return " ".join(f"w{i}" for i in draw.integers(0, vocabulary, words))


def _with_common_passage(draw: Draw) -> tuple[str, str, int]:
    passage = _text(draw, draw.number(20, 40))
    ends = [_text(draw, draw.number(3, 15)) for _ in range(4)]
    return f"{ends[0]} {passage} {ends[1]}", f"{ends[2]} {passage} {ends[3]}", 4


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
