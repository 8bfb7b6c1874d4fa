"""Exercise of 10_acceleration: a block of weights as a GGUF file has it."""

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
    size, twice = float(draw.number(1, 9)), torch.arange(16.0).repeat(2)
    shuffled, outlier = twice[draw.order(BLOCK)], draw.normal(BLOCK)
    outlier[draw.number(0, BLOCK)] = 40.0
    ends = 0.9 * draw.uniform(BLOCK) - 0.5
    blocks = {
        "by hand: two steps of each code": size * shuffled - 3 * size,
        "in order": twice * size,
        "normal": 0.1 * draw.normal(BLOCK),
        "all positive": 2 + draw.uniform(BLOCK),
        "all negative": -2 - draw.uniform(BLOCK),
        "the least first, the largest last": _between(ends, -0.6, 0.7),
        "one far weight": outlier,
        "all equal": torch.full((BLOCK,), 0.1 * size),
        "all zero": torch.zeros(BLOCK),
        "two values": torch.tensor([-0.3, 0.9])[draw.integers(0, 2, BLOCK)],
        "m is rounded down, by steps": _between(1000.3 + 0.8 * draw.uniform(BLOCK), 1000.2, 1001.2),
        "m is rounded up, by steps": _between(1000.4 + 0.8 * draw.uniform(BLOCK), 1000.3, 1001.3),
        "far below zero": -1000 - 3 * draw.uniform(BLOCK),
        "farther: the range is less than the rounding": 2000.3 + 0.1 * draw.uniform(BLOCK),
        "large": 60_000 * draw.uniform(BLOCK) - 30_000,
        "small": 1e-3 * draw.normal(BLOCK),
        "so small that s has two digits": 3e-6 * draw.uniform(BLOCK),
        "smaller than float16 knows": 1e-9 * draw.normal(BLOCK),
        "float16": draw.normal(BLOCK).half(),
        "bfloat16": draw.normal(BLOCK).bfloat16(),
        "float64": draw.normal(BLOCK).double(),
        "float64, more digits than float32 has": 1000 + 1e-6 * twice[draw.order(BLOCK)].double(),
        "a view": draw.normal(BLOCK, 3)[:, 1],
    }
    return [Case(label, {"block": block}) for label, block in blocks.items()]


def _between(block: Tensor, first: float, last: float) -> Tensor:
    block = block.clone()
    block[0], block[-1] = first, last
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
