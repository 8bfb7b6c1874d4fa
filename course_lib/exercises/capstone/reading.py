"""Exercise of 12_capstone: how many letters a reader got wrong. N is the number of texts."""

from collections.abc import Callable

from course_lib.exercises.engine.seeded import Draw
from course_lib.exercises.engine.spec import Case, Exercise, Misconception, Property, labelled_cases
from course_lib.measure.edits import edits

LETTERS = "abcdefghij "


def character_error_rate(read: list[str], written: list[str]) -> float:
    """Edits of N texts together, as a share of all letters that were written: a float.

    read[i] is what a model saw where written[i] stands. Its edits are the fewest insertions,
    deletions and changes of one letter that turn the one into the other. A letter is what `len`
    counts as one, be it a space, a full stop or the end of a line; capitals are other letters.
    Texts may be empty, on either side; the rate may be above 1. If no letter was written at all, or
    the lists are not of equal length, raise a ValueError.
    """
    if not any(written):
        raise ValueError("written must have at least one letter")
    wrong = 0
    for seen, meant in zip(read, written, strict=True):
        row = list(range(len(meant) + 1))  # edits from nothing to the first letters of meant
        for i, letter in enumerate(seen, start=1):
            above, row[0] = row[0], i
            for j, other in enumerate(meant, start=1):
                cost = min(above + (letter != other), row[j] + 1, row[j - 1] + 1)
                above, row[j] = row[j], cost
        wrong += row[-1]
    return wrong / sum(map(len, written))


def _texts(seed: int) -> list[Case]:
    draw = Draw(seed)
    long, short = _text(draw, 40), _text(draw, 7)
    swapped = "".join(short[i ^ 1] if i < 6 else short[i] for i in range(7))
    pairs = [_text(draw, n) for n in (3, 25, 11)]
    labelled = {
        "by hand": (["kitten", "a" * draw.number(1, 5)], ["sitting", "a" * 4]),
        "all read rightly": ([long, short], [long, short]),
        "one letter changed": ([_changed(draw, short, 1)], [short]),
        "the first letter was not seen": ([long[1:]], [long]),
        "a letter too many at the start": ([short[0] + short], [short]),
        "neighbours swapped": ([swapped], [short]),
        "nothing was seen": ([""], [long]),
        "one text was not seen": (["", short], [long, short]),
        "letters where nothing is written": ([_text(draw, 9), short], ["", short]),
        "an empty text read as empty": (["", _changed(draw, short, 2)], ["", short]),
        "more letters than were written": ([2 * long], [short]),
        "a short text wrong, a long one right": ([_changed(draw, short, 5), long], [short, long]),
        "a long text wrong, a short one right": ([short, _changed(draw, long, 9)], [short, long]),
        "one letter, right": ([short[0]], [short[0]]),
        "one letter, wrong": (["z"], [short[0]]),
        "no letter in common": (["z" * draw.number(5, 9)], [short]),
        "several texts, changed anywhere": ([_damaged(draw, one) for one in pairs], pairs),
        "others that have little to do with them": (
            [_text(draw, 30), long],
            [long, _text(draw, 30)],
        ),
        **_letters(long, short),
        "one text twice": (2 * [_changed(draw, short, 3)] + [long], [short, short, long]),
        "the first letters stand at the end": ([long[12:] + long[:12]], [long]),
        "no letter written": ([short], [""]),
        "no texts": ([], []),
        "a text too many": ([short, long, short], [short, long]),
        "a text too few": ([short], [short, long]),
        "not one text read": ([], [short]),
    }
    return labelled_cases(("read", "written"), labelled)


def _letters(long: str, short: str) -> dict[str, tuple]:
    return {
        "capitals are other letters": ([short.upper()], [short]),
        "spaces lost": ([long.replace(" ", "")], [long]),
        "letters beyond ASCII": (["Muller heißt " + short], ["Müller heisst " + short]),
        "an accent with a place of its own": (["Mu\u0308ller " + short], ["M\u00fcller " + short]),
        "digits and marks": ([short + ": 19, or 7?"], [short + "; 10 or 7."]),
        "more spaces than one": (["  a" + short + "   b "], [" a" + short + " b"]),
        "ends of lines and tabs": (["a\tb" + short + "\n"], ["a b" + short]),
    }


