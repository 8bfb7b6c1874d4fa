"""What was written comes back, its size is what the layout says, and damage is refused."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from course_lib.formats.bits import (
    BLOCK,
    decode_bits,
    encode_bits,
    opened,
    sealed,
    stream_size,
)
from course_lib.formats.huffman import canonical_codes, code_lengths


def drawn(count, levels, seed=0):
    """Codes of which the low ones are frequent."""
    generator = torch.Generator().manual_seed(seed)
    return (torch.rand(count, generator=generator) ** 3 * levels).long()


def bit_by_bit(codes):
    """The bits of the codes, one behind the other, in bytes: the slow way."""
    lengths = code_lengths(torch.bincount(codes))
    words = canonical_codes(lengths).tolist()
    bits = "".join(f"{words[k]:0{int(lengths[k])}b}" for k in codes.tolist())
    bits += "0" * (-len(bits) % 8)
    return [int(bits[i : i + 8], 2) for i in range(0, len(bits), 8)]


@given(st.integers(0, 5000), st.sampled_from([1, 2, 3, 16, 300]), st.integers(0, 99))
@settings(deadline=None)
def test_what_is_written_comes_back(count, levels, seed):
    codes = drawn(count, levels, seed)
    assert decode_bits(encode_bits(codes)).tolist() == codes.tolist()


@pytest.mark.parametrize("count", [1, 3, 4, 5, BLOCK - 1, BLOCK, BLOCK + 1, 32 * BLOCK + 7])
def test_the_layout_is_as_written(count):
    codes = drawn(count, 20)
    stream = encode_bits(codes).tolist()
    K, blocks = int(codes.max()) + 1, -(-count // BLOCK)
    assert stream[:6] == [*count.to_bytes(4, "little"), *K.to_bytes(2, "little")]
    lengths = code_lengths(torch.bincount(codes)).tolist() + [0]
    table = [lengths[k] + 16 * lengths[k + 1] for k in range(0, K, 2)]
    assert stream[6 : 6 + len(table)] == table
    assert stream[6 + len(table) + 2 * blocks :] == bit_by_bit(codes)


def test_every_integer_type_and_shape():
    codes = drawn(600, 100).view(20, 30).T
    for dtype in (torch.uint8, torch.int16, torch.uint16, torch.int32, torch.int64):
        assert decode_bits(encode_bits(codes.to(dtype))).equal(codes.flatten().int())


def test_codes_as_far_apart_as_may_be_and_as_many():
    far = torch.tensor([0, 65534])
    assert decode_bits(encode_bits(far)).tolist() == far.tolist()
    many = torch.arange(2**15)
    assert decode_bits(encode_bits(many)).equal(many.int())


def test_the_deepest_code_fills_a_block():
    """Rare symbols of 15 bits in one block."""
    counts = [1, 1]
    while len(counts) < 20:
        counts.append(sum(counts[-2:]))
    codes = torch.repeat_interleave(torch.arange(20), torch.tensor(counts))
    deep = torch.arange(20)[code_lengths(torch.tensor(counts)) == 15]
    codes = torch.cat([codes, deep.repeat(2)])
    assert decode_bits(encode_bits(codes)).equal(codes.int())


def test_nothing_and_one_symbol():
    assert encode_bits(torch.zeros(0, dtype=torch.int64)).tolist() == [0] * 6
    same = torch.full((5000,), 7)
    stream = encode_bits(same)
    assert len(stream) == 6 + 4 + 2 * 5 + 625  # a bit each
    assert decode_bits(stream).tolist() == same.tolist()


@pytest.mark.parametrize(
    ("codes", "message"),
    [
        (torch.tensor([0.5]), "integers; got 1 torch.float32"),
        (torch.tensor([True]), "integers; got 1 torch.bool"),
        (torch.tensor([-1, 3]), "from 0 to 65534; got -1 to 3"),
        (torch.tensor([65535]), "got 65535 to 65535"),
        (torch.arange(2**15 + 1), "give 32769 symbols a code; got 15"),
    ],
)
def test_what_are_no_codes(codes, message):
    with pytest.raises(ValueError, match=message):
        encode_bits(codes)


def test_a_stream_that_is_cut_off_at_any_byte():
    stream = encode_bits(drawn(2500, 9))
    for end in range(len(stream)):
        with pytest.raises(ValueError, match="cut off"):
            decode_bits(stream[:end])
    with pytest.raises(ValueError, match="must end there"):
        decode_bits(torch.cat([stream, stream[:1]]))


@given(st.integers(0, 10**6), st.integers(1, 255), st.integers(0, 9))
@settings(deadline=None, max_examples=150)
def test_a_damaged_stream_is_refused_or_has_its_length(at, change, seed):
    codes = drawn(2500, 9, seed)
    stream = encode_bits(codes)
    at %= len(stream)
    stream[at] ^= change
    try:
        found = decode_bits(stream)
    except ValueError:
        return
    assert at > 4 and len(found) == len(codes)


def test_a_stream_that_claims_billions():
    stream = encode_bits(drawn(50, 4))
    stream[3] = 255
    with pytest.raises(ValueError, match="cut off"):
        decode_bits(stream)
    no_bits = torch.zeros(10**5, dtype=torch.uint8)
    no_bits[:8] = torch.tensor([0, 0, 0, 1, 2, 0, 17, 0])  # 2²⁴ codes, two symbols of a bit
    with pytest.raises(ValueError, match="16777216 codes must have 1 to 15 bits each; got 0 bits"):
        decode_bits(no_bits)


@given(st.integers(0, 5000), st.sampled_from([1, 2, 40]), st.integers(0, 99))
@settings(deadline=None)
def test_the_size_is_known_before(count, levels, seed):
    codes = drawn(count, levels, seed)
    assert stream_size(torch.bincount(codes)) == len(encode_bits(codes))


def test_a_seal_is_broken_by_any_bit():
    data = encode_bits(drawn(300, 9)).numpy()
    stream = sealed(data[:50], data[50:])
    assert (opened(stream) == data).all()
    for at in range(len(stream)):
        for bit in range(8):
            broken = stream.clone()
            broken[at] ^= 1 << bit
            with pytest.raises(ValueError, match="check sum"):
                opened(broken)
    for end in range(len(stream)):
        with pytest.raises(ValueError, match=r"check sum|cut off"):
            opened(stream[:end])


def test_what_is_no_stream():
    for stream in (torch.zeros(9), torch.zeros(3, 3, dtype=torch.uint8)):
        with pytest.raises(ValueError, match="uint8 of one axis"):
            opened(stream)
        with pytest.raises(ValueError, match="uint8 of one axis"):
            decode_bits(stream)
