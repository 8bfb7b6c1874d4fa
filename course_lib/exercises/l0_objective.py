"""Exercises of 02_l0_objective, from a closed form to a sparse network of one's own.

Axes: N rows, P features.
"""

import copy
import math
from functools import cache

import torch
from torch import Tensor, nn

from course_lib.data.images import Digits, digits
from course_lib.exercises.engine.spec import Case, Exercise, Misconception, Property
from course_lib.measure.quality import accuracy
from course_lib.models.digits_mlp import DigitsMLP, train_digits
from course_lib.pruning.cross_validation import k_folds
from course_lib.pruning.least_squares import gradient, lipschitz_constant, ridge
from course_lib.pruning.masks import apply_masks, hold_masks, magnitude_masks, prunable_weights
from course_lib.pruning.objective import project

X = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0], [2.0, 1.0]])
Y = torch.tensor([1.0, 2.0, 3.0, 5.0])


def _normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def _regression(rows: int, features: int, seed: int) -> tuple[Tensor, Tensor]:
    """X (N, P) and y (N,) with two features that matter, and means that are not zero."""
    X = _normal(rows, features, seed=seed) + torch.arange(features)
    return X, 2 * X[:, 0] - X[:, 1] + 3 + 0.5 * _normal(rows, seed=seed + 1)


def _cases(names: tuple[str, ...], labelled: dict[str, tuple]) -> list[Case]:
    return [Case(label, dict(zip(names, v, strict=True))) for label, v in labelled.items()]


# --------------------------------------------------------------------- ridge_closed_form


def ridge_closed_form(features: Tensor, targets: Tensor, penalty: float) -> Tensor:
    """The θ (P,) of least ‖Xθ − y‖₂² + λ‖θ‖₂²."""
    gram = features.T @ features
    eye = torch.eye(len(gram), device=gram.device)
    return torch.linalg.solve(gram + penalty * eye, features.T @ targets)


def _ridge_cases() -> list[Case]:
    labelled = {
        "no penalty": (X, Y, 0.0),
        "a small penalty": (X, Y, 0.5),
        "a large penalty": (X, Y, 20.0),
        "five features": (*_regression(9, 5, seed=3), 2.0),
        "more features than rows": (_normal(3, 6, seed=5), _normal(3, seed=6), 1.0),
    }
    return _cases(("features", "targets", "penalty"), labelled)


def _ridge_with(change):
    """Ridge whose λ·1 is replaced by what `change` makes of (λ, unit matrix, X)."""

    def wrong(features, targets, penalty):
        gram = features.T @ features
        eye = torch.eye(len(gram), device=gram.device)
        return torch.linalg.solve(gram + change(penalty, eye, features), features.T @ targets)

    return wrong


RIDGE_CLOSED_FORM = Exercise(
    reference=ridge_closed_form,
    cases=_ridge_cases,
    hints=(
        "At the minimum the gradient is zero: 2Xᵀ(Xθ − y) + 2λθ = 0. Bring all θ to one side.",
        "(XᵀX + λ1) θ = Xᵀy: a system of P linear equations, and 1 is the unit matrix.",
        "torch.linalg.solve(A, b) gives the θ with Aθ = b; torch.eye(P) is the unit matrix.",
    ),
    misconceptions=(
        Misconception(
            "half a penalty",
            _ridge_with(lambda penalty, eye, features: penalty / 2 * eye),
            "your λ is half as strong. Squares are on both sides: the gradient is 2Xᵀ(Xθ − y) + "
            "2λθ, so both factors of 2 cancel.",
        ),
        Misconception(
            "penalty times rows",
            _ridge_with(lambda penalty, eye, features: penalty * len(features) * eye),
            "λ was multiplied by the number of rows. That is right where the loss is a mean; here "
            "it is a sum. A λ from another library means something only with its loss.",
        ),
        Misconception(
            "penalty on every entry",
            _ridge_with(lambda penalty, eye, features: penalty * torch.ones_like(eye)),
            "λ was added to every entry of XᵀX. That penalises (Σθᵢ)², the square of the sum. "
            "Add it to the diagonal: λ times the unit matrix.",
        ),
        Misconception(
            "shrunk least squares",
            lambda X, y, penalty: torch.linalg.pinv(X) @ y / (1 + penalty),
            "you divided the least-squares solution by 1 + λ. That holds only if the columns of X "
            "are orthogonal and of length 1. Else the penalty turns θ as well.",
        ),
    ),
)

