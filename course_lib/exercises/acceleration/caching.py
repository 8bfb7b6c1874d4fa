"""Exercise of 10_acceleration: keys and values in few bits.

Axes: B batch, G key-value heads, S tokens, E head width.
"""

from functools import partial

import torch
from torch import Tensor

from course_lib.exercises.engine.seeded import Draw
from course_lib.exercises.engine.spec import Case, Exercise, Misconception, Property, labelled_cases


def quantize_cache(keys: Tensor, values: Tensor, bits: int) -> tuple[Tensor, Tensor]:
    """Keys and values after they were held in few bits: keys by channel, values by token.

    keys, values: (B, G, S, E), float, finite. Numbers that share a grid: in keys those of one text,
    head and channel, over the S tokens; in values those of one text, head and token, over the E
    channels (Liu et al., 2024). A grid has 2^bits even levels, the lowest at the smallest of its
    numbers, the highest at the largest; each number becomes the nearest level. Where all are equal,
    they stay. The same shapes and dtypes; float64 on the way.
    """

    def rounded(x: Tensor, axis: int) -> Tensor:
        wide = x.double()
        low, high = wide.amin(axis, keepdim=True), wide.amax(axis, keepdim=True)
        step = (high - low) / (2**bits - 1)
        codes = ((wide - low) / step).round().nan_to_num()  # 0 / 0 where all are equal
        return (low + codes * step).to(x.dtype)

    return rounded(keys, 2), rounded(values, 3)


def _caches(seed: int) -> list[Case]:
    draw = Draw(seed)

    pair, unambiguous = partial(_pair, draw), partial(_unambiguous, draw)
    far, equal, shifted = pair(1, 2, 6, 5), pair(2, 1, 4, 3), pair(1, 1, 8, 6)
    far[0][..., 2] *= 50  # one channel, as real keys have
    far[1][:, :, 3] *= 50
    equal[0][..., 1], equal[1][:, :, 2] = -0.7, 1.3
    views = tuple(x.transpose(2, 3) for x in pair(2, 2, 4, 5))

    labelled = {
        "one head, three tokens": (*pair(1, 1, 3, 2), 2),
        "two texts, three heads": (*pair(2, 3, 5, 4), 4),
        "as many tokens as channels": (*pair(2, 2, 4, 4), 2),
        "all four axes of one length": (*pair(3, 3, 3, 3), 2),
        "eight bits": (*pair(1, 2, 9, 4), 8),
        "one bit": (*pair(1, 2, 5, 4), 1),
        "a far channel, a far token": (*far, 2),
        "a channel and a token of equal numbers": (*equal, 3),
        "all positive, far from zero": (shifted[0].abs() + 100, shifted[1].abs() + 100, 4),
        "all zero": (torch.zeros(1, 1, 3, 2), torch.zeros(1, 1, 3, 2), 2),
        "one token": (*pair(1, 2, 1, 4), 2),
        "one channel": (*pair(1, 2, 5, 1), 2),
        "views": (*views, 3),
        "very small": (*pair(1, 2, 5, 4, size=1e-9), 2),
        "very large": (*pair(1, 2, 5, 4, size=1e9), 2),
        "float16, almost its largest": unambiguous(
            1, 1, 6, 4, bits=4, size=3000.0, dtype=torch.float16
        ),
        "bfloat16": unambiguous(1, 2, 6, 4, bits=4, dtype=torch.bfloat16),
        "float64": (*pair(1, 2, 6, 4, size=1e-3, dtype=torch.float64), 8),
        "float64, far from zero": (*(1e9 + x for x in pair(1, 2, 6, 4, dtype=torch.float64)), 2),
    }
    return labelled_cases(("keys", "values", "bits"), labelled)


def _pair(draw: Draw, *shape: int, size: float = 1.0, dtype=torch.float32) -> tuple:
    keys = draw.normal(*shape) + 3 * draw.normal(*shape[:2], 1, shape[3])  # a channel's habit
    return (size * keys).to(dtype), (size * draw.normal(*shape)).to(dtype)


