"""How many letters a reader got wrong: the least number of edits from one text to the other.

    edits(r, w) = the fewest letters to put in, take out or change that turn r into w
    character error rate = edits(read, written) / letters of written

The rate may be above 1: a reader may see letters where there are none.

Axes: N letters of the text that was read, M of the one that was written.
"""

from collections.abc import Sequence


def edits(read: str, written: str) -> int:
    """The fewest insertions, deletions and changes of one letter that make one text the other.

    Source: Levenshtein, 1966, "Binary Codes Capable of Correcting Deletions, Insertions, and
    Reversals".

    >>> edits("kitten", "sitting")
    3
    """
    row = list(range(len(written) + 1))  # edits from the first letters of read, none at first
    for i, letter in enumerate(read, start=1):
        above, row[0] = row[0], i
        for j, other in enumerate(written, start=1):
            cost = min(above + (letter != other), row[j] + 1, row[j - 1] + 1)
            above, row[j] = row[j], cost
    return row[-1]


def character_error_rate(read: Sequence[str], written: Sequence[str]) -> float:
    """Edits of all texts together, as a share of all letters that were written.

    Long texts count for more than short ones; the mean of the texts' own rates is another number.

    Args:
        read: what the model saw, N texts.
        written: what stands there, N texts with at least one letter in all.

    Raises:
        ValueError: their numbers differ, or nothing was written.

    >>> character_error_rate(["kitten", "a"], ["sitting", "a"])
    0.375
    """
    if len(read) != len(written) or not any(written):
        raise ValueError(
            "read and written must be as many texts, with a letter written; "
            f"got {len(read)} and {len(written)}, {sum(map(len, written))} letters"
        )
    wrong = sum(edits(seen, meant) for seen, meant in zip(read, written, strict=True))
    return wrong / sum(map(len, written))
