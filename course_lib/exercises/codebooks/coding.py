"""Exercises of 06_codebooks: Huffman's lengths, and a canonical code read again.

Axes: K symbols, N bits, M symbols of a text.
"""

import heapq
import math
from fractions import Fraction

import torch
from torch import Tensor

from course_lib.exercises.engine.seeded import Draw
from course_lib.exercises.engine.spec import Case, Exercise, Misconception, Property, labelled_cases

# -------------------------------------------------------------------------- code_lengths


def code_lengths(counts: Tensor) -> Tensor:
    """Bits of each symbol in a prefix code for which Σ count · length is the least possible.

    counts: how often each symbol occurs, int64 (K,), from 0 to 10⁹. Returns int64 (K,): 0 for a
    symbol that does not occur, 1 if it is the only one. Otherwise Σ 2^−length over those that occur
    is 1. Several answers are right where counts are equal. No length is too large.
    """
    lengths = torch.zeros_like(counts)
    heap = [(count, [symbol]) for symbol, count in enumerate(counts.tolist()) if count]
    heapq.heapify(heap)
    if len(heap) == 1:
        return (counts > 0).long()
    while len(heap) > 1:
        (one, symbols), (other, more) = heapq.heappop(heap), heapq.heappop(heap)
        lengths[symbols + more] += 1
        heapq.heappush(heap, (one + other, symbols + more))
    return lengths


def _fibonacci(count: int) -> Tensor:
    numbers = [1, 1]
    while len(numbers) < count:
        numbers.append(numbers[-1] + numbers[-2])
    return torch.tensor(numbers)


def _counts(seed: int) -> list[Case]:
    draw = Draw(seed)
    billion = 10**9
    normal = (3 * draw.normal(4000)).round().long()
    single = torch.zeros(7, dtype=torch.long)
    single[draw.number(0, 7)] = draw.number(2, 90)
    labelled = {
        "five symbols, one of which does not occur": torch.tensor([40, 5, 20, 6, 0]),
        "random counts": draw.integers(1, 100, 12),
        "a text of normal numbers": torch.bincount(normal - normal.min()),
        "equal counts, a power of two": torch.full((8,), draw.number(1, 50)),
        "equal counts, no power of two": torch.full((draw.number(17, 31),), 5),
        "many equal ones": draw.integers(1, 4, 60),
        "two symbols": draw.integers(1, 100, 2),
        "one symbol alone": torch.tensor([draw.number(1, 100)]),
        "one symbol that occurs": single,
        "one symbol that occurs once": torch.eye(7, dtype=torch.long)[draw.number(0, 7)],
        "no symbol occurs": torch.zeros(draw.number(2, 9), dtype=torch.long),
        "half of them do not occur": draw.integers(1, 60, 40) * draw.integers(0, 2, 40),
        "halves of halves": (2 ** torch.arange(16))[draw.order(16)],
        "Fibonacci's numbers": _fibonacci(43)[draw.order(43)],
        "one frequent symbol": torch.cat([draw.integers(1, 9, 9), torch.tensor([billion])]),
        "large, and nearly equal": billion - draw.order(30)[:20],  # all are one float32
        "very different": (10 ** (9 * draw.uniform(50).double())).long(),
        "three hundred": draw.integers(0, 1000, 300),
    }
    return labelled_cases(("counts",), {label: (counts,) for label, counts in labelled.items()})


def _sums(counts: list[int]) -> int:
    """Σ count · length of the best code: the sum of all sums that Huffman makes."""
    heap, total = [count for count in counts if count], 0
    heapq.heapify(heap)
    if len(heap) == 1:
        return heap[0]
    while len(heap) > 1:
        both = heapq.heappop(heap) + heapq.heappop(heap)
        total += both
        heapq.heappush(heap, both)
    return total


def _taken(counts: Tensor, lengths: Tensor) -> int:
    pairs = zip(counts.tolist(), lengths.tolist(), strict=True)
    return sum(count * int(length) for count, length in pairs)


def _occurring(inputs: dict, lengths: Tensor) -> list[int]:
    return lengths[inputs["counts"].cpu() > 0].tolist()


def _lengths_exist(inputs: dict, lengths: Tensor) -> bool:
    """Lengths of 0 for what does not occur, and from 1 to K for what does."""
    there = inputs["counts"].cpu() > 0
    K = len(there)
    return bool((lengths[~there] == 0).all() and ((lengths >= 1) & (lengths <= K))[there].all())


