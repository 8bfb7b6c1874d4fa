"""A tensor of few different values and many zeros: which value, and how far from the one before.

Pruning makes the zeros, sharing makes the values few, and both leave codes of uneven frequency,
which is what Huffman's code lives on.

    check sum     4 bytes
    k             2 bytes
    span          2 bytes
    codebook      2 k bytes, float16: the values, in rising order
    values        for each entry that is not zero its place in the codebook, as `bits` writes them
    gaps          for each such entry the zeros before it; `span` where there are more, and the
                  count starts again behind so many zeros

Deep Compression spends a fixed number of bits on a gap, and where a gap is wider it stores a zero
as if it were a value. Here a gap that is too wide is one more symbol of the gaps' own code and
stores no value; the span is the one of a few that makes the stream shortest.

Source: Han, Mao, Dally, 2016, "Deep Compression: Compressing Deep Neural Networks with Pruning,
Trained Quantization and Huffman Coding".
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from course_lib.formats.bits import encode_bits, opened, read_bits, sealed
from course_lib.models.finite import check_finite

SPANS = (15, 31, 63, 127, 255, 1023)


@dataclass(frozen=True)
class Shared:
    """The scheme of a tensor whose values are few, zero not counted, and float16 numbers."""


def encode_shared(tensor: Tensor, scheme: Shared = Shared()) -> dict[str, Tensor]:
    """The one part of a tensor's file.

    Raises:
        ValueError: NaN or infinity; a value that is no float16 number; more than 32768 values.

    >>> tensor = torch.zeros(1000)
    >>> tensor[::10], tensor[5::50] = 0.5, -1.0
    >>> len(encode_shared(tensor)["shared"]), 2 * 120
    (70, 240)
    """
    if tensor.numel():
        check_finite(tensor, "tensor")
    flat = tensor.detach().flatten()
    places = flat.nonzero().squeeze(1)
    codebook, values = flat[places].unique(return_inverse=True)
    stored = codebook.to(torch.float16)
    if not stored.to(codebook.dtype).equal(codebook) or len(codebook) > 2**15:
        raise ValueError(
            f"tensor must have at most 32768 values, float16 numbers; got {len(codebook)} values, "
            f"the largest {codebook.abs().max():.6g}: round them first"
        )
    streams = [encode_bits(gap_symbols(places, span)) for span in SPANS]
    span, gaps = min(zip(SPANS, streams, strict=True), key=lambda pair: len(pair[1]))
    head = np.array([len(codebook), span], "<u2")
    parts = head, stored.cpu().numpy(), encode_bits(values).cpu().numpy(), gaps.cpu().numpy()
    return {"shared": sealed(*parts).to(tensor.device)}


def gap_symbols(places: Tensor, span: int) -> Tensor:
    """The zeros before each entry, by where entries stand; `span` for so many zeros and no entry.

    Args:
        places: rising, from 0.
        span: at least 1.

    >>> gap_symbols(torch.tensor([2, 3, 10]), span=4).tolist()
    [2, 0, 4, 2]
    """
    zeros = places.diff(prepend=places.new_tensor([-1])) - 1
    fillers = zeros // span
    symbols = places.new_full((len(places) + int(fillers.sum()),), span)
    symbols[torch.arange(len(places), device=places.device) + fillers.cumsum(0)] = zeros % span
    return symbols


def decode_shared(parts: Mapping[str, Tensor], shape: torch.Size) -> Tensor:
    """The tensor of this shape, float32.

    Raises:
        ValueError: the part is damaged, or of another tensor.

    >>> decode_shared(encode_shared(torch.tensor([0.0, 0.5, 0.0, -1.0])), (2, 2)).tolist()
    [[0.0, 0.5], [0.0, -1.0]]
    """
    stream = parts["shared"]
    data = opened(stream)
    k, span = (int(number) for number in data[:4].view("<u2"))
    codebook = torch.from_numpy(data[4 : 4 + 2 * k].view("<f2").astype(np.float32))
    numbers = torch.Size(shape).numel()
    values, at = read_bits(data, 4 + 2 * k, most=numbers)
    gaps, end = read_bits(data, at, most=numbers)
    places = (gaps + (gaps < span)).cumsum()[gaps < span] - 1
    tensor = torch.zeros(shape)
    last = int(places[-1]) if len(places) else -1
    if values.max(initial=-1) >= k:
        raise ValueError(f"values must be places in a codebook of {k}; got {values.max()}")
    if end != len(data) or len(places) != len(values) or last >= tensor.numel():
        raise ValueError(
            f"a stream must hold a tensor of {tuple(shape)}; got {len(values)} values at "
            f"{len(places)} places up to {last}"
        )
    tensor.view(-1)[torch.from_numpy(places)] = codebook[torch.from_numpy(values).long()]
    return tensor.to(stream.device)
