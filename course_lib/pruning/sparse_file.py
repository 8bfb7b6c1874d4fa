"""Store tensors with many zeros: the values that are not zero, and where they stand.

Each tensor takes the form that makes the smallest file. N entries of b bytes, n not zero, take

    dense     every value                                                b N
    bitmap    a bit for each entry: zero or not                          b n + N / 8
    gaps      8-bit distances from one non-zero to the next              (b + 1) (n + fillers)
    indices   32-bit positions                                           (b + 4) n

A gap holds at most 255; where the next non-zero is farther, a filler stands in between, which is
stored as a value of zero. A tensor `w` becomes `w:values`, `w:bitmap` (or `:gaps`, `:indices`) and
`w:shape`: plain tensors, so any file format can keep them, and the file's size counts all of it.

Source: Han, Mao, Dally, 2016, "Deep Compression" (relative indices with fillers).
"""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

LARGEST_GAP = 255
HEADER = 72  # bytes, about, that a safetensors file spends on a tensor's name, shape and place


def sparse_tensors(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Each tensor in its smallest form, as plain tensors.

    Args:
        tensors: by name; a name may not hold a colon.

    Returns:
        For a dense form the tensor under its own name, else its parts under `name:part`.

    Raises:
        ValueError: a name holds a colon, or a tensor has 2³¹ entries or more.

    >>> {name: part.tolist() for name, part in sparse_tensors({"w": torch.eye(99)[:2]}).items()}
    {'w:shape': [2, 99], 'w:values': [1.0, 1.0], 'w:gaps': [1, 100]}
    """
    stored = {}
    for name, tensor in tensors.items():
        if ":" in name:
            raise ValueError(f"a tensor's name may not hold a colon; got {name!r}")
        if tensor.numel() >= 2**31:
            raise ValueError(f"a tensor must have fewer than 2**31 entries; {name!r} does not")
        shape, flat = torch.tensor(tensor.shape, dtype=torch.int32), tensor.detach().flatten()
        forms = [{"shape": shape, **encode(flat)} for encode in (_bitmap, _gaps, _indices)]
        forms = [{f"{name}:{part}": t for part, t in form.items()} for form in forms]
        stored |= min([{name: tensor}, *forms], key=_bytes)
    return stored


def dense_tensors(stored: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors that `sparse_tensors` stored, zeros filled in.

    Raises:
        ValueError: a part of a tensor is missing.

    >>> dense_tensors(sparse_tensors({"w": torch.eye(64)}))["w"].equal(torch.eye(64))
    True
    """
    dense = {name: tensor for name, tensor in stored.items() if ":" not in name}
    for name in [part.removesuffix(":values") for part in stored if part.endswith(":values")]:
        places = [place for place in DECODERS if f"{name}:{place}" in stored]
        if not places or f"{name}:shape" not in stored:
            raise ValueError(f"stored must hold {name}:shape and one of {tuple(DECODERS)}")
        positions = DECODERS[places[0]](stored[f"{name}:{places[0]}"])
        values = stored[f"{name}:values"]
        dense[name] = values.new_zeros(stored[f"{name}:shape"].tolist())
        dense[name].view(-1)[positions] = values
    return dense


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
