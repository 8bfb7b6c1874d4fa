"""Exercises of 05_linear_quantization: the formula, repaired; the byte; grids that hold zero."""

import torch
from torch import Tensor

from course_lib.exercises.engine.seeded import Draw
from course_lib.exercises.engine.spec import Case, Exercise, Misconception, Property, labelled_cases


def off_border(codes: Tensor, draw: Draw) -> Tensor:
    """Positions up to 0.4 beside the codes: how ties are rounded changes nothing."""
    return codes + 0.8 * draw.uniform(*codes.shape) - 0.4


def near_border(codes: Tensor, draw: Draw) -> Tensor:
    """In float64, 1e-7 this side of the border to the next code: float32 is too coarse for them."""
    sides = draw.integers(0, 2, *codes.shape) - 0.5
    return codes.double() + sides * (1 - 2e-7)


# ----------------------------------------------------------------------- quantize_linear


def quantize_linear(weight: Tensor, low: float, high: float, bits: int) -> Tensor:
    """Codes 0 … 2**bits − 1 of `weight` on an even grid from `low` to `high`, in uint8.

    Reckon in weight's dtype; low < high, and bits are from 1 to 8.
    """
    levels = 2**bits - 1
    position = (weight.clamp(low, high) - low) / (high - low)
    return (position * levels).round().to(torch.uint8)


def _ranges(seed: int) -> list[Case]:
    draw = Draw(seed)

    def on(low: float, high: float, bits: int, *shape: int) -> tuple[Tensor, float, float, int]:
        codes = draw.integers(0, 2**bits, *shape)
        return low + off_border(codes, draw) * (high - low) / (2**bits - 1), low, high, bits

    ends = torch.tensor([-1.0, -0.6, 0.07, 0.6, 1.0])
    low = draw.number(-20, 20) / 8
    beyond = low + torch.tensor([-1e9, -1.5, 0.0, 0.6, 1.1, 1.5, 1.9, torch.inf])
    fine = near_border(draw.integers(1, 255, 40), draw) * 2 / 255 - 1
    labelled = {
        "ends of the range": (ends, -1.0, 1.0, 3),
        "weights outside the range": (beyond, low, low + 1.5, 4),
        "a matrix at 8 bits": on(-2.0, 3.0 + draw.number(0, 9), 8, 3, 4),
        "two bits": on(-1.0, 1.0, 2, 6),
        "one bit": on(5.0, 9.0, 1, 6),
        "a range far from zero": on(low + 20, low + 22, 5, 7),
        "a range below zero": on(low - 9, low - 6, 6, 7),
        "a very short range": on(-1e-30, 2e-30, 4, 8),
        "a very long range": on(-1e9, 2e9, 7, 8),
        "float64, next to the borders": (fine, -1.0, 1.0, 8),
    }
    return labelled_cases(("weight", "low", "high", "bits"), labelled)


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
    """The float32 weights that uint8 codes stand for: 0 for `low`, 2**bits − 1 for `high`."""
    return low + codes * (high - low) / (2**bits - 1)


def _codes(seed: int) -> list[Case]:
    draw = Draw(seed)
    three, low = torch.arange(8).byte(), draw.number(1, 9) / 4
    four, eight = draw.integers(0, 16, 9).byte(), draw.integers(0, 256, 3, 4).byte()
    labelled = {
        "all codes of three bits": (three, -1.0, 1.0, 3),
        "a matrix": (eight, low, low + 2.0, 8),
        "the largest code is missing": (three, low, low + 1.5, 4),
        "the largest codes": (torch.tensor([200, 255], dtype=torch.uint8), -low, 20.0, 8),
        "a range below zero": (four, -low - 3, -low, 4),
        "one bit": (draw.integers(0, 2, 5).byte(), -low, low / 2, 1),
        "one code": (draw.integers(0, 4, 1).byte(), low, 3 * low, 2),
        "a very short range": (four, 1e-9, (2 + low) * 1e-9, 4),
        "a very long range": (four, 1e9, (2 + low) * 1e9, 4),
    }
    return labelled_cases(("codes", "low", "high", "bits"), labelled)