# --------------------------------------------------------------------------- minimise_l1


def minimise_l1(z: Tensor, penalty: float) -> Tensor:
    """The θ of least ‖θ − z‖₂² + λ‖θ‖₁, of z's shape."""
    return z.sign() * (z.abs() - penalty / 2).clamp(min=0)


def _thresholds() -> list[Case]:
    labelled = {
        "three numbers": (torch.tensor([1.0, -0.4, 0.2]), 0.5),
        "no penalty": (torch.tensor([1.0, -0.4, 0.2, 0.0]), 0.0),
        "just on the threshold": (torch.tensor([0.25, -0.25, 0.5]), 0.5),
        "everything goes": (torch.tensor([0.3, -0.4]), 3.0),
        "a matrix": (_normal(3, 4), 1.2),
    }
    return _cases(("z", "penalty"), labelled)


MINIMISE_L1 = Exercise(
    reference=minimise_l1,
    cases=_thresholds,
    hints=(
        "The sum falls apart: each θᵢ minimises (θᵢ − zᵢ)² + λ|θᵢ| by itself.",
        "For θ > 0 the derivative 2(θ − z) + λ is zero at θ = z − λ/2. When is that still > 0?",
        "Magnitudes shrink by λ/2, but not below zero (clamp); the sign stays.",
    ),
    misconceptions=(
        Misconception(
            "threshold λ",
            lambda z, penalty: z.sign() * (z.abs() - penalty).clamp(min=0),
            "you shrank by λ. The square brings a factor 2: 2(θ − z) + λ = 0 gives z − λ/2. With "
            "½‖θ − z‖² it would be λ. Always look which square a formula means.",
        ),
        Misconception(
            "ridge",
            lambda z, penalty: z / (1 + penalty),
            "that minimises ‖θ − z‖² + λ‖θ‖₂². It makes every number smaller and none zero.",
        ),
        Misconception(
            "hard threshold",
            lambda z, penalty: z * (z.abs() > penalty / 2),
            "small numbers went to zero, but the large ones stayed as they were. L1 charges λ for "
            "each unit of length, so large ones shrink by λ/2, too.",
        ),
        Misconception(
            "sign lost",
            lambda z, penalty: (z.abs() - penalty / 2).clamp(min=0),
            "the magnitudes are right, and all are positive now. Give each its sign back.",
        ),
        Misconception(
            "past zero",
            lambda z, penalty: z.sign() * (z.abs() - penalty / 2),
            "small numbers were pushed past zero to the other side. They have to stop at zero: "
            "there the penalty is least, and they make the zeros that L1 is known for.",
        ),
    ),
)

# ------------------------------------------------------------------------ hard_threshold


def hard_threshold(weight: Tensor, threshold: float) -> Tensor:
    """`weight` with each entry zeroed whose magnitude is not larger than the threshold."""
    return torch.where(weight.abs() > threshold, weight, 0.0)


def _weights_and_thresholds() -> list[Case]:
    labelled = {
        "both signs, and a tie": (torch.tensor([[0.1, -0.1], [0.3, -0.5]]), 0.1),
        "a vector": (torch.tensor([2.0, -3.0, 0.5, 0.0]), 1.0),
        "a threshold of zero": (torch.tensor([0.2, 0.0, -0.2]), 0.0),
        "everything goes": (torch.tensor([0.2, -0.3]), 1.0),
        "a larger matrix": (_normal(4, 5), 0.6),
    }
    return _cases(("weight", "threshold"), labelled)


def _in_place(weight, threshold):
    weight[weight.abs() <= threshold] = 0
    return weight


