"""Exercises of 03_pruning: sparsity that is drawn, counted and chosen anew for each input.

Axes: B rows of a batch, U units, F features.
"""

import torch
from torch import Tensor

from course_lib.exercises.engine.seeded import Draw
from course_lib.exercises.engine.spec import Case, Exercise, Misconception, Property, labelled_cases

# ------------------------------------------------------------------------------ sparsify


def sparsify(weight: Tensor, uniform: Tensor, keep: float) -> Tensor:
    """A random sparse tensor whose mean over many draws is `weight`; of weight's shape and dtype.

    An entry stays where uniform < keep, so with probability `keep` (above 0, at most 1); the others
    are 0. uniform: numbers from 0 to below 1, drawn for you, in the weight's shape. The value is
    there to be differentiated by weight.
    """
    return torch.where(uniform < keep, weight / keep, 0.0)


def _draws(seed: int) -> list[Case]:
    draw = Draw(seed)
    three, chance = torch.tensor([2.0, -1.0, 0.5]), draw.number(2, 8) / 10
    ties = torch.tensor([0.25, 0.0, 0.5, 0.75, 0.125])
    near = torch.cat(
        [torch.tensor([-1e-12, 1e-12, 0.0]).double() + chance, draw.uniform(17).double()]
    )
    labelled = {
        "three numbers": (three, torch.tensor([0.25, 0.75, 0.125]), 0.5),
        "on the border": (draw.normal(5), ties, 0.25),
        "a matrix": (draw.normal(6, 9), draw.uniform(6, 9), chance),
        "all stay": (draw.normal(8), draw.uniform(8), 1.0),
        "none stays": (draw.normal(4), chance + (1 - chance) * draw.uniform(4), chance),
        "hardly any stay": (draw.normal(40, 50), draw.uniform(40, 50), 0.001 * draw.number(5, 20)),
        "zeros": (torch.tensor([0.0, -0.0, 1.5]), draw.uniform(3), 0.875),
        "one number": (draw.normal(1), torch.tensor([0.1]), chance),
        "very small numbers": (1e-9 * draw.normal(30), draw.uniform(30), chance),
        "very large numbers": (1e9 * draw.normal(30), draw.uniform(30), chance),
        "float64, draws next to the border": (1e-60 * draw.normal(20).double(), near, chance),
    }
    return labelled_cases(("weight", "uniform", "keep"), labelled)


SPARSIFY = Exercise(
    reference=sparsify,
    cases=_draws,
    differentiable=("weight",),
    absolute_tolerance=0.0,
    hints=(
        "Let w stay with probability π, else be 0. What is the mean over many draws?",
        "π · w. So what must stand where it stays, to make the mean w?",
        "w / π where uniform < π, else 0: torch.where.",
    ),
    misconceptions=(
        Misconception(
            "not divided",
            lambda w, u, keep: w * (u < keep),
            "the entries that stay were left as they are. Then the mean is π w: every draw makes "
            "the layer weaker. Divide by π.",
        ),
        Misconception(
            "times 1 − π",
            lambda w, u, keep: w * (u < keep) * (1 - keep),
            "you multiplied by 1 − π. The mean is then π(1 − π)w. Divide by π, the chance to stay.",
        ),
        Misconception(
            "keep taken for drop",
            lambda w, u, keep: torch.where(u >= keep, w / (1 - keep), 0.0),
            "`keep` was taken for the chance to go. nn.Dropout's p is the chance to go; π here is "
            "the chance to stay.",
        ),
        Misconception(
            "all stay",
            lambda w, u, keep: w / keep,
            "every entry was divided by π and none went: that is w, made larger.",
        ),
        Misconception(
            "value as probability",
            lambda w, u, keep: torch.where(u < w.abs(), w / keep, 0.0),
            "you used |w| as the chance to stay. 2 is no probability. The value and its chance are "
            "two things: that is where S2's formula goes wrong.",
        ),
        Misconception(
            "sign of the draw",
            lambda w, u, keep: torch.where(u > keep, w / keep, 0.0),
            "the entries with uniform above π stayed, so 1 − π of them. uniform < π has "
            "probability π.",
        ),
    ),
)

# ------------------------------------------------------------------------- average_zeros


