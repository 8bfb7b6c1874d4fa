"""A weight of which at most 2 of every 4 neighbours are not zero: those two, and where they stand.

For every 4 neighbours in a row of W (O, I):

    values    2, as they are; or `codes` and `scale` of a Scheme for the matrix (O, I/2) of values
    places    2 · 2 bits, the columns 0 … 3 in which they stand, the left one first (`packing`)

At 4 bits that is 2 · 4 + 2 · 2 = 12 bits for 4 weights, 3 a weight, and 3.25 with a float16 scale
for 32 values, which stand for 64 weights. Dense codes of 4 bits with a scale for 64 weights take
4.25: the file is not half as large, as every place costs half of what its value does.

Source: Mishra et al., 2021, "Accelerating Sparse Deep Neural Networks".

Axes: O outputs, I inputs.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from course_lib.formats.linear import Scheme, decode_linear, encode_linear
from course_lib.formats.packing import pack, unpack
from course_lib.models.finite import check_finite
from course_lib.models.n_of_m import largest_of_few


@dataclass(frozen=True)
class TwoOfFour:
    """The scheme of a weight with 2 of 4.

    values: how the values are stored, a granularity of 32 being a scale for 64 weights; None for
        as they are.
    """

    values: Scheme | None = None


def encode_two_of_four(weight: Tensor, scheme: TwoOfFour = TwoOfFour()) -> dict[str, Tensor]:
    """The parts that stand for a weight in a file.

    Args:
        weight: (O, I), where 4 divides I, finite.

    Raises:
        ValueError: the shape does not fit; NaN or infinity; more than 2 of 4 are not zero; what
            `encode_linear` refuses.

    >>> weight = torch.tensor([[0.0, 3.0, 0.0, 4.0]])
    >>> {name: part.tolist() for name, part in encode_two_of_four(weight).items()}
    {'values': [[3.0, 4.0]], 'places': [13, 0]}
    """
    if weight.dim() != 2 or weight.shape[1] % 4 or not weight.numel():
        raise ValueError(f"weight must have shape (O, I), 4 dividing I; got {tuple(weight.shape)}")
    check_finite(weight, "weight")
    fours = weight.detach().unflatten(1, (-1, 4))  # (O, I) -> (O, I/4, 4)
    crowded = ((fours != 0).sum(dim=-1) > 2).nonzero()
    if len(crowded):
        row, four = crowded[0].tolist()
        raise ValueError(
            f"weight must have at most 2 of 4 that are not zero; {len(crowded)} times there are "
            f"more, first in row {row}, columns {4 * four} to {4 * four + 3}"
        )
    present = largest_of_few((fours != 0).to(torch.uint8), 2)  # zeros fill up, the left ones first
    values = fours[present].view(len(weight), -1)  # (O · I/2,) -> (O, I/2)
    places = {"places": pack(present.nonzero()[:, -1], bits=2)}
    if scheme.values is None:
        return {"values": values, **places}
    return {**encode_linear(values, scheme.values), **places}


def decode_two_of_four(parts: Mapping[str, Tensor], shape: torch.Size) -> Tensor:
    """The weight (O, I) that `encode_two_of_four`'s parts stand for; of codes, in float32.

    Raises:
        ValueError: parts that no encoder here writes, as of a damaged file.

    >>> weight = torch.tensor([[0.0, 3.0, 0.0, 4.0]])
    >>> decode_two_of_four(encode_two_of_four(weight), weight.shape)
    tensor([[0., 3., 0., 4.]])
    """
    if len(shape) != 2 or shape[1] % 4:
        raise ValueError(f"2 of 4 must make a weight (O, I), 4 dividing I; got {tuple(shape)}")
    O, I = shape  # noqa: E741
    values = parts["values"] if "values" in parts else decode_linear(parts, torch.Size((O, I // 2)))
    if values.numel() != O * I // 2:
        raise ValueError(f"values must be {O * I // 2}, 2 of 4; got {values.numel()}")
    places = unpack(parts["places"], bits=2, count=O * I // 2).long().view(-1, 2)
    fours = values.new_zeros(O * I // 4, 4)
    return fours.scatter(1, places, values.view(-1, 2)).view(shape)
