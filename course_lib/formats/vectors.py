"""A weight of which d neighbours in a row share one code: codebooks of vectors, and the codes.

    codebooks    bfloat16    m stages of k = 2ᵇ vectors of d numbers, (m, k, d)
    stages       uint8       for each stage the codes of all vectors, b bits each (`packing`)

The codebooks' shape tells m, k and d. A weight takes m b / d bits, and the codebooks' 16 m k d bits
come on top: they have to be small against the weight.

Axes: O outputs, I inputs, m stages, k vectors of a codebook, d numbers of a vector.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from course_lib.formats.packing import pack, unpack
from course_lib.quantization.vectors import Stages, fit_stages, restored

MOST_STAGES = 64  # in a file: a stage that adds a hundredth of a bit costs as much time as any


@dataclass(frozen=True)
class Vectors:
    """The scheme of a weight in vectors.

    d: how many neighbours are a vector; it divides the last axis.
    bits: b, from 2 to 8, of a code.
    stages: m, how many codebooks are added up.
    """

    d: int
    bits: int
    stages: int = 1


def encode_vectors(weight: Tensor, scheme: Vectors) -> dict[str, Tensor]:
    """The parts that stand for a weight in a file.

    Raises:
        ValueError: d does not divide the last axis; bits outside 2 … 8; NaN or infinity; fewer
            vectors than a codebook has.

    >>> weight = torch.randn(16, 8, generator=torch.Generator().manual_seed(0))
    >>> parts = encode_vectors(weight, Vectors(d=2, bits=4))
    >>> {name: tuple(part.shape) for name, part in parts.items()}
    {'codebooks': (1, 16, 2), 'stages': (1, 32)}
    """
    if not weight.dim() or scheme.d < 1 or weight.shape[-1] % scheme.d:
        raise ValueError(f"d must divide the last axis of {tuple(weight.shape)}; got {scheme.d}")
    vectors = weight.detach().reshape(-1, scheme.d)  # (O, I) -> (O · I/d, d)
    codebooks, codes = fit_stages(vectors, [2**scheme.bits] * scheme.stages)
    return {
        "codebooks": torch.stack(codebooks).to(torch.bfloat16),
        "stages": torch.stack([pack(column, scheme.bits) for column in codes]),
    }


def decode_vectors(parts: Mapping[str, Tensor], shape: torch.Size) -> Tensor:
    """The weight of this shape, float32.

    Raises:
        ValueError: the parts are those of another shape.

    >>> weight = torch.randn(16, 8, generator=torch.Generator().manual_seed(0))
    >>> back = decode_vectors(encode_vectors(weight, Vectors(d=2, bits=4)), weight.shape)
    >>> bool((back - weight).square().mean() < 0.2)
    True
    """
    codebooks, packed = parts["codebooks"].float(), parts["stages"]
    m, k, d = codebooks.shape
    N, bits = torch.Size(shape).numel(), k.bit_length() - 1
    if not 1 <= m == len(packed) <= MOST_STAGES:
        raise ValueError(f"stages must be 1 to {MOST_STAGES}, with a codebook each; got {m}")
    if not d or N % d or k != 2 ** max(bits, 0):
        raise ValueError(f"vectors of {d}, {k} a codebook, do not make a weight of {tuple(shape)}")
    count = N // d
    codes = [unpack(column, bits, count).long() for column in packed]
    return restored(Stages([*codebooks], codes)).reshape(shape)