HARD_THRESHOLD = Exercise(
    reference=hard_threshold,
    cases=_weights_and_thresholds,
    hints=(
        "|W| is meant entry by entry: weight.abs().",
        "torch.where(condition, weight, 0.0) keeps the shape and makes a new tensor.",
        "The formula keeps |W| > t. So what happens at |W| = t?",
    ),
    misconceptions=(
        Misconception(
            "signed weights",
            lambda w, t: torch.where(w > t, w, 0.0),
            "all negative weights are gone, however large. This is the sample code of one of the "
            "sources, S3. A weight matters by its magnitude.",
        ),
        Misconception(
            "ties kept",
            lambda w, t: torch.where(w.abs() >= t, w, 0.0),
            "a weight with |w| = t stayed. The formula says W′ = W only if |W| > t. (S0's code "
            "keeps ties, S1's formula does not: agree on one rule, and say which.)",
        ),
        Misconception(
            "shape lost",
            lambda w, t: w[w.abs() > t],
            "you selected the large weights. What comes back is one long vector: nobody knows any "
            "more where they stood. A zero has to stay in its place.",
        ),
        Misconception(
            "in place",
            _in_place,
            "the values are right, but the weight that was passed in was overwritten. Whoever "
            "called you wanted to compare before and after.",
        ),
        Misconception(
            "soft threshold",
            lambda w, t: w.sign() * (w.abs() - t).clamp(min=0),
            "you shrank the weights that stay by t. That is the soft threshold, which belongs to "
            "L1. The hard one leaves them alone.",
        ),
    ),
)

# -------------------------------------------------------------------------- keep_largest


def keep_largest(theta: Tensor, k: int) -> Tensor:
    """The k largest magnitudes of θ, zeros elsewhere; of equal ones the first by index stay."""
    flat = theta.flatten()
    kept, left = torch.zeros_like(flat), flat.abs()
    for _ in range(k):
        i = left.argmax()
        kept[i] = flat[i]
        left[i] = -torch.inf
    return kept.reshape(theta.shape)


def _projections() -> list[Case]:
    labelled = {
        "two of six": (torch.tensor([0.5, -3.0, 0.0, 2.0, -0.1, 1.0]), 2),
        "ties": (torch.tensor([1.0, -3.0, -1.0, 1.0, 0.5, 1.0]), 3),
        "ties in a matrix": (torch.tensor([[-2.0, 2.0], [2.0, 4.0], [-2.0, 0.0]]), 3),
        "none": (torch.tensor([0.3, -0.4]), 0),
        "all": (torch.tensor([0.3, 0.0, -0.4]), 3),
        "a larger matrix": (3 * _normal(4, 5), 7),
    }
    return _cases(("theta", "k"), labelled)


def _magnitudes(theta: Tensor, k: int) -> float:
    """The k-th largest magnitude; infinity for k = 0."""
    return theta.abs().flatten().sort(descending=True).values[k - 1].item() if k else math.inf


def _last_ties(theta, k):
    return project(theta.flatten().flip(0), k).flip(0).reshape(theta.shape)


def _largest_signed(theta, k):
    chosen = theta.flatten().argsort(descending=True, stable=True)[:k]
    kept = torch.zeros_like(theta.flatten())
    kept[chosen] = theta.flatten()[chosen]
    return kept.reshape(theta.shape)


KEEP_LARGEST = Exercise(
    reference=keep_largest,
    cases=_projections,
    hints=(
        "Find the largest magnitude, copy that entry, strike it out. How often?",
        "Work on theta.flatten() and give the shape back at the end: .reshape(theta.shape).",
        "argmax finds the first of equal entries. A sort does as well, with stable=True: "
        "theta.abs().flatten().argsort(descending=True, stable=True)[:k].",
    ),
    properties=(
        Property(
            "at most k entries are not zero",
            lambda inputs, value: int((value != 0).sum()) <= inputs["k"],
        ),
    ),
    misconceptions=(
        Misconception(
            "signed weights",
            _largest_signed,
            "you kept the largest numbers. −3 is far from zero, and zeroing it costs 9; zeroing 1 "
            "costs 1. Compare magnitudes.",
        ),
        Misconception(
            "k as a threshold",
            lambda theta, k: torch.where(theta.abs() > k, theta, 0.0),
            "k was used as a threshold on the weights. It is a number of weights.",
        ),
        Misconception(
            "k removed",
            lambda theta, k: project(theta, theta.numel() - k),
            "you removed k weights and kept the rest. k is how many stay.",
        ),
        Misconception(
            "all ties stay",
            lambda theta, k: torch.where(theta.abs() >= _magnitudes(theta, k), theta, 0.0),
            "you kept all that is at least as large as the k-th. Where several are equal to it, "
            "that is more than k, and the budget is broken.",
        ),
        Misconception(
            "all ties go",
            lambda theta, k: torch.where(theta.abs() > _magnitudes(theta, k), theta, 0.0),
            "you kept what is larger than the k-th. The k-th itself belongs to the k.",
        ),
        Misconception(
            "last ties stay",
            _last_ties,
            "of equal magnitudes the last ones stayed. Either choice is a nearest point; we agreed "
            "on the first by index, so that everybody gets the same mask.",
        ),
    ),
)

