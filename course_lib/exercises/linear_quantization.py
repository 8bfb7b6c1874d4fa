"""Exercises of 05_linear_quantization, from the formula to a scheme of one's own.

Axes: O outputs, I inputs, B batch, G numbers of a group, N any count.
"""

import math

import torch
from torch import Tensor

from course_lib.exercises.engine.spec import Case, Exercise, Misconception, Property
from course_lib.models import pretrained


def _weight(outputs: int = 6, inputs: int = 16, seed: int = 0) -> Tensor:
    """A small matrix whose rows differ in size, as those of a real layer do."""
    generator = torch.Generator().manual_seed(seed)
    gains = torch.logspace(-1, 0.5, outputs)[:, None]
    return gains * torch.randn(outputs, inputs, generator=generator)


# ----------------------------------------------------------------------- quantize_linear


def quantize_linear(weight: Tensor, low: float, high: float, bits: int) -> Tensor:
    """Codes 0 … 2**bits − 1 of `weight` on an even grid from `low` to `high`."""
    levels = 2**bits - 1
    position = (weight.clamp(low, high) - low) / (high - low)
    return (position * levels).round().to(torch.uint8)


def _ranges() -> list[Case]:
    ends = torch.tensor([-1.0, -0.6, 0.07, 0.6, 1.0])
    beyond = torch.tensor([-2.0, -0.5, 0.1, 0.6, 1.4])
    cases = {
        "ends of the range": (ends, -1.0, 1.0, 3),
        "weights outside the range": (beyond, -0.5, 1.0, 4),
        "a matrix at 8 bits": (_weight(3, 4), -2.0, 3.0, 8),
        "two bits": (ends, -1.0, 1.0, 2),
        "a range far from zero": (ends + 7.3, 6.3, 8.3, 5),
    }
    names = ("weight", "low", "high", "bits")
    return [Case(k, dict(zip(names, v, strict=True))) for k, v in cases.items()]


QUANTIZE_LINEAR = Exercise(
    reference=quantize_linear,
    cases=_ranges,
    hints=(
        "Where in the range does a weight lie, as a share from 0 to 1?",
        "n bits name 2**n levels. From the first to the last of them there are 2**n − 1 steps.",
        "clamp first, then (weight − low) / (high − low), then times 2**bits − 1, then round.",
    ),
    properties=(
        Property(
            "no code is larger than 2**bits − 1",
            lambda inputs, codes: bool((codes.long() <= 2 ** inputs["bits"] - 1).all()),
        ),
    ),
    misconceptions=(
        Misconception(
            "one step too many",
            lambda w, low, high, bits: (
                ((w.clamp(low, high) - low) / (high - low) * 2**bits).round().long()
            ).to(torch.uint8),
            "the range was cut into 2**bits steps. Three bits name 8 levels, and 8 levels have 7 "
            "steps between them; so the largest weight got code 8, which does not fit.",
        ),
        Misconception(
            "the formula as printed",
            lambda w, low, high, bits: (
                ((w - low) / (high - low) * 2**bits - 0.5).round().long().to(torch.uint8)
            ),
            "this is the source's formula. At the upper end it gives 2**bits, one more than the "
            "bits can hold, and weights outside the range go anywhere.",
        ),
        Misconception(
            "no clamp",
            lambda w, low, high, bits: (
                ((w - low) / (high - low) * (2**bits - 1)).round().long().to(torch.uint8)
            ),
            "weights outside the range were not clamped to it, so their codes do not fit, or wrap "
            "around to the other end.",
        ),
        Misconception(
            "rounded down",
            lambda w, low, high, bits: (
                (w.clamp(low, high) - low) / (high - low) * (2**bits - 1)
            ).to(torch.uint8),
            "the conversion to integers cuts off the fraction: every code is rounded down. The "
            "error is twice as large, and always on one side. Round first.",
        ),
        Misconception(
            "low forgotten",
            lambda w, low, high, bits: (
                (w.clamp(low, high) / (high - low) * (2**bits - 1)).round().long().to(torch.uint8)
            ),
            "`low` has to be subtracted first: it is the weight that gets code 0.",
        ),
    ),
)

# --------------------------------------------------------------------- dequantize_linear


def dequantize_linear(codes: Tensor, low: float, high: float, bits: int) -> Tensor:
    """The float32 weights that the codes 0 … 2**bits − 1 of a grid from `low` to `high` stand for."""
    return low + codes * (high - low) / (2**bits - 1)


def _codes() -> list[Case]:
    every = torch.arange(8, dtype=torch.uint8)
    some = torch.tensor([[0, 3], [200, 255]], dtype=torch.uint8)
    return [
        Case("all codes of three bits", {"codes": every, "low": -1.0, "high": 1.0, "bits": 3}),
        Case("a matrix", {"codes": some, "low": -0.5, "high": 2.0, "bits": 8}),
        Case("the largest code is missing", {"codes": every, "low": 0.5, "high": 2.0, "bits": 4}),
    ]


