"""Read a GGUF file, in which llama.cpp keeps a model with its settings and its tokenizer.

    head       "GGUF", version, number of tensors, number of settings
    settings   name, kind, value
    tensors    name, shape (fastest axis first), kind, place of its data
    data       from the next multiple of the alignment on

Matrices are quantized in blocks of 32 neighbours of a row, which share a scale s:

    Q4_0   18 bytes: s (float16), then 32 codes q of 4 bits           weight = s (q − 8)
    Q4_1   20 bytes: s and m (float16), then 32 codes q of 4 bits     weight = s q + m
    Q8_0   34 bytes: s (float16), then 32 codes q of 8 bits           weight = s q

`formats.gguf_model` writes such files. Left out on purpose: some thirty other kinds of blocks. The
package `gguf` reads them all, and takes about ten times as long, because it makes an array of every
token of the vocabulary.

Source: "GGUF", in the documentation of the project ggml.

Axes: N blocks, O outputs, I inputs.
"""

import mmap
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

# Kind of a value: its letter in `struct`, if it is a number.
NUMBERS = dict(enumerate("BbHhIif?")) | dict(enumerate("Qqd", start=10))
STRING, ARRAY = 8, 9


class _Reader:
    """Takes one value after another from bytes."""

    def __init__(self, data: mmap.mmap):
        self.data, self.place = data, 0

    def number(self, code: str) -> Any:
        """One number, of the kind that has this letter in `struct`."""
        start, self.place = self.place, self.place + struct.calcsize("<" + code)
        return struct.unpack_from("<" + code, self.data, start)[0]

    def string(self) -> str:
        """Its length, then its bytes."""
        length = self.number("Q")
        start, self.place = self.place, self.place + length
        return self.data[start : self.place].decode()

    def value(self, kind: int) -> Any:
        """A number, a string, or an array of values of one kind."""
        if kind == STRING:
            return self.string()
        if kind == ARRAY:
            item, length = self.number("I"), self.number("Q")
            return [self.value(item) for _ in range(length)]
        return self.number(NUMBERS[kind])


def read_gguf(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """(settings, weights) of a GGUF file, each by name; weights are dequantized to float32.

    Raises:
        ValueError: not a GGUF file, or a tensor of a kind that is not read here.
    """
    with path.open("rb") as file:
        data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
    if data[:4] != b"GGUF":
        raise ValueError(f"{path.name} must begin with GGUF; got {data[:4]!r}")
    reader = _Reader(data)
    _, _, tensors, settings = (reader.number(code) for code in "IIQQ")
    settings = {reader.string(): reader.value(reader.number("I")) for _ in range(settings)}
    places = [_read_place(reader) for _ in range(tensors)]
    alignment = settings.get("general.alignment", 32)
    start = -(-reader.place // alignment) * alignment
    everything = torch.frombuffer(data, dtype=torch.uint8)
    return settings, {
        name: _read_weight(everything[start + offset :], shape, kind)
        for name, shape, kind, offset in places
    }


def _read_place(reader: _Reader) -> tuple[str, list[int], int, int]:
    """Name, shape, kind and offset of one tensor."""
    name = reader.string()
    shape = [reader.number("Q") for _ in range(reader.number("I"))]
    return name, shape[::-1], reader.number("I"), reader.number("Q")


def _read_weight(data: Tensor, shape: list[int], kind: int) -> Tensor:
    if kind not in BLOCKS:
        raise ValueError(f"tensors must be of kind {list(BLOCKS)}; got {kind}")
    numbers, size, dequantize = BLOCKS[kind]
    count = torch.Size(shape).numel() // numbers
    blocks = data[: count * size].view(count, size)
    return dequantize(blocks).view(shape)  # (N, 32) -> (O, I)


def _float32(blocks: Tensor) -> Tensor:
    return blocks.view(torch.float32).clone()


def _float16(blocks: Tensor) -> Tensor:
    return blocks.view(torch.float16).float()


def _nibbles(codes: Tensor) -> Tensor:
    """The low halves of the 16 bytes are the first 16 codes: (N, 16) -> (N, 32)."""
    return torch.cat([codes & 15, codes >> 4], dim=1)


def _q4_0(blocks: Tensor) -> Tensor:
    return (_nibbles(blocks[:, 2:]).float() - 8) * blocks[:, :2].view(torch.float16).float()


def _q4_1(blocks: Tensor) -> Tensor:
    scale, minimum = blocks[:, :4].view(torch.float16).float().chunk(2, dim=1)  # (N, 2) -> (N, 1)
    return _nibbles(blocks[:, 4:]) * scale + minimum


def _q8_0(blocks: Tensor) -> Tensor:
    return blocks[:, 2:].view(torch.int8) * blocks[:, :2].view(torch.float16).float()


# Kind of a tensor: (numbers in a block, bytes of a block, how it is read).
BLOCKS: dict[int, tuple[int, int, Callable[[Tensor], Tensor]]] = {
    0: (1, 4, _float32),
    1: (1, 2, _float16),
    2: (32, 18, _q4_0),
    3: (32, 20, _q4_1),
    8: (32, 34, _q8_0),
}
