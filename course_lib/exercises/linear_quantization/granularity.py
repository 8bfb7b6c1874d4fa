"""Exercises of 05_linear_quantization: who shares a scale, and how large it should be.

Axes: O outputs, I inputs, G numbers of a group.
"""

import torch
from torch import Tensor

from course_lib.exercises.engine.seeded import Draw
from course_lib.exercises.engine.spec import Case, Exercise, Misconception, labelled_cases
from course_lib.exercises.linear_quantization.formula import near_border, off_border


def _rows(draw: Draw, outputs: int, inputs: int, bits: int, double: bool = False) -> Tensor:
    """Rows of different size, as in a real layer; no weight lies on the border of two codes."""
    largest = 2 ** (bits - 1) - 1
    codes = draw.integers(1 - largest, largest, outputs, inputs)
    positions = near_border(codes, draw) if double else off_border(codes, draw)
    where = draw.integers(0, inputs, outputs, 1)  # of the largest magnitude
    sign = 2 * draw.integers(0, 2, outputs, 1) - 1
    positions = positions.scatter(1, where, (sign * largest).to(positions))
    gains = torch.logspace(-1, 0.5, outputs)[draw.order(outputs), None] * (0.5 + draw.uniform(1))
    return gains * positions / largest


# ------------------------------------------------------------------ quantize_per_channel


def quantize_per_channel(weight: Tensor, bits: int) -> tuple[Tensor, Tensor]:
    """(codes (O, I) in int8, scales (O, 1)): symmetric, one scale for each output channel.

    The scales are in weight's dtype; a row of zeros gets scale 1.
    """
    largest = 2 ** (bits - 1) - 1
    scale = weight.abs().amax(dim=1, keepdim=True) / largest
    scale = torch.where(scale == 0, torch.ones_like(scale), scale)
    return (weight / scale).round().to(torch.int8), scale


def _matrices(seed: int) -> list[Case]:
    draw = Draw(seed)
    dead_row, uneven = _rows(draw, 6, 8, 8), _rows(draw, 7, 9, 5)
    dead_row[draw.number(0, 6)] = 0
    far = torch.ones(7, 1)
    far[draw.order(7)[:3], 0] = torch.tensor([1e9, 1e-9, 1e-30])
    labelled = {
        "rows of different size": (_rows(draw, 6, 16, 8), 8),
        "four bits": (_rows(draw, 3, 10, 4), 4),
        "a square matrix": (_rows(draw, 5, 5, 3), 3),
        "a row of zeros": (dead_row, 8),
        "two bits, one row": (_rows(draw, 1, draw.number(3, 9), 2), 2),
        "one input": (draw.normal(4, 1), 6),
        "rows from 1e-30 to 1e9": (far * uneven, 5),
        "float64, next to the borders": (_rows(draw, 4, 30, 8, double=True), 8),
    }
    return labelled_cases(("weight", "bits"), labelled)


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
    absolute_tolerance=0.0,
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
    """(codes (O, I) in int8, scales (O, I / group)): one scale for `group` neighbours in a row.

    Symmetric; scales in weight's dtype, and 1 for a group of zeros. A `group` that does not divide
    a row is a ValueError.
    """
    if weight.shape[1] % group:
        raise ValueError(f"group must divide a row of {weight.shape[1]} numbers; got {group}")
    groups = weight.reshape(-1, group)  # (O, I) -> (O · I/G, G)
    codes, scale = quantize_per_channel(groups, bits)
    return codes.reshape(weight.shape), scale.reshape(len(weight), -1)


