"""Codes as a stream of bits, each as long as Huffman's code makes it; and back.

A stream says all that is needed to read it, and where it ends. Numbers of several bytes begin with
the lowest.

    codes         4 bytes    N, how many
    symbols       2 bytes    K, the highest code + 1
    lengths       ⌈K/2⌉      of each symbol 4 bits, the even ones in the low half
    blocks        2 ⌈N/1024⌉ how many bits every 1024 codes take
    bits          ⌈Σ/8⌉      of all codes, one behind the other, the first in a byte's highest bit

Bits of varying length have to be read in order: where one code ends, the next begins. The blocks
break that chain: step t reads the t-th code of every block at once, from a table that says for any
15 bits which symbol they begin with. They cost 1/64 of a bit a code.

A flipped bit may leave a stream that can be read, with other codes in it. What goes to a file is
therefore `sealed`: it begins with 4 bytes of CRC-32.

Axes: N codes, B blocks, K symbols, L the largest length.
"""

import zlib

import numpy as np
import torch
from torch import Tensor

from course_lib.formats.huffman import LONGEST, canonical_codes, code_lengths, shares_of

BLOCK = 1024  # codes; at most 15 · 1024 bits, which two bytes can say
CHUNK = 32 * BLOCK  # codes at a time, so that what is in work stays in cache
HEAD = 6  # bytes


def encode_bits(codes: Tensor) -> Tensor:
    """The codes as a stream, uint8, by Huffman's code for their own counts.

    Args:
        codes: integers from 0 to 65534, any shape and number; at most 32768 different ones.

    Raises:
        ValueError: codes are no integers, or out of range, or 2³² of them or more.

    >>> encode_bits(torch.tensor([0, 2, 0, 1, 0])).tolist()
    [5, 0, 0, 0, 3, 0, 33, 2, 7, 0, 104]
    """
    if codes.is_floating_point() or codes.dtype == torch.bool or codes.numel() >= 2**32:
        raise ValueError(
            f"codes must be less than 2**32 integers; got {codes.numel()} {codes.dtype}"
        )
    flat = codes.detach().flatten().cpu().numpy()
    if flat.size and not (flat.min() >= 0 and flat.max() <= 65534):
        raise ValueError(f"codes must be from 0 to 65534; got {flat.min()} to {flat.max()}")
    flat = flat.astype(np.int32)
    counts = torch.bincount(torch.from_numpy(flat))
    lengths = code_lengths(counts)
    blocks, bits = _written(flat, counts.numpy(), lengths)
    head = np.array([len(flat), len(lengths)], "<u4").view(np.uint8)[:HEAD]
    padded = np.pad(lengths.numpy(), (0, len(lengths) % 2))
    parts = (head, padded[0::2] | padded[1::2] << 4, blocks.astype("<u2").view(np.uint8), bits)
    return torch.from_numpy(np.concatenate(parts)).to(codes.device)