DEQUANTIZE_LINEAR = Exercise(
    reference=dequantize_linear,
    cases=_codes,
    absolute_tolerance=0.0,
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

# ------------------------------------------------------------------------------ to_uint8


def to_uint8(weight: Tensor) -> Tensor:
    """uint8 codes of weights from 0 to 1: codes / 255 is as near as weight's dtype can tell."""
    return (weight * 255).round().to(torch.uint8)


def _shares(seed: int) -> list[Case]:
    draw = Draw(seed)
    codes = draw.integers(0, 256, 40)
    some = off_border(codes.clamp(1, 254), draw) / 255
    labelled = {
        "the ends": (torch.tensor([0.0, 0.5001, 0.999, 1.0]),),
        "many weights": (some,),
        "a matrix": (off_border(draw.integers(1, 255, 3, 5), draw) / 255,),
        "small weights": (
            (torch.tensor([0.1, 0.55, 0.9, 1.6, 2.1]) + 0.1 * draw.uniform(5)) / 255,
        ),
        "one weight": (1 - 0.0018 * draw.uniform(1),),
        "float64, next to the borders": (near_border(codes.clamp(1, 254), draw) / 255,),
    }
    return labelled_cases(("weight",), labelled)


TO_UINT8 = Exercise(
    reference=to_uint8,
    cases=_shares,
    hints=(
        "What does the source's round(W · 256) give for W = 1? What is that in eight bits?",
        "256 levels, named 0 to 255, have 255 steps between them.",
        "Round while the numbers are still floats; convert last.",
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

# ---------------------------------------------------------------------------- fit_affine


def fit_affine(weight: Tensor, bits: int) -> tuple[Tensor, Tensor]:
    """(scale, zero_point), 0-dim in weight's dtype and in int32, of an even grid of 2**bits levels.

    The zero-point is the code of zero, rounded. The scale is (high − low) / (2**bits − 1) of the
    shortest range that holds all weights and zero, and 1 if all weights are zero.
    """
    low, high = weight.min().clamp(max=0), weight.max().clamp(min=0)
    scale = (high - low) / (2**bits - 1)
    scale = torch.where(scale == 0, torch.ones_like(scale), scale)
    return scale, (-low / scale).round().int()


def _tensors_and_bits(seed: int) -> list[Case]:
    draw = Draw(seed)

    def both_signs(bits: int, *shape: int) -> Tensor:
        """Zero is 0.4 of a step from a level, at most: it is rounded to one and the same code."""
        levels = 2**bits - 1
        low = -draw.number(1, levels) - 0.8 * draw.uniform(1).item() + 0.4
        weight = low + levels * draw.uniform(*shape).flatten()
        weight[0], weight[-1] = low, low + levels
        return (weight[draw.order(len(weight))] * (0.1 + draw.uniform(1))).view(shape)

    small = 1e-30 * both_signs(6, 9)
    labelled = {
        "both signs": (torch.tensor([-0.3, 0.1, 0.9, 0.2]), 8),
        "all positive": (0.5 + draw.uniform(3), 2),
        "all negative": (-0.5 - draw.uniform(2, 2), 4),
        "one number again and again": (0.7 * torch.ones(draw.number(2, 6)), 8),
        "one number": (-draw.uniform(1) - 0.1, 3),
        "all zero": (torch.zeros(draw.number(2, 6)), 8),
        "a matrix": (both_signs(3, 4, 4), 3),
        "very small weights": (small, 6),
        "very large weights": (1e9 * both_signs(8, 12), 8),
        "two bits, more than two axes": (both_signs(2, 2, 3, 2), 2),
        "the largest comes last": (torch.cat([draw.uniform(4), 1 + draw.uniform(1)]), 4),
        "the smallest comes last": (torch.cat([-draw.uniform(4), -1 - draw.uniform(1)]), 4),
        "float64": (both_signs(5, 9).double(), 5),
    }
    return labelled_cases(("weight", "bits"), labelled)


def _affine(low: Tensor, high: Tensor, steps: int) -> tuple[Tensor, Tensor]:
    scale = (high - low) / steps
    scale = torch.where(scale == 0, torch.ones_like(scale), scale)
    return scale, (-low / scale).round().int()


FIT_AFFINE = Exercise(
    reference=fit_affine,
    cases=_tensors_and_bits,
    absolute_tolerance=0.0,
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
            "the zero-point is a code",
            lambda inputs, value: bool(0 <= value[1] <= 2 ** inputs["bits"] - 1),
        ),
    ),
    misconceptions=(
        Misconception(
            "range without zero",
            lambda w, bits: _affine(w.min(), w.max(), 2**bits - 1),
            "the range need not hold zero, and then the zero-point is no code. But zero matters: "
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
            "zero-point as a float",
            lambda w, bits: (
                _affine(w.min().clamp(max=0), w.max().clamp(min=0), 2**bits - 1)[0],
                -w.min().clamp(max=0)
                / _affine(w.min().clamp(max=0), w.max().clamp(min=0), 2**bits - 1)[0],
            ),
            "the zero-point has to be an integer: it is a code. Only then is zero exactly on the "
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
    """The scale with which codes −m … m, m = 2**(bits−1) − 1, just reach the largest |weight|.

    0-dim, in weight's dtype; scale 1 if all weights are zero.
    """
    scale = weight.abs().max() / (2 ** (bits - 1) - 1)
    return torch.where(scale == 0, torch.ones_like(scale), scale)


FIT_SYMMETRIC = Exercise(
    reference=fit_symmetric,
    cases=_tensors_and_bits,
    absolute_tolerance=0.0,
    hints=(
        "weight ≈ scale · code, and code 0 stands for zero. So the range is from −m to m.",
        "With 8 bits the codes go from −127 to 127. The largest |weight| gets code 127.",
        "A tensor of zeros has a range of nothing: take a scale of 1.",
    ),
    properties=(Property("the scale is positive", lambda inputs, scale: bool(scale > 0)),),
    misconceptions=(
        Misconception(
            "128 instead of 127",
            lambda w, bits: (s := w.abs().max() / 2 ** (bits - 1)) + (s == 0),
            "the largest positive weight would get code 2**(bits−1), 128 at 8 bits. int8 ends at "
            "127, so it would wrap to −128 and change its sign.",
        ),
        Misconception(
            "largest instead of largest magnitude",
            lambda w, bits: (s := w.max() / (2 ** (bits - 1) - 1)) + (s == 0),
            "you took the largest weight. A large negative one counts as well: take the largest "
            "absolute value.",
        ),
        Misconception(
            "whole range over all codes",
            lambda w, bits: (s := (w.max() - w.min()) / (2**bits - 1)) + (s == 0),
            "that is the scale of an affine grid, from the smallest to the largest weight. A "
            "symmetric grid reaches equally far to both sides of zero.",
        ),
        Misconception(
            "scale of zero",
            lambda w, bits: w.abs().max() / (2 ** (bits - 1) - 1),
            "a tensor of zeros gets scale 0, or almost. Dividing by 0 gives NaN; take 1.",
        ),
    ),
)