def average_zeros(batches: list[Tensor]) -> Tensor:
    """APoZ of each unit: of its activations in all rows of all batches, the share that is zero.

    batches: each (B, U), of one floating dtype; B differs, and may be 0. Only 0 (and −0.0) counts:
    what is tiny or negative does not (after ReLU, nothing is negative). Returns (U,) in float32.
    """
    zeros = torch.stack([(batch == 0).sum(0) for batch in batches]).sum(0)
    return zeros.div(sum(map(len, batches)))


def _batches(seed: int) -> list[Case]:
    draw = Draw(seed)

    def batch(rows: int, units: int, shift: float = 0.0) -> Tensor:
        return (draw.normal(rows, units) + shift).relu()

    signed = torch.tensor([[0.0, -0.0, 1.0], [-0.0, 2.0, -3.0], [-1.0, 0.0, -2.0]])
    dead = batch(6, 4) * torch.tensor([1.0, 0.0, 1.0, 1.0]) + torch.tensor([0.0, 0.0, 0.5, 0.0])
    tiny = 1e-30 * batch(9, 3)
    subnormal = 1e-5 * (1 + draw.uniform(9, 3)).half()  # less than float16's least normal number
    labelled = {
        "two batches": ([torch.tensor([[0.0, 1.0], [0.0, 2.0], [3.0, 0.0]]), torch.ones(1, 2)],),
        "one batch": ([batch(draw.number(5, 9), 4)],),
        "a small last batch": ([batch(16, 3, 1.0), batch(16, 3, 1.0), batch(2, 3, -2.0)],),
        "batches of one row": ([batch(1, 3) for _ in range(draw.number(3, 8))],),
        "an empty batch": ([batch(5, 3), torch.zeros(0, 3), batch(2, 3)],),
        "−0.0, and negative numbers": ([signed[:2], signed[2:]],),
        "dead, and never zero": ([dead, dead[:2]],),
        "one unit": ([batch(7, 1), batch(4, 1)],),
        "very small activations": ([tiny, 1e-7 * batch(3, 3)],),
        "very large activations": ([1e9 * batch(8, 3), 1e9 * batch(3, 3)],),
        "many rows": ([batch(3000, 5, 0.3), batch(500, 5, -0.5)],),
        "float16, and the smallest that it knows": (
            [batch(4000, 3).half(), batch(300, 3, 1.0).half(), subnormal],
        ),
        "float64, smaller than float32 knows": ([1e-60 * batch(9, 3).double(), tiny.double()],),
    }
    return labelled_cases(("batches",), labelled)


AVERAGE_ZEROS = Exercise(
    reference=average_zeros,
    cases=_batches,
    relative_tolerance=1e-4,  # one zero in 4309 is more
    hints=(
        "(batch == 0) is True where an activation is zero. Count along which axis?",
        "Batches of different sizes do not weigh the same: add up counts, not shares.",
        "Zeros of each unit: (batch == 0).sum(0), added over the batches; then divide by the "
        "number of all rows, sum(map(len, batches)).",
    ),
    properties=(
        Property(
            "every share is from 0 to 1",
            lambda inputs, value: bool(((value >= 0) & (value <= 1)).all()),
        ),
    ),
    misconceptions=(
        Misconception(
            "mean of the batches' means",
            lambda batches: torch.stack([(b == 0).float().mean(0) for b in batches]).mean(0),
            "you took each batch's share, and the mean of these. A last batch of two rows then "
            "weighs as much as one of 16 (and an empty batch has no share at all).",
        ),
        Misconception(
            "negative counts",
            lambda batches: (torch.cat(batches) <= 0).float().mean(0),
            "you counted what is at most zero. After ReLU that is the same, but a unit that says "
            "−3 is not silent.",
        ),
        Misconception(
            "share that fires",
            lambda batches: (torch.cat(batches) != 0).float().mean(0),
            "that is the share of activations that are not zero. APoZ counts the zeros: a high one "
            "makes a unit a candidate to go.",
        ),
        Misconception(
            "all units together",
            lambda batches: (torch.cat(batches) == 0).float().mean(),
            "one number came back for all units. Each unit needs its own: count along the rows.",
        ),
        Misconception(
            "a count",
            lambda batches: (torch.cat(batches) == 0).sum(0),
            "you returned how many zeros there are. Divide by the number of rows, so that more "
            "data does not mean more zeros.",
        ),
        Misconception(
            "nearly zero counts",
            lambda batches: (torch.cat(batches).abs() < 1e-6).float().mean(0),
            "tiny activations were counted as zeros. How small is tiny depends on the layer's "
            "scale; zero does not.",
        ),
    ),
)

