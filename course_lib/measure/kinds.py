"""What a token is: so that a loss can be told where it falls, and not only on average.

Axes: N tokens.
"""

from collections.abc import Mapping, Sequence

import torch
from tokenizers import Tokenizer
from torch import Tensor

from course_lib.measure.divergence import Estimate, estimate

SPACE, LINE = "Ġ", "Ċ"  # how a byte-level tokenizer writes a blank and the end of a line
EDGES = (100, 1000, 10_000)
KINDS = ("a name or the start of a verse", "the start of a word", "within a word", "a mark")


def token_kind(token: str) -> str:
    """One of KINDS, for a byte-level token as the tokenizer writes it.

    A mark is whatever holds neither letter nor digit. A capital makes a name, or the first word of
    a verse: nobody can tell from the token alone.

    >>> [token_kind(token) for token in ("ĠMoses", "Ġsaid", "eth", ",", "Ċ")]
    ... # doctest: +NORMALIZE_WHITESPACE
    ['a name or the start of a verse', 'the start of a word', 'within a word', 'a mark', 'a mark']
    """
    text = token.lstrip(SPACE + LINE)
    if not any(letter.isalnum() for letter in text):
        return KINDS[3]
    if text[0].isupper():
        return KINDS[0]
    return KINDS[1] if token != text else KINDS[2]


def kinds_of(tokenizer: Tokenizer, tokens: Tensor) -> list[str]:
    """The kind of each of the tokens (N,)."""
    kind = {i: token_kind(tokenizer.id_to_token(i)) for i in set(tokens.tolist())}
    return [kind[i] for i in tokens.tolist()]


def frequency_names(edges: Sequence[int] = EDGES) -> list[str]:
    """The classes of `frequencies_of`, the rarest first.

    >>> frequency_names((5, 50))
    ['less than 5 times', '5 to 49 times', '50 times or more']
    """
    ends = [f"{a:,} to {b - 1:,} times" for a, b in zip(edges, edges[1:], strict=False)]
    return [f"less than {edges[0]:,} times", *ends, f"{edges[-1]:,} times or more"]


def frequencies_of(tokens: Tensor, text: Tensor, edges: Sequence[int] = EDGES) -> list[str]:
    """For each of the tokens (N,), how often a text has it: the name of its class.

    Args:
        text: tokens to count in, (M,).
        edges: where a class begins, rising.

    >>> frequencies_of(torch.tensor([3, 1]), torch.tensor([3] * 20 + [1]), edges=(5, 50))
    ['5 to 49 times', 'less than 5 times']
    """
    counts = torch.bincount(text, minlength=int(tokens.max()) + 1)[tokens]
    names = frequency_names(edges)
    places = torch.bucketize(counts, torch.tensor(edges, device=counts.device), right=True)
    return [names[place] for place in places.tolist()]


def by_class(
    values: Tensor, classes: Sequence[str], names: Sequence[str]
) -> Mapping[str, tuple[Estimate, int]]:
    """The mean of the values (N,) in each class, its error, and how many there are.

    Args:
        classes: of each value.
        names: of the classes, in the order that is wanted; one without values is left out.

    Raises:
        ValueError: there are not as many classes as values, or one is not named.

    >>> found = by_class(torch.tensor([1.0, 3.0, 5.0]), ["a", "a", "b"], ["b", "a", "c"])
    >>> found["a"]
    (Estimate(mean=2.0, error=1.0), 2)
    """
    if len(values) != len(classes):
        raise ValueError(
            f"values and classes must be as many; got {len(values)} and {len(classes)}"
        )
    if unknown := set(classes) - set(names):
        raise ValueError(f"names must have every class; it lacks {sorted(unknown)}")
    found = {}
    for name in (name for name in names if name in classes):
        mine = values[torch.tensor([c == name for c in classes], device=values.device)]
        found[name] = estimate(mine), len(mine)
    return found