DEQUANTIZE_LINEAR = Exercise(
    reference=dequantize_linear,
    cases=_codes,
    hints=(
        "Code 0 stands for `low`, the largest code for `high`.",
        "Between two neighbouring codes lies one step: (high − low) / (2**bits − 1).",
    ),
    misconceptions=(
        Misconception(
            "one step too many",
            lambda q, low, high, bits: low + q.float() * (high - low) / 2**bits,
            "the largest code does not reach `high`: you divided by the number of levels, and "
            "there is one step fewer than levels.",
        ),
        Misconception(
            "low forgotten",
            lambda q, low, high, bits: q.float() * (high - low) / (2**bits - 1),
            "code 0 stands for `low`, not for zero.",
        ),
        Misconception(
            "middle of the cell",
            lambda q, low, high, bits: low + (q.float() + 0.5) * (high - low) / 2**bits,
            "this decodes to the middle of 2**bits cells. It belongs to a coder that rounds down; "
            "ours rounds to the nearest level. Coder and decoder have to match.",
        ),
        Misconception(
            "largest code seen",
            lambda q, low, high, bits: low + q.float() * (high - low) / q.max(),
            "you divided by the largest code in this tensor. It may not be the largest that there "
            "is: the grid is fixed by the bits, not by the data.",
        ),
    ),
)

# ---------------------------------------------------------------------------- fit_affine


def fit_affine(weight: Tensor, bits: int) -> tuple[Tensor, Tensor]:
    """(scale, zero_point): the smallest even grid that holds all weights and zero exactly."""
    low, high = weight.min().clamp(max=0), weight.max().clamp(min=0)
    scale = (high - low) / (2**bits - 1)
    scale = torch.where(scale == 0, torch.ones_like(scale), scale)
    return scale, (-low / scale).round().int()


def _tensors() -> dict[str, Tensor]:
    return {
        "both signs": torch.tensor([-0.3, 0.1, 0.9, 0.2]),
        "all positive": torch.tensor([0.5, 1.0, 1.5]),
        "all negative": torch.tensor([[-0.5, -1.0], [-1.6, -0.2]]),
        "one number again and again": torch.full((4,), 0.7),
        "all zero": torch.zeros(5),
        "a matrix": _weight(4, 4),
    }


def _tensors_and_bits() -> list[Case]:
    widths = (8, 2, 4, 8, 8, 3)
    pairs = zip(_tensors().items(), widths, strict=True)
    return [Case(label, {"weight": w, "bits": bits}) for (label, w), bits in pairs]


def _affine(low: Tensor, high: Tensor, steps: int) -> tuple[Tensor, Tensor]:
    scale = (high - low) / steps
    scale = torch.where(scale == 0, torch.ones_like(scale), scale)
    return scale, (-low / scale).round().int()


FIT_AFFINE = Exercise(
    reference=fit_affine,
    cases=_tensors_and_bits,
    hints=(
        "weight ≈ scale · (code − zero_point), with codes from 0 to 2**bits − 1.",
        "Zero must be on the grid: extend the range from the smallest to the largest weight until "
        "zero lies in it.",
        "zero_point is the code of zero: −low / scale, rounded to an integer (int32). If all "
        "weights are zero, the range is empty: take a scale of 1.",
    ),
    properties=(
        Property("the scale is positive", lambda inputs, value: bool(value[0] > 0)),
        Property(
            "the zero point is a code",
            lambda inputs, value: bool(0 <= value[1] <= 2 ** inputs["bits"] - 1),
        ),
    ),
    misconceptions=(
        Misconception(
            "range without zero",
            lambda w, bits: _affine(w.min(), w.max(), 2**bits - 1),
            "the range need not hold zero, and then the zero point is no code. But zero matters: "
            "padding, ReLU and pruned weights are exactly zero. Extend the range to zero.",
        ),
        Misconception(
            "one step too many",
            lambda w, bits: _affine(w.min().clamp(max=0), w.max().clamp(min=0), 2**bits),
            "2**bits levels have 2**bits − 1 steps between them; with your scale the largest "
            "weight would need one code more.",
        ),
        Misconception(
            "empty range",
            lambda w, bits: (
                (s := (w.max().clamp(min=0) - w.min().clamp(max=0)) / (2**bits - 1)),
                (-w.min().clamp(max=0) / s).round().int(),
            ),
            "for a tensor of zeros the range is empty and the scale 0; dividing by it gives NaN. "
            "Any positive scale does, 1 for instance.",
        ),
        Misconception(
            "zero point as a float",
            lambda w, bits: (
                _affine(w.min().clamp(max=0), w.max().clamp(min=0), 2**bits - 1)[0],
                -w.min().clamp(max=0)
                / _affine(w.min().clamp(max=0), w.max().clamp(min=0), 2**bits - 1)[0],
            ),
            "the zero point has to be an integer: it is a code. Only then is zero exactly on the "
            "grid, and only then can integer arithmetic use it.",
        ),
        Misconception(
            "symmetric",
            lambda w, bits: _affine(-w.abs().max(), w.abs().max(), 2**bits - 1),
            "this range reaches equally far to both sides. With weights of one sign, half of the "
            "codes would never be used.",
        ),
    ),
)

# ------------------------------------------------------------------------- fit_symmetric