# ------------------------------------------------------------------------------ iht_step


def iht_step(features: Tensor, targets: Tensor, theta: Tensor, k: int) -> Tensor:
    """One step 1/Λ against the gradient of ‖Xθ − y‖₂², then the k largest magnitudes."""
    slope = 2 * features.T @ (features @ theta - targets)
    step = 1 / (2 * torch.linalg.matrix_norm(features, 2) ** 2)
    return project(theta - step * slope, k)


def _steps() -> list[Case]:
    wide = _normal(6, 9, seed=7)
    labelled = {
        "from zero": (X, Y, torch.zeros(2), 1),
        "from [1, 2]": (X, Y, torch.tensor([1.0, 2.0]), 2),
        "from a dense point": (*_regression(8, 5, seed=3), _normal(5), 3),
        "more features than rows": (wide, wide @ (_normal(9) > 1).float(), _normal(9, seed=2), 2),
        "nothing may stay": (X, Y, torch.ones(2), 0),
    }
    return _cases(("features", "targets", "theta", "k"), labelled)


def _project_first(X, y, theta, k):
    theta = project(theta, k)
    return theta - gradient(X, y, theta) / lipschitz_constant(X)


IHT_STEP = Exercise(
    reference=iht_step,
    cases=_steps,
    hints=(
        "Three lines: the gradient, the step, the projection. `project(theta, k)` is given.",
        "∇L = 2Xᵀ(Xθ − y), and its Lipschitz constant is Λ = 2σ_max(X)².",
        "σ_max(X), the largest singular value, is torch.linalg.matrix_norm(X, 2).",
    ),
    properties=(
        Property(
            "at most k entries are not zero",
            lambda inputs, value: int((value != 0).sum()) <= inputs["k"],
        ),
    ),
    misconceptions=(
        Misconception(
            "step twice as long",
            lambda X, y, t, k: project(t - gradient(X, y, t) * 2 / lipschitz_constant(X), k),
            "the step is 1/σ_max(X)², twice 1/Λ. The gradient of ‖Xθ − y‖² has a factor 2, and so "
            "has its Lipschitz constant. At 2/Λ gradient descent just stops converging.",
        ),
        Misconception(
            "project first",
            _project_first,
            "you projected, and then stepped. The step fills all the zeros again: the projection "
            "has to come last.",
        ),
        Misconception(
            "uphill",
            lambda X, y, t, k: project(t + gradient(X, y, t) / lipschitz_constant(X), k),
            "you went along the gradient, which points uphill. Subtract it.",
        ),
        Misconception(
            "sparse gradient",
            lambda X, y, t, k: t - project(gradient(X, y, t), k) / lipschitz_constant(X),
            "you kept the k largest entries of the gradient. What has to be sparse is θ after the "
            "step.",
        ),
        Misconception(
            "one-norm",
            lambda X, y, t, k: project(
                t - gradient(X, y, t) / (2 * torch.linalg.matrix_norm(X, 1) ** 2), k
            ),
            "matrix_norm(X, 1) is the largest column sum. The largest singular value is "
            "matrix_norm(X, 2).",
        ),
    ),
)

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


def _fold_cases() -> list[Case]:
    labelled = {
        "three folds": (*_regression(12, 3, seed=1), [0.1, 1.0, 30.0], k_folds(12, 3)),
        "folds of unequal size": (*_regression(11, 4, seed=2), [0.0, 5.0], k_folds(11, 4, seed=1)),
        "each row once": (*_regression(7, 2, seed=4), [0.5, 2.0], k_folds(7, 7)),
    }
    return _cases(("features", "targets", "penalties", "folds"), labelled)


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
                predicted = (features[score] - means) @ theta + level
                errors.append((predicted - targets[score]).square().mean())
        return torch.stack(errors).view(len(folds), -1).mean(dim=0)

    return wrong


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
            "root of the error",
            lambda *inputs: validation_errors(*inputs).sqrt(),
            "that is the root of the mean squared error. The winner is the same, but the value "
            "asked for is the mean square.",
        ),
    ),
)

