"""Exercises of 02_l0_objective: what a penalty, a threshold and a budget of k do to weights.

Axes: N rows, P features.
"""

import math

import torch
from torch import Tensor

from course_lib.exercises.engine.seeded import Draw
from course_lib.exercises.engine.spec import Case, Exercise, Misconception, Property, labelled_cases
from course_lib.pruning.least_squares import gradient, lipschitz_constant
from course_lib.pruning.objective import project

X = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0], [2.0, 1.0]])
Y = torch.tensor([1.0, 2.0, 3.0, 5.0])


def regression(draw: Draw, rows: int, features: int) -> tuple[Tensor, Tensor]:
    """X (N, P) and y (N,) with two features that matter, and means that are not zero."""
    X = draw.normal(rows, features) + torch.arange(features)
    return X, 2 * X[:, 0] - X[:, 1] + 3 + 0.5 * draw.normal(rows)


def _doubles(*tensors: Tensor) -> tuple[Tensor, ...]:
    return tuple(tensor.double() for tensor in tensors)


# --------------------------------------------------------------------- ridge_closed_form


def ridge_closed_form(features: Tensor, targets: Tensor, penalty: float) -> Tensor:
    """The θ (P,) of least ‖Xθ − y‖₂² + λ‖θ‖₂², in X's dtype."""
    gram = features.T @ features
    eye = torch.eye(len(gram), device=gram.device)
    return torch.linalg.solve(gram + penalty * eye, features.T @ targets)


