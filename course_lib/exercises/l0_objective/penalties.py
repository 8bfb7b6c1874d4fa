"""Exercises of 02_l0_objective: what a penalty, a threshold and a budget of k do to weights.

Axes: N rows, P features.
"""

import math

import torch
from torch import Tensor

from course_lib.exercises.engine.spec import Case, Exercise, Misconception, Property, labelled_cases
from course_lib.pruning.least_squares import gradient, lipschitz_constant
from course_lib.pruning.objective import project

X = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0], [2.0, 1.0]])
Y = torch.tensor([1.0, 2.0, 3.0, 5.0])


def _normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def regression(rows: int, features: int, seed: int) -> tuple[Tensor, Tensor]:
    """X (N, P) and y (N,) with two features that matter, and means that are not zero."""
    X = _normal(rows, features, seed=seed) + torch.arange(features)
    return X, 2 * X[:, 0] - X[:, 1] + 3 + 0.5 * _normal(rows, seed=seed + 1)


# --------------------------------------------------------------------- ridge_closed_form


def ridge_closed_form(features: Tensor, targets: Tensor, penalty: float) -> Tensor:
    """The θ (P,) of least ‖Xθ − y‖₂² + λ‖θ‖₂²."""
    gram = features.T @ features
    eye = torch.eye(len(gram), device=gram.device)
    return torch.linalg.solve(gram + penalty * eye, features.T @ targets)


def _ridge_cases(seed: int) -> list[Case]:
    labelled = {
        "no penalty": (X, Y, 0.0),
        "a small penalty": (X, Y, 0.5),
        "a large penalty": (X, Y, 20.0),
        "five features": (*regression(9, 5, seed=3), 2.0),
        "more features than rows": (_normal(3, 6, seed=5), _normal(3, seed=6), 1.0),
    }
    return labelled_cases(("features", "targets", "penalty"), labelled)


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


def _thresholds(seed: int) -> list[Case]:
    labelled = {
        "three numbers": (torch.tensor([1.0, -0.4, 0.2]), 0.5),
        "no penalty": (torch.tensor([1.0, -0.4, 0.2, 0.0]), 0.0),
        "just on the threshold": (torch.tensor([0.25, -0.25, 0.5]), 0.5),
        "everything goes": (torch.tensor([0.3, -0.4]), 3.0),
        "a matrix": (_normal(3, 4), 1.2),
    }
    return labelled_cases(("z", "penalty"), labelled)


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


def _weights_and_thresholds(seed: int) -> list[Case]:
    labelled = {
        "both signs, and a tie": (torch.tensor([[0.25, -0.25], [0.75, -0.5]]), 0.25),
        "a vector": (torch.tensor([2.0, -3.0, 0.5, 0.0]), 1.0),
        "a threshold of zero": (torch.tensor([0.2, 0.0, -0.2]), 0.0),
        "everything goes": (torch.tensor([0.2, -0.3]), 1.0),
        "a larger matrix": (_normal(4, 5), 0.6),
    }
    return labelled_cases(("weight", "threshold"), labelled)


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


def _projections(seed: int) -> list[Case]:
    labelled = {
        "two of six": (torch.tensor([0.5, -3.0, 0.0, 2.0, -0.1, 1.0]), 2),
        "ties": (torch.tensor([1.0, -3.0, -1.0, 1.0, 0.5, 1.0]), 3),
        "ties in a matrix": (torch.tensor([[-2.0, 2.0], [2.0, 4.0], [-2.0, 0.0]]), 3),
        "none": (torch.tensor([0.3, -0.4]), 0),
        "all": (torch.tensor([0.3, 0.0, -0.4]), 3),
        "a larger matrix": (3 * _normal(4, 5), 7),
    }
    return labelled_cases(("theta", "k"), labelled)


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


_AT_MOST_K = Property(
    "at most k entries are not zero",
    lambda inputs, value: int((value != 0).sum()) <= inputs["k"],
)

KEEP_LARGEST = Exercise(
    reference=keep_largest,
    cases=_projections,
    hints=(
        "Find the largest magnitude, copy that entry, strike it out. How often?",
        "Work on theta.flatten() and give the shape back at the end: .reshape(theta.shape).",
        "argmax finds the first of equal entries. A sort does as well, with stable=True: "
        "theta.abs().flatten().argsort(descending=True, stable=True)[:k].",
    ),
    properties=(_AT_MOST_K,),
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


def _steps(seed: int) -> list[Case]:
    wide = _normal(6, 9, seed=7)
    labelled = {
        "from zero": (X, Y, torch.zeros(2), 1),
        "from [1, 2]": (X, Y, torch.tensor([1.0, 2.0]), 2),
        "from a dense point": (*regression(8, 5, seed=3), _normal(5), 3),
        "more features than rows": (wide, wide @ (_normal(9) > 1).float(), _normal(9, seed=2), 2),
        "nothing may stay": (X, Y, torch.ones(2), 0),
    }
    return labelled_cases(("features", "targets", "theta", "k"), labelled)


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
    properties=(_AT_MOST_K,),
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
        Misconception(
            "Frobenius norm",
            lambda X, y, t, k: project(t - gradient(X, y, t) / (2 * X.norm() ** 2), k),
            "X.norm() is the root of the sum of squares of all entries (Frobenius). The largest "
            "singular value is torch.linalg.matrix_norm(X, 2).",
        ),
    ),
)
