"""Exercises of 02_l0_objective: a λ chosen without a leak, a formula repaired, the k of a rule."""

import torch
from torch import Tensor

from course_lib.exercises.engine.seeded import Draw
from course_lib.exercises.engine.spec import Case, Exercise, Misconception, Property, labelled_cases
from course_lib.exercises.l0_objective.penalties import regression
from course_lib.pruning.cross_validation import cross_validation_errors, k_folds
from course_lib.pruning.least_squares import ridge

# --------------------------------------------------------------------- validation_errors


def validation_errors(
    features: Tensor, targets: Tensor, penalties: list[float], folds: list[tuple[Tensor, Tensor]]
) -> Tensor:
    """For each λ the mean squared error on the folds' validation rows, averaged over the folds.

    A tensor (λ,) in the features' dtype. Each fold counts once, however many rows it has.
    """
    rows = []
    for training, validation in folds:
        X, y = features[training], targets[training]
        errors = []
        for penalty in penalties:
            theta = ridge(X - X.mean(dim=0), y, penalty)
            predicted = (features[validation] - X.mean(dim=0)) @ theta + y.mean()
            errors.append((predicted - targets[validation]).square().mean())
        rows.append(torch.stack(errors))
    return torch.stack(rows).mean(dim=0)


def _fold_cases(seed: int) -> list[Case]:
    draw, once = Draw(seed), 1000 * seed
    overlapping = [(order[:7], order[7:9]) for order in (draw.order(10), draw.order(10))]
    X, y = regression(draw, 9, 3)
    price = draw.number(1, 9) / 4
    labelled = {
        "three folds": (*regression(draw, 12, 3), [0.1, price, 30.0], k_folds(12, 3, once)),
        "folds of unequal size": (*regression(draw, 11, 4), [0.0, 5.0], k_folds(11, 4, once + 1)),
        "each row once": (*regression(draw, 7, 2), [0.5, 1 + price], k_folds(7, 7, once + 2)),
        "folds that leave rows out": (*regression(draw, 10, 2), [price], overlapping),
        "float64": (X.double(), 1e60 * y.double(), [2.0, price, 0.3], k_folds(9, 2, once + 3)),
    }
    return labelled_cases(("features", "targets", "penalties", "folds"), labelled)


def _folds_with(rows_of_means="training", rows_to_fit=0, rows_to_score=1, target_mean=1.0):
    """Cross-validation with one thing done in another way."""

    def wrong(features, targets, penalties, folds):
        errors = []
        for fold in folds:
            fit, score = fold[rows_to_fit], fold[rows_to_score]
            X, y = features[fit], targets[fit]
            every = rows_of_means == "all"
            means = features.mean(dim=0) if every else X.mean(dim=0)
            level = target_mean * (targets.mean() if every else y.mean())
            for penalty in penalties:
                theta = ridge(X - means, y - level, penalty)
                centre = features[score].mean(dim=0) if rows_of_means == "own" else means
                predicted = (features[score] - centre) @ theta + level
                errors.append((predicted - targets[score]).square().mean())
        return torch.stack(errors).view(len(folds), -1).mean(dim=0)

    return wrong


def _pooled(features, targets, penalties, folds):
    errors = cross_validation_errors(ridge, features, targets, penalties, folds)
    sizes = torch.tensor([float(len(validation)) for _, validation in folds])
    return sizes.to(errors) @ errors / sizes.sum()


VALIDATION_ERRORS = Exercise(
    reference=validation_errors,
    cases=_fold_cases,
    relative_tolerance=1e-4,
    hints=(
        "Two loops: over the folds, and over λ. `ridge(X, y, penalty)` is given.",
        "ridge knows no intercept: subtract the features' means before the fit, and add the "
        "targets' mean to the prediction. Of which rows?",
        "All that is learned from data is learned from the training rows of the fold: θ, and the "
        "means as well. The validation rows are only predicted.",
    ),
    misconceptions=(
        Misconception(
            "means of all rows",
            _folds_with(rows_of_means="all"),
            "the means were taken over all rows, so the validation rows had a hand in the fit. It "
            "is a small leak here; with feature selection the same mistake ruins everything.",
        ),
        Misconception(
            "training error",
            _folds_with(rows_to_score=0),
            "you measured the error on the rows of the fit. It is always least at λ = 0.",
        ),
        Misconception(
            "folds swapped",
            _folds_with(rows_to_fit=1, rows_to_score=0),
            "you fitted to the small part and measured on the large one. A fold is (training rows, "
            "validation rows).",
        ),
        Misconception(
            "intercept forgotten",
            _folds_with(target_mean=0.0),
            "the targets' mean is missing in the prediction: it is off by a constant.",
        ),
        Misconception(
            "pooled rows",
            _pooled,
            "you averaged over all rows. Here each fold counts once, however large it is.",
        ),
        Misconception(
            "validation rows' own means",
            _folds_with(rows_of_means="own"),
            "the validation rows were centred by their own mean. A single new row has no mean: use "
            "the training rows'.",
        ),
    ),
)

# -------------------------------------------------------------------- relative_magnitude


def relative_magnitude(weight: Tensor) -> Tensor:
    """Each weight's share of ‖W‖₁, by magnitude, in weight's shape and dtype; not all are zero."""
    magnitude = weight.abs()
    return magnitude / magnitude.sum()


