"""Exercises of 03_pruning: what the loss says about a weight, to first and to second order.

Axes: N examples, P parameters, K probes.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from course_lib.exercises.engine.seeded import Draw
from course_lib.exercises.engine.spec import Case, Exercise, Misconception, labelled_cases

# -------------------------------------------------------------------------- taylor_score


def taylor_score(weight: Tensor, gradients: Tensor) -> Tensor:
    """First-order score |w · g| of each weight, in the weight's shape and dtype.

    gradients: (N, *weight.shape), one for each example; g is their mean.
    """
    return (weight * gradients.mean(0)).abs()


def _examples(draw: Draw, count: int, *shape: int) -> Tensor:
    """Gradients (count, *shape) of both signs, whose means are not near zero."""
    gradients = draw.normal(count, *shape)
    return gradients + 0.25 * gradients.mean(0).sign()


def _weights_and_gradients(seed: int) -> list[Case]:
    draw = Draw(seed)
    pair = _examples(draw, 1, 3)
    far = _examples(draw, 5, 4)
    far[2, 1] = 1e6
    some, count = torch.tensor([2.0, -1.0, 0.5]), draw.number(3, 9)
    labelled = {
        "two examples": (some, torch.tensor([[1.0, 2.0, 0.0], [3.0, -1.0, 4.0]])),
        "one example": (draw.normal(2, 3), _examples(draw, 1, 2, 3)),
        "two examples that cancel": (draw.normal(3), torch.cat([pair, -pair])),
        "a matrix": (draw.normal(3, 4), _examples(draw, count, 3, 4)),
        "a convolution": (draw.normal(2, 3, 2, 2), _examples(draw, 4, 2, 3, 2, 2)),
        "weights of zero": (torch.tensor([0.0, -0.0, -3.0]), _examples(draw, count, 3)),
        "one far gradient": (draw.normal(4), far),
        "very small gradients": (draw.normal(5), 1e-9 * _examples(draw, 6, 5)),
        "very large weights": (1e9 * draw.normal(5), _examples(draw, 6, 5)),
        "float64": (1e-60 * draw.normal(4).double(), _examples(draw, 3, 4).double()),
    }
    return labelled_cases(("weight", "gradients"), labelled)


TAYLOR_SCORE = Exercise(
    reference=taylor_score,
    cases=_weights_and_gradients,
    absolute_tolerance=0.0,
    hints=(
        "Set w to zero: the weight moves by −w. To first order, by how much does the loss change?",
        "By −w · g, where g is the gradient of the mean loss. When do you take the magnitude?",
        "gradients.mean(0) first, then times the weight, then .abs().",
    ),
    misconceptions=(
        Misconception(
            "magnitude too early",
            lambda w, g: (w * g).abs().mean(0),
            "you took the magnitude for each example and then the mean: Taylor by image, another "
            "score, and a good one. Asked is the change of the mean loss, to first order: the "
            "mean first, and then the magnitude.",
        ),
        Misconception(
            "signed",
            lambda w, g: w * g.mean(0),
            "the score has a sign. A large negative one would be the first to go, though it "
            "changes the loss just as much.",
        ),
        Misconception(
            "gradient alone",
            lambda w, g: g.mean(0).abs(),
            "that is |g|: how steep the loss is, not how far the weight travels. Going to zero "
            "means a step of −w, so the change is w · g.",
        ),
        Misconception(
            "sum of the examples",
            lambda w, g: (w * g.sum(0)).abs(),
            "you added the examples up. The ranking is the same, but the score grows with the "
            "number of examples: it is no estimate of the mean loss.",
        ),
        Misconception(
            "squared",
            lambda w, g: (w * g.mean(0)).square(),
            "that is (w g)². It ranks alike, but it is no loss any more: a score of |w g| is the "
            "change of the loss itself, so scores of several weights can be added.",
        ),
        Misconception(
            "squared gradients",
            lambda w, g: w.square() * g.square().mean(0),
            "you took the mean of the squared gradients: the empirical Fisher, which stands in "
            "for the curvature. The first-order term needs the mean gradient.",
        ),
    ),
)

# -------------------------------------------------------------------------- obd_saliency


def obd_saliency(features: Tensor, targets: Tensor, theta: Tensor) -> Tensor:
    """½ H_ii θ_i² for each weight of L(θ) = ‖Xθ − y‖₂², (P,) in θ's dtype.

    features X (N, P), targets y (N,). θ (P,) is at the minimum of L, so this is by how much L rises
    exactly when that weight alone is set to zero. H is the Hessian of L.
    """
    return features.square().sum(0) * theta.square()


def _minima(seed: int) -> list[Case]:
    draw, X = Draw(seed), torch.tensor([[10.0, 0.0], [0.0, 1.0], [10.0, 1.0], [20.0, 1.0]])

    def theta(count: int) -> Tensor:
        """From ½ to 2 in size, of both signs."""
        return (0.5 + 1.5 * draw.uniform(count)) * draw.normal(count).sign()

    def reached(X: Tensor, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return X, X @ t, t

    def fitted(rows: int, count: int, scale: float) -> tuple[Tensor, Tensor, Tensor]:
        """The residual is not zero at the minimum."""
        X, y = scale * draw.normal(rows, count).double(), scale * (draw.normal(rows).double() + 2)
        return X, y, torch.linalg.lstsq(X, y[:, None]).solution[:, 0]

    zeros = torch.tensor([1.5, 0.0, -0.0]) * draw.number(1, 5)
    dead = draw.normal(6, 3) * torch.tensor([1.0, 0.0, 1.0])
    labelled = {
        "inputs of two scales": reached(X, torch.tensor([0.2, 1.0])),
        "five weights": reached(draw.normal(9, 5), theta(5)),
        "two columns nearly equal": reached(
            (a := draw.normal(8, 1)) + 0.1 * draw.normal(8, 3), theta(3) + 0 * a[0]
        ),
        "weights of zero": reached(draw.normal(5, 3), zeros),
        "an input that is always zero": reached(dead, theta(3)),
        "one weight": reached(draw.normal(4, 1), theta(1)),
        "very small inputs": reached(1e-9 * draw.normal(7, 4), theta(4)),
        "very large weights": reached(draw.normal(7, 4), 1e9 * theta(4)),
        "float64, a fit that is not perfect": fitted(draw.number(12, 20), 4, 1.0),
        "float64, smaller than float32 knows": fitted(11, 3, 1e-60),
    }
    return labelled_cases(("features", "targets", "theta"), labelled)


def _refitted(X, y, theta):
    """What the loss rises by when the other weights may move."""
    return theta.square() / torch.linalg.pinv(X.T @ X).diagonal()


OBD_SALIENCY = Exercise(
    reference=obd_saliency,
    cases=_minima,
    relative_tolerance=1e-4,
    absolute_tolerance=0.0,
    hints=(
        "At a minimum the gradient is zero, so the first term that is left is the second one: "
        "½ δᵀHδ. Which δ sets weight i to zero?",
        "δ has −θ_i at place i and zeros elsewhere, so only H_ii counts. What is H for ‖Xθ − y‖²?",
        "H = 2XᵀX, and H_ii is twice the sum of squares of column i. The 2 and the ½ cancel.",
    ),
    misconceptions=(
        Misconception(
            "magnitude",
            lambda X, y, t: t.abs(),
            "that is |θ_i|. It does not see the inputs: a small weight on a large input carries "
            "more than a large weight on a small one.",
        ),
        Misconception(
            "gradient",
            lambda X, y, t: (t * (2 * X.T @ (X @ t - y))).abs(),
            "you used the gradient. At the minimum it is zero (what you got is rounding), whatever "
            "a weight is worth. The curvature is what is left.",
        ),
        Misconception(
            "θ not squared",
            lambda X, y, t: X.square().sum(0) * t.abs(),
            "that is ½ H_ii |θ_i|. The step has length |θ_i|, and the loss rises with its square.",
        ),
        Misconception(
            "half forgotten",
            lambda X, y, t: 2 * X.square().sum(0) * t.square(),
            "the factor ½ of the second-order term is missing. The ranking is right, but the loss "
            "will rise by half as much as you predict.",
        ),
        Misconception(
            "XᵀX as the Hessian",
            lambda X, y, t: 0.5 * X.square().sum(0) * t.square(),
            "you took XᵀX for the Hessian, which is that of ½‖Xθ − y‖². Without the ½, H = 2XᵀX.",
        ),
        Misconception(
            "others refitted",
            _refitted,
            "you divided by the diagonal of the inverse. That is what the loss rises by when all "
            "other weights move to make up for it: Optimal Brain Surgeon. Here they stay.",
        ),
    ),
)

# ------------------------------------------------------------------- hutchinson_diagonal


def hutchinson_diagonal(features: Tensor, labels: Tensor, theta: Tensor, probes: Tensor) -> Tensor:
    """Estimate of the diagonal of a Hessian H: the mean over the probes v of v ⊙ (Hv), (P,).

    H is the Hessian by θ (P,) of the mean over N examples of the logistic loss, the binary
    cross-entropy of the logits Xθ: features X (N, P), labels (N,) of 0. and 1. H itself is not
    needed, and Xθ may be as large as ±200. probes (K, P) of ±1. All are of one dtype, float32 or
    float64, and so is the result.
    """
    theta = nn.Parameter(theta)
    loss = F.binary_cross_entropy_with_logits(features @ theta, labels)
    (slope,) = torch.autograd.grad(loss, theta, create_graph=True)
    products = [torch.autograd.grad(slope, theta, v, retain_graph=True) for v in probes]
    return (probes * torch.stack([product for (product,) in products])).mean(0)


def _logistic_hessian(X: Tensor, theta: Tensor) -> Tensor:
    p = (X @ theta).sigmoid()
    return X.T @ ((p * (1 - p))[:, None] * X) / len(X)


def _logistic_problems(seed: int) -> list[Case]:
    draw = Draw(seed)

    def problem(rows: int, count: int, probes: int, scale: float = 1.0, dtype=torch.float32):
        """With estimates that are not near zero, so that rounding does not show."""
        while True:
            X, t = draw.normal(rows, count).to(dtype), draw.normal(count).to(dtype)
            v = draw.normal(probes, count).sign().to(dtype)
            H = _logistic_hessian(X, t)
            if ((v * (v @ H)).mean(0).abs() > 0.05 * H.abs().max()).all():
                break
        return scale * X, (draw.uniform(rows) < 0.5).to(dtype), t / scale, v

    certain = torch.tensor([[200.0, 0.0], [-200.0, 0.0], [0.0, 1.0], [0.0, 2.0]])
    by_hand = torch.tensor([[2.0, 4.0], [2.0, 8.0]])
    labelled = {
        "by hand": (by_hand, torch.tensor([1.0, 0.0]), torch.zeros(2), torch.tensor([[1.0, -1.0]])),
        "one probe": problem(6, 3, 1),
        "four probes": problem(9, 4, 4),
        "more weights than examples": problem(3, 5, draw.number(2, 6)),
        "one weight": problem(5, 1, 3),
        "one example": problem(1, 3, 2),
        "certain, and one of them wrong": (
            certain,
            torch.tensor([1.0, 1.0, 0.0, 1.0]),
            torch.tensor([1.0, 0.5 + draw.uniform(1).item()]),
            torch.tensor([[1.0, -1.0], [1.0, 1.0]]),
        ),
        "very small inputs": problem(7, 3, 3, scale=1e-9),
        "very large inputs": problem(7, 3, 3, scale=1e9),
        "float64, smaller than float32 knows": problem(6, 4, 3, 1e-60, torch.float64),
    }
    return labelled_cases(("features", "labels", "theta", "probes"), labelled)


def _of_hessian(estimate):
    """What `estimate` makes of (H, probes)."""
    return lambda X, y, t, probes: estimate(_logistic_hessian(X, t), probes)


def _mean_squared_gradient(X, y, theta, probes):
    """Of each example's own loss."""
    return (X * ((X @ theta).sigmoid() - y)[:, None]).square().mean(0)