def fit_symmetric(weight: Tensor, bits: int) -> Tensor:
    """The scale of codes −(2**(bits−1) − 1) … 2**(bits−1) − 1 that just reach the largest |weight|."""
    scale = weight.abs().max() / (2 ** (bits - 1) - 1)
    return torch.where(scale == 0, torch.ones_like(scale), scale)


FIT_SYMMETRIC = Exercise(
    reference=fit_symmetric,
    cases=_tensors_and_bits,
    hints=(
        "weight ≈ scale · code, and code 0 stands for zero. So the range is from −m to m.",
        "With 8 bits the codes go from −127 to 127. The largest |weight| gets code 127.",
        "A tensor of zeros has a range of nothing: take a scale of 1.",
    ),
    properties=(Property("the scale is positive", lambda inputs, scale: bool(scale > 0)),),
    misconceptions=(
        Misconception(
            "128 instead of 127",
            lambda w, bits: (s := w.abs().max() / 2 ** (bits - 1)).where(s > 0, torch.ones(())),
            "the largest positive weight would get code 2**(bits−1), 128 at 8 bits. int8 ends at "
            "127, so it would wrap to −128 and change its sign.",
        ),
        Misconception(
            "largest instead of largest magnitude",
            lambda w, bits: (s := w.max() / (2 ** (bits - 1) - 1)).where(s != 0, torch.ones(())),
            "you took the largest weight. A large negative one counts as well: take the largest "
            "absolute value.",
        ),
        Misconception(
            "whole range over all codes",
            lambda w, bits: (s := (w.max() - w.min()) / (2**bits - 1)).where(s > 0, torch.ones(())),
            "that is the scale of an affine grid, from the smallest to the largest weight. A "
            "symmetric grid reaches equally far to both sides of zero.",
        ),
        Misconception(
            "scale of zero",
            lambda w, bits: w.abs().max() / (2 ** (bits - 1) - 1),
            "a tensor of zeros gets scale 0, and dividing by it gives NaN.",
        ),
    ),
)

# ------------------------------------------------------------------ quantize_per_channel


def quantize_per_channel(weight: Tensor, bits: int) -> tuple[Tensor, Tensor]:
    """(codes (O, I) in int8, scales (O, 1)): symmetric, one scale for each output channel."""
    largest = 2 ** (bits - 1) - 1
    scale = weight.abs().amax(dim=1, keepdim=True) / largest
    scale = torch.where(scale == 0, torch.ones_like(scale), scale)
    return (weight / scale).round().to(torch.int8), scale


def _matrices() -> list[Case]:
    dead_row = _weight(4, 8, seed=3)
    dead_row[1] = 0
    return [
        Case("rows of different size", {"weight": _weight(6, 16), "bits": 8}),
        Case("four bits", {"weight": _weight(3, 10, seed=1), "bits": 4}),
        Case("a square matrix", {"weight": _weight(5, 5, seed=2), "bits": 3}),
        Case("a row of zeros", {"weight": dead_row, "bits": 8}),
    ]


def _symmetric(weight: Tensor, size: Tensor, bits: int) -> tuple[Tensor, Tensor]:
    scale = size / (2 ** (bits - 1) - 1)
    scale = torch.where(scale == 0, torch.ones_like(scale), scale)
    return (weight / scale).round().to(torch.int8), scale


def _flat_scale(weight: Tensor, bits: int) -> tuple[Tensor, Tensor]:
    codes, scale = quantize_per_channel(weight, bits)
    return codes, scale[:, 0]


QUANTIZE_PER_CHANNEL = Exercise(
    reference=quantize_per_channel,
    cases=_matrices,
    hints=(
        "A row of the weight makes one output. Each row gets the scale of fit_symmetric.",
        "weight.abs().amax(dim=1, keepdim=True) is the largest magnitude of each row, (O, 1).",
        "A row of zeros needs care, as before: scale 1.",
    ),
    misconceptions=(
        Misconception(
            "per tensor",
            lambda w, bits: _symmetric(w, w.abs().max().expand(len(w), 1).clone(), bits),
            "all rows got the same scale, that of the largest row. The small rows are then rounded "
            "with a step far too coarse for them.",
        ),
        Misconception(
            "per input",
            lambda w, bits: _symmetric(w, w.abs().amax(dim=0, keepdim=True), bits),
            "these are scales of the columns. A column belongs to one input; output channels are "
            "the rows. Only a scale per row can be pulled out of the sum over the inputs.",
        ),
        Misconception(
            "magnitude forgotten",
            lambda w, bits: _symmetric(w, w.amax(dim=1, keepdim=True), bits),
            "the largest weight of a row is not its largest magnitude.",
        ),
        Misconception(
            "scale without its axis",
            _flat_scale,
            "the scales have shape (O,). Keep the axis, (O, 1): then codes · scale multiplies row "
            "by row. A square matrix would be scaled by columns, with no error to warn you.",
        ),
    ),
)

# -------------------------------------------------------------------- quantize_per_group


def quantize_per_group(weight: Tensor, group: int, bits: int) -> tuple[Tensor, Tensor]:
    """(codes (O, I) in int8, scales (O, I / group)): one scale for `group` neighbours in a row."""
    if weight.shape[1] % group:
        raise ValueError(f"group must divide a row of {weight.shape[1]} numbers; got {group}")
    groups = weight.reshape(-1, group)  # (O, I) -> (O · I/G, G)
    codes, scale = quantize_per_channel(groups, bits)
    return codes.reshape(weight.shape), scale.reshape(len(weight), -1)


