"""Exercises of 05_linear_quantization: the formula, repaired; the byte; grids that hold zero."""

import torch
from torch import Tensor

from course_lib.exercises.engine.spec import Case, Exercise, Misconception, Property, labelled_cases


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


def _ranges(seed: int) -> list[Case]:
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
    return labelled_cases(names, cases)


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
    """The float32 weights that codes stand for: 0 for `low`, 2**bits − 1 for `high`."""
    return low + codes * (high - low) / (2**bits - 1)


def _codes(seed: int) -> list[Case]:
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
    cases=lambda seed: [Case(k, {"weight": torch.tensor(v)}) for k, v in UINT8_CASES.items()],
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

# ---------------------------------------------------------------------------- fit_affine


def fit_affine(weight: Tensor, bits: int) -> tuple[Tensor, Tensor]:
    """(scale, zero_point), 0-dim in float32 and int32, of the smallest even grid of 2**bits levels
    that reaches all weights and holds zero exactly. Scale 1 if all weights are zero.
    """
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


def _tensors_and_bits(seed: int) -> list[Case]:
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

    Scale 1 if all weights are zero.
    """
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
            "a tensor of zeros gets scale 0, or almost. Dividing by 0 gives NaN; take 1.",
        ),
    ),
)
