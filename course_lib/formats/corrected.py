"""A weight in another form, and two thin matrices that give back some of what that form lost.

    Ŵ + B A        the parts of Ŵ in its own form, beside    left     float16    B, (O, r)
                                                             right    float16    A, (r, I)

Ŵ may be rounded, pruned, or both. The factors take 16 r (O + I) bits: for a square weight of width
D that is 32 r / D bits a weight. A rank of 16 costs a whole bit at D = 512, an eighth at 4096.

What the base encodes is the tensor that stands under the name: W itself, which the base then
rounds, or a Ŵ that a method has made of it. B A is added when the file is read.

A number in float16 is off by up to 2⁻¹¹ of itself, a product by 2⁻¹⁰: little beside what r ranks
leave of a residual. `low_rank.residual` gives either factor the root of each singular value, so
that numbers stay away from float16's ends.

Source: Zhang et al., 2024, "LQER: Low-Rank Quantization Error Reconstruction for LLMs".

Axes: O outputs, I inputs, r rank.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from course_lib.low_rank.svd import Factors
from course_lib.models.finite import check_finite

FACTORS = ("left", "right")


@dataclass(frozen=True, eq=False)
class Corrected:
    """The scheme of a weight that has another scheme, and a product of low rank added to it.

    base: the other scheme: of any form of `forms`, but not Corrected again and not a float type.
    factors: B and A, of any float type.
    """

    base: object
    factors: Factors


def encode_corrected(
    weight: Tensor, scheme: Corrected, encode_base: Callable[[Tensor, object], dict[str, Tensor]]
) -> dict[str, Tensor]:
    """The base's parts, and `left` and `right`.

    Args:
        weight: what the base encodes, (O, I): without B A.
        encode_base: `forms.encode_plain`.

    Raises:
        TypeError: a base that `encode_base` does not know.
        ValueError: factors that do not fit the weight; NaN, infinity, or a number beyond float16 in
            them; what the base's encoder refuses.

    >>> from course_lib.formats.forms import encode_plain
    >>> from course_lib.formats.linear import Format, Scheme
    >>> scheme = Corrected(Scheme(Format(3), 32), Factors(torch.ones(4, 1), torch.ones(1, 32)))
    >>> parts = encode_corrected(torch.randn(4, 32), scheme, encode_plain)
    >>> {name: part.nbytes for name, part in parts.items()}
    {'codes': 48, 'scale': 8, 'zero_point': 3, 'left': 8, 'right': 64}
    """
    left, right = scheme.factors
    rank = right.shape[0]
    if (left.shape, right.shape) != ((weight.shape[0], rank), (rank, *weight.shape[1:])):
        raise ValueError(
            f"factors must be (O, r) and (r, I) of a weight (O, I); got {tuple(left.shape)} and "
            f"{tuple(right.shape)} for {tuple(weight.shape)}"
        )
    stored = {
        name: _half(name, factor) for name, factor in zip(FACTORS, (left, right), strict=True)
    }
    return encode_base(weight, scheme.base) | stored


def _half(name: str, factor: Tensor) -> Tensor:
    stored = factor.detach().to(torch.float16).contiguous()
    if stored.numel():  # of rank 0 there is nothing
        check_finite(stored, f"{name}, in float16,")
    return stored


def decode_corrected(
    parts: Mapping[str, Tensor],
    shape: torch.Size,
    decode_base: Callable[[Mapping[str, Tensor], torch.Size], Tensor],
) -> Tensor:
    """Ŵ + B A, (O, I): in the base's dtype, summed in float32 or wider.

    Args:
        decode_base: `forms.decode_plain`.

    Raises:
        ValueError: parts that no encoder here writes, as of a damaged file.

    >>> from course_lib.formats.forms import decode_plain
    >>> parts = {"values": torch.ones(1), "indices": torch.tensor([3])}
    >>> parts |= {"left": torch.ones(2, 1).half(), "right": torch.full((1, 2), 0.5).half()}
    >>> decode_corrected(parts, torch.Size((2, 2)), decode_plain)
    tensor([[0.5000, 0.5000],
            [0.5000, 1.5000]])
    """
    base = decode_base({n: part for n, part in parts.items() if n not in FACTORS}, shape)
    left, right = (parts[name] for name in FACTORS)
    if base.shape != shape or not base.is_floating_point():
        raise ValueError(f"the base must be floats of {tuple(shape)}; got {tuple(base.shape)}")
    if (left.shape, right.shape) != ((shape[0], len(right)), (len(right), *shape[1:])):
        raise ValueError(
            f"left and right must be (O, r) and (r, I) of {tuple(shape)}; got {tuple(left.shape)} "
            f"and {tuple(right.shape)}"
        )
    wide = torch.promote_types(base.dtype, torch.float32)
    correction = Factors(*(parts[name].to(wide) for name in FACTORS)).product
    return (base.to(wide) + correction).to(base.dtype)