def _whole(inputs: dict, lengths: Tensor) -> bool:
    some = _occurring(inputs, lengths)
    return len(some) < 2 or sum(Fraction(1, 2**length) for length in some) == 1


def _bits_reached(inputs: dict, lengths: Tensor) -> str:
    counts = inputs["counts"].cpu()
    whole = float(sum(Fraction(1, 2 ** min(n, 999)) for n in _occurring(inputs, lengths) if n >= 0))
    return (
        f"{_taken(counts, lengths)} bits in all (the least: {_sums(counts.tolist())}), "
        f"Σ 2^−length = {whole:.6g}"
    )


def _by_logarithm(counts):
    """⌈−log₂ p⌉, at least 1: Shannon's own code."""
    total = int(counts.sum())
    lengths = [max(1, math.ceil(math.log2(total / n) - 1e-9)) if n else 0 for n in counts.tolist()]
    return torch.tensor(lengths)


def _fixed_length(counts):
    occur = int((counts > 0).sum())
    return (counts > 0).long() * max(1, (occur - 1).bit_length())


def _halved(counts):
    """Fano's way: sorted, cut where both sides are most nearly equal, and each side again."""
    lengths = torch.zeros_like(counts)
    order = [int(s) for s in counts.argsort(descending=True, stable=True) if counts[s]]
    if len(order) == 1:
        lengths[order] = 1
    work = [order]
    while work:
        part = work.pop()
        if len(part) > 1:
            ahead = counts[part].cumsum(0)
            cut = int((2 * ahead[:-1] - ahead[-1]).abs().argmin()) + 1
            lengths[part] += 1
            work += [part[:cut], part[cut:]]
    return lengths


def _ones_and_a_zero(counts):
    """The most frequent one 1 bit, the next 2, and so on."""
    order = [int(s) for s in counts.argsort(descending=True, stable=True) if counts[s]]
    lengths = torch.zeros_like(counts)
    lengths[order] = torch.arange(1, len(order) + 1)
    if len(order) > 1:
        lengths[order[-1]] -= 1
    return lengths


def _all_have_codes(counts):
    return code_lengths(counts.double().add(1e-3).mul(1e4).long())


def _one_is_free(counts):
    return code_lengths(counts) * int((counts > 0).sum() > 1)


CODE_LENGTHS = Exercise(
    reference=code_lengths,
    cases=_counts,
    compare=False,
    reached=_bits_reached,
    hints=(
        "The two rarest symbols can share all bits but the last. Put them into one bag, whose "
        "count is the sum, and forget that it holds two.",
        "Keep a heap of bags (count, [symbols]). Take the two smallest, put their union back; each "
        "symbol in it is now one bit further down: its length grows by 1. Until one bag is left.",
        "heapq.heappop and heapq.heappush, with Python's integers: a sum in float32 forgets the "
        "last digits of a count. If only one symbol occurs, there is nothing to join, and it gets "
        "1 bit. Who does not occur never enters the heap.",
    ),
    properties=(
        Property(
            "a length for each symbol: int64 (K,)",
            lambda inputs, lengths: (
                lengths.dtype == torch.int64 and lengths.shape == inputs["counts"].shape
            ),
            form=True,
        ),
        Property(
            "0 for a symbol that does not occur, for the others from 1 to K",
            _lengths_exist,
            form=True,
        ),
        Property(
            "Σ 2^−length = 1, if two symbols or more occur: a prefix code, and no bit is wasted",
            _whole,
        ),
        Property(
            "Σ count · length is the least possible",
            lambda inputs, lengths: (
                _taken(inputs["counts"].cpu(), lengths) == _sums(inputs["counts"].tolist())
            ),
        ),
    ),
    misconceptions=(
        Misconception(
            "the logarithm, rounded up",
            _by_logarithm,
            "⌈−log₂ p⌉ is Shannon's length rounded up for each symbol by itself. The code exists, "
            "but Σ 2^−length is less than 1: bits are wasted. Huffman rounds all of them together.",
        ),
        Misconception(
            "all of equal length",
            _fixed_length,
            "every symbol has as many bits as any other. A frequent one should have fewer.",
        ),
        Misconception(
            "cut in halves from above",
            _halved,
            "you sorted the symbols and cut where the two sides weigh most nearly the same. That "
            "is Fano's code: near the best, but not it. Huffman begins with the two rarest.",
        ),
        Misconception(
            "1, 2, 3 and so on",
            _ones_and_a_zero,
            "the most frequent symbol has 1 bit, the next 2, and so on. That is best only if each "
            "is as frequent as all rarer ones together. Bags join bags, too, not only symbols.",
        ),
        Misconception(
            "a code for what does not occur",
            _all_have_codes,
            "symbols that never occur have codes, and those of the others are longer for it.",
        ),
        Misconception(
            "one symbol for nothing",
            _one_is_free,
            "a single symbol has length 0. Then its text has no bits, and nobody can tell how long "
            "it was: give it 1.",
        ),
    ),
)

