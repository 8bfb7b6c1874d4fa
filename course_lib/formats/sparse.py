"""Store a tensor with many zeros: the values that are not zero, and where they stand.

A tensor takes the form that makes the smallest file. N entries of b bytes, n not zero, take

    dense     every value                                                b N
    bitmap    a bit for each entry: zero or not                          b n + N / 8
    gaps      8-bit distances from one non-zero to the next              (b + 1) (n + fillers)
    indices   32-bit positions                                           (b + 4) n

A gap holds at most 255; where the next non-zero is farther, a filler stands in between, which is
stored as a value of zero. The parts are called `values` and `bitmap`, `gaps` or `indices`; a tensor
whose smallest form is the dense one stays as it is. The shape is the model's to know.

Source: Han, Mao, Dally, 2016, "Deep Compression" (relative indices with fillers).
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from course_lib.models.finite import is_fake

LARGEST_GAP = 255
HEADER = 72  # bytes, about, that a safetensors file spends on a tensor's name, shape and place


@dataclass(frozen=True)
class Sparse:
    """The scheme of a tensor whose zeros are not to be stored."""


def encode_sparse(tensor: Tensor, scheme: Sparse = Sparse()) -> dict[str, Tensor]:
    """The parts of the smallest form; `{"": tensor}` where that is the dense one.

    Raises:
        ValueError: the tensor has 2³¹ entries or more.

    >>> {name: part.tolist() for name, part in encode_sparse(torch.eye(99)[:2]).items()}
    {'values': [1.0, 1.0], 'gaps': [1, 100]}
    """
    if tensor.numel() >= 2**31:
        raise ValueError(f"a tensor must have fewer than 2**31 entries; got {tensor.numel()}")
    flat = tensor.detach().flatten()
    forms = [{"": tensor}, _bitmap(flat), _gaps(flat), _indices(flat)]
    return min(forms, key=_bytes)


def decode_sparse(parts: Mapping[str, Tensor], shape: torch.Size) -> Tensor:
    """The tensor of this shape that `encode_sparse` stored, zeros filled in.

    Raises:
        ValueError: parts that no encoder here writes, as of a damaged file.

    >>> decode_sparse(encode_sparse(torch.eye(64)), (64, 64)).equal(torch.eye(64))
    True
    """
    (place,) = parts.keys() & DECODERS.keys()
    tensor, stored = parts["values"].new_zeros(shape), parts[place]
    N, n = tensor.numel(), parts["values"].numel()
    if len(stored) != (-(-N // 8) if place == "bitmap" else n) or n > N:
        raise ValueError(f"{len(stored)} {place} and {n} values do not fit a tensor of {N}")
    positions = DECODERS[place](stored)
    _check_positions(positions, n, N)
    tensor.view(-1)[positions] = parts["values"].flatten()
    return tensor


def _check_positions(positions: Tensor, n: int, N: int) -> None:
    """Raise unless they are n that rise, from 0 to N − 1."""
    if is_fake(positions):
        return
    ends = torch.cat([positions[:1], N - 1 - positions[-1:], positions.diff() - 1])
    if len(positions) != n or (n and ends.min() < 0):
        raise ValueError(
            f"{n} values must have a place each, rising from 0 to {N - 1}; got {len(positions)}"
        )


def _bytes(parts: Mapping[str, Tensor]) -> int:
    return sum(part.numel() * part.element_size() + HEADER for part in parts.values())


def _bitmap(flat: Tensor) -> dict[str, Tensor]:
    """The non-zero values, and 8 entries' bits a byte, the first entry in the highest bit."""
    present = flat != 0
    bits = F.pad(present.to(torch.uint8), (0, -len(flat) % 8)).view(-1, 8)  # (N,) -> (N / 8, 8)
    return {"values": flat[present], "bitmap": (bits << _shifts(flat)).sum(1, dtype=torch.uint8)}


def _gaps(flat: Tensor) -> dict[str, Tensor]:
    """The non-zero values and fillers, and each one's distance from the one before it."""
    positions = flat.nonzero().squeeze(1)
    distances = positions.diff(prepend=positions.new_tensor([-1]))  # at least 1
    fillers = (distances - 1) // LARGEST_GAP  # before each value
    places = torch.arange(len(positions), device=flat.device) + fillers.cumsum(0)
    total = len(positions) + int(fillers.sum())
    gaps = torch.full((total,), LARGEST_GAP, dtype=torch.uint8, device=flat.device)
    gaps[places] = (distances - fillers * LARGEST_GAP).to(torch.uint8)
    values = flat.new_zeros(total)
    values[places] = flat[positions]
    return {"values": values, "gaps": gaps}


def _indices(flat: Tensor) -> dict[str, Tensor]:
    positions = flat.nonzero().squeeze(1)
    return {"values": flat[positions], "indices": positions.to(torch.int32)}


def _shifts(like: Tensor) -> Tensor:
    return torch.arange(7, -1, -1, dtype=torch.uint8, device=like.device)


# From what says where the values stand to their positions.
DECODERS = {
    "bitmap": lambda bits: (bits[:, None] >> _shifts(bits) & 1).flatten().nonzero().squeeze(1),
    "gaps": lambda gaps: gaps.long().cumsum(0) - 1,
    "indices": lambda indices: indices.long(),
}
