"""Exercises of 06_codebooks: the level nearest to a weight, and levels that move to their weights.

Axes: N weights, k levels.
"""

import torch
from torch import Tensor

from course_lib.exercises.engine.seeded import Draw
from course_lib.exercises.engine.spec import Case, Exercise, Misconception, Property, labelled_cases


def ascending(draw: Draw, k: int) -> Tensor:
    """k levels around zero, (k,), with gaps from 0.2 to 1.2."""
    levels = (0.2 + draw.uniform(k)).cumsum(0)
    return levels - levels.mean()


def _whole(draw: Draw, k: int) -> Tensor:
    """k whole numbers, each 1 to 6 above the one before: between them are exact midpoints."""
    return draw.integers(1, 7, k).cumsum(0) - 2.0 * k


def _midway(draw: Draw, levels: Tensor) -> Tensor:
    """The levels, the midpoints between them and one weight beyond each end, in random order."""
    middles = levels[:-1] / 2 + levels[1:] / 2
    weights = torch.cat([levels, middles, middles, levels[:1] - 3, levels[-1:] + 3])
    return weights[draw.order(len(weights))]


def _beside(draw: Draw, levels: Tensor) -> Tensor:
    """In float64, beside each midpoint, on either side, by 1e-9: float32 is too coarse for them."""
    middles = (levels[:-1] + levels[1:]) / 2
    weights = torch.cat([middles - 1e-9, middles + 1e-9])
    return weights[draw.order(len(weights))]


def _rounded_midpoints(draw: Draw) -> tuple[Tensor, Tensor]:
    """Weights at the midpoints as float32 rounds them, and 64 levels: half of these midpoints
    need one more bit, and so the weight lies a little above the true one, or below."""
    levels = ascending(draw, 64)
    middles = ((levels[:-1].double() + levels[1:].double()) / 2).float()
    return middles[draw.order(63)], levels


# ------------------------------------------------------------------------- nearest_level


def nearest_level(weights: Tensor, levels: Tensor) -> Tensor:
    """The code of the level nearest to each weight: q = argmin over j of |w − c_j|, uint8.

    weights: float, any shape, also none, finite. levels: (k,), the c_j, of the same dtype, each
    above the one before, k from 1 to 256. Codes have the weights' shape and count from 0. A weight
    just midway between two levels gets the lower one. Reckon in float64: |w − c_j| may be beyond
    float16, and (c_j + c_{j+1}) / 2 between two float32.
    """
    wide = levels.double()
    midpoints = (wide[:-1] + wide[1:]) / 2  # (k − 1,), where one cell ends and the next begins
    return torch.bucketize(weights, midpoints).to(torch.uint8)  # compares in float64


def _weights_and_levels(seed: int) -> list[Case]:
    draw = Draw(seed)
    few = torch.tensor([-9.0, 0.4, 0.6, 1.2, 2.4, 2.6, 9.0])[draw.order(7)]
    uneven, whole, many = ascending(draw, 9), _whole(draw, 12), ascending(draw, 256)
    double, far = ascending(draw, 20).double(), torch.tensor([-3.2, -1.1, 0.3, 1.4, 3.3])
    half = torch.tensor([-60000.0, -20000.0, -8000.0]).half()
    halves = torch.tensor([-40000.0, -39000.0, -41000.0, -14000.0, 60000.0, 62000.0, 65504.0])
    zeros = torch.tensor([0.0, -0.0, 0.3, -0.3, 0.5, -0.5, -0.51])
    labelled = {
        "even levels": (few, torch.arange(4.0)),
        "uneven levels": (3 * draw.normal(60), uneven),
        "a matrix": (2 * draw.normal(6, 7), ascending(draw, 4)),
        "three axes": (2 * draw.normal(2, 3, 4), ascending(draw, draw.number(3, 9))),
        "midway between two levels": (_midway(draw, whole), whole),
        "one level": (draw.normal(5), draw.normal(1)),
        "two levels": (draw.normal(9), torch.tensor([-0.2, 0.9])),
        "one weight": (draw.normal(1), ascending(draw, 6)),
        "one weight, shape ()": (draw.normal(1)[0], ascending(draw, 6)),
        "as many weights as levels": (draw.normal(8), ascending(draw, 8)),
        "256 levels": (80 * draw.normal(800), many),
        "all above the levels": (20 + draw.uniform(6), ascending(draw, 5)),
        "a level of −0.0": (zeros[draw.order(7)], torch.tensor([-1.0, -0.0, 1.0])),
        "very small": (1e-30 * draw.normal(30), 1e-30 * ascending(draw, 8)),
        "too large to be squared": (1e30 * draw.normal(30), 1e30 * ascending(draw, 8)),
        "too large to be added": (1e38 * (6 * draw.uniform(30) - 3), 1e38 * far),
        "float32, at midpoints that it rounds": _rounded_midpoints(draw),
        "float64, next to the midpoints": (_beside(draw, double), double),
        "float64, far from zero": (1e8 + 3 * draw.normal(30).double(), 1e8 + double),
        "float64, too small to be squared": (1e-200 * draw.normal(30).double(), 1e-200 * double),
        "float16, far from the levels": (halves.half()[draw.order(7)], half),
        "no weights": (draw.normal(0, 3), ascending(draw, 4)),
    }
    return labelled_cases(("weights", "levels"), labelled)


