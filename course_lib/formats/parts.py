"""What each part of a tensor in a file must be, before anybody decodes it: dtype and axes.

A file may come from a stranger, or damaged. Whoever decodes a part can then rely on its kind, and
has to ask only whether its length fits the tensor's shape.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
BYTES = (torch.uint8,)

# Part -> its dtypes, and how many axes it has. What is not here, `values`, may be of any kind.
KINDS: dict[str, tuple[tuple[torch.dtype, ...], int]] = {
    "codes": (BYTES, 1),
    "scale": (FLOATS, 1),
    "zero_point": (BYTES, 1),
    "bitmap": (BYTES, 1),
    "gaps": (BYTES, 1),
    "indices": ((torch.int32, torch.int64), 1),
    "places": (BYTES, 1),
    "levels": (FLOATS, 2),
    "scale_codes": ((torch.uint8, torch.int8), 1),
    "scale_step": (FLOATS, 1),
    "scale_mean": (FLOATS, 0),
    "float": (BYTES, 1),
    "exponents": (BYTES, 1),
    "block_scales": (BYTES, 1),
    "tensor_scale": (FLOATS, 0),
    "even_coded": (BYTES, 1),
    "shared": (BYTES, 1),
    "codebooks": (FLOATS, 3),
    "stages": (BYTES, 2),
    "trits": (BYTES, 1),
    "left": (FLOATS, 2),
    "right": (FLOATS, 2),
}


def check_parts(name: str, parts: Mapping[str, Tensor]) -> None:
    """Raise unless each part that `KINDS` knows is of its kind; the others are not looked at.

    Args:
        name: of the tensor, for the message.

    Raises:
        ValueError: a part of another dtype or with other axes.

    >>> check_parts("w", {"codes": torch.zeros(8)})
    Traceback (most recent call last):
    ValueError: w:codes must be uint8 with 1 axis; got float32 of shape (8,)
    """
    for part, stored in parts.items():
        if part not in KINDS:
            continue
        dtypes, axes = KINDS[part]
        if stored.dtype in dtypes and stored.dim() == axes:
            continue
        kind = " or ".join(str(dtype).removeprefix("torch.") for dtype in dtypes)
        seen = f"{str(stored.dtype).removeprefix('torch.')} of shape {tuple(stored.shape)}"
        raise ValueError(
            f"{name}:{part} must be {kind} with {axes} ax{'i' if axes == 1 else 'e'}s; got {seen}"
        )
