"""Exercise of 10_acceleration: a block of weights as a GGUF file has it."""

from collections.abc import Callable

import torch
from torch import Tensor

from course_lib.exercises.engine.seeded import Draw
from course_lib.exercises.engine.spec import Case, Exercise, Misconception, Property
from course_lib.models.gguf_file import BLOCKS

BLOCK, Q4_1 = 32, 3  # weights of a block; the number of its kind
READ = 2e-3  # of the largest weight: float16 rounds the minimum and 15 scales by less


def pack_q4_1(block: Tensor) -> Tensor:
    """32 weights as the 20 bytes, uint8 (20,), that a GGUF file's block of kind Q4_1 has.

    block (32,), floats; reckon in float64. With low and high its least and largest weight,

        minimum m = low,   scale s = (high − low) / 15,   both rounded to float16
        code of a weight w = (w − m) / s, rounded, and at least 0 and at most 15

    with the *rounded* m and s, for a reader knows no others. Where s is 0, all codes are 0. Bytes 0
    and 1 hold s, bytes 2 and 3 m, low byte first. Byte 4 + i holds the code of weight i in its low
    four bits, and that of weight i + 16 in its high four. |w| is at most 30,000.
    """
    w = block.double()
    low, high = w.aminmax()
    head = torch.stack([(high - low) / 15, low]).half()  # (2,): s, m
    scale, minimum = head.double()
    scale = scale.where(scale > 0, torch.inf)
    codes = ((w - minimum) / scale).round().clamp(0, 15).to(torch.uint8)
    return torch.cat([head.view(torch.uint8), codes[:16] | codes[16:] << 4])


def _blocks(seed: int) -> list[Case]:
    draw = Draw(seed)
    size, codes = float(draw.number(1, 9)), torch.arange(16.0)
    twice = codes.repeat(2)
    makers = {
        "by hand: 0, 1, … 15, then 15, 14, … 0": lambda: torch.cat([codes, codes.flip(0)]),
        "two of each code, anywhere": lambda: size * twice[draw.order(BLOCK)] - 3 * size,
        "in order": lambda: twice * size,
        "normal": lambda: 0.1 * draw.normal(BLOCK),
        "all positive": lambda: 2 + draw.uniform(BLOCK),
        "all negative": lambda: -2 - draw.uniform(BLOCK),
        "the least first, the largest last": lambda: _between(draw, -0.5, 0.4, 0.2),
        "one far weight": lambda: _far(draw),
        "all equal": lambda: torch.full((BLOCK,), 0.1 * size),
        "all zero": lambda: torch.zeros(BLOCK),
        "two values": lambda: torch.tensor([-0.3, 0.9])[draw.integers(0, 2, BLOCK)],
        "m is rounded down, by steps": lambda: _between(draw, 1000.3, 1001.1, 0.1),
        "m is rounded up, by steps": lambda: _between(draw, 1000.4, 1001.2, 0.1),
        "far below zero": lambda: -1000 - 3 * draw.uniform(BLOCK),
        "the range is less than the rounding": lambda: 2000.3 + 0.1 * draw.uniform(BLOCK),
        "large": lambda: 60_000 * draw.uniform(BLOCK) - 30_000,
        "small": lambda: 1e-3 * draw.normal(BLOCK),
        "so small that s has two digits": lambda: 3e-6 * draw.uniform(BLOCK),
        "smaller than float16 knows": lambda: 1e-9 * draw.normal(BLOCK),
        "float16": lambda: draw.normal(BLOCK).half(),
        "float16, more digits on the way": lambda: _more_digits(draw),
        "bfloat16": lambda: draw.normal(BLOCK).bfloat16(),
        "float64": lambda: draw.normal(BLOCK).double(),
        "float64, more digits than float32 has": lambda: (
            1000 + 1e-6 * twice[draw.order(BLOCK)].double()
        ),
        "a view": lambda: draw.normal(BLOCK, 3)[:, 1],
    }
    return [Case(label, {"block": _clear(make)}) for label, make in makers.items()]


def _clear(make: Callable[[], Tensor]) -> Tensor:
    """A block of which no weight lies halfway between two codes, no scale between two of float16.

    There the last digit of float64 decides, or whether a half is rounded up: right answers differ.
    """
    while True:
        block = make()
        w = block.double()
        scale = (w.max() - w.min()) / 15
        places = ((w - w.min().half()) / scale.half().double()).nan_to_num(0, 0, 0)
        hair = scale * 1e-6
        if (scale - hair).half() == (scale + hair).half() and (places % 1 - 0.5).abs().min() > 1e-5:
            return block