# ---------------------------------------------------------------------- decode_canonical


def decode_canonical(bits: Tensor, lengths: Tensor) -> Tensor:
    """The symbols, int64 (M,), that a stream of bits holds in the canonical code of these lengths.

    bits: 0 or 1, uint8 (N,); N may be 0. lengths: of a prefix code, int64 (K,), 0 for a symbol
    without a code, at most 40. Codes count upwards as binary numbers: the shortest first, of equal
    lengths the lower symbol first, and a 0 is appended for each bit that a code is longer than the
    one before. Raises ValueError if the last bits are no whole code.
    """
    begin, symbols = 0, {}  # a code is the first digits of begin / 2⁴⁰
    for length, symbol in sorted((n, s) for s, n in enumerate(lengths.tolist()) if n):
        symbols[length, begin >> (40 - length)] = symbol
        begin += 1 << (40 - length)
    found, number, length = [], 0, 0
    for bit in bits.tolist():
        number, length = 2 * number + bit, length + 1
        if (length, number) in symbols:
            found.append(symbols[length, number])
            number, length = 0, 0
    if length:
        raise ValueError(f"bits must end where a code ends; {length} are left over")
    return torch.tensor(found, dtype=torch.int64)


def _codes(lengths: list[int], order: list[int]) -> dict[int, str]:
    """Each symbol's bits as text, codes counting upwards in this order."""
    number, before, codes = 0, 0, {}
    for symbol in order:
        length = lengths[symbol]
        number = number << length - before if length >= before else number >> before - length
        codes[symbol] = format(number, f"0{length}b")
        number, before = number + 1, length
    return codes


def _canonical(lengths: list[int]) -> dict[int, str]:
    return _codes(lengths, sorted((s for s, n in enumerate(lengths) if n), key=lengths.__getitem__))


def _bits_of(text: list[int], codes: dict[int, str]) -> Tensor:
    return torch.tensor([int(b) for s in text for b in codes[s]], dtype=torch.uint8)


def _random_text(draw: Draw, lengths: Tensor) -> tuple[Tensor, Tensor]:
    """The bits of some 60 symbols, all that have codes equally frequent, and the lengths."""
    there = lengths.nonzero().squeeze(1)
    text = there[draw.integers(0, len(there), draw.number(55, 65))].tolist()
    return _bits_of(text, _canonical(lengths.tolist())), lengths


