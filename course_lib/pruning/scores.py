"""By what score does a weight go? One function for each answer, as a tensor of the weight's shape.

The loss grows by ½ h w² − g w when a weight w goes, as far as its second derivative h and its
gradient g can tell. Every score keeps a part of that: magnitude only w, Taylor only the second
term, Optimal Brain Damage only the first. The lowest go: `masks.masks_by_score` keeps the others.

Scores that multiply or add are float32 where a weight is float16 or bfloat16, as the products of
small halves are zero in half precision: 1e-4 · 1e-4 is less than the smallest number of float16.

Scores of a layer's units, from their activations, are in `activity.py`.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from course_lib.models.finite import is_fake


def magnitude(weight: Tensor) -> Tensor:
    """|w|, in the weight's dtype.

    Source: Han et al., 2015, "Learning both Weights and Connections for Efficient
    Neural Networks".

    >>> magnitude(torch.tensor([0.5, -2.0]))
    tensor([0.5000, 2.0000])
    """
    return weight.detach().abs()


def random_scores(weight: Tensor, generator: torch.Generator) -> Tensor:
    """Uniform in [0, 1), whatever the weight is: what every other score has to beat; float32.

    Args:
        weight: of any shape; only its shape and device are used.
        generator: a CPU generator, so that the same seed gives the same scores on every device.

    >>> random_scores(torch.zeros(2, 3), torch.Generator().manual_seed(0)).shape
    torch.Size([2, 3])
    """
    return torch.rand(weight.shape, generator=generator).to(weight.device)


def gradient_magnitude(gradient: Tensor) -> Tensor:
    """|g|: how fast the loss changes when the weight does.

    >>> gradient_magnitude(torch.tensor([0.5, -2.0]))
    tensor([0.5000, 2.0000])
    """
    return gradient.detach().abs()


def taylor(weight: Tensor, gradient: Tensor) -> Tensor:
    """|g w|: by how much the loss would change without the weight, were it a straight line in it.

    Args:
        weight: of any shape.
        gradient: ∂L/∂w, of that shape.

    Raises:
        ValueError: the shapes differ.

    Source: Molchanov et al., 2017, "Pruning Convolutional Neural Networks for
    Resource Efficient Inference" (there for whole feature maps).

    >>> taylor(torch.tensor([2.0, -1.0, 0.0]), torch.tensor([0.5, 3.0, 9.0]))
    tensor([1., 3., 0.])
    """
    _check_shape(weight, gradient, "gradient")
    return (wide(weight) * wide(gradient)).abs()


def snip(weights: Mapping[str, Tensor], gradients: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """|g w| / Σ |g w|, the sum over all weights: Taylor's order, as shares of a whole.

    The paper takes it before training: g and w are those of the random network.

    Args:
        weights: by name.
        gradients: of each of the names, and perhaps of others.

    Raises:
        ValueError: a gradient is absent or of another shape; the sum is zero, infinite or NaN.

    Source: Lee et al., 2019, "SNIP: Single-Shot Network Pruning Based on Connection
    Sensitivity".

    >>> snip({"a": torch.tensor([2.0, -1.0])}, {"a": torch.tensor([0.5, 3.0])})
    {'a': tensor([0.2500, 0.7500])}
    """
    absent = [name for name in weights if name not in gradients]
    if absent:
        raise ValueError(f"gradients must hold one for each weight; {absent[0]!r} has none")
    scores = {name: taylor(weight, gradients[name]) for name, weight in weights.items()}
    total = sum(score.sum() for score in scores.values())
    if not scores or not (is_fake(total) or 0 < total < torch.inf):
        raise ValueError(f"Σ |g w| must be positive and finite; got {float(total)}")
    return {name: score / total for name, score in scores.items()}


def saliency(weight: Tensor, curvature: Tensor) -> Tensor:
    """½ h w²: by how much the loss grows without the weight, where the gradient is zero.

    Where h is negative, so is the score: without the weight the loss would fall.

    Args:
        weight: of any shape.
        curvature: h = ∂²L/∂w² of each weight, of that shape; exact, estimated or Fisher's (see
            `curvature.py`).

    Raises:
        ValueError: the shapes differ.

    Source: LeCun, Denker, Solla, 1989, "Optimal Brain Damage".

    >>> saliency(torch.tensor([2.0, -1.0]), torch.tensor([0.5, 3.0]))
    tensor([1.0000, 1.5000])
    """
    _check_shape(weight, curvature, "curvature")
    return wide(weight).square() * wide(curvature) / 2


def collect_movement(
    optimizer: torch.optim.Optimizer, weights: Mapping[str, nn.Parameter]
) -> dict[str, Tensor]:
    """Scores that grow as `optimizer` trains: S ← S − w g at each step, with w before the step.

    −g is where gradient descent takes w. So S grows where a weight moves away from zero, and a
    weight that moves towards zero goes, however large it still is. Scores have a sign. A weight
    without gradient (frozen, unused) keeps 0, and one held at zero by a mask keeps what it has.

    Args:
        optimizer: any; of the gradients, whatever clipping has left of them is seen.
        weights: the parameters by name, from `prunable_weights`.

    Returns:
        For each name S, zero now; it is changed in place by each `optimizer.step()`.

    Source: Sanh et al., 2020, "Movement Pruning: Adaptive Sparsity by Fine-Tuning".

    >>> weight = nn.Parameter(torch.tensor([2.0, -1.0]))
    >>> optimizer = torch.optim.SGD([weight], lr=0.5)
    >>> scores = collect_movement(optimizer, {"w": weight})
    >>> weight.grad = torch.tensor([1.0, 1.0])
    >>> optimizer.step()
    >>> scores, weight.tolist()
    ({'w': tensor([-2.,  1.])}, [1.5, -1.5])
    """
    scores = {name: torch.zeros_like(wide(weight)) for name, weight in weights.items()}

    def add(*_) -> None:
        for name, weight in weights.items():
            if weight.grad is not None:
                scores[name].addcmul_(wide(weight), wide(weight.grad), value=-1)

    optimizer.register_step_pre_hook(add)
    return scores


def wide(tensor: Tensor) -> Tensor:
    """A tensor without its graph in float32, or in its own dtype if that is wider.

    >>> wide(torch.ones(1).half()).dtype, wide(torch.ones(1).double()).dtype
    (torch.float32, torch.float64)
    """
    return tensor.detach().to(torch.promote_types(tensor.dtype, torch.float32))


def _check_shape(weight: Tensor, other: Tensor, name: str) -> None:
    if weight.shape != other.shape:
        raise ValueError(
            f"{name} must have the weight's shape {tuple(weight.shape)}; got {tuple(other.shape)}"
        )
