"""Exercise of 06_codebooks: what Deep Compression leaves of a layer, in bytes.

Axes: O outputs, I inputs, k values of the codebook.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from course_lib.exercises.codebooks.coding import code_lengths
from course_lib.exercises.engine.seeded import Draw
from course_lib.exercises.engine.spec import Case, Exercise, Misconception, Property, labelled_cases


def coded_bytes(counts: Tensor) -> int:
    """Symbols that occur so often, by Huffman's code, and half a byte for each one's length."""
    bits = int((counts * code_lengths(counts)).sum())
    return math.ceil(bits / 8) + math.ceil(len(counts) / 2)


def layer_bytes(weight: Tensor, gap_bits: int) -> tuple[int, int]:
    """Bytes of a pruned layer of shared values in a file: in codes of equal length, and Huffman's.

    weight: (O, I), float, zeros and at least one other number. Going row by row, an entry is stored
    for each number that is not zero: its value, and its gap, the zeros before it, in gap_bits bits.
    Of more than 2^gap_bits − 1 zeros in a row before a number, each 2^gap_bits-th is stored as an
    entry, too, of value zero and the largest gap; gaps are counted from there (Han et al., 2016).
    Zeros behind the last number are not stored. The k different values stored are a codebook of
    float16; a value takes ⌈log₂ k⌉ bits. With Huffman, values and gaps each have the best prefix
    code for their own counts, and its lengths are stored in 4 bits for each of the k values and
    2^gap_bits gaps. Codebook, values, gaps, lengths of values, lengths of gaps stand apart: each is
    filled up to a whole byte once, at its end.
    """
    flat, widest = weight.flatten(), 2**gap_bits
    places = flat.nonzero().squeeze(1)
    zeros = places.diff(prepend=places.new_tensor([-1])) - 1  # before each number
    fillers = (zeros // widest).sum()
    gaps = (zeros % widest).bincount(minlength=widest)
    gaps[-1] += fillers
    _, values = flat[places].unique(return_counts=True)
    if fillers:
        values = torch.cat([values, fillers[None]])
    k, entries = len(values), len(places) + fillers
    widths = (k - 1).bit_length(), gap_bits
    equal = sum(math.ceil(entries * width / 8) for width in widths)
    return 2 * k + equal, 2 * k + coded_bytes(values) + coded_bytes(gaps)


def _layers(seed: int) -> list[Case]:
    draw = Draw(seed)

    def layer(rows: int, columns: int, density: float, k: int, spread: float = 1.0) -> Tensor:
        """k values, the middle ones more frequent, and the last number where a zero follows."""
        levels = torch.cat([-1 - torch.arange(k // 2), 1 + torch.arange(k - k // 2)]).sort().values
        which = (draw.normal(rows, columns) * k / 5 * spread + k / 2).long().clamp(0, k - 1)
        return levels[which] / 64 * (draw.uniform(rows, columns) < density)

    small = torch.tensor([[0.0, 0.5, 0.0, 0.0, 0.0, 0.0], [0.0, -1.0, 0.5, 0.5, 0.0, 0.0]])
    signed = layer(9, 40, 0.1, 4)
    one = torch.zeros(5, 30)
    one[draw.number(0, 5), draw.number(0, 30)] = 0.5
    exact = torch.zeros(4, 40)
    exact.view(-1)[torch.tensor([4, 8, 13, 30, 47, 150])] = torch.tensor([0.5, 1, 1, 0.5, 1, 2.0])
    a, b = draw.number(20, 40), draw.number(20, 60)
    labelled = {
        "two rows, gaps of 2 bits": (small, 2),
        "two rows, gaps of 1 bit": (small, 1),
        "8 values at 7 %, 5 bits": (layer(100, 100 + a, 0.07, 8), 5),
        "16 values at 10 %, 4 bits": (layer(a, b, 0.1, 16), 4),
        "many fillers": (layer(a, b, 0.04, 8), 2),
        "no fillers": (layer(a, b, 0.3, 8), 8),
        "no zeros": (layer(a, b, 1.1, 5), 3),
        "3 values": (layer(a, b, 0.2, 3), 3),
        "32 values, all equally frequent": (layer(a, 2 * b, 0.2, 32, 9.0), 4),
        "one value, no fillers": (layer(a, b, 0.2, 1), 8),
        "one value": (layer(a, b, 0.2, 1), 4),
        "one value, and fillers": (layer(a, b, 0.05, 1), 2),
        "one number": (one, 3),
        "as many zeros as the largest gap, and one more": (exact, 2),
        "the same, with wider gaps": (exact, 4),
        "many zeros at the end": (torch.cat([layer(9, b, 0.3, 6), torch.zeros(20, b)]), 3),
        "empty rows": (layer(a, b, 0.2, 6) * (torch.arange(a) % 3 == 0)[:, None], 4),
        "one column": (layer(200, 1, 0.2, 7), 3),
        "−0.0 among the zeros": (torch.where(signed == 0, -0.0, signed), 3),
        "float16": (layer(a, b, 0.1, 8).half(), 4),
        "float64": (layer(a, b, 0.1, 11).double(), 3),
    }
    return labelled_cases(("weight", "gap_bits"), labelled)


class Entries(NamedTuple):
    """What a wrong answer counts: entries, those of zero, values and gaps."""

    numbers: int
    fillers: int
    values: Tensor  # counts of those that are not zero
    gaps: Tensor


def _entries(weight: Tensor, gap_bits: int, by_row: bool = False, to_the_end: bool = False):
    widest, gaps, fillers = 2**gap_bits, [], 0
    for row in weight if by_row else [weight.flatten()]:
        before = 0
        for x in row.tolist():
            if x:
                gaps.append(before)
                before = 0
            elif before == widest - 1:
                gaps.append(before)
                before, fillers = 0, fillers + 1
            else:
                before += 1
        if not to_the_end:  # what was stored behind the last number goes again
            behind = len(row) - 1 - int(row.nonzero().max()) if row.any() else len(row)
            unneeded = behind // widest
            gaps, fillers = gaps[: len(gaps) - unneeded], fillers - unneeded
    flat = weight[weight != 0]
    counts = flat.unique(return_counts=True)[1]
    return Entries(len(flat), fillers, counts, torch.tensor(gaps).bincount(minlength=widest))


def _bytes(found: Entries, gap_bits: int, cost: Callable[[Tensor], int] = coded_bytes):
    zero = found.values.new_tensor([found.fillers] if found.fillers else [])
    values = torch.cat([found.values, zero])
    k, entries = len(values), found.numbers + found.fillers
    equal = math.ceil(entries * (k - 1).bit_length() / 8) + math.ceil(entries * gap_bits / 8)
    return 2 * k + equal, 2 * k + cost(values) + cost(found.gaps)


def _gaps_are_cut(weight, gap_bits):
    """A number for each entry, however wide the gap is."""
    zeros = weight.flatten().nonzero().squeeze(1).diff(prepend=torch.tensor([-1])) - 1
    gaps = zeros.clamp(max=2**gap_bits - 1).bincount(minlength=2**gap_bits)
    return _bytes(_entries(weight, gap_bits)._replace(fillers=0, gaps=gaps), gap_bits)


def _no_codebook(weight, gap_bits):
    found = _entries(weight, gap_bits)
    k = len(found.values) + (found.fillers > 0)
    return tuple(count - 2 * k for count in _bytes(found, gap_bits))


def _without_lengths(weight, gap_bits):
    def cost(counts: Tensor) -> int:
        return coded_bytes(counts) - math.ceil(len(counts) / 2)

    return _bytes(_entries(weight, gap_bits), gap_bits, cost)


def _by_entropy(weight, gap_bits):
    def cost(counts: Tensor) -> int:
        share = counts[counts > 0].double() / counts.sum()
        bits = -float(counts.sum() * (share * share.log2()).sum())
        return math.ceil(bits / 8 - 1e-9) + math.ceil(len(counts) / 2)

    return _bytes(_entries(weight, gap_bits), gap_bits, cost)


LAYER_BYTES = Exercise(
    reference=layer_bytes,
    cases=_layers,
    hints=(
        "Count entries first. weight.flatten().nonzero() are the places of the numbers; the "
        "difference of two neighbours, less 1, is how many zeros stand between them.",
        "z zeros before a number take z // 2^gap_bits entries of zero, each with the largest gap, "
        "and leave z % 2^gap_bits for the number's own gap. If any such entry is stored, zero is "
        "one of the k values.",
        "bincount the gaps (minlength 2^gap_bits) and the values; with equal lengths an entry "
        "takes (k − 1).bit_length() + gap_bits bits, with Huffman count · length in all, where "
        "code_lengths gives the lengths. Add 2 k bytes, and ⌈symbols / 2⌉ for each table.",
    ),
    properties=(
        Property(
            "two whole numbers",
            lambda inputs, value: [type(number) for number in value] == [int, int],
        ),
    ),
    misconceptions=(
        Misconception(
            "gaps of any width",
            _gaps_are_cut,
            "a gap wider than 2^gap_bits − 1 does not fit into its bits. Entries of value zero "
            "bridge it, and they cost a value and a gap each.",
        ),
        Misconception(
            "each row from its beginning",
            lambda weight, gap_bits: _bytes(_entries(weight, gap_bits, by_row=True), gap_bits),
            "you started to count again in each row. The file has no rows: zeros at the end of one "
            "and the beginning of the next are one gap.",
        ),
        Misconception(
            "zeros at the end are stored",
            lambda weight, gap_bits: _bytes(_entries(weight, gap_bits, to_the_end=True), gap_bits),
            "behind the last number nothing need be stored: who knows the shape, knows that the "
            "rest is zero.",
        ),
        Misconception(
            "no codebook",
            _no_codebook,
            "the codebook is missing. Codes without it are no weights: 2 bytes for each value.",
        ),
        Misconception(
            "the code's lengths are left out",
            _without_lengths,
            "nobody can read Huffman's bits without the lengths: half a byte for each value, and "
            "for each of the 2^gap_bits gaps. With gaps of 8 bits that alone is 128 bytes.",
        ),
        Misconception(
            "the entropy",
            _by_entropy,
            "you counted Shannon's entropy. It is a bound; Huffman's code takes whole bits for "
            "each symbol, and so a little more.",
        ),
    ),
)
