"""What the data say about each weight in one pass: its gradient and its squared gradient.

From these two come |g|, Taylor, SNIP (`scores.py`) and, with g² in place of a second derivative,
the saliency of Optimal Brain Damage.

Axes: N examples.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from course_lib.models.finite import check_finite
from course_lib.pruning.scores import wide


@dataclass(frozen=True)
class Evidence:
    """Of each parameter, by name: the mean of g and the mean of g² over examples."""

    gradient: dict[str, Tensor]
    squared: dict[str, Tensor]


def collect_evidence(
    model: nn.Module, batches: Iterable[Any], loss: Callable[[nn.Module, Any], Tensor]
) -> Evidence:
    """Mean gradient and mean squared gradient of every parameter: one backward pass a batch.

    A batch is one example, an image or a window. The mean g² over examples is the diagonal of the
    empirical Fisher matrix: near H where the model's probabilities are those of the data, and a
    stand-in elsewhere (Kunstner et al., 2019). If the loss of an example is the mean over
    T predictions, that of H is about T times as large.

    The model is in eval mode meanwhile. Frozen parameters are asked, too; afterwards the flags, and
    gradients that were there before, are as they were. A shared parameter has one entry, over all
    its uses; one that the loss does not depend on has zeros.

    Args:
        model: of whatever `loss` gives it.
        batches: whatever `loss` takes; at least one.
        loss: of (model, batch), a 0-d tensor.

    Returns:
        Tensors of the parameters' shapes under the names of `model.named_parameters()`, in float32
        or the parameters' wider dtype.

    Raises:
        ValueError: no batches; a loss is not 0-d; a gradient is NaN or infinite.

    >>> model = nn.Linear(1, 1, bias=False)
    >>> evidence = collect_evidence(model, [2.0, -4.0], lambda m, x: (m.weight * x).sum())
    >>> evidence.gradient["weight"].tolist(), evidence.squared["weight"].tolist()
    ([[-1.0]], [[10.0]])
    """
    parameters = dict(model.named_parameters())
    flags = [(parameter, parameter.requires_grad) for parameter in parameters.values()]
    modes = [(module, module.training) for module in model.modules()]
    gradient = {name: torch.zeros_like(wide(p)) for name, p in parameters.items()}
    squared = {name: torch.zeros_like(g) for name, g in gradient.items()}
    count = 0
    try:
        model.eval().requires_grad_(True)
        for batch in batches:
            with torch.enable_grad():
                value = loss(model, batch)
            for name, g in zip(parameters, gradients_of(value, parameters), strict=True):
                g = wide(g)
                gradient[name].add_(g)
                squared[name].addcmul_(g, g)
            count += 1
    finally:
        for parameter, flag in flags:
            parameter.requires_grad_(flag)
        for module, mode in modes:
            module.training = mode
    if not count:
        raise ValueError("batches must hold at least one; got none")
    for name in parameters:
        check_finite(squared[name].div_(count), f"the squared gradient of {name}")
        gradient[name].div_(count)
    return Evidence(gradient, squared)


def gradients_of(
    value: Tensor, leaves: Mapping[str, Tensor], create_graph: bool = False
) -> tuple[Tensor, ...]:
    """Of a loss, with zeros for a tensor that it does not depend on.

    Raises:
        ValueError: the loss is not 0-d.

    >>> w, unused = torch.tensor(3.0, requires_grad=True), torch.zeros(2, requires_grad=True)
    >>> gradients_of(w**2, {"w": w, "unused": unused})
    (tensor(6.), tensor([0., 0.]))
    """
    if value.dim():
        raise ValueError(f"the loss must be a 0-d tensor; got shape {tuple(value.shape)}")
    return torch.autograd.grad(
        value, list(leaves.values()), create_graph=create_graph, materialize_grads=True
    )
