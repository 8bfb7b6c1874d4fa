"""Make up for inputs that a layer loses, without training: by its bias, or by its other columns.

A layer gives W x + b. Some of its inputs go, and their columns of W. What is lost, W_gone x_gone,
can be foretold in part: by its mean, or from the inputs that stay.

    mean     b ← b + W_gone μ_gone
    refit    V = W_stay + Δ,   Δ minimizes   mean ‖W_gone x_gone − Δ x_stay‖² + λ ‖Δ‖²

With G = mean x xᵀ the second is Δ = W_gone G_gone,stay (G_stay,stay + λ 1)⁻¹: least squares in
closed form, from second moments alone. Where there is a bias, G is of x − μ, and
b ← b + W μ − V μ_stay: the mean of the output stays as it was. λ holds V near W, so nothing moves
where nothing was lost.

Sources: He, Zhang, Sun, 2017, "Channel Pruning for Accelerating Very Deep Neural Networks" (least
squares on the channels that stay); Frantar, Singh, Alistarh, 2022, "Optimal Brain Compression: A
Framework for Accurate Post-Training Quantization and Pruning" (for single weights).

Axes: N examples, O outputs, I inputs, K inputs that stay.
"""

import torch
from torch import Tensor

from course_lib.device import without_autocast
from course_lib.models.finite import check_finite, is_fake
from course_lib.models.layers import check_mask
from course_lib.pruning.inverse_hessian import damped, layer_hessian

AT_ONCE = 2**24  # numbers in the matrices of the rows that are solved together
DAMPING = 1e-4


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


@without_autocast
@torch.no_grad()
def refit_columns(
    weight: Tensor, hessian: Tensor, keep: Tensor, damping: float = DAMPING
) -> Tensor:
    """V = W_stay + W_gone G_gone,stay (G_stay,stay + λ 1)⁻¹, with λ = damping · mean G_jj.

    Args:
        weight: W, (O, I), any float type.
        hessian: H = 2 G or G itself, to the same effect: (I, I), symmetric, float32 or float64.
        keep: (I,) bool.
        damping: at least 0; the mean is over the inputs that stay.

    Returns:
        (O, K), in the weight's dtype; solved in float64.

    Raises:
        ValueError: the shapes do not fit; keep keeps nothing; H is not symmetric and finite; the
            inputs that stay foretell each other, so that without more damping there is no answer.

    >>> hessian = torch.tensor([[1.0, 3.0], [3.0, 9.0]])
    >>> refit_columns(torch.tensor([[1.0, 2.0]]), hessian, torch.tensor([True, False]), damping=0.0)
    tensor([[7.]])
    """
    _check_moments(weight, hessian)
    check_keep(keep, weight.shape[1])
    wide = damped(hessian, 0.0)
    lost = wide[keep][:, ~keep] @ weight[:, ~keep].double().T  # (K, I - K) (I - K, O) -> (K, O)
    moved = _solve(wide[keep][:, keep], lost, damping, hessian.dtype).T
    return _narrow(weight[:, keep].double() + moved, weight.dtype)


@without_autocast
@torch.no_grad()
def refit_rows(weight: Tensor, hessian: Tensor, mask: Tensor, damping: float = DAMPING) -> Tensor:
    """`refit_columns` where each output keeps inputs of its own, as with 2 of 4: a system for each.

    Args:
        weight, hessian, damping: as for `refit_columns`.
        mask: True where a weight stays, (O, I) bool; in each row as many, at least one.

    Returns:
        (O, I), zero where the mask is False.

    Raises:
        ValueError: as `refit_columns`; a row keeps another number of weights than the first.

    >>> hessian = torch.tensor([[1.0, 3.0], [3.0, 9.0]])
    >>> mask = torch.tensor([[True, False], [False, True]])
    >>> refit_rows(torch.ones(2, 2), hessian, mask, damping=0.0)
    tensor([[4.0000, 0.0000],
            [0.0000, 1.3333]])
    """
    _check_moments(weight, hessian)
    check_mask("mask", mask, tuple(weight.shape))
    counts = mask.sum(dim=1)
    K = int(counts[0])
    if K == 0 or not (counts == K).all():
        raise ValueError(
            "mask must keep as many weights in each row, at least one; "
            f"got {counts.min()} to {counts.max()}"
        )
    wide = damped(hessian, 0.0)
    places = mask.nonzero()[:, 1].view(-1, K)  # (O · K,) -> (O, K)
    lost = (weight.double().masked_fill(mask, 0) @ wide).gather(1, places)  # (O, I) -> (O, K)
    new = weight.double() * mask
    for some in torch.arange(len(weight), device=weight.device).split(max(1, AT_ONCE // K**2)):
        at = places[some]
        stay = wide[at[:, :, None], at[:, None, :]]  # (some, K, K)
        moved = _solve(stay, lost[some][:, :, None], damping, hessian.dtype)  # (some, K, 1)
        new[some] = new[some].scatter_add(1, at, moved.squeeze(2))
    return _narrow(new, weight.dtype)


def check_keep(keep: Tensor, count: int) -> None:
    """Raise a ValueError unless `keep` is bool, has shape (count,) and keeps something."""
    check_mask("keep", keep, (count,))
    if not is_fake(keep) and not keep.any():
        raise ValueError(f"keep must keep at least 1 of {count}; it keeps none")


def _solve(stay: Tensor, lost: Tensor, damping: float, held: torch.dtype) -> Tensor:
    """(G + λ 1)⁻¹ lost for matrices (…, K, K), float64; an input that is always 0 moves nothing.

    A pivot is what the inputs before it do not foretell of an input. Where it is no more than the
    rounding of the moments, in the dtype that they were held in, the answer is made of rounding.
    """
    if not 0 <= damping < torch.inf:
        raise ValueError(f"damping must be at least 0 and finite; got {damping}")
    level = stay.diagonal(dim1=-2, dim2=-1)  # (…, K)
    level = level + damping * level.mean(dim=-1, keepdim=True) + (level == 0).double()
    stay = stay.diagonal_scatter(level, dim1=-2, dim2=-1)
    lower, failed = torch.linalg.cholesky_ex(stay)
    pivots = lower.diagonal(dim1=-2, dim2=-1).square()
    rounding = stay.shape[-1] * torch.finfo(held).eps
    if not is_fake(stay) and (failed.any() or not (pivots > rounding * level).all()):
        raise ValueError(
            "the inputs that stay foretell each other, up to rounding: damping must be larger; "
            f"got {damping}"
        )
    return torch.cholesky_solve(lost, lower)


def _narrow(weight: Tensor, dtype: torch.dtype) -> Tensor:
    weight = weight.to(dtype)
    check_finite(weight, f"the refitted weight, in {dtype},")
    return weight


def _check_moments(weight: Tensor, hessian: Tensor) -> None:
    if weight.dim() != 2 or hessian.shape != (weight.shape[-1],) * 2:
        raise ValueError(
            "weight must have shape (O, I) and hessian (I, I); "
            f"got {tuple(weight.shape)} and {tuple(hessian.shape)}"
        )
    check_finite(weight, "weight")


def _check_fit(weight: Tensor, inputs: Tensor, keep: Tensor) -> None:
    if weight.dim() != 2 or inputs.dim() != 2 or inputs.shape[1] != weight.shape[1]:
        raise ValueError(
            "weight must have shape (O, I) and inputs (N, I); "
            f"got {tuple(weight.shape)} and {tuple(inputs.shape)}"
        )
    check_finite(weight, "weight")
    check_finite(inputs, "inputs")
    check_keep(keep, weight.shape[1])
