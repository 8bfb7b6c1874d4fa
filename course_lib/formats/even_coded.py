"""A tensor on even levels, its codes written by Huffman: the step decides the file's size.

    q = w / s, rounded      ŵ = s q

No range is fitted and nothing is clipped. A smaller step s makes more levels, and more bits.

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

Several tensors do best with one step for all. If their steps differed, the bits that are saved in
the tensor of the smaller step, by making it larger, would bring more in the other one. So a tensor
of large weights gets more bits than one of small weights.

Sources: Gish and Pierce, 1968, "Asymptotically Efficient Quantizing"; Chou, Lookabaugh and Gray,
1989, "Entropy-Constrained Vector Quantization" (the price of a bit).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from course_lib.formats.bits import encode_bits, opened, read_bits, sealed, stream_size
from course_lib.formats.huffman import code_lengths
from course_lib.models.finite import check_finite

HEAD = 12  # bytes
MOST = 2**14 - 1  # levels on either side of zero: 2¹⁵ symbols are what a stream can have
HALVINGS = 16  # of the interval that the step's logarithm lies in
PRICE = math.log(2) / 6  # µ, of a bit


@dataclass(frozen=True)
class EvenCoded:
    """The scheme of a tensor on even levels under Huffman's code.

    step: s, above 0, from `step_for` for example.
    """

    step: float


def step_for(tensors: Sequence[Tensor], bits: float) -> float:
    """The smallest step found, one for all, with which the tensors' parts keep to so many bits.

    The bytes do not fall evenly with the step, as Huffman's bits are whole: some may be left over.
    At most 2¹⁴ − 1 levels lie on either side of zero, however many bits there are.

    Args:
        tensors: of which at least one is not all zeros.
        bits: for each of the tensors' numbers, above 1, check sums and tables counted.

    Raises:
        ValueError: NaN or infinity; zeros alone; fewer bits than the coarsest step takes.

    >>> weight = torch.linspace(-1, 1, 1001)
    >>> 0.1 < step_for([weight], bits=4) < 0.2
    True
    """
    flat = [tensor.detach().float().flatten() for tensor in tensors if tensor.numel()]
    for tensor in flat:
        check_finite(tensor, "tensor")
    numbers = sum(map(len, flat))
    largest = max((float(tensor.abs().max()) for tensor in flat), default=0.0)
    if largest == 0:
        raise ValueError("tensors must hold a number that is not zero; got none")

    def taken(step: float) -> float:
        return 8 * sum(_file_bytes(even_codes(tensor, step)) for tensor in flat) / numbers

    if taken(largest) > bits:
        raise ValueError(f"bits must be at least {taken(largest):.4g} here; got {bits}")
    low, high = -math.log2(MOST), 0.0  # log₂ of step / largest; the higher one fits
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        low, high = (low, middle) if taken(largest * 2**middle) <= bits else (middle, high)
    return float(np.float32(largest * 2**high))


def even_codes(tensor: Tensor, step: float) -> Tensor:
    """The codes q in the tensor's shape, int32: the nearest, or the second nearest if that saves
    more bits than it costs.

    Raises:
        ValueError: the step is not above 0, or makes more than 2¹⁴ − 1 levels on one side.

    >>> even_codes(torch.tensor([0.0, 0.26, -0.9, 1.0]), step=0.5).tolist()
    [0, 1, -2, 2]
    """
    if not step > 0 or (tensor.numel() and not tensor.abs().max() / step < MOST + 0.5):
        raise ValueError(
            f"step must be above 0, and the largest number {MOST} steps or less; got {step}"
        )
    exact = tensor.detach().float() / step
    codes = exact.round()
    aside = exact.sub_(codes)  # −1/2 … 1/2
    codes = codes.to(torch.int32)
    if not codes.numel():
        return codes
    lowest = codes.min() - 1
    counts = torch.bincount((codes - lowest).flatten(), minlength=int(codes.max() - lowest) + 2)
    lengths = code_lengths(counts).float().masked_fill_(counts == 0, torch.inf)
    others = codes + aside.sign().to(torch.int32)
    saved = lengths[codes - lowest] - lengths[others - lowest]
    return torch.where(1 - 2 * aside.abs() < PRICE * saved, others, codes)


def _file_bytes(codes: Tensor) -> int:
    return HEAD + stream_size(torch.bincount((codes - codes.min()).flatten()))


def encode_even(tensor: Tensor, scheme: EvenCoded) -> dict[str, Tensor]:
    """The one part of a tensor's file.

    Raises:
        ValueError: NaN or infinity; as `even_codes`.

    >>> weight = torch.randn(100, 100, generator=torch.Generator().manual_seed(0))
    >>> len(encode_even(weight, EvenCoded(step_for([weight], bits=4)))["even_coded"]) <= 5000
    True
    """
    if tensor.numel():
        check_finite(tensor, "tensor")
    step = float(np.float32(scheme.step))  # as the file gives it back
    codes = even_codes(tensor, step)
    lowest = int(codes.min()) if codes.numel() else 0
    stream = encode_bits(codes - lowest).cpu().numpy()
    parts = np.array([step], "<f4"), np.array([lowest], "<i4"), stream
    return {"even_coded": sealed(*parts).to(tensor.device)}


def decode_even(parts: Mapping[str, Tensor], shape: torch.Size) -> Tensor:
    """The tensor ŵ of this shape, float32.

    Raises:
        ValueError: the part is damaged, or of another tensor.

    >>> weight = torch.randn(100, 100, generator=torch.Generator().manual_seed(0))
    >>> back = decode_even(encode_even(weight, EvenCoded(step=0.25)), weight.shape)
    >>> bool((back - weight).abs().max() < 0.25)
    True
    """
    stream = parts["even_coded"]
    data = opened(stream)
    step, lowest = data[:4].view("<f4"), data[4:8].view("<i4")
    numbers = torch.Size(shape).numel()
    codes, end = read_bits(data, 8, most=numbers)
    if end != len(data) or len(codes) != numbers:
        raise ValueError(f"a stream must hold a tensor of {tuple(shape)}; got {len(codes)} codes")
    values = torch.from_numpy(codes + lowest) * float(step[0])
    return values.view(tuple(shape)).to(stream.device)  # (N,) -> the tensor's shape