# -------------------------------------------------------------------- relative_magnitude


def relative_magnitude(weight: Tensor) -> Tensor:
    """Each weight's share of ‖W‖₁, by magnitude."""
    magnitude = weight.abs()
    return magnitude / magnitude.sum()


def _weights() -> list[Case]:
    labelled = {
        "three weights": (torch.tensor([3.0, -4.0, 1.0]),),
        "all negative": (torch.tensor([-0.5, -1.5]),),
        "with zeros": (torch.tensor([0.0, 2.0, 0.0, -2.0]),),
        "a matrix": (_normal(3, 4),),
    }
    return _cases(("weight",), labelled)


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


def _tensors() -> list[Case]:
    labelled = {
        "three weights": (torch.tensor([3.0, -4.0, 1.0]),),
        "all equal": (torch.tensor([0.5, -0.5, 0.5, 0.5]),),
        "one giant": (torch.tensor([0.1, -0.2, 50.0, 0.3, -0.1]),),
        "nearly all large": (torch.tensor([[2.0, -2.5], [3.0, 0.1], [-2.0, 2.0]]),),
        "bell-shaped": (_normal(20, 15),),
    }
    return _cases(("weight",), labelled)


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

# ------------------------------------------------------------------ masked_momentum_step


def masked_momentum_step(
    weight: Tensor, velocity: Tensor, gradient: Tensor, mask: Tensor, rate: float, momentum: float
) -> tuple[Tensor, Tensor]:
    """(weight, velocity) after one SGD step with momentum under which no pruned weight returns."""
    velocity = (momentum * velocity + gradient) * mask
    return (weight - rate * velocity) * mask, velocity


def _optimizer_states() -> list[Case]:
    names = ("weight", "velocity", "gradient", "mask", "rate", "momentum")
    mask = torch.tensor([False, True])
    two, ones, zeros = torch.tensor([0.0, 2.0]), torch.ones(2), torch.zeros(2)
    some = _normal(3, 4) > 0
    labelled = {
        "no momentum yet": (two, zeros, ones, mask, 0.5, 0.9),
        "momentum from before the pruning": (two, ones, ones, mask, 0.5, 0.9),
        "just chosen, not yet zero": (torch.tensor([3.0, 2.0]), ones, -ones, mask, 0.1, 0.5),
        "no gradient": (two, 2 * ones, zeros, mask, 0.25, 0.8),
        "a matrix": (
            _normal(3, 4, seed=1) * some,
            _normal(3, 4, seed=2),
            _normal(3, 4, seed=3),
            some,
            0.1,
            0.9,
        ),
    }
    return _cases(names, labelled)


def _step_with(of_gradient, of_velocity, of_weight):
    """The step with each of three masks applied or not; "~" for the mask the wrong way round."""

    def wrong(weight, velocity, gradient, mask, rate, momentum):
        masks = {True: mask, False: torch.ones_like(mask), "~": ~mask}
        velocity = momentum * velocity + gradient * masks[of_gradient]
        velocity = velocity * masks[of_velocity]
        return (weight - rate * velocity) * masks[of_weight], velocity

    return wrong


MASKED_MOMENTUM_STEP = Exercise(
    reference=masked_momentum_step,
    cases=_optimizer_states,
    hints=(
        "Without a mask: velocity ← momentum · velocity + gradient; weight ← weight − rate · "
        "velocity.",
        "Who could bring a pruned weight back? The gradient of this step, and the velocity, which "
        "remembers earlier ones.",
        "Mask the new velocity, and mask the new weight. True times a number is the number.",
    ),
    properties=(
        Property(
            "pruned weights are zero, and nothing is remembered about them",
            lambda inputs, value: not any(part[~inputs["mask"]].any() for part in value),
        ),
    ),
    misconceptions=(
        Misconception(
            "no mask",
            _step_with(False, False, False),
            "pruned weights took part in the step and came back. Zeroing them once, before the "
            "training, is what S0's sample does.",
        ),
        Misconception(
            "gradient only",
            _step_with(True, False, False),
            "only the gradient was masked. The velocity still holds gradients from before the "
            "pruning, and moves pruned weights for many more steps.",
        ),
        Misconception(
            "weight only",
            _step_with(False, False, True),
            "the weights are right, but the velocity still collects gradients of pruned weights. "
            "The day the mask changes, such a weight leaps.",
        ),
        Misconception(
            "velocity only",
            _step_with(False, True, False),
            "the velocity is right, but a weight that was chosen and is not zero yet stays as it "
            "is: nothing moves it, nothing removes it.",
        ),
        Misconception(
            "mask inverted",
            _step_with("~", "~", "~"),
            "the mask was used the wrong way round: True means that the weight stays.",
        ),
    ),
)