def _groups(seed: int) -> list[Case]:
    draw = Draw(seed)

    def in_groups(outputs: int, pieces: int, group: int, bits: int, double: bool = False) -> Tensor:
        return _rows(draw, outputs * pieces, group, bits, double).view(outputs, -1)

    outlier, zeros = in_groups(3, 4, 4, 4), in_groups(3, 3, 5, 6)
    outlier[1, 4:8] *= torch.tensor([100.0, 0.01, 0.01, 0.01])
    zeros.view(9, 5)[draw.order(9)[:2]] *= torch.tensor([[0.0], [1e-12]])
    labelled = {
        "two groups a row": (in_groups(4, 2, 8, 8), 8, 8),
        "one outlier": (outlier, 4, 4),
        "a group is a row": (in_groups(3, 1, 6, 3), 6, 3),
        "a group of zeros, a group of nearly nothing": (zeros, 5, 6),
        "a group of one": (draw.normal(2, 5), 1, 5),
        "as many groups as rows": (in_groups(3, 3, 4, 4), 4, 4),
        "float64, next to the borders": (in_groups(2, 3, 10, 8, double=True), 10, 8),
        "a group that does not fit": (draw.normal(2, 10), 4, 4),
        "a group longer than a row": (draw.normal(2, 6), 12, 4),
    }
    return labelled_cases(("weight", "group", "bits"), labelled)


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
    absolute_tolerance=0.0,
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
    """Scales (O, 1) of symmetric grids, in weight's dtype; no row is all zeros.

    A grid ends at the share of max|row|, out of the candidates `shrink` (in any order), that
    leaves the row the least mean squared error.
    """
    largest = 2 ** (bits - 1) - 1
    scales = weight.abs().amax(dim=1)[:, None] * shrink / largest  # (O, candidates)
    tried = scales[:, None, :]  # (O, 1, candidates)
    codes = (weight[:, :, None] / tried).round().clamp(-largest, largest)
    errors = (codes * tried - weight[:, :, None]).square().mean(dim=1)  # (O, candidates)
    return scales.gather(1, errors.argmin(dim=1, keepdim=True))


def _clips(seed: int) -> list[Case]:
    draw = Draw(seed)
    shrink, every = torch.linspace(0.3, 1, 15), torch.linspace(0.05, 1, 20)

    def rows(count: int, inputs: int, bits: int, shrink: Tensor, power: int = 1) -> Tensor:
        """Rows whose best candidate is 1 % better than the next one; large weights come last."""
        found = torch.empty(0, inputs).to(shrink)
        while len(found) < count:
            drawn = draw.normal(40, inputs).sign() * draw.normal(40, inputs).abs() ** power
            drawn = drawn.to(shrink).take_along_dim(drawn.abs().argsort(dim=1), dim=1)
            _, error = _errors(drawn, bits, shrink)
            best = error.square().mean(dim=1).sort(dim=1).values
            found = torch.cat([found, drawn[best[:, 0] < 0.99 * best[:, 1]]])
        return torch.logspace(-1, 0.5, count)[draw.order(count), None].to(shrink) * found[:count]

    size = torch.tensor([1e-9, 1.0, 1e9, 1.0])[:, None]
    shuffled, fine = every[draw.order(20)], shrink.double()
    first, far_first = rows(1, 48, 3, shuffled, 2), rows(3, 40, 4, shrink).flip(1)
    best = _errors(first, 3, shuffled)[1].square().mean(dim=1)[0].argsort()
    labelled = {
        "three bits": (rows(5, 64, 3, shrink, 2), 3, shrink),
        "four bits, heavy tails": (rows(4, 32, 4, every, 3), 4, every),
        "eight bits": (rows(3, 32, 8, shrink), 8, shrink),
        "candidates in any order": (rows(4, 48, 3, shuffled, 2), 3, shuffled),
        "the first candidate is the best": (first, 3, shuffled[best]),
        "one far weight, the first": (far_first, 4, shrink),
        "one candidate": (draw.normal(3, 8), 4, 0.3 + 0.5 * draw.uniform(1)),
        "rows from 1e-9 to 1e9": (size * rows(4, 40, 4, shrink), 4, shrink),
        "two bits, float64": (rows(4, 40, 2, fine), 2, fine),
    }
    return labelled_cases(("weight", "bits", "shrink"), labelled)


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
    absolute_tolerance=0.0,
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