def _weights(seed: int) -> list[Case]:
    draw = Draw(seed)
    wide_range = torch.tensor([1.0, -1e-50, 3e-60, -2.0], dtype=torch.float64)
    labelled = {
        "three weights": (torch.tensor([3.0, -4.0, 1.0]),),
        "all negative": (-0.1 - draw.uniform(2),),
        "with zeros": (torch.tensor([0.0, 2.0, -0.0, -2.0]) * draw.number(1, 9),),
        "a matrix": (draw.normal(3, 4),),
        "one weight": (draw.normal(1),),
        "very small weights": (1e-12 * draw.normal(2, 5),),
        "one giant": (torch.cat([draw.normal(4), torch.tensor([-1e9])]),),
        "float64, as small as it knows": (1e-60 * draw.normal(4).double(),),
        "float64, from 1e-60 to 2": (wide_range * (1 + draw.uniform(4)),),
    }
    return labelled_cases(("weight",), labelled)


RELATIVE_MAGNITUDE = Exercise(
    reference=relative_magnitude,
    cases=_weights,
    absolute_tolerance=0.0,
    hints=(
        "The printed formula calls wᵢ/‖W‖₁ an absolute value. Can it be negative?",
        "‖W‖₁ is the sum of all |wᵢ|.",
        "Take magnitudes above the line as well as below it.",
    ),
    properties=(
        Property("no share is negative", lambda inputs, value: bool((value >= 0).all())),
        Property(
            "all shares add up to 1", lambda inputs, value: abs(value.sum().item() - 1) < 1e-5
        ),
    ),
    misconceptions=(
        Misconception(
            "as printed",
            lambda w: w / w.abs().sum(),
            "this is S3's formula. The shares keep their signs, so a threshold throws the large "
            "negative weights away first.",
        ),
        Misconception(
            "signed sum",
            lambda w: w.abs() / w.sum(),
            "you divided by the sum of the weights. Positive and negative ones cancel in it; it "
            "can be negative, or zero. ‖W‖₁ is the sum of magnitudes.",
        ),
        Misconception(
            "Euclidean norm",
            lambda w: w.abs() / w.norm(),
            "that is ‖W‖₂, the root of the sum of squares. The shares do not add up to 1.",
        ),
        Misconception(
            "largest is 1",
            lambda w: w.abs() / w.abs().max(),
            "you divided by the largest magnitude. It is a sensible scale, but not a share of "
            "‖W‖₁.",
        ),
        Misconception(
            "share of a row",
            lambda w: w.abs() / w.abs().sum(dim=-1, keepdim=True),
            "each row was normalised by itself. ‖W‖₁ is here the sum over the whole tensor.",
        ),
    ),
)

# -------------------------------------------------------------------------- kept_by_mean


def kept_by_mean(weight: Tensor) -> int:
    """How many weights have at least the mean magnitude: the k that the mean rule really keeps."""
    magnitude = weight.abs()
    return int((magnitude >= magnitude.mean()).sum())


def _tensors(seed: int) -> list[Case]:
    draw = Draw(seed)

    def spread(*shape: int) -> Tensor:
        """Random weights, none of them as large as their mean: rounding counts nothing."""
        while True:
            weight = draw.normal(*shape)
            magnitude = weight.abs()
            if ((magnitude - magnitude.mean()).abs() > 1e-5 * magnitude.mean()).all():
                return weight

    signs = draw.normal(draw.number(3, 9)).sign()
    around = 1 + 1e-9 * torch.tensor([1.0, -1.0, 2.0, -2.0, 3.0, -3.0], dtype=torch.float64)
    zeros = torch.zeros(3, draw.number(4, 9))
    zeros[0, :3] = torch.tensor([1.0, -2.0, 4.0])
    labelled = {
        "three weights": (torch.tensor([3.0, -4.0, 1.0]),),
        "all equal": (0.5 * signs,),
        "one giant": (torch.cat([spread(draw.number(4, 9)), torch.tensor([5e3])]),),
        "nearly all large": (torch.tensor([[2.0, -2.5], [3.0, 0.1], [-2.0, 2.0]]),),
        "most weights are zero": (zeros,),
        "all zero": (torch.zeros(draw.number(2, 9)),),
        "bell-shaped": (spread(20, draw.number(12, 18)),),
        "very small weights": (1e-30 * spread(draw.number(30, 60)),),
        "float64, all nearly equal": (torch.cat([around, -around[: draw.number(1, 2)]]),),
    }
    return labelled_cases(("weight",), labelled)


KEPT_BY_MEAN = Exercise(
    reference=kept_by_mean,
    cases=_tensors,
    hints=(
        "The rule removes what is smaller than the mean. Mean of what?",
        "With magnitudes on both sides: keep |w| ≥ mean |w|.",
        "Count the True of a comparison with .sum(), and make it a plain int.",
    ),
    misconceptions=(
        Misconception(
            "as printed",
            lambda w: int((w >= w.mean()).sum()),
            "that is the rule as S3 prints it: numbers are compared, not magnitudes. Nearly all "
            "negative weights go, and half of a bell-shaped tensor, its large half included.",
        ),
        Misconception(
            "mean of the signed weights",
            lambda w: int((w.abs() >= w.mean()).sum()),
            "magnitudes were compared with the mean of the signed weights. Plus and minus cancel "
            "there, so it is near zero and almost nothing goes.",
        ),
        Misconception(
            "strictly larger",
            lambda w: int((w.abs() > w.abs().mean()).sum()),
            "the rule removes what is smaller. A weight just as large as the mean stays: if all "
            "are equal, all stay.",
        ),
        Misconception(
            "removed instead of kept",
            lambda w: int((w.abs() < w.abs().mean()).sum()),
            "you counted the weights that go. k counts those that stay.",
        ),
        Misconception(
            "a share",
            lambda w: float((w.abs() >= w.abs().mean()).float().mean()),
            "that is the share of the weights that stay. k is their number.",
        ),
    ),
)