# --------------------------------------------------------------------------- top_k_codes


def top_k_codes(x: Tensor, k: int) -> Tensor:
    """A sparse code of each row of x (B, F): the k largest numbers of ReLU(x), zeros elsewhere.

    1 ≤ k ≤ F. A row with fewer than k positive numbers has fewer that are not zero; no two positive
    ones of a row are equal. Of x's shape and dtype; there to be differentiated by x.
    """
    values, places = x.relu().topk(k)
    return torch.zeros_like(x).scatter(1, places, values)


def _codes(seed: int) -> list[Case]:
    draw = Draw(seed)
    first = torch.tensor([[0.5, -3.0, 2.0, 1.0], [-1.0, 0.25, -0.5, -2.0]])
    zeros = torch.cat([1 + draw.uniform(3, 4), torch.tensor([[0.0, -0.0, -4.0]] * 3)], dim=1)
    close = torch.stack([1 + 1e-12 * draw.order(9).double() for _ in range(3)])
    scales = torch.tensor([[1e-9], [1.0], [1e9]])
    k, many = draw.number(2, 6), draw.normal(12, 40)
    labelled = {
        "two rows": (first, 2),
        "the largest alone": (draw.normal(4, 6), 1),
        "many rows": (many, k),
        "rows of very different scales": (scales * draw.normal(3, 8), 3),
        "a row without positive numbers": (
            torch.cat([-draw.uniform(1, 5) - 0.1, draw.normal(2, 5)]),
            2,
        ),
        "all may stay": (torch.cat([1 + draw.uniform(2, 5), draw.normal(1, 5)]), 5),
        "zeros": (zeros, draw.number(1, 4)),
        "one row": (draw.normal(1, 7), k),
        "one feature": (draw.normal(5, 1), 1),
        "float64, nearly equal": (close, 4),
        "float64, smaller than float32 knows": (1e-60 * draw.normal(3, 6).double(), 2),
        "float16": (torch.stack([draw.order(20) - 7 for _ in range(4)]).half() + 0.5, k),
    }
    return labelled_cases(("x", "k"), labelled)


def _kept(x, places):
    return torch.zeros_like(x).scatter(-1, places, x.gather(-1, places))


def _of_the_matrix(x, k):
    places = x.relu().flatten().topk(k).indices
    return _kept(x.relu().flatten(), places).view_as(x)  # (B·F,) -> (B, F)


def _of_columns(x, k):
    return top_k_codes(x.T.contiguous(), min(k, len(x))).T


TOP_K_CODES = Exercise(
    reference=top_k_codes,
    cases=_codes,
    differentiable=("x",),
    absolute_tolerance=0.0,
    hints=(
        "First ReLU, then choose. What does .topk(k) of a matrix look for: rows, or all of it?",
        "topk gives values and places, row by row. Write the values at their places into zeros.",
        "torch.zeros_like(x).scatter(1, places, values) does that, and gradients flow back through "
        "values.",
    ),
    properties=(
        Property(
            "no row has more than k numbers that are not zero, and none is negative",
            lambda inputs, value: bool(
                ((value != 0).sum(1) <= inputs["k"]).all() and (value >= 0).all()
            ),
        ),
    ),
    misconceptions=(
        Misconception(
            "k of the matrix",
            _of_the_matrix,
            "the k largest of the whole matrix stayed. Most rows got no code at all: each input "
            "chooses for itself.",
        ),
        Misconception(
            "negative ones stay",
            lambda x, k: _kept(x, x.topk(k).indices),
            "ReLU is missing: where a row has fewer than k positive numbers, negative ones stayed.",
        ),
        Misconception(
            "largest magnitudes",
            lambda x, k: _kept(x.relu(), x.abs().topk(k).indices),
            "you chose by magnitude and then took ReLU. A large negative number used up one of the "
            "k places and became zero.",
        ),
        Misconception(
            "columns",
            _of_columns,
            "the k largest of each column stayed. A column is one feature over the batch; a code "
            "belongs to a row.",
        ),
        Misconception(
            "k removed",
            lambda x, k: x.relu() - top_k_codes(x, k),
            "the k largest are zero, and the rest stayed. It is the other way round.",
        ),
        Misconception(
            "cut off",
            lambda x, k: top_k_codes(x.detach(), k),
            "the values are right, but they were copied out of x, so no gradient flows back and "
            "the encoder in front of it cannot learn.",
        ),
    ),
)