def _groups() -> list[Case]:
    outlier = _weight(3, 16, seed=4)
    outlier[1, 5] = 40
    return [
        Case("two groups a row", {"weight": _weight(4, 16), "group": 8, "bits": 8}),
        Case("one outlier", {"weight": outlier, "group": 4, "bits": 4}),
        Case("a group is a row", {"weight": _weight(3, 6), "group": 6, "bits": 3}),
        Case("a group that does not fit", {"weight": _weight(2, 10), "group": 4, "bits": 4}),
    ]


def _no_remainder_check(weight: Tensor, group: int, bits: int) -> tuple[Tensor, Tensor]:
    kept = weight[:, : weight.shape[1] // group * group]
    codes, scale = quantize_per_group(kept, group, bits)
    return codes, scale


def _groups_of_columns(weight: Tensor, group: int, bits: int) -> tuple[Tensor, Tensor]:
    if weight.shape[1] % group:
        raise ValueError
    groups = weight.T.reshape(-1, group)
    codes, scale = quantize_per_channel(groups, bits)
    return codes.reshape(weight.T.shape).T, scale.reshape(len(weight), -1)


def _group_count(weight: Tensor, group: int, bits: int) -> tuple[Tensor, Tensor]:
    if weight.shape[1] % group:
        raise ValueError
    codes, scale = quantize_per_channel(weight.reshape(len(weight) * group, -1), bits)
    return codes.reshape(weight.shape), scale.reshape(len(weight), -1)


def _scales_per_row(weight: Tensor, group: int, bits: int) -> tuple[Tensor, Tensor]:
    if weight.shape[1] % group:
        raise ValueError
    codes, scale = quantize_per_channel(weight, bits)
    return codes, scale.expand(-1, weight.shape[1] // group).clone()


QUANTIZE_PER_GROUP = Exercise(
    reference=quantize_per_group,
    cases=_groups,
    hints=(
        "Cut each row into pieces of `group` numbers. A piece is treated as a row was before.",
        "weight.reshape(-1, group) puts each piece into a row of its own.",
        "Where `group` does not divide the row, raise a ValueError: a silent wrong answer is worse.",
    ),
    misconceptions=(
        Misconception(
            "remainder dropped",
            _no_remainder_check,
            "the numbers that did not fill a group are gone without a word. Raise a ValueError.",
        ),
        Misconception(
            "groups of columns",
            _groups_of_columns,
            "the groups run down the columns. Neighbours in a *row* share a scale: they meet in "
            "the same dot product.",
        ),
        Misconception(
            "number of groups",
            _group_count,
            "each row was cut into `group` pieces. `group` is the length of a piece.",
        ),
        Misconception(
            "one scale a row",
            _scales_per_row,
            "the scale is the row's, repeated. The point of groups is that an outlier spoils only "
            "its own.",
        ),
    ),
)

# --------------------------------------------------------------------------- search_clip


def search_clip(weight: Tensor, bits: int, shrink: Tensor) -> Tensor:
    """Scales (O, 1): for each row the one of `shrink` · (its largest magnitude) with the least MSE."""
    largest = 2 ** (bits - 1) - 1
    scales = weight.abs().amax(dim=1)[:, None] * shrink / largest  # (O, candidates)
    tried = scales[:, None, :]  # (O, 1, candidates)
    codes = (weight[:, :, None] / tried).round().clamp(-largest, largest)
    errors = (codes * tried - weight[:, :, None]).square().mean(dim=1)  # (O, candidates)
    return scales.gather(1, errors.argmin(dim=1, keepdim=True))


def _clips() -> list[Case]:
    shrink = torch.linspace(0.3, 1, 15)
    heavy = _weight(5, 64, seed=5)
    heavy[:, 3] *= 6
    outlier = _weight(4, 32, seed=6)
    outlier[2, 7] = 9
    return [
        Case("three bits", {"weight": heavy, "bits": 3, "shrink": shrink}),
        Case("four bits, one outlier", {"weight": outlier, "bits": 4, "shrink": shrink}),
        Case("eight bits", {"weight": _weight(3, 32, seed=7), "bits": 8, "shrink": shrink}),
    ]


def _errors(weight: Tensor, bits: int, shrink: Tensor, clamp: bool = True) -> tuple[Tensor, Tensor]:
    """(scales (O, 1, candidates), errors (O, I, candidates))."""
    largest = 2 ** (bits - 1) - 1
    tried = weight.abs().amax(dim=1)[:, None, None] * shrink / largest
    codes = (weight[:, :, None] / tried).round()
    codes = codes.clamp(-largest, largest) if clamp else codes
    return tried, codes * tried - weight[:, :, None]


def _choose(scales: Tensor, score: Tensor) -> Tensor:
    return scales[:, 0].gather(1, score.argmin(dim=1, keepdim=True))


def _clip_without_clamp(weight, bits, shrink):
    scales, error = _errors(weight, bits, shrink, clamp=False)
    return _choose(scales, error.square().mean(dim=1))


def _clip_by_largest_error(weight, bits, shrink):
    scales, error = _errors(weight, bits, shrink)
    return _choose(scales, error.abs().amax(dim=1))


def _clip_in_steps(weight, bits, shrink):
    scales, error = _errors(weight, bits, shrink)
    return _choose(scales, (error / scales).square().mean(dim=1))


def _clip_for_all_rows(weight, bits, shrink):
    scales, error = _errors(weight, bits, shrink)
    return _choose(scales, error.square().mean(dim=(0, 1)).expand(len(weight), -1))


SEARCH_CLIP = Exercise(
    reference=search_clip,
    cases=_clips,
    hints=(
        "For one row: try every shrink · max|row| as the end of the range, and keep the best.",
        "Codes beyond ±(2**(bits−1) − 1) are clamped: that is the clipping whose cost you weigh.",
        "All at once: weight as (O, I, 1), candidates as (O, 1, C), mean over I, argmin over C.",
    ),
    misconceptions=(
        Misconception(
            "no clamp",
            _clip_without_clamp,
            "the codes were not clamped, so a smaller scale always looks better: it has more levels "
            "than the bits can name.",
        ),
        Misconception(
            "largest error",
            _clip_by_largest_error,
            "you compared the largest error. It is ruled by the one clipped outlier; the mean "
            "squared error weighs it against all the others.",
        ),
        Misconception(
            "errors in steps",
            _clip_in_steps,
            "the errors were measured in steps of the grid. A coarser grid then looks better than "
            "it is: compare errors of the weights.",
        ),
        Misconception(
            "one choice for all rows",
            _clip_for_all_rows,
            "one shrink was chosen for the whole matrix. Each row has its own best.",
        ),
    ),
)

# -------------------------------------------------------------------- pack_int4, unpack_int4


def pack_int4(codes: Tensor) -> Tensor:
    """Codes 0 … 15 (N,) two to a byte: the first in the low four bits. An odd end is filled with 0."""
    if len(codes) % 2:
        codes = torch.cat([codes, codes.new_zeros(1)])
    return codes[0::2] | (codes[1::2] << 4)


def unpack_int4(packed: Tensor, count: int) -> Tensor:
    """The `count` codes 0 … 15 that pack_int4 put into bytes."""
    pairs = torch.stack([packed & 15, packed >> 4], dim=1)  # (N/2, 2)
    return pairs.flatten()[:count]


def _nibbles() -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randint(16, (n,), dtype=torch.uint8, generator=generator) for n in (8, 7, 1, 30)]


PACK_INT4 = Exercise(
    reference=pack_int4,
    cases=lambda: [Case(f"{len(codes)} codes", {"codes": codes}) for codes in _nibbles()],
    hints=(
        "codes[0::2] are the first of each pair, codes[1::2] the second.",
        "Shift the second by four bits and put both together: first | (second << 4).",
        "With an odd count the last byte holds one code; append a zero first.",
    ),
    misconceptions=(
        Misconception(
            "high bits first",
            lambda codes: pack_int4(codes) >> 4 | pack_int4(codes) << 4,
            "the two codes of a byte are swapped: the first belongs into the low four bits.",
        ),
        Misconception(
            "first half with second half",
            lambda codes: (
                (padded := torch.cat([codes, codes.new_zeros(len(codes) % 2)])).view(2, -1)[0]
                | padded.view(2, -1)[1] << 4
            ),
            "you joined the first half of the codes with the second half. Neighbours share a byte.",
        ),
        Misconception(
            "last code lost",
            lambda codes: codes[0::2][: len(codes) // 2] | (codes[1::2] << 4),
            "with an odd count the last code is gone. Fill up with a zero.",
        ),
        Misconception(
            "three bits",
            lambda codes: pack_int4(codes) & 15 | ((pack_int4(codes) >> 4) << 3),
            "the second code was shifted by three bits, so it overlaps the first. A 4-bit code "
            "takes four.",
        ),
        Misconception(
            "not packed",
            lambda codes: codes.clone(),
            "each code still takes a byte of its own. The file would be as large as with int8.",
        ),
    ),
)

UNPACK_INT4 = Exercise(
    reference=unpack_int4,
    cases=lambda: [
        Case(f"{len(c)} codes", {"packed": pack_int4(c), "count": len(c)}) for c in _nibbles()
    ],
    hints=(
        "packed & 15 keeps the low four bits, packed >> 4 the high four.",
        "Low and high take turns: stack them as columns of (N/2, 2), then flatten.",
    ),
    misconceptions=(
        Misconception(
            "swapped",
            lambda packed, count: torch.stack([packed >> 4, packed & 15], 1).flatten()[:count],
            "high and low four bits are swapped.",
        ),
        Misconception(
            "all low, then all high",
            lambda packed, count: torch.cat([packed & 15, packed >> 4])[:count],
            "first came all the low halves and then all the high ones. They take turns.",
        ),
        Misconception(
            "filling kept",
            lambda packed, count: torch.stack([packed & 15, packed >> 4], 1).flatten(),
            "the filling of an odd end was kept: `count` says how many codes there are.",
        ),
        Misconception(
            "not shifted down",
            lambda packed, count: torch.stack([packed & 15, packed & 240], 1).flatten()[:count],
            "the high four bits were cut out but not shifted down: 3 became 48.",
        ),
    ),
)

# ------------------------------------------------------------------------------ to_uint8


def to_uint8(weight: Tensor) -> Tensor:
    """Codes 0 … 255 of weights from 0 to 1, so that codes / 255 is as near as can be."""
    return (weight.clamp(0, 1) * 255).round().to(torch.uint8)


UINT8_CASES = {
    "the ends": [0.0, 0.5001, 0.999, 1.0],
    "a fine grid": torch.linspace(0, 1, 41).add(1e-4).clamp(max=1).tolist(),
    "a little outside": [-0.01, 0.25, 1.004],
}

TO_UINT8 = Exercise(
    reference=to_uint8,
    cases=lambda: [Case(k, {"weight": torch.tensor(v)}) for k, v in UINT8_CASES.items()],
    hints=(
        "What does the source's round(W · 256) give for W = 1? What is that in eight bits?",
        "256 levels, named 0 to 255, have 255 steps between them.",
        "Clamp and round while the numbers are still floats; convert last.",
    ),
    misconceptions=(
        Misconception(
            "as printed",
            lambda w: (w * 256).round().long().to(torch.uint8),
            "1.0 becomes 256, and eight bits hold at most 255: it wraps to 0. The largest weight "
            "turned into the smallest.",
        ),
        Misconception(
            "cut off",
            lambda w: (w.clamp(0, 1) * 255).to(torch.uint8),
            "the conversion cuts off the fraction, so every weight comes out too small. Round.",
        ),
        Misconception(
            "256 and clamped",
            lambda w: (w * 256).round().clamp(0, 255).to(torch.uint8),
            "clamping hides the overflow, but the steps are still 1/256 wide. Decoded with 255 "
            "steps, every weight is too large by up to half a step.",
        ),
    ),
)

# ------------------------------------------------------------------------ integer_linear


def integer_linear(
    x_codes: Tensor, x_scale: Tensor, x_zero_point: Tensor, w_codes: Tensor, w_scale: Tensor
) -> Tensor:
    """x · wᵀ in float32 from int8 codes: x = x_scale (x_codes − x_zero_point), w = w_scale w_codes.

    x_codes (B, I), w_codes (O, I), w_scale (O,), the rest one number each. Only the last step may
    use floats: sums of products are exact integers.
    """
    products = x_codes.int()[:, None, :] * w_codes  # (B, O, I) in int32
    sums = products.sum(dim=2) - x_zero_point * w_codes.sum(dim=1)  # (B, O)
    return sums * (x_scale * w_scale)


def _integer_inputs() -> list[Case]:
    generator = torch.Generator().manual_seed(0)

    def case(label: str, batch: int, outputs: int, inputs: int, zero_point: int) -> Case:
        def codes(rows):
            return torch.randint(-127, 128, (rows, inputs), generator=generator).to(torch.int8)

        values = {
            "x_codes": codes(batch),
            "x_scale": torch.tensor(0.02),
            "x_zero_point": torch.tensor(zero_point, dtype=torch.int32),
            "w_codes": codes(outputs),
            "w_scale": torch.rand(outputs, generator=generator) + 0.1,
        }
        return Case(label, values)

    return [
        case("a zero point of 0", 2, 3, 4, 0),
        case("a zero point of 5", 2, 3, 8, 5),
        case("a long row", 3, 2, 200, -17),
    ]


def _int8_products(x, x_scale, zero_point, w, w_scale):
    sums = (x[:, None, :] * w).sum(dim=2) - zero_point * w.int().sum(dim=1)
    return sums * (x_scale * w_scale)


def _int8_difference(x, x_scale, zero_point, w, w_scale):
    shifted = (x - zero_point.to(torch.int8)).int()
    return (shifted[:, None, :] * w.int()).sum(dim=2) * (x_scale * w_scale)


INTEGER_LINEAR = Exercise(
    reference=integer_linear,
    cases=_integer_inputs,
    hints=(
        "Write out x · wᵀ with both codes: which scales can be pulled out of the sum?",
        "Σ (x − z) w = Σ x w − z Σ w. The second sum depends on the weight alone.",
        "int8 · int8 does not fit into int8. Convert to int32 before you multiply.",
    ),
    relative_tolerance=1e-4,
    absolute_tolerance=1e-4,
    misconceptions=(
        Misconception(
            "products in int8",
            _int8_products,
            "the products were taken in int8, where 100 · 100 wraps to 16. Convert to int32 first.",
        ),
        Misconception(
            "zero point forgotten",
            lambda x, xs, z, w, ws: integer_linear(x, xs, torch.zeros_like(z), w, ws),
            "code 0 is not zero: the code of zero is x_zero_point. Its share, x_zero_point times "
            "the sum of a weight row, has to be taken off.",
        ),
        Misconception(
            "zero point subtracted in int8",
            _int8_difference,
            "x_codes − x_zero_point was taken in int8, where −127 − 5 wraps to 124.",
        ),
        Misconception(
            "scale of the weight forgotten",
            lambda x, xs, z, w, ws: integer_linear(x, xs, z, w, torch.ones_like(ws)),
            "each output channel has a scale of its own, w_scale, and it is missing.",
        ),
        Misconception(
            "zero point added",
            lambda x, xs, z, w, ws: integer_linear(x, xs, -z, w, ws),
            "the zero point's share was added. x is x_scale · (x_codes − x_zero_point): minus.",
        ),
    ),
)

# --------------------------------------------------------------------------- detect_grid


def detect_grid(weight: Tensor) -> Tensor:
    """[group, levels] of the linear quantization that `weight` (O, I) went through; [0, 0] if none.

    group: the largest of 16, 32, 64, 128 such that each group of a row lies on an even grid of its
    own. levels: how many levels the widest of these grids has, at most 256.
    """
    found = torch.zeros(2, dtype=torch.int64, device=weight.device)
    for group in (16, 32, 64, 128):
        if weight.shape[1] % group:
            continue
        numbers = weight.reshape(-1, group).sort().values  # (groups, G)
        gaps, span = numbers.diff(), (numbers.amax(1) - numbers.amin(1))[:, None]
        real = gaps > 1e-4 * span  # smaller gaps are float noise within one level
        step = gaps.where(real, math.inf).amin(dim=1, keepdim=True)
        off_grid = (gaps / step - (gaps / step).round()).abs().amax()
        levels = (span / step).round().amax() + 1
        answer = torch.stack([torch.full_like(levels, group), levels]).long()
        found = torch.where((off_grid < 0.05) & (levels <= 256), answer, found)
    return found


def _went_through(group: int, levels: int, seed: int, symmetric: bool = False) -> Tensor:
    """A small random (16, 128) matrix after linear quantization in groups."""
    generator = torch.Generator().manual_seed(seed)
    groups = 0.01 * torch.randn(16, 128, generator=generator).view(-1, group)
    low, high = groups.aminmax(dim=1, keepdim=True)
    if symmetric:
        step = 2 * groups.abs().amax(dim=1, keepdim=True) / (levels - 1)
        return ((groups / step).round() * step).view(16, 128)
    step = (high - low) / (levels - 1)
    return (((groups - low) / step).round() * step + low).view(16, 128)


def _checkpoints() -> list[Case]:
    pruned = _went_through(32, 16, 5)
    pruned[0, :32] = 0
    even, uneven = torch.arange(16.0), torch.arange(16.0) + 2.6 * (torch.arange(16) > 7)
    every_level = torch.cat([torch.arange(256.0)[::2], torch.arange(256.0)[1::2]]).view(2, 128)
    every_level[:, -2:] = torch.tensor([[0.0, 255.0], [0.0, 255.0]])
    every_level[:, 0] = 1
    never = torch.randn(16, 128, generator=torch.Generator().manual_seed(2))
    weights = {
        "4 bits in groups of 32": _went_through(32, 16, 0),
        "3 bits in groups of 64": _went_through(64, 8, 1),
        "never quantized": never,
        "15 levels, symmetric, a group is a row": _went_through(128, 15, 3, symmetric=True),
        "2 bits in groups of 16": _went_through(16, 4, 4),
        "some weights were pruned": pruned,
        "one group has a grid, the other has none": torch.stack([even, uneven]),
        "256 levels": every_level,
        "257 levels": every_level.where(every_level < 255, torch.tensor(256.0)),
        "rows of 24": torch.arange(48.0).view(2, 24),
    }
    return [Case(label, {"weight": weight}) for label, weight in weights.items()]


def _distinct(weight: Tensor, group: int) -> int:
    changes = weight.reshape(-1, group).sort().values.diff() > 0
    return int(changes.sum(dim=1).max()) + 1


def _few_values(weight):
    for group in (128, 64, 32, 16):
        if weight.shape[1] % group == 0 and _distinct(weight, group) < group:
            return torch.tensor([group, _distinct(weight, group)])
    return torch.tensor([0, 0])


def _smallest_group(weight):
    for group in (16, 32, 64, 128):
        found = detect_grid(weight.reshape(-1, group)) if weight.shape[1] % group == 0 else [0]
        if found[0]:
            return torch.stack([torch.tensor(group), found[1]])
    return torch.tensor([0, 0])


def _steps_not_levels(weight):
    found = detect_grid(weight)
    return torch.where(found[0] > 0, found - torch.tensor([0, 1]), found)


def _in_bits(weight):
    found = detect_grid(weight)
    return torch.stack([found[0], found[1].clamp(min=1).log2().ceil().long()])


DETECT_GRID = Exercise(
    reference=detect_grid,
    cases=_checkpoints,
    seconds=4.0,
    hints=(
        "Sort the numbers of one group. If they lie on a grid, what is true of the gaps between them?",
        "Every gap is a multiple of the smallest gap that is not zero: gap / step is an integer.",
        "Two groups with different steps do not share a grid. So try 16, 32, 64, 128 and keep the "
        "largest that fits. The levels of a group: span / step + 1.",
    ),
    misconceptions=(
        Misconception(
            "few different values",
            _few_values,
            "you looked for groups with fewer values than numbers. Two groups of 32 with 16 levels "
            "each hold 32 values among 64 numbers: fewer, and yet two grids. Ask whether the gaps "
            "are multiples of one step.",
        ),
        Misconception(
            "smallest group",
            _smallest_group,
            "a part of a group lies on the group's grid as well. So the smallest size that fits "
            "says nothing: look for the largest.",
        ),
        Misconception(
            "steps instead of levels",
            _steps_not_levels,
            "you counted the steps of the grid. It has one level more than steps.",
        ),
        Misconception(
            "bits instead of levels",
            _in_bits,
            "you answered in bits. Asked are levels; there need not be a power of two of them.",
        ),
    ),
)

# -------------------------------------------------------------------- better_than_minmax


def better_than_minmax(weight: Tensor) -> tuple[Tensor, Tensor]:
    """(codes (O, I) from −4 to 3, scales (O, 1)) with codes · scales as near to `weight` as you can.

    20 % less mean squared error than the symmetric min–max grid of 3 bits is asked for.
    """
    best = weight.abs().amax(dim=1, keepdim=True) / 3
    least = torch.full_like(best, math.inf)
    for shrink in torch.linspace(0.3, 1.2, 60, device=weight.device):
        scale = shrink * weight.abs().amax(dim=1, keepdim=True) / 3
        error = ((weight / scale).round().clamp(-4, 3) * scale - weight).square()
        error = error.mean(dim=1, keepdim=True)
        best, least = torch.where(error < least, scale, best), torch.minimum(error, least)
    return (weight / best).round().clamp(-4, 3).to(torch.int8), best


def _real_layer() -> list[Case]:
    model, _ = pretrained.tiny()
    weight = model.blocks[1].mlp.down.weight.detach()[::4].clone()
    return [Case("the MLP's `down` of TinyLM's second block", {"weight": weight})]


def _share_of_minmax_error(inputs: dict, value: list[Tensor]) -> float:
    """The mean squared error of an answer, as a share of symmetric min–max's."""
    weight, (codes, scale) = inputs["weight"], value
    minmax = weight.abs().amax(dim=1, keepdim=True) / 3
    before = ((weight / minmax).round() * minmax - weight).square().mean()
    return float((codes.float() * scale - weight).square().mean() / before)


def _is_a_code(inputs: dict, value: list[Tensor]) -> bool:
    codes = value[0]
    whole = bool((codes.float() == codes.float().round()).all())
    return whole and codes.shape == inputs["weight"].shape and -4 <= codes.min() <= codes.max() <= 3


def _scaled(weight: Tensor, scale: Tensor, low: int = -4) -> tuple[Tensor, Tensor]:
    return (weight / scale).round().clamp(low, 3).to(torch.int8), scale


BETTER_THAN_MINMAX = Exercise(
    reference=better_than_minmax,
    cases=_real_layer,
    compare=False,
    seconds=20.0,
    hints=(
        "The largest weight of a row is rare. What if it is clipped, so that all others get a finer "
        "grid?",
        "Your search_clip finds the best clip of each row.",
        "Eight codes are there, −4 … 3; the symmetric grid uses seven of them. A row may also be "
        "turned around: a negative scale puts the eighth code on the other side.",
    ),
    properties=(
        Property("codes are whole numbers from −4 to 3, of the weight's shape", _is_a_code),
        Property(
            "there is one scale for each row, (O, 1)",
            lambda inputs, value: value[1].shape == (len(inputs["weight"]), 1),
        ),
        Property(
            "mean squared error is at most 80 % of symmetric min–max's",
            lambda inputs, value: _share_of_minmax_error(inputs, value) <= 0.8,
        ),
    ),
    misconceptions=(
        Misconception(
            "min–max itself",
            lambda w: _scaled(w, w.abs().amax(dim=1, keepdim=True) / 3),
            "this is the min–max grid that you are to beat: the largest weight of each row decides "
            "how coarse everything else becomes.",
        ),
        Misconception(
            "min–max over four",
            lambda w: _scaled(w, w.abs().amax(dim=1, keepdim=True) / 4),
            "dividing by 4 uses the eighth code, but only for negative weights; the largest "
            "positive ones are clipped hard. It helps, and not enough: search.",
        ),
        Misconception(
            "one scale for all",
            lambda w: _scaled(w, (w.abs().max() / 3).expand(len(w), 1).clone()),
            "all rows share the scale of the largest one. That is worse than min–max per row.",
        ),
        Misconception(
            "a share of all rows alike",
            lambda w: _scaled(w, 0.25 * w.abs().amax(dim=1, keepdim=True) / 3),
            "every row was clipped at a quarter of its range. That much clipping costs more than "
            "the finer grid gains: the best clip depends on the row, so measure it.",
        ),
    ),
)

EXERCISES = (
    QUANTIZE_LINEAR,
    DEQUANTIZE_LINEAR,
    FIT_AFFINE,
    FIT_SYMMETRIC,
    QUANTIZE_PER_CHANNEL,
    QUANTIZE_PER_GROUP,
    SEARCH_CLIP,
    PACK_INT4,
    UNPACK_INT4,
    TO_UINT8,
    INTEGER_LINEAR,
    DETECT_GRID,
    BETTER_THAN_MINMAX,
)
