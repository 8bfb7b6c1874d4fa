"""Exercises of 05_linear_quantization: who shares a scale, and how large it should be.

Axes: O outputs, I inputs, G numbers of a group.
"""

import torch
from torch import Tensor

from course_lib.exercises.engine.spec import Case, Exercise, Misconception


def _weight(outputs: int = 6, inputs: int = 16, seed: int = 0) -> Tensor:
    """A small matrix whose rows differ in size, as those of a real layer do."""
    generator = torch.Generator().manual_seed(seed)
    gains = torch.logspace(-1, 0.5, outputs)[:, None]
    return gains * torch.randn(outputs, inputs, generator=generator)


# ------------------------------------------------------------------ quantize_per_channel


def quantize_per_channel(weight: Tensor, bits: int) -> tuple[Tensor, Tensor]:
    """(codes (O, I) in int8, scales (O, 1)): symmetric, one scale for each output channel.

    A row of zeros gets scale 1.
    """
    largest = 2 ** (bits - 1) - 1
    scale = weight.abs().amax(dim=1, keepdim=True) / largest
    scale = torch.where(scale == 0, torch.ones_like(scale), scale)
    return (weight / scale).round().to(torch.int8), scale


def _matrices(seed: int) -> list[Case]:
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


def _groups(seed: int) -> list[Case]:
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
        "Where `group` does not divide the row, raise a ValueError: a silent error is worse.",
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
    """Scales (O, 1) of symmetric grids: they end at the share of max|row|, out of the candidates
    `shrink`, that leaves the row the least mean squared error.
    """
    largest = 2 ** (bits - 1) - 1
    scales = weight.abs().amax(dim=1)[:, None] * shrink / largest  # (O, candidates)
    tried = scales[:, None, :]  # (O, 1, candidates)
    codes = (weight[:, :, None] / tried).round().clamp(-largest, largest)
    errors = (codes * tried - weight[:, :, None]).square().mean(dim=1)  # (O, candidates)
    return scales.gather(1, errors.argmin(dim=1, keepdim=True))


def _clips(seed: int) -> list[Case]:
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
            "the codes were not clamped, so a smaller scale always looks better: it has more "
            "levels than the bits can name.",
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
