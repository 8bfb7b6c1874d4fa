"""Exercises of 04_structured_pruning: 2 of 4, which stay and what they take in a file.

Axes: O outputs, I inputs.
"""

import math

import torch
from torch import Tensor

from course_lib.exercises.engine.seeded import Draw
from course_lib.exercises.engine.spec import Case, Exercise, Misconception, Property, labelled_cases

# --------------------------------------------------------------------------- two_of_four


def two_of_four(weight: Tensor) -> Tensor:
    """The mask of 2 of 4, bool (O, I): True at the 2 largest magnitudes of every 4 neighbours.

    weight: (O, I), float, finite; 4 divides I. Neighbours are columns 0 to 3 of a row, then 4 to 7,
    and so on. Of equal magnitudes the left ones stay; 0 and −0.0 are equal.
    """
    fours = weight.abs().unflatten(1, (-1, 4))  # (O, I) -> (O, I/4, 4)
    one, other = fours[..., :, None], fours[..., None, :]
    left = torch.ones(4, 4, dtype=torch.bool, device=weight.device).tril(-1)
    before = (other > one) | ((other == one) & left)  # (O, I/4, 4, 4)
    return (before.sum(-1) < 2).flatten(1)  # (O, I/4, 4) -> (O, I)


def _weights(seed: int) -> list[Case]:
    draw = Draw(seed)
    first = torch.tensor([[3.0, 1.0, -2.0, 4.0, -1.0, 0.5, 0.25, -5.0]])
    zeros = torch.tensor([[0.0, -0.0, 0.0, 0.0, 0.0, 0.0, -2.0, -0.0, -0.0, 1.0, 0.0, 3.0]])
    scales = torch.tensor([[1e-9], [1.0], [1e9], [-1.0], [0.0]])
    order = torch.stack([draw.order(4) for _ in range(24)]).view(8, 12)
    close = torch.tensor(1001.7) + 2.0**-14 * order  # in float32, neighbours are 2⁻¹⁴ apart
    close[:, 3::4] = 1900.0
    half = torch.stack([draw.order(24) - 12 for _ in range(3)]).half() * 2.0**-24
    labelled = {
        "one row": first,
        "a matrix": draw.normal(6, 12),
        "many rows": draw.normal(draw.number(9, 20), 32),
        "four columns": draw.normal(5, 4),
        "all negative": -draw.uniform(3, 8) - 0.1,
        "ties": draw.integers(-2, 3, 7, 40).float(),
        "all equal but for the sign": draw.normal(3, 16).sign(),
        "zeros and −0.0": torch.cat([zeros, draw.normal(2, 12)]),
        "rows of very different scales": scales * draw.normal(5, 8),
        "neighbours of very different scales": draw.normal(4, 16)
        * 10.0 ** draw.integers(-9, 9, 16),
        "very large, too large to be squared": 1e30 * draw.normal(3, 16),
        "they differ in the last bit": close,
        "float64, they differ in the last bit": 1001.7 + 2.0**-43 * order.double(),
        "float64, too small to be squared": 1e-200 * draw.normal(3, 8).double(),
        "float16, the smallest that it knows": half,
        "float16, too large to be squared": 1000 * draw.normal(4, 8).clamp(-50, 50).half(),
    }
    return [Case(label, {"weight": weight}) for label, weight in labelled.items()]


def _left_ones_stay(inputs, value: Tensor) -> bool:
    """No weight of a four stays while an equal one on its left goes."""
    fours, stays = inputs["weight"].abs().unflatten(1, (-1, 4)), value.unflatten(1, (-1, 4))
    left = torch.ones(4, 4, dtype=torch.bool).tril(-1)
    equal = (fours[..., :, None] == fours[..., None, :]) & left  # (O, I/4, right one, left one)
    return not (equal & stays[..., :, None] & ~stays[..., None, :]).any()


def _largest_two(fours: Tensor, dim: int = -1) -> Tensor:
    best = fours.argsort(dim=dim, descending=True, stable=True).narrow(dim, 0, 2)
    return torch.zeros_like(fours, dtype=torch.bool).scatter(dim, best, True)


