"""Code lengths are optimal, by brute force and beside dahuffman; the codes are a prefix code."""

import heapq
import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from course_lib.formats.entropy import code_entropy
from course_lib.formats.huffman import canonical_codes, code_lengths

COUNTS = st.lists(st.integers(0, 10**9), min_size=0, max_size=40)


def bits_written(counts, lengths):
    return sum(count * length for count, length in zip(counts, lengths, strict=True))


def merged_bits(counts):
    """Huffman's own procedure: the two rarest become one, and all below them get one bit more."""
    heap = [count for count in counts if count]
    heapq.heapify(heap)
    total = 0
    while len(heap) > 1:
        both = heapq.heappop(heap) + heapq.heappop(heap)
        heapq.heappush(heap, both)
        total += both
    return total


@given(COUNTS)
@settings(deadline=None)
def test_lengths_are_optimal(counts):
    lengths = code_lengths(torch.tensor(counts, dtype=torch.int64), longest=32).tolist()
    assert [length > 0 for length in lengths] == [count > 0 for count in counts]
    if sum(count > 0 for count in counts) > 1:
        assert sum(2.0**-length for length in lengths if length) == 1
        assert bits_written(counts, lengths) == merged_bits(counts)


@given(st.lists(st.integers(1, 10**9), min_size=2, max_size=5), st.integers(1, 4))
@settings(deadline=None)
def test_lengths_are_optimal_under_a_limit(counts, longest):
    if len(counts) > 2**longest:
        with pytest.raises(ValueError, match=f"give {len(counts)} symbols a code"):
            code_lengths(torch.tensor(counts), longest)
        return
    possible = itertools.product(range(1, longest + 1), repeat=len(counts))
    codes = [lengths for lengths in possible if sum(2.0**-length for length in lengths) <= 1]
    best = min(bits_written(counts, lengths) for lengths in codes)
    lengths = code_lengths(torch.tensor(counts), longest).tolist()
    assert max(lengths) <= longest
    assert bits_written(counts, lengths) == best


def test_lengths_beside_dahuffman():
    dahuffman = pytest.importorskip("dahuffman")
    generator = torch.Generator().manual_seed(0)
    for K in (2, 3, 17, 256):
        counts = torch.randint(1, 1000, (K,), generator=generator)
        codec = dahuffman.HuffmanCodec.from_frequencies(dict(enumerate(counts.tolist())))
        table = codec.get_code_table()  # with a symbol of its own for the end, of count 1
        theirs = sum(table[k][0] * count for k, count in enumerate(counts.tolist()))
        theirs += next(bits for symbol, (bits, _) in table.items() if symbol not in range(K))
        counts = torch.cat([counts, torch.ones(1, dtype=torch.int64)])
        assert bits_written(counts.tolist(), code_lengths(counts, 32).tolist()) == theirs


def test_counts_of_a_billion_and_a_code_cut_at_fifteen_bits():
    fibonacci = [1, 1]
    while fibonacci[-1] < 10**9:
        fibonacci.append(sum(fibonacci[-2:]))
    counts = torch.tensor(fibonacci)
    assert code_lengths(counts, longest=32).max() == 32
    lengths = code_lengths(counts)
    assert lengths.max() == 15
    assert (2.0 ** -lengths.double()).sum() == 1


@given(st.lists(st.integers(1, 1000), min_size=2, max_size=30))
@settings(deadline=None)
def test_between_the_entropy_and_one_bit_more(counts):
    codes = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    bits = bits_written(counts, code_lengths(torch.tensor(counts)).tolist()) / len(codes)
    entropy = float(code_entropy(codes, len(counts)))
    assert entropy - 1e-5 <= bits < entropy + 1


@given(COUNTS)
@settings(deadline=None)
def test_no_code_begins_another(counts):
    lengths = code_lengths(torch.tensor(counts, dtype=torch.int64))
    codes = canonical_codes(lengths)
    pairs = zip(codes.tolist(), lengths.tolist(), strict=True)
    words = sorted(f"{code:0{length}b}" for code, length in pairs if length)
    assert all(not later.startswith(word) for word, later in itertools.pairwise(words))
    assert all((code < 0) == (length == 0) for code, length in zip(codes, lengths, strict=True))


def test_canonical_codes_rise_with_length_and_symbol():
    assert canonical_codes(torch.tensor([2, 1, 0, 3, 3])).tolist() == [2, 0, -1, 6, 7]
    assert canonical_codes(torch.tensor([0, 1])).tolist() == [-1, 0]
    assert canonical_codes(torch.tensor([], dtype=torch.int64)).tolist() == []


def test_nothing_to_code_and_one_symbol():
    assert code_lengths(torch.zeros(0, dtype=torch.int64)).tolist() == []
    assert code_lengths(torch.tensor([0, 0])).tolist() == [0, 0]
    assert code_lengths(torch.tensor([0, 10**9])).tolist() == [0, 1]


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        (torch.tensor([1.0]), r"integers of shape \(K,\); got torch.float32"),
        (torch.tensor([[1]]), r"got torch.int64 of \(1, 1\)"),
        (torch.tensor([3, -1]), r"from 0 to 2\*\*40; got -1 to 3"),
        (torch.tensor([2**41]), "got 2199023255552 to"),
    ],
)
def test_what_are_no_counts(counts, message):
    with pytest.raises(ValueError, match=message):
        code_lengths(counts)


@pytest.mark.parametrize("longest", [0, 33])
def test_what_is_no_limit(longest):
    with pytest.raises(ValueError, match="longest must be from 1 to 32"):
        code_lengths(torch.tensor([1, 2]), longest)


@pytest.mark.parametrize("lengths", [[1, 1, 1], [1, 2], [2], [1, 1, 40], [-1, 1, 1]])
def test_what_are_no_lengths(lengths):
    with pytest.raises(ValueError, match="lengths must be"):
        canonical_codes(torch.tensor(lengths))
