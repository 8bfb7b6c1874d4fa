"""Make up for inputs that a layer loses, without training: by its bias, or by its other columns.

A layer gives W x + b. Some of its inputs go, and their columns of W. What is lost, W_gone x_gone,
can be foretold in part: by its mean, or from the inputs that stay.

    mean     b ← b + W_gone μ_gone
    refit    V = W_stay + Δ,   Δ minimizes   mean ‖W_gone x_gone − Δ x_stay‖² + λ ‖Δ‖²

With G = mean x xᵀ the second is Δ = W_gone G_gone,stay (G_stay,stay + λ 1)⁻¹: least squares in
closed form, from second moments alone. Where there is a bias, G is of x − μ, and
b ← b + W μ − V μ_stay: the mean of the output stays as it was. λ holds V near W, so nothing moves
where nothing was lost.

Sources: He et al., 2017, "Channel Pruning for Accelerating Very Deep Neural Networks" (least
squares on the channels that stay); Frantar et al., 2022, "Optimal Brain Compression: A
Framework for Accurate Post-Training Quantization and Pruning" (for single weights).

Axes: N examples, O outputs, I inputs, K inputs that stay.
"""

import torch
from torch import Tensor

from course_lib.device import without_autocast
from course_lib.models.finite import check_finite
from course_lib.models.selection import check_keep
from course_lib.pruning.inverse_hessian import layer_hessian
from course_lib.pruning.refit import refit_columns


def cut(
    weight: Tensor, bias: Tensor | None, inputs: Tensor | None, keep: Tensor
) -> tuple[Tensor, Tensor | None]:
    """W and b without the columns that go; nothing makes up for them.

    Args:
        weight: W, (O, I).
        bias: b, (O,), or None.
        inputs: not looked at.
        keep: True for the inputs that stay, (I,) bool.

    Returns:
        (O, K), and b.

    >>> cut(torch.tensor([[1.0, 2.0]]), None, None, torch.tensor([False, True]))
    (tensor([[2.]]), None)
    """
    check_keep(keep, weight.shape[1])
    return weight[:, keep], bias


@torch.no_grad()
def fold_mean(
    weight: Tensor, bias: Tensor | None, inputs: Tensor, keep: Tensor
) -> tuple[Tensor, Tensor | None]:
    """The mean of what went, W_gone μ_gone, goes into the bias; where there is none, nothing does.

    Exact where the inputs that go are constant.

    Args:
        weight, bias, keep: as for `cut`.
        inputs: calibration examples, (N, I).

    Returns:
        (O, K), and the new bias (O,), in the old ones' dtypes.

    Raises:
        ValueError: keep keeps nothing or does not fit; inputs do not fit or are not finite.

    >>> weight, keep = torch.tensor([[1.0, 2.0]]), torch.tensor([True, False])
    >>> fold_mean(weight, torch.zeros(1), torch.tensor([[5.0, 3.0], [7.0, 3.0]]), keep)
    (tensor([[1.]]), tensor([6.]))
    """
    _check_fit(weight, inputs, keep)
    if bias is None:
        return weight[:, keep], None
    lost = weight[:, ~keep].double() @ inputs.double().mean(dim=0)[~keep]
    return weight[:, keep], (bias.double() + lost).to(bias.dtype)


@without_autocast
@torch.no_grad()
def refit(
    weight: Tensor, bias: Tensor | None, inputs: Tensor, keep: Tensor
) -> tuple[Tensor, Tensor | None]:
    """The columns that stay, and the bias, moved so that the layer's output errs least.

    Args, Returns and Raises: as for `fold_mean`.

    >>> weight, keep = torch.tensor([[1.0, 2.0]]), torch.tensor([True, False])
    >>> new, _ = refit(weight, None, torch.tensor([[1.0, 3.0], [2.0, 6.0]]), keep)
    >>> new.round(decimals=2)  # the lost input is three times the other
    tensor([[7.]])
    """
    _check_fit(weight, inputs, keep)
    x = inputs.double()
    mean = x.mean(dim=0) if bias is not None else torch.zeros_like(x[0])
    new = refit_columns(weight, layer_hessian(x - mean), keep)
    if bias is None:
        return new, None
    moved = weight.double() @ mean - new.double() @ mean[keep]
    return new, (bias.double() + moved).to(bias.dtype)


def _check_fit(weight: Tensor, inputs: Tensor, keep: Tensor) -> None:
    if weight.dim() != 2 or inputs.dim() != 2 or inputs.shape[1] != weight.shape[1]:
        raise ValueError(
            "weight must have shape (O, I) and inputs (N, I); "
            f"got {tuple(weight.shape)} and {tuple(inputs.shape)}"
        )
    check_finite(weight, "weight")
    check_finite(inputs, "inputs")
    check_keep(keep, weight.shape[1])
