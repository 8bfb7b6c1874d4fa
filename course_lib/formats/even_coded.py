"""A tensor on even levels, its codes written by Huffman: the file's size decides the step.

    q = w / s, rounded      ŵ = s q

No range is fitted and nothing is clipped. A smaller step s makes more levels, and more bits: the
step is the one with which the stream takes as many bits a weight as were asked for, all counted.

    check sum     4 bytes
    step          4 bytes, float32
    lowest code   4 bytes, int32
    codes         q − lowest, as `bits` writes them

Nearest is not always best. A weight near the middle between two levels loses little on the other
one, and may save a bit there. It moves if the squared error, in units of s², grows by less than
µ = ln 2 / 6 for each bit saved: that is what a bit is worth at a high rate, where
D = 2^(2h − 2R) / 12 falls by 2 ln 2 · D = s² ln 2 / 6 for a bit. Here R is the rate in bits, h the
differential entropy in bits, D the squared error of a weight.

No quantizer of single weights with codes of R bits on average does better at a high rate than even
levels. Shannon's bound is 2^(2h − 2R) / (2πe): 1.53 dB less, a quarter of a bit. What Huffman's
whole bits cost comes on top.

Sources: Gish and Pierce, 1968, "Asymptotically Efficient Quantizing"; Chou, Lookabaugh and Gray,
1989, "Entropy-Constrained Vector Quantization" (the price of a bit).
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from course_lib.formats.bits import encode_bits, opened, read_bits, sealed, stream_size
from course_lib.formats.huffman import code_lengths
from course_lib.models.finite import check_finite

HEAD = 12  # bytes
MOST = 2**14  # levels on either side of zero
HALVINGS = 16  # of the interval that the step's logarithm lies in
PRICE = math.log(2) / 6  # µ, of a bit


@dataclass(frozen=True)
class EvenCoded:
    """The scheme of a tensor on even levels under Huffman's code.

    bits: for each of the tensor's numbers, above 1, everything in its part of the file counted.
    """

    bits: float


def even_codes(tensor: Tensor, bits: float) -> tuple[Tensor, float]:
    """The codes q in the tensor's shape, int32, and the smallest step s found that keeps to `bits`.

    The bytes do not fall evenly with the step, as Huffman's bits are whole: some may be left over.
    At most 2¹⁴ levels lie on either side of zero, however many bits there are.

    Raises:
        ValueError: NaN or infinity; fewer bits than the coarsest step takes.

    >>> weight = torch.linspace(-1, 1, 1001)
    >>> codes, step = even_codes(weight, bits=4)
    >>> len(codes.unique()), 0.1 < step < 0.2
    (13, True)
    """
    flat = tensor.detach().float().flatten()
    if len(flat):
        check_finite(flat, "tensor")
    largest = float(flat.abs().max()) if len(flat) else 0.0
    if largest == 0:
        return torch.zeros(tensor.shape, dtype=torch.int32, device=tensor.device), 1.0

    def fits(step: float) -> bool:
        return _file_bytes(_rounded(flat, step)) <= bits * len(flat) / 8

    if not fits(largest):
        least = 8 * _file_bytes(_rounded(flat, largest)) / len(flat)
        raise ValueError(f"bits must be at least {least:.4g} for this tensor; got {bits}")
    low, high = -math.log2(MOST), 0.0  # log₂ of step / largest; the higher one fits
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        low, high = (low, middle) if fits(largest * 2**middle) else (middle, high)
    step = float(np.float32(largest * 2**high))
    return _rounded(flat, step).view(tensor.shape), step


def _rounded(flat: Tensor, step: float) -> Tensor:
    """The nearest code, or the second nearest if that saves more bits than it costs."""
    exact = flat / step
    codes = exact.round()
    aside = exact.sub_(codes)  # −1/2 … 1/2
    codes = codes.to(torch.int32)
    lowest = codes.min() - 1
    counts = torch.bincount(codes - lowest, minlength=int(codes.max() - lowest) + 2)
    lengths = code_lengths(counts).float().masked_fill_(counts == 0, torch.inf)
    others = codes + aside.sign().to(torch.int32)
    saved = lengths[codes - lowest] - lengths[others - lowest]
    return torch.where(1 - 2 * aside.abs() < PRICE * saved, others, codes)


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
    >>> bool((back - weight).abs().max() < 0.3)
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