# ------------------------------------------------------------------- expected_open_gates


def expected_open_gates(log_alpha: Tensor, beta: float, gamma: float, zeta: float) -> Tensor:
    """Expected number of hard-concrete gates that are not zero, a 0-d tensor."""
    return (log_alpha - beta * math.log(-gamma / zeta)).sigmoid().sum()


def _gates() -> list[Case]:
    names = ("log_alpha", "beta", "gamma", "zeta")
    labelled = {
        "three gates": (torch.tensor([-5.0, 0.0, 5.0]), 2 / 3, -0.1, 1.1),
        "all nearly closed": (torch.full((6,), -4.0), 2 / 3, -0.1, 1.1),
        "another temperature": (torch.tensor([-1.0, 1.0]), 0.3, -0.1, 1.1),
        "a wide stretch": (torch.tensor([-1.0, 0.5, 2.0]), 0.5, -0.5, 1.5),
        "a matrix": (_normal(3, 4), 2 / 3, -0.1, 1.1),
    }
    return _cases(names, labelled)


def _stretched(log_alpha, gamma, zeta):
    return (log_alpha.sigmoid() * (zeta - gamma) + gamma).clamp(0, 1)


EXPECTED_OPEN_GATES = Exercise(
    reference=expected_open_gates,
    cases=_gates,
    hints=(
        "The expected number is the sum of each gate's chance of being open.",
        "A gate is zero if s(ζ − γ) + γ ≤ 0. Solve for s, then for u, which is uniform.",
        "P(z ≠ 0) = sigmoid(log α − β · log(−γ/ζ)); math.log takes the number −γ/ζ.",
    ),
    misconceptions=(
        Misconception(
            "sigmoid of log α",
            lambda a, beta, gamma, zeta: a.sigmoid().sum(),
            "sigmoid(log α) is the chance that s is above ½. The gate is zero only where the "
            "stretched s falls below zero, so it is open more often: subtract β log(−γ/ζ).",
        ),
        Misconception(
            "sign of the shift",
            lambda a, beta, gamma, zeta: (a + beta * math.log(-gamma / zeta)).sigmoid().sum(),
            "the shift has the wrong sign. −γ/ζ is below 1, so its logarithm is negative, and "
            "subtracting it makes an open gate likelier.",
        ),
        Misconception(
            "temperature forgotten",
            lambda a, beta, gamma, zeta: (a - math.log(-gamma / zeta)).sigmoid().sum(),
            "β is missing. The noise is divided by β before the sigmoid, so the border where the "
            "gate closes moves with it.",
        ),
        Misconception(
            "count of the fixed gates",
            lambda a, beta, gamma, zeta: (_stretched(a, gamma, zeta) != 0).sum().float(),
            "you counted the noiseless gates that are not zero. That number jumps, so it has no "
            "gradient. What is learned from is the expectation.",
        ),
        Misconception(
            "mean gate",
            lambda a, beta, gamma, zeta: _stretched(a, gamma, zeta).sum(),
            "you added up the gates themselves. A gate of 0.3 is open and costs a whole weight: "
            "‖θ‖₀ counts it as 1.",
        ),
    ),
)

# ----------------------------------------------------------------------- sparsify_digits

STROKES = ((0.2, 2), (0.08, 6))  # density, epochs of retraining
LAYERS = ("0.weight", "2.weight", "4.weight")


