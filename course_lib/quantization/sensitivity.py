"""What does it cost to give one layer few bits? Measured, or predicted from the loss's curvature.

Measured: round the weights of one layer, leave the others, and see by how much the loss grows.

Predicted: where the loss is at a minimum, a change δ of a layer's weights costs ½ δᵀHδ, H being the
second derivatives. If δ points nowhere in particular, only the mean of H's diagonal counts:

    ½ δᵀHδ  ≈  ½ · tr H / n · Σ δ²          n weights

Both are the K costs of L layers that `mixed` chooses among.

Source: Dong et al., 2020, "HAWQ-V2: Hessian Aware trace-Weighted Quantization of Neural Networks".

Axes: L layers, K choices.
"""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from course_lib.models.finite import check_finite


@torch.no_grad()
def measured_costs(
    model: nn.Module,
    rounded: Mapping[str, Sequence[Tensor]],
    loss: Callable[[nn.Module], float],
) -> Tensor:
    """By how much the loss grows when one layer alone has rounded weights, (L, K) float64.

    Args:
        model: afterwards as it was, after an error as well.
        rounded: name of a parameter -> its values under each of K choices, in its shape.
        loss: of the model, on a text for example; asked 1 + L · K times, without gradients.

    Raises:
        ValueError: a name that there is not; values of another shape; another number of choices
            than the first has, or none.

    >>> layer = nn.Linear(1, 1, bias=False)
    >>> choices = {"weight": [torch.tensor([[2.0]]), torch.tensor([[5.0]])]}
    >>> costs = measured_costs(layer, choices, lambda m: m(torch.ones(1)).item())
    >>> round((costs[0, 1] - costs[0, 0]).item(), 3)
    3.0
    """
    parameters = dict(model.named_parameters())
    _check_choices(rounded, parameters)
    dense, costs = loss(model), []
    for name, choices in rounded.items():
        weight = parameters[name]
        kept = weight.detach().clone()
        try:
            for values in choices:
                weight.copy_(values)
                costs.append(loss(model) - dense)
        finally:
            weight.copy_(kept)
    return torch.tensor(costs, dtype=torch.float64).view(len(rounded), -1)


def _check_choices(rounded: Mapping[str, Sequence[Tensor]], parameters: dict[str, Tensor]) -> None:
    if unknown := rounded.keys() - parameters.keys():
        raise ValueError(f"rounded must name parameters of the model; got {sorted(unknown)}")
    counts = sorted({len(choices) for choices in rounded.values()})
    if len(counts) != 1 or counts == [0]:
        raise ValueError(
            f"rounded must have as many choices for each layer, 1 or more; got {counts}"
        )
    for name, choices in rounded.items():
        shapes = {tuple(values.shape) for values in choices} - {tuple(parameters[name].shape)}
        if shapes:
            raise ValueError(
                f"{name} must have shape {tuple(parameters[name].shape)}; got {sorted(shapes)}"
            )


def curvature_costs(traces: Tensor, counts: Tensor, errors: Tensor) -> Tensor:
    """½ · tr H / n · Σ (w − ŵ)²: what rounding costs if errors point nowhere in particular, (L, K).

    Args:
        traces: tr H of each layer's weights, (L,), from `pruning.curvature.hutchinson_diagonal`
            for example. Away from a minimum it may be negative.
        counts: n, how many weights, (L,), at least 1.
        errors: Σ (w − ŵ)² of each choice, (L, K), at least 0.

    Returns:
        In the unit of the loss, in float32 or wider.

    Raises:
        ValueError: shapes that do not fit; numbers outside that, NaN or infinite.

    >>> curvature_costs(torch.tensor([8.0]), torch.tensor([4]), torch.tensor([[3.0, 1.0]]))
    tensor([[3., 1.]])
    """
    if traces.shape != counts.shape or traces.shape != errors.shape[:1] or errors.dim() != 2:
        shapes = tuple(traces.shape), tuple(counts.shape), tuple(errors.shape)
        raise ValueError(f"traces, counts, errors must be (L,), (L,), (L, K); got {shapes}")
    check_finite(traces, "traces")
    check_finite(errors, "errors")
    if (counts < 1).any() or (errors < 0).any():
        raise ValueError("counts must be at least 1 and errors at least 0")
    return (traces / counts / 2)[:, None] * errors
