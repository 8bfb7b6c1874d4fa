"""Exercises of 04_structured_pruning: the weights that stay make up for those that go.

Axes: N examples, I inputs, K of them that stay, O outputs.
"""

import torch
from torch import Tensor

from course_lib.exercises.engine.spec import Exercise

# ---------------------------------------------------------------------------- refit_kept


def refit_kept(weight: Tensor, inputs: Tensor, keep: Tensor) -> Tensor:
    """V (O, K), which makes of the K inputs that stay nearly what W (O, I) made of all.

    With inputs x, the rows of X (N, I), and keep (I,), bool, V is the minimum of

        mean over x of ‖W x − V x_stay‖² + λ ‖V − W_stay‖²,   λ = 10⁻⁴ · mean of x_j² over x and j,

    j of the inputs that stay; these are not all 0. λ makes the minimum unique where the inputs that
    stay foretell each other, or where N < K. Reckon in float64; V is in the dtype of W.
    """
    X = inputs.double()
    stay = X[:, keep]
    moments = stay.T @ stay  # (N, K) -> (K, K): N times the mean, and so is all below
    moments.diagonal().add_(1e-4 * moments.diagonal().mean())
    lost = X[:, ~keep] @ weight[:, ~keep].double().T  # (N, I − K) (I − K, O) -> (N, O)
    moved = torch.linalg.solve(moments, stay.T @ lost)  # (K, O)
    return (weight[:, keep] + moved.T).to(weight.dtype)


REFIT_KEPT = Exercise(reference=refit_kept, cases=lambda seed: [], hints=())

# -------------------------------------------------------------------------- repair_error


def repair_error(weight: Tensor, inputs: Tensor) -> Tensor:
    """For each input, the error of W x that is left if it goes and the others are refitted: (I,).

    weight W (O, I); inputs x, the rows of X (N, I). Entry i is the least mean over x of
    ‖W x − V x‖² that a V (O, I) reaches whose column i is 0. XᵀX can be inverted: no input is
    foretold by the others. I may be 800, and there are 2 seconds: do not refit I times. Reckon in
    float64, whatever comes in; the result is float64.
    """
    X = inputs.double()
    inverse = torch.linalg.inv(X.T @ X / len(X))  # (I, I)
    return weight.double().square().sum(dim=0) / inverse.diagonal()


REPAIR_ERROR = Exercise(reference=repair_error, cases=lambda seed: [], hints=())
