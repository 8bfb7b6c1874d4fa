"""Exercises of 11_language_models: the difficulty moved by scales, the function kept.

Axes: O outputs, I inputs.
"""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from course_lib.exercises.engine.seeded import Draw
from course_lib.exercises.engine.spec import Case, Exercise, Misconception, Property, labelled_cases

# ---------------------------------------------------------------------------- fold_scale


def fold_scale(
    norm_weight: Tensor, weights: list[Tensor], scale: Tensor
) -> tuple[Tensor, list[Tensor]]:
    """(norm_weight / s, [W · diag(s) for each W]): the layers' inputs shrink, their columns grow.

    norm_weight (I,), each W (O, I), O may differ; scale s (I,), positive, in float32 or float64.
    New tensors, each in the dtype of the old one, rounded once.
    """
    folded = [(weight * scale).to(weight.dtype) for weight in weights]  # (O, I) · (I,)
    return (norm_weight / scale).to(norm_weight.dtype), folded


def _norm_and_layers(
    draw: Draw, inputs: int, *outputs: int, dtype: torch.dtype = torch.float32
) -> tuple:
    """Scales of 13 binary digits: with half precision's 11 a float32 product is exact."""
    scale = (1 + draw.integers(1, 4096, inputs) / 4096) * 2.0 ** draw.integers(-2, 3, inputs)
    weights = [draw.normal(count, inputs).to(dtype) for count in outputs]
    norm = (0.5 + draw.uniform(inputs)) * (1 - 2 * draw.integers(0, 2, inputs))
    norm[0] = -norm[0].abs()
    return norm.to(dtype), weights, scale


def _in_other_dtypes(layers: Callable[..., tuple]) -> dict[str, tuple]:
    """Tensors whose dtypes differ, and numbers that only float64 can hold on the way."""
    norm, (first, second), scale = layers(4, 3, 5)
    double_norm, (double,), double_scale = layers(3, 2, dtype=torch.float64)
    half_norm, halves, half_scale = layers(5, 4, dtype=torch.float16)
    return {
        "a norm in float32, layers in bfloat16": (norm, [first.bfloat16()], scale),
        "a dtype for each": (norm.bfloat16(), [first, second.half()], scale),
        "float64": (1e-60 * double_norm, [1e-90 * double], 1e60 * double_scale.double()),
        "float32, scales in float64": (1e25 * norm, [1e-25 * first], 1e45 * scale.double()),
        "float16, scales in float64": (half_norm, halves, half_scale.double()),
    }


def _readers(seed: int) -> list[Case]:
    draw = Draw(seed)
    layers = partial(_norm_and_layers, draw)
    norm, weights, _ = layers(4, 3, 2)
    wide = torch.tensor([1e-9, 1.0, 1e9, 30.0])[draw.order(4)]
    zeros = layers(4, 3)
    zeros[0][1], zeros[1][0][:, 2] = 0.0, -0.0
    labelled = {
        "one layer": layers(4, 3),
        "query, key and value": layers(6, 6, 2, 2),
        "as many outputs as inputs": layers(4, 4, 4),
        "scales of one": (*layers(3, 2)[:2], torch.ones(3)),
        "very small and very large scales": (norm, weights, wide),
        "zeros": zeros,
        "one input": layers(1, 3, 1),
        "float16, scales in float32": layers(5, 4, 3, dtype=torch.float16),
        "bfloat16, scales in float32": layers(6, 5, dtype=torch.bfloat16),
    } | _in_other_dtypes(layers)
    return labelled_cases(("norm_weight", "weights", "scale"), labelled)


def _fold(norm_weight, weights, norm_scale, weight_scale):
    folded = [(weight * weight_scale).to(weight.dtype) for weight in weights]
    return (norm_weight / norm_scale).to(norm_weight.dtype), folded


def _folded_in_place(norm_weight, weights, scale):
    for weight in weights:
        weight.mul_(scale)
    return norm_weight.div_(scale), weights