def _at_least_the_second(weight):
    fours = weight.abs().unflatten(1, (-1, 4))
    return (fours >= fours.sort(dim=-1).values[..., 2:3]).flatten(1)


def _half_of_the_row(weight):
    best = weight.abs().argsort(dim=1, descending=True, stable=True)[:, : weight.shape[1] // 2]
    return torch.zeros_like(weight, dtype=torch.bool).scatter(1, best, True)


def _columns(weight):
    spare = torch.zeros(-len(weight) % 4, weight.shape[1], dtype=weight.dtype)
    fours = torch.cat([weight.abs(), spare]).unflatten(0, (-1, 4))  # (O, I) -> (O/4, 4, I)
    return _largest_two(fours, dim=1).flatten(0, 1)[: len(weight)]


TWO_OF_FOUR = Exercise(
    reference=two_of_four,
    cases=_weights,
    hints=(
        "Cut each row into fours: weight.abs().unflatten(1, (-1, 4)) is (O, I/4, 4). Which axis do "
        "you look along now?",
        "A threshold keeps three where two are equal. Count instead: sort each four, largest "
        "first, and take two places.",
        "argsort(dim=-1, descending=True, stable=True)[..., :2] leaves equal ones in their order. "
        "Write True at these places into zeros (scatter), and flatten back to (O, I).",
    ),
    properties=(
        Property(
            "of every 4 neighbours in a row, 2 are True",
            lambda inputs, value: bool((value.unflatten(1, (-1, 4)).sum(-1) == 2).all()),
        ),
        Property("of equal magnitudes in a four, the left ones stay", _left_ones_stay),
    ),
    misconceptions=(
        Misconception(
            "largest with their sign",
            lambda weight: _largest_two(weight.unflatten(1, (-1, 4))).flatten(1),
            "the two largest numbers stayed, so −5 went before 0.25. What counts is the magnitude.",
        ),
        Misconception(
            "as large as the second largest",
            _at_least_the_second,
            "all stayed that are as large as the second largest. Where magnitudes are equal, that "
            "is three or four of 4, and the matrix unit has room for two.",
        ),
        Misconception(
            "half of each row",
            _half_of_the_row,
            "each row kept its larger half, wherever it stands: as many zeros, but not two in "
            "every four. The pattern is what the hardware can skip.",
        ),
        Misconception(
            "four apart",
            lambda weight: _largest_two(weight.abs().unflatten(1, (4, -1)), dim=1).flatten(1),
            "your fours are columns j, j + I/4, j + I/2 and j + 3I/4. Neighbours stand side by "
            "side: unflatten(1, (-1, 4)), with the 4 last.",
        ),
        Misconception(
            "columns",
            _columns,
            "your fours go down a column. A row of W is what one output multiplies with its "
            "inputs: two of four *inputs* of one output stay.",
        ),
        Misconception(
            "what goes",
            lambda weight: ~two_of_four(weight),
            "your mask is True at what goes. Here, as in the whole course, True is what stays.",
        ),
    ),
)

# --------------------------------------------------------------------- two_of_four_bytes


def two_of_four_bytes(rows: int, columns: int, bits: int, group: int) -> tuple[int, int]:
    """Bytes of a (rows, columns) weight with 2 of 4 in a file, and of the same one kept dense.

    4 divides columns. Values are codes of `bits` bits; with 2 of 4, two of every 4 neighbours are
    stored, and for each a place of 2 bits. In both files every row has a float16 scale for each
    `group` columns, the last of which may be fewer. Codes, places and scales stand apart: each of
    these is filled up to a whole byte once, at its end.
    """
    weights, scales = rows * columns, 2 * rows * math.ceil(columns / group)
    codes, places = math.ceil(weights * bits / 16), math.ceil(weights / 8)  # of half the weights
    return codes + places + scales, math.ceil(weights * bits / 8) + scales


def _shapes(seed: int) -> list[Case]:
    draw = Draw(seed)
    labelled = {
        "4 bits, groups of 64": (4096, 4096, 4, 64),
        "TinyLM's down": (192, 512, draw.number(2, 9), 64),
        "four weights": (1, 4, 3, 4),
        "12 weights of 3 bits": (3, 4, 3, 4),
        "odd rows, 5 bits": (2 * draw.number(3, 30) + 1, 4 * (2 * draw.number(3, 30) + 1), 5, 16),
        "odd rows, 7 bits": (2 * draw.number(3, 30) + 1, 4 * (2 * draw.number(3, 30) + 1), 7, 8),
        "a last group that is smaller": (draw.number(3, 40), 4 * draw.number(17, 31), 4, 32),
        "a group wider than the row": (draw.number(3, 40), 8, 4, 128),
        "a scale for each weight": (draw.number(3, 40), 12, 4, 1),
        "groups of an odd width": (draw.number(3, 40), 4 * draw.number(5, 31), 3, 7),
        "1 bit": (draw.number(3, 40), 4 * draw.number(5, 31), 1, 32),
        "more than 8 bits": (draw.number(3, 40), 4 * draw.number(5, 31), draw.number(9, 16), 32),
        "16 bits": (draw.number(3, 40), 4 * draw.number(5, 31), 16, 64),
        "billions of weights": (10**6 + draw.number(0, 99), 4 * draw.number(2000, 3000), 3, 48),
    }
    return labelled_cases(("rows", "columns", "bits", "group"), labelled)


def _counted(values: float = 0.5, place: float = 2.0, grouped: float = 1.0, scale: bool = True):
    """Another share of values stored, other places, or other groups with 2 of 4."""

    def count(rows, columns, bits, group):
        weights, scales = rows * columns, 2 * rows * math.ceil(columns / group)
        own = 2 * rows * math.ceil(columns * grouped / group) if scale else 0
        stored = int(weights * values)
        sparse = math.ceil(stored * bits / 8) + math.ceil(stored * place / 8) + own
        return sparse, math.ceil(weights * bits / 8) + scales * scale

    return count


def _ends_cut(rows, columns, bits, group):
    weights, scales = rows * columns, 2 * rows * math.ceil(columns / group)
    return weights // 2 * bits // 8 + weights // 8 + scales, weights * bits // 8 + scales


TWO_OF_FOUR_BYTES = Exercise(
    reference=two_of_four_bytes,
    cases=_shapes,
    hints=(
        "Count bits first. Of the O · I weights, how many values are stored, and how many places?",
        "Half as many values as weights, at `bits` bits each, and 2 bits of place for each of "
        "these: one bit a weight. The scales do not become fewer.",
        "math.ceil(number · bits / 8) bytes for the codes, the same for the places with 2 bits, "
        "and 2 bytes · rows · math.ceil(columns / group) for the scales.",
    ),
    properties=(
        Property(
            "two whole numbers",
            lambda inputs, value: [type(number) for number in value] == [int, int],
        ),
    ),
    misconceptions=(
        Misconception(
            "half of the dense file",
            _counted(place=0.0),
            "you stored the values alone. Nobody can tell then where they stand: each needs a "
            "place of 2 bits. That is why 2 of 4 at 4 bits is far from half of the dense file.",
        ),
        Misconception(
            "zeros are stored",
            _counted(values=1.0),
            "all values are in your file, zeros too, and a place for each: it is larger than the "
            "dense one. Only two of every 4 are stored.",
        ),
        Misconception(
            "one bit for each value",
            _counted(place=1.0),
            "one bit cannot say which of four places it is. A place takes 2 bits, and there is one "
            "for each value that is stored: one bit a *weight*.",
        ),
        Misconception(
            "half as many scales",
            _counted(grouped=0.5),
            "with 2 of 4 you gave `group` stored values one scale. Here `group` counts columns of "
            "the weight, zeros too: both files have the same scales.",
        ),
        Misconception(
            "no scales",
            _counted(scale=False),
            "the scales are missing. Codes without them are no weights: 2 bytes for each group of "
            "each row, in both files.",
        ),
        Misconception(
            "ends cut off",
            _ends_cut,
            "you rounded down: the last bits of a file that does not end with a whole byte are "
            "lost. Fill up the last byte: math.ceil, or −(−n // 8).",
        ),
    ),
)