def _ridge_cases(seed: int) -> list[Case]:
    draw = Draw(seed)
    apart = draw.normal(8, 3).double()
    nearly_equal = torch.cat([apart, apart[:, :1] + 1e-4 * draw.normal(8, 1)], dim=1)
    wide = (draw.normal(3, 6), draw.normal(3))
    labelled = {
        "no penalty": (X, Y, 0.0),
        "a small penalty": (X, Y + draw.normal(4), 0.5),
        "a large penalty": (X, Y + draw.normal(4), draw.number(10, 30) + 0.5),
        "five features": (*regression(draw, 9, 5), draw.number(1, 5) / 2),
        "more features than rows": (*wide, draw.number(1, 4) / 2),
        "small numbers": (1e-3 * draw.normal(7, 3), 1e-3 * draw.normal(7), 1e-6),
        "one feature": (draw.normal(5, 1), draw.normal(5), 1.5),
        "float64, two columns nearly equal": (nearly_equal, draw.normal(8).double(), 1e-9),
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
    relative_tolerance=1e-4,
    absolute_tolerance=1e-5,
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
    """The θ of least ‖θ − z‖₂² + λ‖θ‖₁, of z's shape and dtype; z may require a gradient."""
    return z.sign() * (z.abs() - penalty / 2).clamp(min=0)


def _off(values: Tensor, threshold: float) -> Tensor:
    """The values, none of them within a tenth of ±threshold: no answer hangs on rounding."""
    near = (values.abs() - threshold).abs() < 0.1 * threshold
    return torch.where(near, 1.5 * values, values)


def _thresholds(seed: int) -> list[Case]:
    draw = Draw(seed)
    some, price = draw.uniform(3).tolist(), 0.5 + draw.uniform(1).item()
    labelled = {
        "three numbers": (torch.tensor([1.0, -0.4, 0.2]) + 0.02 * some[0], 0.5),
        "no penalty": (torch.cat([0.1 + draw.normal(4).abs(), torch.tensor([1e-10])]), 0.0),
        "everything goes": (draw.uniform(2) - 0.5, 3.0 + some[1]),
        "one number": (torch.tensor([-2.0 - some[2]]), 1.0),
        "a matrix": (_off(draw.normal(3, 4), price), 2 * price),
        "very small numbers": (1e-9 * _off(draw.normal(6), 0.5), 1e-9),
        "very large numbers": (1e9 * _off(draw.normal(6), 0.5), 1e9),
        "float64": (_off(draw.normal(5), price).double(), 2 * price),
    }
    return labelled_cases(("z", "penalty"), labelled)


MINIMISE_L1 = Exercise(
    reference=minimise_l1,
    cases=_thresholds,
    differentiable=("z",),
    absolute_tolerance=1e-14,
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
    """A copy of `weight`, each entry zeroed whose magnitude is not larger than the threshold."""
    return torch.where(weight.abs() > threshold, weight, 0.0)


def _weights_and_thresholds(seed: int) -> list[Case]:
    draw = Draw(seed)
    many, long = draw.normal(4, 5), draw.normal(30)
    tie = many.abs().flatten().sort().values[draw.number(5, 15)].item()
    above = torch.tensor([1 + 1e-9, 1 - 1e-9, -1 - 1e-9, 1.0], dtype=torch.float64)
    size = draw.number(1, 9) / 8
    labelled = {
        "both signs, and a tie": (torch.tensor([[0.25, -0.25], [0.75, -0.5]]), 0.25),
        "a vector": (torch.tensor([2.0, -3.0, 0.5, 0.0]) * size, size),
        "a threshold of zero": (torch.cat([draw.normal(2), torch.tensor([0.0, -0.0])]), 0.0),
        "everything goes": (draw.uniform(2) - 0.5, 1.0),
        "a matrix, one entry on the threshold": (many, tie),
        "very small weights": (1e-30 * long, 1e-30),
        "one giant": (torch.cat([long, torch.tensor([-1e9])]), 0.5),
        "float64, hardly above and below": (size / 3 * above, size / 3),
        "a single number": (draw.normal(1).abs() + 1, 0.5),
    }
    return labelled_cases(("weight", "threshold"), labelled)


def _in_place(weight, threshold):
    weight[weight.abs() <= threshold] = 0
    return weight


HARD_THRESHOLD = Exercise(
    reference=hard_threshold,
    cases=_weights_and_thresholds,
    absolute_tolerance=0.0,
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
    """The k largest magnitudes of the vector θ (P,), zeros elsewhere, in θ's dtype.

    Of equal magnitudes the first by index stay.
    """
    kept, left = torch.zeros_like(theta), theta.abs()
    for _ in range(k):
        i = left.argmax()
        kept[i] = theta[i]
        left[i] = -torch.inf
    return kept


def _projections(seed: int) -> list[Case]:
    draw = Draw(seed)
    thirty, close = draw.normal(30), 1 + 1e-9 * draw.order(6).double()
    many_ties = draw.integers(-3, 4, 300).float()
    labelled = {
        "two of six": (torch.tensor([0.5, -3.0, 0.0, 2.0, -0.1, 1.0]), 2),
        "ties": (torch.tensor([1.0, -3.0, -1.0, 1.0, 0.5, 1.0]), 3),
        "none": (draw.normal(2), 0),
        "all": (torch.tensor([0.3, 0.0, -0.4]), 3),
        "one number": (draw.normal(1), 1),
        "more numbers": (3 * thirty, draw.number(5, 25)),
        "many ties": (many_ties, draw.number(100, 200)),
        "very small numbers": (1e-9 * draw.normal(9), draw.number(3, 7)),
        "very large numbers": (1e30 * draw.normal(9), draw.number(3, 7)),
        "float64, nearly equal": (close * draw.normal(6).sign(), 3),
    }
    return labelled_cases(("theta", "k"), labelled)


def _magnitudes(theta: Tensor, k: int) -> float:
    """The k-th largest magnitude; infinity for k = 0."""
    return theta.abs().sort(descending=True).values[k - 1].item() if k else math.inf


def _last_ties(theta, k):
    return project(theta.flip(0), k).flip(0)


def _largest_signed(theta, k):
    chosen = theta.argsort(descending=True, stable=True)[:k]
    kept = torch.zeros_like(theta)
    kept[chosen] = theta[chosen]
    return kept


_AT_MOST_K = Property(
    "at most k entries are not zero",
    lambda inputs, value: int((value != 0).sum()) <= inputs["k"],
)

KEEP_LARGEST = Exercise(
    reference=keep_largest,
    cases=_projections,
    absolute_tolerance=0.0,
    hints=(
        "Find the largest magnitude, copy that entry, strike it out. How often?",
        "Write into torch.zeros_like(theta), and strike out in a copy of the magnitudes.",
        "argmax finds the first of equal entries. A sort does as well, with stable=True: "
        "theta.abs().argsort(descending=True, stable=True)[:k].",
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
    """One step 1/Λ against the gradient of ‖Xθ − y‖₂², then the k largest magnitudes, others 0."""
    slope = 2 * features.T @ (features @ theta - targets)
    step = 1 / (2 * torch.linalg.matrix_norm(features, 2) ** 2)
    return project(theta - step * slope, k)


def _steps(seed: int) -> list[Case]:
    draw = Draw(seed)

    def problem(rows: int, features: int, k: int) -> tuple[Tensor, Tensor, Tensor, int]:
        """With a gap between the k-th and the next magnitude, so that rounding chooses nothing."""
        while True:
            X, y = regression(draw, rows, features)
            theta = draw.normal(features)
            size = (theta - gradient(X, y, theta) / lipschitz_constant(X)).abs()
            size = size.sort(descending=True).values
            if size[k - 1] > 1.05 * size[k]:
                return X, y, theta, k

    square, (small_x, small_y, theta, k) = problem(8, 5, 3), problem(7, 4, draw.number(1, 4))
    wx, wy, wt = _doubles(*problem(9, 6, 2)[:3])
    labelled = {
        "from zero": (X, Y + draw.number(0, 3), torch.zeros(2), 1),
        "from [1, 2]": (X, Y, torch.tensor([1.0, 2.0]), 2),
        "from a dense point": square,
        "more features than rows": problem(6, 9, 2),
        "nothing may stay": (X, Y, torch.ones(2), 0),
        "features of small numbers": (1e-9 * small_x, 1e-9 * small_y, theta, k),
        "one feature": (draw.normal(5, 1), draw.normal(5), draw.normal(1), 1),
        "float64, smaller than float32 knows": (1e-60 * wx, 1e-60 * wy, wt, 2),
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
