"""Exercise of 07_quantization_aware: a layer and its batch normalization as integers.

Sources: Jacob et al., 2018, "Quantization and Training of Neural Networks for Efficient
Integer-Arithmetic-Only Inference" (fold first, then round); Krishnamoorthi, 2018, "Quantizing Deep
Convolutional Networks for Efficient Inference: A Whitepaper".

Axes: O outputs, I inputs.
"""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from course_lib.exercises.engine.seeded import Draw
from course_lib.exercises.engine.spec import Case, Exercise, Misconception, Property, labelled_cases

NAMES = ("weight", "gamma", "beta", "mean", "variance", "epsilon", "bits")


def fold_and_quantize(
    weight: Tensor,
    gamma: Tensor,
    beta: Tensor,
    mean: Tensor,
    variance: Tensor,
    epsilon: float,
    bits: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """The integers that a layer and its batch normalization become: (codes, scale, bias).

    The layer gives z = W x, without a bias, and batch normalization, as it stands after training,
    makes γ (z − μ) / √(σ² + ε) + β of z. That is one layer W′ x + b′. Find W′ and b′, then round W′
    to n = `bits` bits, 2 ≤ n ≤ 8, in symmetric codes: W′ ≈ scale · codes. Codes go from −(2ⁿ⁻¹ − 1)
    to 2ⁿ⁻¹ − 1 in each row, and the largest |W′| of a row gets one of the ends. Where a row of W′
    is all 0, its scale is 1. No weight is half-way between two codes.

    weight W (O, I), gamma γ, beta β, mean μ and variance σ² (O,), all of one float dtype; ε > 0.
    Returns codes (O, I) int8, scale (O, 1) above 0 and bias b′ (O,), both in float32, or in float64
    where W is. Reckon in float64 and round at the end: b′ may be a small difference of large
    numbers. What was given stays as it is.
    """
    dtype = torch.promote_types(weight.dtype, torch.float32)
    wide = (part.double() for part in (weight, gamma, beta, mean, variance))
    weight, gamma, beta, mean, variance = wide
    factor = gamma / (variance + epsilon).sqrt()  # (O,)
    folded = factor[:, None] * weight  # (O, 1) (O, I) -> (O, I)
    scale = folded.abs().amax(dim=1, keepdim=True) / (2 ** (bits - 1) - 1)
    scale = torch.where(scale > 0, scale, 1.0)
    codes = (folded / scale).round().to(torch.int8)
    return codes, scale.to(dtype), (beta - factor * mean).to(dtype)


def _between(draw: Draw, o: int, i: int, bits: int) -> Tensor:
    """Weights W / max |W| of a row whose codes would lie 0.1 or more from a tie: (O, I)."""
    highest = 2 ** (bits - 1) - 1
    codes = draw.integers(-highest + 1, highest, o, i)  # 0 alone, where the bits are 2
    places = codes + 0.8 * draw.uniform(o, i) - 0.4
    signs = 2 * draw.integers(0, 2, o) - 1
    places[torch.arange(o), draw.integers(0, i, o)] = (highest * signs).float()
    return places / highest


def _layer(
    draw: Draw, o: int, i: int, bits: int = 8, dtype=torch.float32, size=1.0, gain=1.0, spread=1.0,
    epsilon: float = 1e-5, shift: float = 1.0, mixed: bool = True,
) -> tuple:  # fmt: skip
    """size: of the weights; gain: of γ; spread: σ²; shift: of β and μ; mixed: a γ is below 0."""
    weight = size * (0.2 + draw.uniform(o, 1)) * _between(draw, o, i, bits).double()
    gamma = gain * (0.3 + draw.uniform(o))
    if mixed:
        gamma *= 2 * draw.integers(0, 2, o) - 1
        gamma[draw.number(0, o)] = -gain * 0.7
    beta, mean = shift * draw.normal(2, o).double()
    variance = spread * (0.3 + draw.uniform(o).double())
    parts = (part.to(dtype) for part in (weight, gamma, beta, mean, variance))
    return *parts, epsilon, bits


def _layers(seed: int) -> list[Case]:
    draw = Draw(seed)
    layer = partial(_layer, draw)
    wide = layer(7, 4)
    wide[0].mul_(10.0 ** torch.linspace(-6, 6, 7)[:, None])
    four = torch.tensor([4.0, 0.0]), torch.tensor([1.0, 2.0]), torch.tensor([3.0, 5.0])
    by_hand = torch.tensor([[1.0, -7.0, 3.3], [2.0, 1.0, 0.0]]) * draw.number(1, 9), *four
    labelled = {
        "by hand": (*by_hand, torch.tensor([0.75, 3.75]), 0.25, 4),
        "8 bits": layer(5, 6, mixed=False),
        "γ of both signs": layer(6, 8),
        "2 bits": layer(5, 8, bits=2),
        "3 bits": layer(5, 8, bits=3),
        "5 bits": layer(4, 9, bits=5),
        "6 bits": layer(4, 7, bits=6),
        "7 bits": layer(4, 7, bits=7),
        **_with_zeros(draw),
        "tiny σ² and ε": layer(4, 6, spread=1e-12, epsilon=1e-12, shift=1e-6),
        "ε as large as σ²": layer(4, 6, epsilon=0.5),
        "tiny weights": layer(4, 6, size=1e-12),
        "weights of 1e-30": layer(4, 6, size=1e-30),
        "rows of very different size": wide,
        "b′ is a small difference": _cancelling(layer(6, 5, shift=30.0)),
        "large μ": layer(4, 6, shift=1e6),
        "one number": layer(1, 1),
        "one output": layer(1, 9, bits=4),
        "one input": layer(6, 1, bits=4),
        **_of_dtypes(draw),
    }
    return labelled_cases(NAMES, labelled)


def _cancelling(layer: tuple) -> tuple:
    """In place: β such that b′ is about a thousandth."""
    _, gamma, beta, mean, variance, epsilon, _ = layer
    taken = gamma.double() / (variance.double() + epsilon).sqrt() * mean.double()
    beta.copy_(taken + 1e-3 * torch.arange(1, len(beta) + 1))
    return layer


def _with_zeros(draw: Draw) -> dict[str, tuple]:
    dead, silent, empty, still = (_layer(draw, 4, o) for o in (7, 4, 6, 5))
    dead[1][draw.number(0, 4)] = 0
    silent[1].zero_()
    empty[0][draw.number(0, 4)] = 0
    still[4][draw.number(0, 4)] = 0  # an output that never moved in training
    return {
        "γ is 0 in a row": dead,
        "γ is 0 in all rows": silent,
        "weights are 0 in a row": empty,
        "σ² is 0 in a row": still,
    }


def _of_dtypes(draw: Draw) -> dict[str, tuple]:
    half = partial(_layer, draw, dtype=torch.float16)
    double = partial(_layer, draw, 4, 5, dtype=torch.float64)
    tiny = double(size=1e-60, spread=1e-100, epsilon=1e-110, shift=1e-50)
    return {
        "float64": double(),
        "float64, b′ is a small difference": _cancelling(double(shift=1e5)),
        "float64, as small as float32 is not": tiny,
        "float64, weights of 1e-60": double(size=1e-60),
        "float16": half(5, 6),
        "float16, W′ is beyond it": half(4, 6, size=3e4, gain=100.0),
        "float16, σ² and ε are near its least": half(4, 6, spread=1e-6, epsilon=1e-8),
        "bfloat16": _layer(draw, 5, 6, bits=5, dtype=torch.bfloat16),
    }


def _folded(inputs: dict) -> tuple[Tensor, Tensor]:
    """W′ and b′ in float64."""
    weight, gamma, beta, mean, variance = (inputs[name].double().cpu() for name in NAMES[:5])
    factor = gamma / (variance + inputs["epsilon"]).sqrt()
    return factor[:, None] * weight, beta - factor * mean


def _near(inputs: dict, value: tuple[Tensor, Tensor, Tensor]) -> bool:
    codes, scale, _ = value
    error = (codes.double() * scale.double() - _folded(inputs)[0]).abs()
    return bool((error <= 0.5001 * scale.double()).all())


def _wrong(
    factor: Callable = lambda gamma, variance, epsilon: gamma / (variance + epsilon).sqrt(),
    highest: Callable = lambda bits: 2 ** (bits - 1) - 1,
    bias: Callable = lambda beta, factor, mean: beta - factor * mean,
    largest: Callable = lambda folded: folded.abs().amax(dim=1, keepdim=True),
    first: bool = True,
    wide: torch.dtype | None = torch.float64,
):
    """fold_and_quantize with other parts; not `first`: W is rounded, its scale folded."""

    def wrong(weight, gamma, beta, mean, variance, epsilon, bits):
        dtype = torch.promote_types(weight.dtype, torch.float32)
        parts = (part.to(wide or part.dtype) for part in (weight, gamma, beta, mean, variance))
        weight, gamma, beta, mean, variance = parts
        by_row = factor(gamma, variance, epsilon)
        folded = by_row[:, None] * weight if first else weight
        scale = largest(folded) / highest(bits)
        scale = torch.where(scale > 0, scale, 1.0)
        codes = (folded / scale).round().clamp(-highest(bits), highest(bits)).to(torch.int8)
        scale = scale if first else by_row[:, None] * scale
        return codes, scale.to(dtype), bias(beta, by_row, mean).to(dtype)

    return wrong


FOLD_AND_QUANTIZE = Exercise(
    reference=fold_and_quantize,
    cases=_layers,
    absolute_tolerance=0.0,
    hints=(
        "Write γ (W x − μ) / √(σ² + ε) + β out, and sort it: what stands before x, and what does "
        "not depend on x? Each output has its own γ, μ, σ² and β, so each row of W its own factor.",
        "With f = γ / √(σ² + ε): W′ = f W, row by row, and b′ = β − f μ. Round W′, not W: f may be "
        "below 0, which turns the signs of a row's codes, or 0, which makes the row 0. A scale is "
        "the row's largest |W′| over 2ⁿ⁻¹ − 1.",
        "All parts to float64. factor = gamma / (variance + epsilon).sqrt(); folded = factor[:, "
        "None] * weight; scale = folded.abs().amax(1, keepdim=True) / (2 ** (bits - 1) - 1), and 1 "
        "where that is 0; codes = (folded / scale).round().to(torch.int8); bias = beta - factor * "
        "mean. Scale and bias to float32, or to float64 if W is.",
    ),
    properties=(
        Property(
            "codes (O, I), scale (O, 1) and bias (O,)",
            lambda inputs, value: (
                [part.shape for part in value]
                == [inputs["weight"].shape, (len(inputs["weight"]), 1), inputs["beta"].shape]
            ),
            form=True,
        ),
        Property("every scale is above 0", lambda inputs, value: bool((value[1] > 0).all())),
        Property("scale · codes is within half a step of W′", _near),
    ),
    misconceptions=(
        Misconception(
            "rounded first, folded afterwards",
            _wrong(first=False),
            "you rounded W and gave its scale the factor γ / √(σ² + ε). Where γ is below 0, the "
            "scale is, too; where it is 0, no level but 0 is left, and the codes still say "
            "otherwise. Fold first, and round what the layer will compute with.",
        ),
        Misconception(
            "ε outside of the root",
            _wrong(factor=lambda gamma, variance, e: gamma / (variance.sqrt() + e)),
            "you divided by √σ² + ε. Batch normalization has ε under the root, √(σ² + ε): where σ² "
            "is small, that is another number.",
        ),
        Misconception(
            "the mean left out",
            _wrong(bias=lambda beta, factor, mean: beta),
            "b′ is β alone. z loses μ before it is multiplied, so the output lacks f μ: b′ = β − f "
            "μ.",
        ),
        Misconception(
            "the mean as it is",
            _wrong(bias=lambda beta, factor, mean: beta - mean),
            "b′ is β − μ. μ is taken from z before the division, so it is multiplied by f = γ / "
            "√(σ² + ε), as z is: b′ = β − f μ.",
        ),
        Misconception(
            "one scale for all rows",
            _wrong(largest=lambda f: f.abs().amax().expand(len(f), 1)),
            "all rows have one scale. Folding gives each row its own factor, so rows differ much "
            "in size: a small one would get no code but 0. Take the largest |W′| of each row.",
        ),
        Misconception(
            "reckoned in the given dtype",
            _wrong(wide=None),
            "the values are nearly right: you reckoned in the dtype of W. In float16 σ² + ε loses "
            "ε and W′ may overflow; in float32 β − f μ loses its digits where both are large. Take "
            "all to float64 first.",
        ),
    ),
)
