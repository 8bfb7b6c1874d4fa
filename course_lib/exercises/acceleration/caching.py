"""Exercise of 10_acceleration: keys and values in few bits.

Axes: B batch, G key-value heads, S tokens, E head width.
"""

from collections.abc import Callable
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


def _far(keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
    """One channel far from the others, as real keys have, and one such token."""
    keys[..., 2] *= 50
    values[:, :, 3] *= 50
    return keys, values


def _equal(keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
    keys[..., 1], values[:, :, 2] = -0.7, 1.3
    return keys, values


def _positive(keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
    return keys.abs() + 100, values.abs() + 100


def _views(keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
    return keys.mT.clone().mT, values.mT.clone().mT


def _times(size: float) -> Callable:
    return lambda keys, values: (size * keys, size * values)


def _plus(far: float) -> Callable:
    return lambda keys, values: (keys + far, values + far)


def _as_drawn(keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
    return keys, values


CACHES = {  # bits, (B, G, S, E), the dtype, and what is done to the numbers
    "one head, three tokens": (2, (1, 1, 3, 2), torch.float32, _as_drawn),
    "two texts, three heads": (4, (2, 3, 5, 4), torch.float32, _as_drawn),
    "as many tokens as channels": (2, (2, 2, 4, 4), torch.float32, _as_drawn),
    "all four axes of one length": (2, (3, 3, 3, 3), torch.float32, _as_drawn),
    "eight bits": (8, (1, 2, 9, 4), torch.float32, _as_drawn),
    "one bit": (1, (1, 2, 5, 4), torch.float32, _as_drawn),
    "a far channel, a far token": (2, (1, 2, 6, 5), torch.float32, _far),
    "a channel and a token of equal numbers": (3, (2, 1, 4, 3), torch.float32, _equal),
    "all positive, far from zero": (4, (1, 1, 8, 6), torch.float32, _positive),
    "all zero": (2, (1, 1, 3, 2), torch.float32, _times(0)),
    "one token": (2, (1, 2, 1, 4), torch.float32, _as_drawn),
    "one channel": (2, (1, 2, 5, 1), torch.float32, _as_drawn),
    "views": (3, (2, 2, 4, 5), torch.float32, _views),
    "very small": (2, (1, 2, 5, 4), torch.float32, _times(1e-9)),
    "smaller still": (2, (1, 2, 5, 4), torch.float32, _times(1e-30)),
    "very large": (2, (1, 2, 5, 4), torch.float32, _times(1e9)),
    "float16, almost its largest": (4, (1, 1, 6, 4), torch.float16, _times(3000)),
    "bfloat16": (4, (1, 2, 6, 4), torch.bfloat16, _as_drawn),
    "float64": (8, (1, 2, 6, 4), torch.float64, _times(1e-3)),
    "float64, smaller than float32 knows": (2, (1, 2, 6, 4), torch.float64, _times(1e-100)),
    "float64, far from zero": (2, (1, 2, 6, 4), torch.float64, _plus(1e6)),
}


def _caches(seed: int) -> list[Case]:
    draw = Draw(seed)

    def drawn(bits: int, shape: tuple, dtype: torch.dtype, change: Callable) -> tuple:
        while True:
            keys = draw.normal(*shape) + 3 * draw.normal(*shape[:2], 1, shape[3])  # its habit
            keys, values = change(keys.to(dtype), draw.normal(*shape).to(dtype))
            if _clear(keys, 2, bits) and _clear(values, 3, bits):
                return keys, values, bits

    labelled = {label: drawn(*how) for label, how in CACHES.items()}
    return labelled_cases(("keys", "values", "bits"), labelled)


def _clear(x: Tensor, axis: int, bits: int) -> bool:
    """No number halfway between two levels, no level between two of the dtype's numbers, or near 0.

    What is there is decided by the last digit of float64: right answers differ.
    """
    wide = x.double()
    low, high = wide.amin(axis, keepdim=True), wide.amax(axis, keepdim=True)
    step = (high - low) / (2**bits - 1)
    place = ((wide - low) / step).nan_to_num()
    level, hair = low + place.round() * step, 1e-14 * torch.maximum(low.abs(), high.abs())
    dtype = torch.float32 if x.dtype == torch.float64 else x.dtype
    same = (level - hair).to(dtype) == (level + hair).to(dtype)
    return bool((((place % 1 - 0.5).abs() > 1e-6) & same).all())


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
    relative_tolerance=5e-9,
    absolute_tolerance=0.0,
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