def _unambiguous(draw: Draw, *shape: int, bits: int, **how) -> tuple:
    """Numbers of few digits are sometimes halfway between two levels: these are not."""
    while True:
        keys, values = _pair(draw, *shape, **how)
        if all(_margin(x, axis, bits) > 1e-3 for x, axis in ((keys, 2), (values, 3))):
            return keys, values, bits


def _margin(x: Tensor, axis: int, bits: int) -> float:
    """How far, in steps, the nearest middle between two levels is."""
    wide = x.double()
    low, high = wide.amin(axis, keepdim=True), wide.amax(axis, keepdim=True)
    return float(((wide - low) / (high - low) * (2**bits - 1) % 1 - 0.5).abs().min())


def _rounded(x: Tensor, axes, bits: int, levels=None, floor=False, symmetric=False) -> Tensor:
    wide = x.double()
    low, high = wide.amin(axes, keepdim=True), wide.amax(axes, keepdim=True)
    if symmetric:
        high = torch.maximum(high, -low)
        low = -high
    step = (high - low) / (levels(bits) if levels else 2**bits - 1)
    codes = ((wide - low) / step).nan_to_num()
    codes = (codes.floor() if floor else codes.round()).clamp(max=2**bits - 1)
    return (low + codes * step).to(x.dtype)


def _other(key_axes, value_axes, **how):
    def wrong(keys, values, bits):
        rounded = partial(_rounded, bits=bits, **how)
        return rounded(keys, key_axes), rounded(values, value_axes)

    return wrong


def _shapes_and_dtypes(inputs, value) -> bool:
    given = inputs["keys"], inputs["values"]
    pairs = zip(given, value, strict=True)
    return all(x.shape == y.shape and x.dtype == y.dtype for x, y in pairs)


def _few_levels(inputs, value) -> bool:
    keys, values = value
    columns = keys.transpose(2, 3).flatten(0, 2), values.flatten(0, 2)
    return all(len(some.unique()) <= 2 ** inputs["bits"] for rows in columns for some in rows)


QUANTIZE_CACHE = Exercise(
    reference=quantize_cache,
    cases=_caches,
    relative_tolerance=1e-10,
    absolute_tolerance=1e-16,
    hints=(
        "One function rounds along one axis. Which axis must the minimum of a key's channel run "
        "over: the tokens or the channels?",
        "2^bits levels have 2^bits − 1 steps between them: step = (high − low) / (2^bits − 1), a "
        "code is round((x − low) / step), its level low + code · step.",
        "keys: amin and amax over axis 2 (tokens), values: over axis 3 (channels), both with "
        "keepdim=True. Where step is 0, the code is 0.",
    ),
    properties=(
        Property("two tensors of the same shapes and dtypes", _shapes_and_dtypes, form=True),
        Property("no channel of keys and no token of values has more levels than fit", _few_levels),
    ),
    misconceptions=(
        Misconception(
            "both by token",
            _other(3, 3),
            "the keys were rounded by token. A few channels of keys are large at every token: by "
            "token they stretch everybody's grid, by channel only their own.",
        ),
        Misconception(
            "both by channel",
            _other(2, 2),
            "the values were rounded by channel. A new token would then change the grid of all "
            "before it, and values have no channels that stand out.",
        ),
        Misconception(
            "the two axes changed places",
            _other(3, 2),
            "keys were rounded by token and values by channel: the other way round.",
        ),
        Misconception(
            "one grid for each head",
            _other((2, 3), (2, 3)),
            "a whole head shared one grid. Keys have one for each channel, values one for each "
            "token.",
        ),
        Misconception(
            "one level too many",
            _other(2, 3, levels=lambda bits: 2**bits),
            "the range was cut into 2^bits steps. So many levels have one step fewer between them.",
        ),
        Misconception(
            "a grid around zero",
            _other(2, 3, symmetric=True),
            "the grid runs from −max |x| to max |x|. A channel of keys lies on one side of zero "
            "often: half of the levels are never used.",
        ),
    ),
)