FOLD_SCALE = Exercise(
    reference=fold_scale,
    cases=_readers,
    relative_tolerance=1e-6,
    absolute_tolerance=0.0,
    hints=(
        "A layer is given x · norm_weight, and computes Σ_j W_ij · x_j · norm_weight_j. Where can "
        "s_j and 1 / s_j be put without changing the sum?",
        "Column j of every W that reads this norm is multiplied by s_j; norm_weight_j is divided "
        "by it. weight * scale multiplies columns, since the last axes meet.",
        "float16 times float32 is float32: convert the product back, (weight * scale).to("
        "weight.dtype). Do not convert the scale first: then you round twice.",
    ),
    misconceptions=(
        Misconception(
            "the wrong way round",
            lambda n, ws, s: _fold(n, ws, 1 / s, 1 / s),
            "you multiplied the norm and divided the weights. The function is kept, but AWQ wants "
            "the opposite: columns that meet large inputs are to grow, so that the step is small "
            "beside them.",
        ),
        Misconception(
            "only the weights",
            lambda n, ws, s: _fold(n, ws, torch.ones_like(s), s),
            "the columns grew, but the inputs did not shrink: the layer computes something else "
            "now. Divide norm_weight by the scale.",
        ),
        Misconception(
            "divided once for each layer",
            lambda n, ws, s: _fold(n, ws, s ** len(ws), s),
            "you divided the norm once for each layer that reads it. They all read the same "
            "numbers: one division serves them all.",
        ),
        Misconception(
            "rows instead of columns",
            lambda n, ws, s: (
                (n / s).to(n.dtype),
                [(w * s[:, None]).to(w.dtype) for w in ws],
            ),
            "you scaled the rows, the outputs. Scale s_j belongs to input j: column j of each W.",
        ),
        Misconception(
            "scale rounded first",
            lambda n, ws, s: ((n / s.to(n.dtype)), [w * s.to(w.dtype) for w in ws]),
            "you converted the scale to the weights' dtype before you multiplied. Then it is "
            "rounded, and the product is rounded again; in float16, 1e-9 is 0. Multiply in the "
            "wider type, convert the product.",
        ),
        Misconception(
            "in place",
            _folded_in_place,
            "you changed the tensors you were given. Whoever still holds them has a model whose "
            "norm and layers no longer fit together. Make new ones.",
        ),
    ),
)

# ----------------------------------------------------------------------- smoothing_scale


def smoothing_scale(activation_max: Tensor, weight: Tensor, alpha: float) -> Tensor:
    """SmoothQuant's s (I,): s_j = a_j^α / (max_i |W_ij|)^(1 − α), α from 0 to 1.

    activation_max a (I,) is max |x_j|, ≥ 0; weight W (O, I). Where a_j or all of column j is 0, s_j
    is 1. Both have one float dtype; s and the reckoning are in float32, in float64 if they are.
    """
    wide = torch.promote_types(weight.dtype, torch.float32)
    inputs, columns = activation_max.to(wide), weight.abs().to(wide).amax(0)  # (O, I) -> (I,)
    scale = inputs**alpha / columns ** (1 - alpha)
    return scale.where((inputs > 0) & (columns > 0), 1.0)


def _channels(seed: int) -> list[Case]:
    draw = Draw(seed)

    def layer(outputs: int, inputs: int) -> tuple[Tensor, Tensor]:
        """In every column the largest weight is negative or positive, as it comes."""
        return (2 * draw.normal(inputs)).exp(), draw.normal(outputs, inputs)

    a, w = layer(4, 5)
    silent, unread = layer(3, 5)
    silent[1], silent[4], unread[:, 3], unread[:, 4] = 0.0, 0.0, -0.0, 0.0
    sizes = torch.tensor([1e-9, 1.0, 1e9, 1e-5, 1e4])
    double = [part.double() for part in layer(3, 4)]
    brain = [part.to(torch.bfloat16) for part in layer(3, 6)]
    half = (1 + 7 * draw.uniform(5)) * torch.tensor([7e3, 1.0, 0.1, 1e-7, 10.0])
    last, negative = layer(3, 4), layer(3, 4)
    last[1][-1] *= 100
    labelled = {
        "half of each": (*layer(3, 4), 0.5),
        "more to the weights": (*layer(5, 6), 0.85),
        "inputs of very different size": (a * sizes, w, 0.5),
        "weights of very different size": (a, w * sizes[draw.order(5)], 0.25),
        "silent inputs, and columns of zero": (silent, unread, 0.5),
        "α of 0": (silent, unread * sizes, 0.0),
        "α of 1": (silent * sizes, unread, 1.0),
        "as many outputs as inputs": (*layer(4, 4), 0.5),
        "the largest weight stands last": (*last, 0.3),
        "all weights are negative": (negative[0], -negative[1].abs(), 0.6),
        "one number": (*layer(1, 1), 0.5),
        "float16": (half.half(), (draw.normal(3, 5) * 1e-3).half(), 0.5),
        "bfloat16": (*brain, 0.6),
        "float64": (1e60 * double[0], 1e-60 * double[1], 0.7),
    }
    return labelled_cases(("activation_max", "weight", "alpha"), labelled)