def _between(draw: Draw, least: float, most: float, beyond: float) -> Tensor:
    """Uniform numbers; the first is less than all, the last is larger."""
    block = least + (most - least) * draw.uniform(BLOCK)
    block[0], block[-1] = least - beyond, most + beyond
    return block


def _far(draw: Draw) -> Tensor:
    block = draw.normal(BLOCK)
    block[draw.number(0, BLOCK)] = 40.0
    return block


def _more_digits(draw: Draw) -> Tensor:
    """Numbers of float16, with other codes where all is reckoned in float16."""
    while True:
        block = 10_000 * draw.normal(BLOCK).clamp(-3, 3).half()
        scale = ((block.max() - block.min()) / 15).half()
        places = ((block - block.min()) / scale).double()
        exact = (block.double() - block.double().min()) / scale.double()
        if not places.round().clamp(0, 15).equal(exact.round().clamp(0, 15)):
            return block


def _read_back(inputs, value: Tensor) -> bool:
    """By the course's own reader of GGUF files: within half a step, and what float16 rounds."""
    w = inputs["block"].double()
    _, _, read = BLOCKS[Q4_1]
    step, largest = float(w.max() - w.min()) / 15, float(w.abs().max())
    return bool(((read(value[None])[0] - w).abs() <= 0.5 * step + READ * largest + 1e-6).all())


def _packed(steps=15, half=True, rounded=torch.round, swapped=False, bytes_of=None):
    """The exercise with another number of steps, another head, or another order."""

    def wrong(block):
        w = block.double()
        low, high = w.aminmax()
        exact = torch.stack([(high - low) / steps, low])
        scale, minimum = exact.half().double() if half else exact
        codes = rounded(torch.where(scale > 0, (w - minimum) / scale, 0.0))
        codes = codes.clamp(0, 15).to(torch.uint8)
        head = exact.flip(0).half() if swapped else exact.half()
        return torch.cat([head.view(torch.uint8), (bytes_of or _low_first)(codes)])

    return wrong


def _low_first(codes: Tensor) -> Tensor:
    return codes[:16] | codes[16:] << 4


PACK_Q4_1 = Exercise(
    reference=pack_q4_1,
    cases=_blocks,
    hints=(
        "Three steps: the two numbers of the head in float16; the codes, with these two read back "
        "as float64; the bytes. Do the last first, with codes that you know.",
        "A tensor of two float16 numbers is four bytes: head.view(torch.uint8). The codes' bytes "
        "are codes[:16] | codes[16:] << 4, in uint8.",
        "head = torch.stack([(high - low) / 15, low]).half(); scale, minimum = head.double(). Then "
        "((w - minimum) / scale).round().clamp(0, 15), and 0 where the scale is 0: 0 / 0 is NaN.",
    ),
    properties=(
        Property("20 bytes", lambda inputs, value: value.shape == (20,), form=True),
        Property("a reader finds each weight within half a step", _read_back),
    ),
    misconceptions=(
        Misconception(
            "neighbours share a byte",
            _packed(bytes_of=lambda codes: codes[0::2] | codes[1::2] << 4),
            "you put neighbours into one byte. Here weight i shares it with weight i + 16, so that "
            "a kernel gets 16 neighbours with one mask.",
        ),
        Misconception(
            "high bits first",
            _packed(bytes_of=lambda codes: codes[16:] | codes[:16] << 4),
            "the halves are swapped: the first 16 weights belong into the low four bits.",
        ),
        Misconception(
            "minimum before scale",
            _packed(swapped=True),
            "the scale comes first, then the minimum.",
        ),
        Misconception(
            "codes of the exact scale",
            _packed(half=False),
            "the codes were reckoned with the exact scale and minimum, and the file holds rounded "
            "ones. A reader knows only those: fit the codes to them.",
        ),
        Misconception(
            "cut, not rounded",
            _packed(rounded=torch.floor),
            "the codes were cut to whole numbers, as a cast to integers does. Round them first: "
            "the error of a weight is then at most half a step.",
        ),
        Misconception(
            "sixteen steps",
            _packed(steps=16),
            "16 codes have 15 steps between them: from 0 to 15. Divide the range by 15.",
        ),
    ),
)
