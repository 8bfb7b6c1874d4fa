"""Exercise of 06_codebooks: the best levels that there are, by dynamic programming.

Axes: N weights, k levels.
"""

import itertools
import math

import torch
from torch import Tensor

from course_lib.exercises.codebooks.levels import lloyd_step
from course_lib.exercises.engine.seeded import Draw
from course_lib.exercises.engine.spec import Case, Exercise, Misconception, Property, labelled_cases

# --------------------------------------------------------------------------- best_levels


def best_levels(weights: Tensor, k: int) -> Tensor:
    """The k levels with the least Σ (w − ŵ)², ŵ the level nearest to w; exact, ascending, (k,).

    weights: (N,), float, in any order, N from 1 to 12; k is at most the number of different ones.
    Each cell is a run of the sorted weights, its level the run's mean. Least error of the first b
    weights in m cells: F_m(b) = min over a < b of F_{m−1}(a) + error of the weights a … b − 1
    about their mean. Reckon in float64; the result has the weights' dtype.
    """
    ordered = weights.double().sort().values
    best = [(0.0, ())] + [(math.inf, ())] * len(ordered)  # (F_0(b), the levels) for b = 0 … N
    for _ in range(k):
        before, best = best, [(math.inf, ())]
        for b in range(1, len(before)):
            runs = [ordered[a:b] for a in range(b)]  # what the last cell may be
            ways = [
                (before[a][0] + (run - run.mean()).square().sum(), (*before[a][1], run.mean()))
                for a, run in enumerate(runs)
            ]
            best.append(min(ways))
    return torch.stack(best[-1][1]).to(weights.dtype)


def _few_weights(seed: int) -> list[Case]:
    """No two ways to cut these weights are equally good."""
    draw = Draw(seed)
    few, repeated = 1 + draw.uniform(4), draw.normal(5)
    repeated = torch.cat([repeated, repeated[draw.integers(0, 5, 7)]])[draw.order(12)]
    far = torch.cat([draw.normal(11), torch.tensor([30.0 + draw.number(0, 9)])])[draw.order(12)]
    skewed = torch.cat([0.1 * draw.normal(8), 2 * draw.normal(4)])[draw.order(12)]
    eight = torch.tensor([0.0] * 8 + [1.0, 2.2])
    close = torch.tensor([0.0, 1.0, 2.0 + 1e-9], dtype=torch.float64) * 2.0 ** draw.number(-9, 9)
    labelled = {
        "two groups": (torch.tensor([6.5, 0.0, 1.0, 5.0])[draw.order(4)], 2),
        "the nearest two must part": (torch.tensor([0.0, 2.0, 3.0, 4.9])[draw.order(4)], 2),
        "a large cell and a small one": (torch.tensor([0.0, 1.0, 2.0, 3.0, 4.5, 6.1]), 2),
        "twelve weights, three levels": (draw.normal(12), 3),
        "twelve weights, four levels": (draw.normal(12), 4),
        "twelve weights, six levels": (draw.normal(12), 6),
        "seven weights": (draw.normal(7), draw.number(2, 5)),
        "one level": (1 + draw.normal(6).abs(), 1),
        "a level for each weight": (draw.normal(5), 5),
        "a level less than weights": (draw.normal(9), 8),
        "one weight": (few[:1], 1),
        "one value eight times": (draw.number(-5, 6) + eight[draw.order(10)], 2),
        "each value several times": (repeated, 3),
        "a level for each value": (repeated, 5),
        "most near zero": (skewed, 4),
        "one is far": (far, 3),
        "far from zero": (100 + draw.normal(10), 3),
        "very small": (1e-30 * draw.normal(10), 3),
        "too large to be squared": (1e30 * draw.normal(10), 4),
        "float64, smaller than float32 knows": (1e-60 * draw.normal(11).double(), 4),
        "float64, two cuts that float32 finds equal": (close[draw.order(3)], 2),
        "the same, mirrored": (-close[draw.order(3)], 2),
        "float16, too large to be squared": ((1000 * draw.normal(10)).half(), 3),
    }
    return labelled_cases(("weights", "k"), labelled)