def _even_grid(weights, levels):
    low, span = levels[0].double(), (levels[-1].double() - levels[0]).clamp(min=1e-300)
    place = (weights.double() - low) / span * (len(levels) - 1)
    return place.round().clamp(0, len(levels) - 1).to(torch.uint8)


NEAREST_LEVEL = Exercise(
    reference=nearest_level,
    cases=_weights_and_levels,
    hints=(
        "Between two neighbouring levels, where does the nearer one change? Only these places "
        "matter.",
        "There are k − 1 midpoints. The code of a weight is the number of midpoints below it.",
        "torch.bucketize(weights, midpoints) counts the midpoints that are less than each weight. "
        "Convert both to float64 first, and the counts to uint8.",
    ),
    properties=(
        Property(
            "codes are from 0 to k − 1",
            lambda inputs, codes: bool((codes.long() < len(inputs["levels"])).all()),
        ),
    ),
    misconceptions=(
        Misconception(
            "levels below",
            lambda w, c: torch.bucketize(w.double(), c.double()).to(torch.uint8),
            "you counted the levels below each weight. A weight a little above a level is still "
            "nearest to that level. The code changes at the midpoints between levels.",
        ),
        Misconception(
            "an even grid",
            _even_grid,
            "you scaled and rounded, as for an even grid from the first level to the last. These "
            "levels need not be even: one formula for all gaps cannot find the nearest.",
        ),
        Misconception(
            "the upper level midway",
            lambda w, c: torch.bucketize(
                w.double(), (c.double()[:-1] + c.double()[1:]) / 2, right=True
            ).to(torch.uint8),
            "only the weights that lie just midway are wrong: they get the lower level.",
        ),
        Misconception(
            "squares in the weights' dtype",
            lambda w, c: (w[..., None] - c).square().argmin(-1).to(torch.uint8),
            "the squares of your differences are too large for the weights' dtype, or too small. "
            "Where all are infinite, or all are zero, the first level wins. Reckon in float64.",
        ),
        Misconception(
            "levels instead of codes",
            lambda w, c: c[nearest_level(w, c).long()],
            "these are the nearest levels themselves. Asked are their codes, counted from 0: they "
            "are what a file stores.",
        ),
        Misconception(
            "codes in int64",
            lambda w, c: nearest_level(w, c).long(),
            "the codes are right, but in int64: eight bytes for what fits into one. Convert to "
            "torch.uint8.",
        ),
    ),
)

# ---------------------------------------------------------------------------- lloyd_step


def lloyd_step(weights: Tensor, levels: Tensor) -> Tensor:
    """The levels after one step of Lloyd's method: the mean of the weights nearest to each.

    weights: (N,), float, finite; N may be 0. levels: (k,), of the same dtype, each above the one
    before. A weight just midway between two levels belongs to the lower one. A level that no weight
    is nearest to stays where it is. Reckon in float64; the result, (k,), has the levels' dtype.
    """
    old, wide = levels.double(), weights.double()
    codes = torch.bucketize(wide, (old[:-1] + old[1:]) / 2)  # (N,), the cell of each weight
    cells = [wide[codes == j] for j in range(len(old))]
    moved = [cell.mean() if len(cell) else old[j] for j, cell in enumerate(cells)]
    return torch.stack(moved).to(levels.dtype)


