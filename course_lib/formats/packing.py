"""Codes of n bits packed into bytes: eight codes fill n bytes.

The codes are cut into eight runs of equal length, and the runs laid over each other, run k moved up
by n · k bits. For n = 3:

    byte 0      run 2 (low 2 bits)   run 1   run 0
    byte 1      run 5 (low 1 bit)    run 4   run 3   run 2 (high bit)
    byte 2      run 7   run 6   run 5 (high 2 bits)

The usual order puts neighbouring codes into one byte. Here they lie in neighbouring bytes, so that
every step works on long runs of memory: the same size, and faster.

Axes: N codes.
"""

import torch
from torch import Tensor


def pack(codes: Tensor, bits: int) -> Tensor:
    """Pack codes from 0 to 2ⁿ − 1 into bytes.

    Args:
        codes: integers of any shape and number. Symmetric codes are first moved up by 2ⁿ⁻¹ − 1.
        bits: n, from 2 to 8.

    Returns:
        Bytes (n · ⌈N/8⌉,), uint8: the last codes are filled up with zeros.

    Raises:
        ValueError: bits outside 2 … 8, or no codes.

    >>> pack(torch.tensor([7, 1, 0, 2, 5]), bits=3).tolist()
    [15, 84, 0]
    """
    _check_bits(bits)
    if codes.numel() == 0:
        raise ValueError(f"codes must not be empty; got shape {tuple(codes.shape)}")
    length = -(-codes.numel() // 8)  # ⌈N/8⌉
    flat = codes.flatten().to(torch.uint8)
    if len(flat) < 8 * length:
        flat = torch.nn.functional.pad(flat, (0, 8 * length - len(flat)))
    runs = flat.view(8, length)  # (N,) -> (8, N/8)
    packed = torch.zeros(bits, length, dtype=torch.uint8, device=codes.device)
    for k, run in enumerate(runs):
        byte, shift = divmod(bits * k, 8)
        packed[byte] |= run << shift  # what does not fit into 8 bits falls out,
        if shift + bits > 8:
            packed[byte + 1] |= run >> (8 - shift)  # and goes to the next byte
    return packed.flatten()  # (n, N/8) -> (n·N/8,)


def unpack(packed: Tensor, bits: int, count: int) -> Tensor:
    """The first `count` codes of `pack`'s bytes: (count,), uint8.

    Raises:
        ValueError: bits outside 2 … 8; packed is not the n · ⌈count/8⌉ bytes of so many codes.

    >>> unpack(torch.tensor([15, 84, 0], dtype=torch.uint8), bits=3, count=5).tolist()
    [7, 1, 0, 2, 5]
    """
    _check_bits(bits)
    length = -(-count // 8)  # ⌈N/8⌉
    if packed.shape != (bits * length,) or packed.dtype != torch.uint8:
        raise ValueError(
            f"packed must be uint8 of shape ({bits * length},) for {count} codes of {bits} bits; "
            f"got {tuple(packed.shape)}, {packed.dtype}"
        )
    packed = packed.view(bits, length)  # (n·N/8,) -> (n, N/8)
    runs = torch.empty(8, length, dtype=torch.uint8, device=packed.device)
    for k, run in enumerate(runs):
        byte, shift = divmod(bits * k, 8)
        torch.bitwise_right_shift(packed[byte], shift, out=run)
        if shift + bits > 8:
            run |= packed[byte + 1] << (8 - shift)
        run &= 2**bits - 1
    return runs.flatten()[:count]  # (8, N/8) -> (N,)


def _check_bits(bits: int) -> None:
    if not 2 <= bits <= 8:
        raise ValueError(f"bits must be from 2 to 8, or a code does not fit a byte; got {bits}")