def _and_ones(count: int, bits: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
    return torch.cat([bits, bits.new_ones(count)]), lengths


def _streams(seed: int) -> list[Case]:
    draw = Draw(seed)

    def some(count: int, counts: Tensor) -> tuple[Tensor, Tensor]:
        """A text with each symbol that occurs once, and others."""
        lengths = code_lengths(counts)
        there = counts.nonzero().squeeze(1)
        text = torch.cat([there, there[draw.integers(0, len(there), count)]])
        text = text[draw.order(len(text))].tolist()
        return _bits_of(text, _canonical(lengths.tolist())), lengths

    whole, lengths = some(30, draw.integers(1, 50, 9))
    threes, eight = some(draw.number(20, 40), torch.ones(8, dtype=torch.long))
    gapped = draw.integers(1, 30, 20) * (torch.arange(20) % 3 > 0)
    small, alone = torch.tensor([1, 3, 2, 3]), torch.tensor([0, 1, 0])
    no_elevens = _random_text(draw, torch.tensor([2, 3, 3, 0, 2]))  # no code begins with 11
    labelled = {
        "four symbols": (torch.tensor([1, 1, 0, 0, 1, 0, 1, 1, 1]).byte(), small),
        "five symbols": some(20, torch.tensor([40, 5, 20, 6, 0])),
        "random counts": (whole, lengths),
        "all of one length": (threes, eight),
        "some symbols have no code": some(40, gapped),
        "many symbols": _random_text(draw, code_lengths(draw.integers(100, 199, 520))),
        "lengths that grow by two and three": _random_text(
            draw, torch.tensor([6, 1, 0, 3, 6, 6, 3])
        ),
        "codes of up to 40 bits": some(20, _fibonacci(41)[draw.order(41)]),
        "no bits": (whole[:0], lengths),
        "one symbol alone": (torch.zeros(draw.number(3, 9), dtype=torch.uint8), alone),
        "bits with which no code begins do not come": no_elevens,
        "cut off within a code": (torch.tensor([0, 1, 0, 1, 1]).byte(), small),
        "a long stream, cut off": (threes[: -draw.number(1, 3)], eight),
        "bits with which no code begins": _and_ones(2, *no_elevens),
        "the same, as many as the longest code has": _and_ones(3, *no_elevens),
        "one symbol alone, and a bit that is not its": (torch.tensor([0, 1]).byte(), alone),
    }
    return labelled_cases(("bits", "lengths"), labelled)


def _read(bits: Tensor, codes: dict[int, str], strict: bool = True) -> Tensor:
    """The symbols of a text in these codes; of two with equal bits the first."""
    symbols: dict[str, int] = {}
    for symbol, code in codes.items():
        symbols.setdefault(code, symbol)
    found, here = [], ""
    for bit in bits.tolist():
        here += str(bit)
        if here in symbols:
            found.append(symbols[here])
            here = ""
    if here and strict:
        raise ValueError("bits are left over")
    return torch.tensor(found, dtype=torch.int64)


def _in_order(key):
    """Another order of the symbols: key(length, symbol)."""

    def decode(bits, lengths):
        some = lengths.tolist()
        order = sorted((s for s, n in enumerate(some) if n), key=lambda s: key(some[s], s))
        return _read(bits, _codes(some, order))

    return decode


def _lowest_bit_first(bits, lengths):
    codes = _canonical(lengths.tolist())
    return _read(bits, {symbol: code[::-1] for symbol, code in codes.items()})


def _ones_first(bits, lengths):
    return _read(1 - bits, _canonical(lengths.tolist()))


def _places(bits, lengths):
    """The place in the order of codes instead of the symbol."""
    codes = _canonical(lengths.tolist())
    return _read(bits, dict(enumerate(codes.values())))


DECODE_CANONICAL = Exercise(
    reference=decode_canonical,
    cases=_streams,
    hints=(
        "First make the table. Who has the shortest code? All its bits are 0. The next code is "
        "that number plus 1, with a 0 behind it for each bit that it is longer.",
        "sorted((length, symbol) …) is the order; number <<= length − before appends the zeros. "
        "Keep (length, number) as the key: 0, 00 and 000 are the same number.",
        "Then read: number = 2 · number + bit, length + 1, and as soon as (length, number) is in "
        "the table, that is a symbol, and you begin again. No code is another's beginning, so the "
        "first that fits is right. What is left at the end is no code: ValueError.",
    ),
    misconceptions=(
        Misconception(
            "in the order of the symbols",
            _in_order(lambda length, symbol: symbol),
            "you gave out codes in the order of the symbols. First come all of the shortest "
            "length, then the next: else one code may be the beginning of another.",
        ),
        Misconception(
            "the higher symbol first",
            _in_order(lambda length, symbol: (length, -symbol)),
            "of equal lengths the lower symbol has the lower code. Whoever writes and whoever "
            "reads must agree, since lengths are all that is stored.",
        ),
        Misconception(
            "the lowest bit first",
            _lowest_bit_first,
            "you read each code from its end. The first bit of the stream is a code's highest.",
        ),
        Misconception(
            "ones for the shortest",
            _ones_first,
            "0 and 1 are exchanged: the shortest code is all zeros, and codes count upwards.",
        ),
        Misconception(
            "the place among the codes",
            _places,
            "you returned which code it is, in their order, and not whose. Symbols are places in "
            "`lengths`.",
        ),
        Misconception(
            "what is left over is dropped",
            lambda bits, lengths: _read(bits, _canonical(lengths.tolist()), strict=False),
            "the last bits are no whole code, and you said nothing. A file that was cut off, or "
            "damaged, should not look like a shorter text: ValueError.",
        ),
    ),
)