def retrain(
    model: nn.Module, images: Tensor, labels: Tensor, masks: dict[str, Tensor], epochs: int
) -> None:
    """In place: train on under the masks, which are held in every step."""
    weights, data = prunable_weights(model), Digits(images, labels, images, labels)
    train_digits(model, data, epochs, prepare=lambda opt: hold_masks(opt, weights, masks))


def sparsify_digits(models: list[nn.Module], images: Tensor, labels: Tensor) -> list[nn.Module]:
    """Copies of the trained models, each with at most 8 % of its weights not zero."""
    pruned = copy.deepcopy(models)
    for model in pruned:
        for density, epochs in STROKES:
            masks = magnitude_masks(prunable_weights(model), density)
            retrain(model, images, labels, masks, epochs)
    return pruned


@cache
def _dense() -> tuple[list[nn.Module], Digits, float]:
    """Three trained models, the images, and the models' mean accuracy."""
    data, models = digits(), []
    for seed in range(3):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            models.append(DigitsMLP())
        train_digits(models[-1], data, seed=seed)
    return models, data, _mean_accuracy([model.state_dict() for model in models])


def _three_models() -> list[Case]:
    models, data, _ = _dense()
    inputs = {"models": models, "images": data.train_images, "labels": data.train_labels}
    return [Case("three networks", inputs)]


def _mean_accuracy(states: list[dict[str, Tensor]]) -> float:
    data, model, total = digits(), DigitsMLP(), 0.0
    for state in states:
        model.load_state_dict(state)
        total += accuracy(model, data.test_images, data.test_labels)
    return total / len(states)


def _sparse_enough(inputs, states) -> bool:
    left = [sum(int((state[name] != 0).sum()) for name in LAYERS) for state in states]
    weights = sum(DigitsMLP().state_dict()[name].numel() for name in LAYERS)
    return len(states) == len(inputs["models"]) and max(left) <= 0.08 * weights


def _pruned_to(density, held=None):
    """Pruned in one stroke; then trained with the mask (held), without it, or not at all."""

    def wrong(models, images, labels):
        pruned = copy.deepcopy(models)
        for model in pruned:
            weights = prunable_weights(model)
            masks = magnitude_masks(weights, density)
            apply_masks(weights, masks)
            if held is not None:
                retrain(model, images, labels, masks if held else {}, epochs=2)
        return pruned

    return wrong


SPARSIFY_DIGITS = Exercise(
    reference=sparsify_digits,
    cases=_three_models,
    compare=False,
    seconds=120.0,
    hints=(
        "Pruning in one stroke to 8 % loses half of the accuracy. What does retraining under the "
        "mask give back?",
        "Take two strokes or more: prune to 20 %, retrain, prune further, retrain. The weights "
        "that are left take over the work of those that went.",
        "for density, epochs in ((0.2, 2), (0.08, 6)): masks = magnitude_masks(prunable_weights("
        "model), density), then retrain(model, images, labels, masks, epochs).",
    ),
    properties=(
        Property("each network keeps at most 8 % of its weights", _sparse_enough),
        Property(
            "on test images the mean accuracy is within one point of the dense networks'",
            lambda inputs, states: _mean_accuracy(states) >= _dense()[2] - 0.01,
        ),
    ),
    misconceptions=(
        Misconception(
            "not retrained",
            _pruned_to(0.08),
            "the networks are sparse enough, but they were not trained again. What was left had "
            "no chance to take over, and accuracy has collapsed.",
        ),
        Misconception(
            "8 % removed",
            _pruned_to(0.92),
            "you removed 8 % and kept 92 %. Sparsity is the share of zeros, density the share of "
            "what stays.",
        ),
        Misconception(
            "mask not held",
            _pruned_to(0.08, held=False),
            "you pruned and trained, and the training brought the pruned weights back: accuracy "
            "is fine, sparsity is gone. Hold the masks in every step.",
        ),
    ),
)

CHAPTER = "02_l0_objective"
EXERCISES = (
    RIDGE_CLOSED_FORM,
    MINIMISE_L1,
    HARD_THRESHOLD,
    KEEP_LARGEST,
    IHT_STEP,
    VALIDATION_ERRORS,
    RELATIVE_MAGNITUDE,
    KEPT_BY_MEAN,
    MASKED_MOMENTUM_STEP,
    EXPECTED_OPEN_GATES,
    SPARSIFY_DIGITS,
)