def _written(codes: np.ndarray, counts: np.ndarray, lengths: Tensor) -> tuple:
    """Bits of each block (B,), and the bits of all, in bytes."""
    table = canonical_codes(lengths).numpy().astype(np.uint32), lengths.numpy()
    total = int(counts @ table[1].astype(np.int64))
    words, begins, at = np.zeros(total // 64 + 2, np.uint64), [], 0
    for chunk in range(0, len(codes), CHUNK):
        values, widths = _fours(codes[chunk : chunk + CHUNK], *table)
        ends = at + np.cumsum(widths, dtype=np.int64)
        starts, at = ends - widths, int(ends[-1])
        _place(words, values, widths, starts)
        begins.extend(starts[:: BLOCK // 4])
    blocks = np.diff(np.array(begins, np.int64), append=total)
    return blocks, words.astype(">u8").view(np.uint8)[: -(-total // 8)]


def _fours(codes: np.ndarray, bits: np.ndarray, lengths: np.ndarray) -> tuple:
    """Four codes' bits joined, at most 60, and how many: both (⌈N/4⌉,)."""
    codes = codes.astype(np.intp)
    missing = -len(codes) % 4
    values, widths = (np.pad(table.take(codes), (0, missing)) for table in (bits, lengths))
    values, widths = values[0::2] << widths[1::2] | values[1::2], widths[0::2] + widths[1::2]
    values = values.astype(np.uint64)
    return values[0::2] << widths[1::2] | values[1::2], widths[0::2] + widths[1::2]


def _place(words: np.ndarray, values: np.ndarray, widths: np.ndarray, starts: np.ndarray) -> None:
    """In place: bring each value's bits to their start. What begins in a word of 64 bits is joined
    there; what the last of it has no room for goes to the next word."""
    room = 64 - (starts & 63) - widths
    at = starts >> 6
    over = np.flatnonzero(room < 0)
    inside = values << room.clip(0).astype(np.uint64)
    inside[over] = values[over] >> (-room[over]).astype(np.uint64)
    first = np.flatnonzero(np.diff(at, prepend=-1))  # no word is left out: none is 64 bits long
    words[at[0] : at[-1] + 1] |= np.bitwise_or.reduceat(inside, first)
    words[at[over] + 1] |= values[over] << (64 + room[over]).astype(np.uint64)


def decode_bits(stream: Tensor) -> Tensor:
    """The codes (N,), int32, of a stream that holds nothing else.

    Raises:
        ValueError: as `read_bits`, or bytes are left over.

    >>> decode_bits(encode_bits(torch.tensor([0, 2, 0, 1, 0]))).tolist()
    [0, 2, 0, 1, 0]
    """
    codes, end = read_bits(_checked(stream), 0)
    if end != len(stream):
        raise ValueError(f"a stream of {end} bytes must end there; got {len(stream)}: damaged")
    return torch.from_numpy(codes).to(stream.device)


def read_bits(stream: np.ndarray, at: int, most: int | None = None) -> tuple[np.ndarray, int]:
    """The codes (N,), int32, of the stream that begins at this byte, and the byte where it ends.

    Args:
        most: how many codes there may be: they take 32 times the memory of a stream of one bit
            each, so who does not trust the stream says what is enough.

    Raises:
        ValueError: the stream is cut off, or what it says of itself does not fit together; more
            codes than `most`.
    """
    N, K = _little(stream, at, 4), _little(stream, at + 4, 2)
    if most is not None and most < N:
        raise ValueError(f"a stream must hold at most {most} codes here; got {N}")
    at, B = at + HEAD, -(-N // BLOCK)
    halves = _bytes(stream, at, -(-K // 2))
    lengths = np.stack([halves & 15, halves >> 4], axis=1).flatten()[:K].astype(np.int64)
    at += len(halves)
    sizes = _bytes(stream, at, 2 * B).view("<u2").astype(np.int64)
    at += 2 * B
    ends = np.cumsum(sizes)
    if not N <= sizes.sum() <= LONGEST * N:
        raise ValueError(
            f"{N} codes must have 1 to {LONGEST} bits each; got {sizes.sum()} bits: damaged"
        )
    bits = _bytes(stream, at, -(-int(sizes.sum()) // 8))
    if N == 0:
        return np.zeros(0, np.int32), at
    codes, found = _looked_up(bits, ends - sizes, N, lengths)
    if not np.array_equal(found, ends):
        raise ValueError("the codes must fill their blocks of bits; they do not: damaged")
    return codes, at + len(bits)


def _looked_up(bits: np.ndarray, starts: np.ndarray, N: int, lengths: np.ndarray) -> tuple:
    """The codes (N,), and the bit where each block's last one ended (B,)."""
    symbols, shares = shares_of(lengths)
    L = int(lengths.max(initial=0))
    if L == 0:
        raise ValueError("codes must have lengths; all are 0: damaged")
    table = np.repeat(symbols << 4 | lengths[symbols], shares)  # whose share is it: up to 2**L rows
    table = np.pad(table, (0, 2**L - len(table)))  # nobody's, if there is one symbol alone
    padded = np.pad(bits, (0, 2)).astype(np.int32)
    threes = np.pad(padded, (0, 1))[:-1] << 16  # the 24 bits from each byte on
    threes[:-2] |= padded[1:-1] << 8 | padded[2:]
    B, last = len(starts), (N - 1) % BLOCK + 1
    entries = np.empty((min(N, BLOCK), B), np.int32)
    at, ended = starts.copy(), 0
    for t, entry in enumerate(entries):
        here = threes.take(at >> 3, mode="clip") >> (24 - L - (at & 7))
        entry[:] = table.take(here & 2**L - 1)
        at += entry & 15
        if t == last - 1:
            ended = int(at[-1])  # what the last block reads beyond its own codes does not count
    at[-1] = ended
    return (entries >> 4).T.flatten()[:N], at


def sealed(*parts: np.ndarray) -> Tensor:
    """The parts' bytes, one part behind the other, behind their CRC-32: uint8.

    >>> sealed(np.array([1, 2], "<u2")).tolist()
    [251, 218, 206, 171, 1, 0, 2, 0]
    """
    data = np.concatenate([np.ascontiguousarray(part).reshape(-1).view(np.uint8) for part in parts])
    seal = np.array([zlib.crc32(data)], "<u4").view(np.uint8)
    return torch.from_numpy(np.concatenate([seal, data]))


def opened(stream: Tensor) -> np.ndarray:
    """The bytes that were `sealed`.

    Raises:
        ValueError: they are not what was sealed: damaged or cut off.
    """
    data = _checked(stream)
    if _little(data, 0, 4) != zlib.crc32(data[4:]):
        raise ValueError(f"a stream must have the check sum of its {len(data)} bytes: damaged")
    return data[4:]


def _checked(stream: Tensor) -> np.ndarray:
    if stream.dtype != torch.uint8 or stream.dim() != 1:
        raise ValueError(
            f"a stream must be uint8 of one axis; got {stream.dtype} of {tuple(stream.shape)}"
        )
    return stream.cpu().numpy()


def stream_size(counts: Tensor) -> int:
    """Bytes of `encode_bits` for codes that occur so often: counts (K,), the last one above 0.

    >>> stream_size(torch.tensor([3, 1, 1])), len(encode_bits(torch.tensor([0, 2, 0, 1, 0])))
    (11, 11)
    """
    bits = int((counts * code_lengths(counts)).sum())
    return HEAD + -(-len(counts) // 2) + 2 * -(-int(counts.sum()) // BLOCK) + -(-bits // 8)


def _bytes(stream: np.ndarray, at: int, count: int) -> np.ndarray:
    if at + count > len(stream):
        raise ValueError(f"a stream must go on to byte {at + count}; got {len(stream)}: cut off")
    return stream[at : at + count]


def _little(stream: np.ndarray, at: int, count: int) -> int:
    return int.from_bytes(_bytes(stream, at, count).tobytes(), "little")