def _steps(seed: int) -> list[Case]:
    draw = Draw(seed)
    four = torch.tensor([0.0, 1.0, 5.0, 6.0]) + draw.number(1, 9)
    whole, double = _whole(draw, 6), ascending(draw, 12).double()
    spread, inner = 3 * draw.normal(40), torch.tensor([-1.0, 4.6, 5.0, 5.3, 11.0])
    apart = torch.cat([draw.uniform(9), 10 + draw.uniform(9)])[draw.order(18)]
    several = draw.uniform(4)[draw.integers(0, 4, 20)]
    large = 1000 + draw.uniform(20)
    small = 0.001 + 0.01 * draw.uniform(20) - large  # what is left of both is far finer
    labelled = {
        "four weights": (four, four[:2]),
        "two groups, three levels": (four, four[[0, 1, 3]]),
        "many weights": (2 * draw.normal(200), ascending(draw, draw.number(5, 9))),
        "as many levels as weights": (draw.normal(9), ascending(draw, 9)),
        "an empty cell between": (apart, inner),
        "empty cells at both ends": (draw.uniform(9), torch.tensor([-7.0, 0.2, 0.7, 9.0])),
        "all cells but one empty": (0.1 * draw.uniform(9), torch.arange(1.0, 6.0)),
        "midway between two levels": (_midway(draw, whole), whole),
        "one level": (1 + draw.uniform(7), draw.normal(1)),
        "one weight": (1 + draw.uniform(1), torch.tensor([-2.0, 0.5, 3.0])),
        "weights of few values": (several, torch.tensor([0.1, 0.4, 0.6, 0.9])),
        "nothing moves": (torch.tensor([3.0, 5.0, 8.0, 9.0, 10.0]), torch.tensor([4.0, 9.0])),
        "far from zero": (100 + draw.normal(50), 100 + ascending(draw, 5)),
        "very small": (1e-30 * spread, 1e-30 * ascending(draw, 7)),
        "too large to be squared": (1e30 * spread, 1e30 * ascending(draw, 7)),
        "too large to be added": (1e38 * (2 + draw.uniform(20)), torch.tensor([1e38, 3e38])),
        "float32, at midpoints that it rounds": _rounded_midpoints(draw),
        "one level, and a sum that almost vanishes": (torch.cat([large, small]), draw.normal(1)),
        "no weights": (draw.normal(0), ascending(draw, 4)),
        "float64, smaller than float32 knows": (1e-60 * spread.double(), 1e-60 * double),
        "float64, next to the midpoints": (_beside(draw, double), double),
        "float16, a sum that is too large": (
            (40 + 5 * draw.normal(3000)).half(),
            torch.tensor([31.0, 40.0, 47.0, 90.0]).half(),
        ),
    }
    return labelled_cases(("weights", "levels"), labelled)


def _moved(weights, levels, empty=None, right=False):
    """One step; what an empty cell's level becomes, and who gets a weight midway."""
    old = levels.double()
    codes = torch.bucketize(weights.double(), (old[:-1] + old[1:]) / 2, right=right)
    cells = [weights.double()[codes == j] for j in range(len(old))]
    kept = [old[j] if empty is None else old.new_tensor(empty) for j in range(len(old))]
    moved = [cell.mean() if len(cell) else kept[j] for j, cell in enumerate(cells)]
    return torch.stack(moved).to(levels.dtype)


def _medians(weights, levels):
    codes = nearest_level(weights, levels)
    cells = [weights[codes == j] for j in range(len(levels))]
    moved = [cell.median() if len(cell) else levels[j] for j, cell in enumerate(cells)]
    return torch.stack(moved)


def _to_the_end(weights, levels):
    for _ in range(100):
        levels, before = lloyd_step(weights, levels), levels
        if levels.equal(before):
            break
    return levels


def _to_ten_digits(inputs, levels):
    wanted = lloyd_step(**inputs)
    return levels.dtype != torch.float64 or torch.allclose(levels, wanted, 1e-10, 0.0)


LLOYD_STEP = Exercise(
    reference=lloyd_step,
    cases=_steps,
    absolute_tolerance=0.0,
    hints=(
        "Two halves. First each weight chooses its nearest level: that is the exercise before. "
        "Then each level asks for the mean of those that chose it.",
        "weights[codes == j].mean() is the new level j. Of an empty cell it is NaN: that level "
        "stays as it was.",
        "Without a loop: counts = torch.bincount(codes, minlength=k), the sums by index_add, and "
        "torch.where(counts > 0, sums / counts, levels). All in float64, the dtype at the end.",
    ),
    properties=(
        Property(
            "the levels ascend",
            lambda inputs, levels: bool((levels.diff() >= 0).all()),
        ),
        Property(
            "means of float64 weights are right to ten digits: nothing is added to a count",
            _to_ten_digits,
        ),
    ),
    misconceptions=(
        Misconception(
            "an empty cell's mean",
            lambda w, c: _moved(w, c, empty=torch.nan),
            "a level that no weight is nearest to became NaN: 0 / 0. It stays where it is.",
        ),
        Misconception(
            "an empty cell goes to zero",
            lambda w, c: _moved(w, c, empty=0.0),
            "a level that no weight is nearest to went to 0. Nothing pulls it there: it stays.",
        ),
        Misconception(
            "empty cells dropped",
            lambda w, c: lloyd_step(w, c)[nearest_level(w, c).long().unique()],
            "levels without weights are missing from your answer. k levels go in, and k come out.",
        ),
        Misconception(
            "medians",
            _medians,
            "you took the median of each cell. It makes Σ |w − c| least. For the squared error "
            "it is the mean.",
        ),
        Misconception(
            "steps to the end",
            _to_the_end,
            "you went on until nothing moved. Asked is one step.",
        ),
        Misconception(
            "midway to the upper level",
            lambda w, c: _moved(w, c, right=True),
            "only weights that lie just midway are in the wrong cell: they belong to the lower "
            "level.",
        ),
    ),
)
