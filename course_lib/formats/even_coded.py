"""A tensor on even levels, its codes written by Huffman: the file's size decides the step.

    q = round(w / s)        ŵ = s q

No range is fitted and nothing is clipped. A smaller step s makes more levels, and more bits: the
step is the one with which the stream takes as many bits a weight as were asked for, all counted.

    check sum     4 bytes
    step          4 bytes, float32
    lowest code   4 bytes, int32
    codes         q − lowest, as `bits` writes them

At a high rate of R bits, of all quantizers of single weights whose codes are written with no more
bits than their entropy, even levels have the least squared error, D = 2^(2h − 2R) / 12, h being the
differential entropy in bits. Shannon's bound is 2^(2h − 2R) / (2πe): lower by 1.53 dB, a quarter of
a bit. What whole bits cost comes on top.

Source: Gish and Pierce, 1968, "Asymptotically Efficient Quantizing".
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from course_lib.formats.bits import encode_bits, opened, read_bits, sealed, stream_size
from course_lib.models.finite import check_finite

HEAD = 12  # bytes
MOST = 2**14  # levels on either side of zero
HALVINGS = 24  # of the interval that the step's logarithm lies in


@dataclass(frozen=True)
class EvenCoded:
    """The scheme of a tensor on even levels under Huffman's code.

    bits: for each of the tensor's numbers, above 1, everything in its part of the file counted.
    """

    bits: float


def even_codes(tensor: Tensor, bits: float) -> tuple[Tensor, float]:
    """The codes q in the tensor's shape, int32, and the smallest step s found that keeps to `bits`.

    At most 2¹⁴ levels lie on either side of zero, however many bits there are.

    Raises:
        ValueError: NaN or infinity; fewer bits than the coarsest step takes.

    >>> codes, step = even_codes(torch.tensor([0.0, 0.1, -0.2, 1.0]).repeat(500), bits=2.1)
    >>> codes[:4].tolist(), round(step, 3)
    ([0, 1, -2, 10], 0.1)
    """
    check_finite(tensor, "tensor")
    flat = tensor.detach().float().flatten()
    largest = float(flat.abs().max()) if len(flat) else 0.0
    if largest == 0:
        return torch.zeros(tensor.shape, dtype=torch.int32, device=tensor.device), 1.0
    allowed = bits * len(flat) / 8
    step = largest
    if _file_bytes(_rounded(flat, step)) > allowed:
        least = 8 * _file_bytes(_rounded(flat, step)) / len(flat)
        raise ValueError(f"bits must be at least {least:.4g} for this tensor; got {bits}")
    low, high = -np.log2(MOST), 0.0  # log₂ of step / largest
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        trial = largest * 2**middle
        if _file_bytes(_rounded(flat, trial)) <= allowed:
            high, step = middle, trial
        else:
            low = middle
    step = float(np.float32(step))
    return _rounded(flat, step).view(tensor.shape), step


def _rounded(flat: Tensor, step: float) -> Tensor:
    return (flat / step).round_().to(torch.int32)


def _file_bytes(codes: Tensor) -> int:
    return HEAD + stream_size(torch.bincount(codes - codes.min()))


def encode_even(tensor: Tensor, scheme: EvenCoded) -> dict[str, Tensor]:
    """The one part of a tensor's file.

    Raises:
        ValueError: as `even_codes`.

    >>> weight = torch.randn(100, 100, generator=torch.Generator().manual_seed(0))
    >>> len(encode_even(weight, EvenCoded(bits=4))["even_coded"]) <= 5000
    True
    """
    codes, step = even_codes(tensor, scheme.bits)
    lowest = int(codes.min()) if codes.numel() else 0
    stream = encode_bits(codes - lowest).cpu().numpy()
    parts = np.array([step], "<f4"), np.array([lowest], "<i4"), stream
    return {"even_coded": sealed(*parts).to(tensor.device)}


def decode_even(parts: Mapping[str, Tensor], shape: torch.Size) -> Tensor:
    """The tensor ŵ of this shape, float32.

    Raises:
        ValueError: the part is damaged, or of another tensor.

    >>> weight = torch.randn(100, 100, generator=torch.Generator().manual_seed(0))
    >>> back = decode_even(encode_even(weight, EvenCoded(bits=4)), weight.shape)
    >>> bool((back - weight).abs().max() < 0.15)
    True
    """
    stream = parts["even_coded"]
    data = opened(stream)
    step, lowest = data[:4].view("<f4"), data[4:8].view("<i4")
    codes, end = read_bits(data, 8)
    if end != len(data) or len(codes) != np.prod(shape, dtype=np.int64):
        raise ValueError(f"a stream must hold a tensor of {tuple(shape)}; got {len(codes)} codes")
    values = torch.from_numpy(codes + lowest) * float(step[0])
    return values.view(tuple(shape)).to(stream.device)  # (N,) -> the tensor's shape