def _text(draw: Draw, length: int) -> str:
    """Random letters, no two neighbours alike."""
    text = ""
    while len(text) < length:
        letter = LETTERS[draw.number(0, len(LETTERS))]
        text += letter if letter != text[-1:] else ""
    return text


def _changed(draw: Draw, text: str, count: int) -> str:
    """So many letters of it are others now."""
    places = draw.order(len(text))[:count].tolist()
    return "".join("xyz"[i % 3] if i in places else letter for i, letter in enumerate(text))


def _damaged(draw: Draw, text: str) -> str:
    """A letter lost, one changed, two put in."""
    at = draw.number(0, len(text))
    return _changed(draw, text[:at] + text[at + 1 :] + "qq", 1)


def _total(distance: Callable[[str, str], int], per: Callable | None = None) -> Callable:
    """All texts' edits by another distance, or per other letters."""

    def wrong(read, written):
        if not any(written) or len(read) != len(written):
            raise ValueError
        letters = sum(map(len, written)) if per is None else max(per(read, written), 1)
        return sum(map(distance, read, written)) / letters

    return wrong


def _by_place(seen: str, meant: str) -> int:
    return sum(a != b for a, b in zip(seen, meant, strict=False)) + abs(len(seen) - len(meant))


def _no_changes(seen: str, meant: str) -> int:
    """A change is a deletion and an insertion."""
    row = list(range(len(meant) + 1))
    for i, letter in enumerate(seen, start=1):
        above, row[0] = row[0], i
        for j, other in enumerate(meant, start=1):
            cost = above if letter == other else min(row[j], row[j - 1]) + 1
            above, row[j] = row[j], cost
    return row[-1]


def _mean_of_rates(read, written):
    if not any(written):
        raise ValueError
    rates = [edits(r, w) / max(len(w), 1) for r, w in zip(read, written, strict=True)]
    return sum(rates) / len(rates)


def _capped(read, written):
    return min(character_error_rate(read, written), 1.0)


CHARACTER_ERROR_RATE = Exercise(
    reference=character_error_rate,
    cases=_texts,
    relative_tolerance=1e-9,
    absolute_tolerance=1e-12,
    hints=(
        "Ask a smaller question first: how many edits turn the first i letters of the one text "
        "into the first j of the other? With no letters on one side: the number on the other.",
        "For i, j ≥ 1 there are three ways to get there: from (i − 1, j − 1), with an edit only if "
        "the two letters differ; from (i − 1, j) and from (i, j − 1), with one edit each. The "
        "fewest of the three counts. One row of such numbers at a time will do.",
        "Work on a list `row` of len(written[i]) + 1 numbers, 0, 1, 2, … at first. For each letter "
        "of read[i], go through it from the left; keep the number that stood to the left before it "
        "was overwritten. Add the last numbers of all texts up, and divide once.",
    ),
    properties=(
        Property("a float, 0 or more", lambda inputs, value: type(value) is float and value >= 0),
    ),
    misconceptions=(
        Misconception(
            "the mean of the texts' rates",
            _mean_of_rates,
            "you took each text's own rate, and then the mean. A short text counts as much as a "
            "long one then; asked are all edits over all letters.",
        ),
        Misconception(
            "letter by letter, at the same place",
            _total(_by_place),
            "the letters were compared place by place. One letter that was not seen moves all "
            "others, and all count as wrong; as an insertion it is one edit.",
        ),
        Misconception(
            "per letter that was read",
            _total(edits, lambda read, written: sum(map(len, read))),
            "you divided by the letters that were read. A reader who sees more than there is would "
            "be rewarded; divide by the letters of `written`.",
        ),
        Misconception(
            "per letter of the longer text",
            _total(edits, lambda read, written: sum(map(max, map(len, read), map(len, written)))),
            "you divided by the longer of the two texts, so that the rate cannot be above 1. It "
            "may be; divide by the letters of `written`.",
        ),
        Misconception(
            "no letter is changed",
            _total(_no_changes),
            "a changed letter counted as two edits, one out and one in, as in the longest common "
            "subsequence. A change is one edit.",
        ),
        Misconception(
            "at most 1",
            _capped,
            "you cut the rate off at 1. Letters seen where there are none can make it larger.",
        ),
    ),
)