def _means(weights: Tensor, runs) -> Tensor:
    """The means of runs of sorted float64 weights, in the weights' dtype."""
    return torch.stack([run.mean() for run in runs]).to(weights.dtype)


def _sorted(weights: Tensor) -> Tensor:
    return weights.double().sort().values


def _lloyd(weights, k):
    low, high = weights.double().aminmax()
    levels = low + (high - low) * (torch.arange(k) / max(1, k - 1) if k > 1 else 0.5)
    levels = levels.reshape(k)
    for _ in range(50):
        levels = lloyd_step(weights.double(), levels)
    return levels.to(weights.dtype)


def _equal_counts(weights, k):
    return _means(weights, _sorted(weights).tensor_split(k))


def _widest_gaps(weights, k):
    ordered = _sorted(weights)
    places = (ordered.diff().topk(k - 1).indices + 1).sort().values
    return _means(weights, ordered.tensor_split(places.tolist()))


def _error(run: Tensor) -> float:
    return float((run - run.mean()).square().sum())


def _one_cut_at_a_time(weights, k):
    runs = [_sorted(weights)]
    for _ in range(k - 1):
        cuts = [
            [*runs[:i], run[:a], run[a:], *runs[i + 1 :]]
            for i, run in enumerate(runs)
            for a in range(1, len(run))
        ]
        runs = min(cuts, key=lambda cut: sum(map(_error, cut)))
    return _means(weights, runs)


def _least_sum_of_variances(weights, k):
    ordered = _sorted(weights)
    ends = range(len(ordered) + 1)
    variances = {(a, b): _error(ordered[a:b]) / (b - a) for a, b in itertools.combinations(ends, 2)}
    cuts = itertools.combinations(ends[1:-1], k - 1)
    best = min(
        cuts,
        key=lambda cut: sum(variances[run] for run in itertools.pairwise((0, *cut, ends[-1]))),
    )
    return _means(weights, ordered.tensor_split(best))


BEST_LEVELS = Exercise(
    reference=best_levels,
    cases=_few_weights,
    absolute_tolerance=0.0,
    hints=(
        "Sort. Then a cell is a run of neighbours, and only the places of k − 1 cuts are unknown. "
        "What does the last cell's beginning leave to be solved?",
        "If the last cell begins at a, the first a weights need their best m − 1 cells: the same "
        "question, smaller. Keep a table of the answers: for each m, one entry for each b.",
        "Start with F_0(0) = 0, and infinity elsewhere. Each entry may keep its levels beside its "
        "error, so that none have to be traced back: min of (error, levels) over a, with a tuple "
        "of levels.",
    ),
    properties=(
        Property(
            "there are k levels, ascending",
            lambda inputs, levels: (
                levels.shape == (inputs["k"],) and bool((levels.diff() > 0).all())
            ),
        ),
    ),
    misconceptions=(
        Misconception(
            "Lloyd's method",
            _lloyd,
            "these are the levels where Lloyd's steps stop from an even start. No step makes "
            "them better, and yet other levels are: the best cut of all has to be found.",
        ),
        Misconception(
            "equally many in each cell",
            _equal_counts,
            "each of your levels serves as many weights as the others. A far weight costs more "
            "than a near one, so the best cells are not equally full.",
        ),
        Misconception(
            "the widest gaps",
            _widest_gaps,
            "you cut at the k − 1 widest gaps. That gives levels to lonely weights, while a long "
            "crowded run, all of whose gaps are small, has to share one.",
        ),
        Misconception(
            "even levels",
            lambda w, k: torch.linspace(float(w.min()), float(w.max()), k, dtype=torch.float64).to(
                w.dtype
            ),
            "these are even levels from the smallest weight to the largest: they do not know where "
            "the weights lie.",
        ),
        Misconception(
            "one cut at a time",
            _one_cut_at_a_time,
            "you made the best cut, then the best of the next ones, and so on. The best three "
            "cells need not come from the best two: a first cut may have to move.",
        ),
        Misconception(
            "variances added",
            _least_sum_of_variances,
            "you added up the variances of the cells. A variance is divided by the number of its "
            "weights, so a full cell counts no more than one of two. Add the squared errors.",
        ),
    ),
)