HUTCHINSON_DIAGONAL = Exercise(
    reference=hutchinson_diagonal,
    cases=_logistic_problems,
    relative_tolerance=1e-4,
    absolute_tolerance=0.0,
    hints=(
        "The gradient is a function of θ, too. Differentiate it once more, weighted by v, and you "
        "have Hv.",
        "F.binary_cross_entropy_with_logits is the loss. torch.autograd.grad(loss, θ, "
        "create_graph=True) keeps what the second differentiation needs. nn.Parameter(θ) is a θ "
        "that requires a gradient.",
        "torch.autograd.grad(slope, θ, v, retain_graph=True)[0] is Hv. Multiply by v entry by "
        "entry, for each row v of probes, and take the mean.",
    ),
    misconceptions=(
        Misconception(
            "exact diagonal",
            _of_hessian(lambda H, v: H.diagonal().clone()),
            "that is the diagonal itself, so you formed H. The exercise is the estimate from these "
            "probes, which needs no H: with P weights, H has P² entries.",
        ),
        Misconception(
            "trace",
            _of_hessian(lambda H, v: (v * (v @ H)).sum(1).mean()),
            "you added up v ⊙ Hv. vᵀHv estimates the trace, the sum of the diagonal. Leave the "
            "entries apart.",
        ),
        Misconception(
            "not multiplied by v",
            _of_hessian(lambda H, v: (v @ H).mean(0)),
            "that is the mean of Hv. Entry i of it is Σ H_ij v_j, where H_ii has a random sign. "
            "Times v_i, H_ii is counted with +1 and all others cancel in the mean.",
        ),
        Misconception(
            "sum over probes",
            _of_hessian(lambda H, v: (v * (v @ H)).sum(0)),
            "you added the probes up. The estimate is their mean; else it grows with K.",
        ),
        Misconception(
            "squared gradients",
            _mean_squared_gradient,
            "that is the mean of the squared gradients, the empirical Fisher. It needs one "
            "differentiation only, and agrees with the Hessian only where the model is right.",
        ),
        Misconception(
            "summed loss",
            lambda X, y, t, v: len(X) * (v * (v @ _logistic_hessian(X, t))).mean(0),
            "you differentiated the sum over the examples. The loss here is their mean.",
        ),
    ),
)
