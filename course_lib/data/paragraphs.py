"""Paragraphs cut in two: which halves belong together is known, so finding the other is a test.

Axes: N paragraphs.
"""

from course_lib.data.text import wikipedia_articles

SHORTEST, LONGEST = 500, 900  # letters of a paragraph
NEAR = 280  # letters of each half that are kept, those next to the cut


def paragraph_halves(count: int) -> tuple[list[str], list[str]]:
    """The end of the first half and the start of the second, of N paragraphs of the articles.

    They are taken at even distances from all paragraphs of 500 to 900 letters, and cut behind the
    middle one of their sentences; a sentence ends at ". ".

    Args:
        count: N, from 1 to the number of paragraphs that there are.

    Raises:
        ValueError: count is out of range.

    >>> firsts, seconds = paragraph_halves(2)
    >>> len(firsts), max(map(len, firsts + seconds))
    (2, 280)
    """
    fitting = _fitting()
    if not 1 <= count <= len(fitting):
        raise ValueError(f"count must be from 1 to {len(fitting)}; got {count}")
    chosen = [fitting[i * len(fitting) // count] for i in range(count)]
    halves = [_cut(sentences) for sentences in chosen]
    return [first for first, _ in halves], [second for _, second in halves]


def _fitting() -> list[list[str]]:
    """Each paragraph of fitting length, as its sentences, at least two; each once."""
    lines = "\n".join(wikipedia_articles().values()).split("\n")
    fitting = [line for line in dict.fromkeys(lines) if SHORTEST < len(line) < LONGEST]
    cut = [line.split(". ") for line in fitting]
    return [sentences for sentences in cut if len(sentences) > 1]


def _cut(sentences: list[str]) -> tuple[str, str]:
    middle = len(sentences) // 2
    first, second = ". ".join(sentences[:middle]), ". ".join(sentences[middle:])
    return first[-NEAR:], second[:NEAR]
