"""Exercises of 02_l0_objective: a λ chosen without a leak, a formula repaired, the k of a rule."""

import torch
from torch import Tensor

from course_lib.exercises.engine.spec import Case, Exercise, Misconception, Property, labelled_cases
from course_lib.exercises.l0_objective.penalties import regression
from course_lib.pruning.cross_validation import cross_validation_errors, k_folds
from course_lib.pruning.least_squares import ridge


def _normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


# --------------------------------------------------------------------- validation_errors


def validation_errors(
    features: Tensor, targets: Tensor, penalties: list[float], folds: list[tuple[Tensor, Tensor]]
) -> Tensor:
    """For each λ the mean squared error on the folds' validation rows, averaged over the folds."""
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
    labelled = {
        "three folds": (*regression(12, 3, seed=1), [0.1, 1.0, 30.0], k_folds(12, 3)),
        "folds of unequal size": (*regression(11, 4, seed=2), [0.0, 5.0], k_folds(11, 4, seed=1)),
        "each row once": (*regression(7, 2, seed=4), [0.5, 2.0], k_folds(7, 7)),
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
    """Each weight's share of ‖W‖₁, by magnitude."""
    magnitude = weight.abs()
    return magnitude / magnitude.sum()


def _weights(seed: int) -> list[Case]:
    labelled = {
        "three weights": (torch.tensor([3.0, -4.0, 1.0]),),
        "all negative": (torch.tensor([-0.5, -1.5]),),
        "with zeros": (torch.tensor([0.0, 2.0, 0.0, -2.0]),),
        "a matrix": (_normal(3, 4),),
    }
    return labelled_cases(("weight",), labelled)


RELATIVE_MAGNITUDE = Exercise(
    reference=relative_magnitude,
    cases=_weights,
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
    labelled = {
        "three weights": (torch.tensor([3.0, -4.0, 1.0]),),
        "all equal": (torch.tensor([0.5, -0.5, 0.5, 0.5]),),
        "one giant": (torch.tensor([0.1, -0.2, 50.0, 0.3, -0.1]),),
        "nearly all large": (torch.tensor([[2.0, -2.5], [3.0, 0.1], [-2.0, 2.0]]),),
        "bell-shaped": (_normal(20, 15),),
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