def _smoothing(activation_max, columns, alpha):
    """The scale from wide numbers, with 1 where one of them is 0."""
    scale = activation_max**alpha / columns ** (1 - alpha)
    return scale.where(activation_max * columns != 0, 1.0)


def _wide(activation_max, weight):
    wide = torch.promote_types(weight.dtype, torch.float32)
    return activation_max.to(wide), weight.to(wide)


def _with(scale_of):
    """A wrong scale from (a, max |W_j|, α), all else as it should be."""

    def wrong(activation_max, weight, alpha):
        a, w = _wide(activation_max, weight)
        return scale_of(a, w.abs().amax(dim=0), alpha)

    return wrong


def _signed_maximum(activation_max, weight, alpha):
    a, w = _wide(activation_max, weight)
    return _smoothing(a, w.amax(dim=0), alpha)


def _ratio(a, columns, alpha):
    return ((a / columns) ** alpha).where(a * columns > 0, 1.0)


def _whole_matrix(a, columns, alpha):
    return _smoothing(a, columns.amax() * (columns > 0), alpha)


SMOOTHING_SCALE = Exercise(
    reference=smoothing_scale,
    cases=_channels,
    absolute_tolerance=0.0,
    hints=(
        "The largest |W_ij| of column j is over the outputs: weight.abs().amax(dim=0).",
        "s_j = a_j^α / columns_j^(1 − α). With α = ½ both maxima become √(a_j · columns_j) after "
        "x / s and W · s.",
        "0^α is 0, and dividing by 0 gives infinity: torch.where((a > 0) & (columns > 0), s, 1.0). "
        "Convert float16 to float32 before the powers.",
    ),
    properties=(
        Property(
            "every scale is positive and finite",
            lambda inputs, scale: bool(((scale > 0) & scale.isfinite()).all()),
        ),
    ),
    misconceptions=(
        Misconception(
            "exponents swapped",
            _with(lambda a, columns, alpha: _smoothing(a, columns, 1 - alpha)),
            "α and 1 − α changed places. α is the share of the difficulty that moves from the "
            "inputs to the weights: with α = 1, x / s has a largest value of 1 in every channel.",
        ),
        Misconception(
            "the reciprocal",
            _with(lambda a, columns, alpha: 1 / _smoothing(a, columns, alpha)),
            "you gave 1 / s. The inputs are divided by s, so a large input needs a large s.",
        ),
        Misconception(
            "signed maximum",
            _signed_maximum,
            "the largest weight of a column may be negative. Take magnitudes before the maximum.",
        ),
        Misconception(
            "α on the whole ratio",
            _with(_ratio),
            "you raised a / max |W| to the power of α. The weights have an exponent of their own, "
            "1 − α: only for α = ½ is it the same.",
        ),
        Misconception(
            "zeros not guarded",
            _with(lambda a, columns, alpha: a**alpha / columns ** (1 - alpha)),
            "a channel where nothing flows got the scale 0, and one that nobody reads infinity: "
            "dividing the inputs by it gives NaN. Such channels need no smoothing: 1.",
        ),
        Misconception(
            "one maximum for the whole matrix",
            _with(_whole_matrix),
            "you used the largest weight of the whole matrix. Each channel has a scale of its own, "
            "from the largest weight of its own column.",
        ),
    ),
)
