"""Ternary and binary weights: w ≈ α t with t in {−1, 0, 1}, or in {−1, 1}, and one α a row.

For a given set of k weights that are not zero, the best α is their mean |w|. It takes S² / k off
the squared error, where S is the sum of their |w|:

    min over α of ‖w − α t‖²  =  ‖w‖² − S² / k

So the best t takes the k largest |w|, for the k at which S_k² / k is largest: one sort finds it.
At the optimum the threshold is α / 2, as t is the nearest level. Three quicker rules:

    threshold     0.7 · mean |w|, α the mean |w| above it                    Li et al., 2016
    absmean       α = mean |w|, t = clamp(round(w / α), −1, 1)               Ma et al., 2024
    binary        α = mean |w|, t = sign(w), the best there is without 0     Rastegari et al., 2016

All are called as f(rows), so that one can stand for another. A row of zeros gets α = 2⁻²⁴.

Training goes through t as through any rounding, with the identity's gradient; α follows w.

Sources: Li, Zhang, Liu, 2016, "Ternary Weight Networks"; Rastegari et al., 2016, "XNOR-Net:
ImageNet Classification Using Binary Convolutional Neural Networks"; Ma et al., 2024, "The Era of
1-bit LLMs: All Large Language Models are in 1.58 Bits".

Axes: R rows sharing one α, C numbers in a row.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from course_lib.models.finite import is_fake
from course_lib.quantization.rows import check_rows
from course_lib.quantization.straight_through import SMALLEST

Signs = tuple[Tensor, Tensor]  # t, (R, C) int8, and α, (R, 1)
SHARE = 0.7  # of mean |w|, the threshold of Li et al.


def threshold_signs(rows: Tensor) -> Signs:
    """t = sign(w) where |w| > 0.7 · mean |w|, else 0; α is the mean |w| where t is not 0.

    The threshold is near the best one for uniform (2/3) and for normal (0.75) weights.

    Args:
        rows: (R, C), floats.

    Returns:
        t, (R, C) int8, and α, (R, 1), above 0, in float32 or wider.

    Raises:
        TypeError: rows are not floats.
        ValueError: rows are not (R, C), empty, NaN or infinite.

    Source: Li, Zhang, Liu, 2016, "Ternary Weight Networks".

    >>> threshold_signs(torch.tensor([[4.0, -2.0, 0.5, 0.0]]))
    (tensor([[ 1, -1,  0,  0]], dtype=torch.int8), tensor([[3.]]))
    """
    rows = _wide(rows)
    return _signs(rows, rows.abs() > SHARE * _mean(rows.abs()))


def best_signs(rows: Tensor) -> Signs:
    """The t and α of the least squared error: the k largest |w|, k = argmax S_k² / k.

    Of equal errors it is the one with fewer zeros, among equal |w|. Args, Returns, Raises: as for
    `threshold_signs`.

    >>> best_signs(torch.tensor([[4.0, -2.0, 0.5, 0.0], [1.0, -1.0, 1.0, 1.0]]))
    (tensor([[ 1, -1,  0,  0],
            [ 1, -1,  1,  1]], dtype=torch.int8), tensor([[3.],
            [1.]]))
    """
    rows = _wide(rows)
    ordered = _falling(rows.abs()).double()
    top = ordered[:, :1].clamp(min=torch.finfo(torch.float64).tiny)
    sums = (ordered / top).cumsum(dim=1)  # S_k, of numbers up to 1
    count = torch.arange(1, rows.shape[1] + 1, device=rows.device)
    k = (sums.square() / count).argmax(dim=1, keepdim=True)  # (R, 1), from 0
    least = ordered.gather(1, k).to(rows.dtype)
    return _signs(rows, (rows.abs() >= least) & (rows != 0))


def absmean_signs(rows: Tensor) -> Signs:
    """t = clamp(round(w / α), −1, 1) with α = mean |w|.

    Its threshold is ½ · mean |w|, and its α is not the best one for its t: no sum is taken over a
    part of the weights. Args, Returns, Raises: as for `threshold_signs`.

    Source: Ma et al., 2024, "The Era of 1-bit LLMs: All Large Language Models are in 1.58 Bits".

    >>> absmean_signs(torch.tensor([[4.0, -2.0, 0.5, 1.5]]))
    (tensor([[ 1, -1,  0,  1]], dtype=torch.int8), tensor([[2.]]))
    """
    rows = _wide(rows)
    alpha = _mean(rows.abs())
    return (rows / alpha).round().clamp(-1, 1).to(torch.int8), alpha


def binary_signs(rows: Tensor) -> Signs:
    """t = sign(w), with 1 for 0, and α = mean |w|: the best without a zero.

    Args, Returns, Raises: as for `threshold_signs`.

    Source: Rastegari et al., 2016, "XNOR-Net: ImageNet Classification Using Binary Convolutional
    Neural Networks".

    >>> binary_signs(torch.tensor([[4.0, -2.0, 0.0]]))
    (tensor([[ 1, -1,  1]], dtype=torch.int8), tensor([[2.]]))
    """
    rows = _wide(rows)
    return (1 - 2 * (rows < 0).to(torch.int8)), _mean(rows.abs())


class _Through(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor, fit: Callable[[Tensor], Signs]) -> Tensor:
        codes, alpha = fit(rows)
        return codes * alpha.to(torch.float16).clamp(min=SMALLEST).to(alpha.dtype)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient, None


def signs_through(rows: Tensor, fit: Callable[[Tensor], Signs]) -> Tensor:
    """α t of each row, α as float16 holds it; its gradient is that of the rows.

    Args:
        rows: (R, C), floats.
        fit: one of the rules here.

    Returns:
        (R, C), in float32 or wider.

    Raises: what `fit` raises, for example where the weights have become NaN.

    >>> rows = torch.tensor([[4.0, -2.0, 0.5, 0.0]], requires_grad=True)
    >>> signs_through(rows, best_signs).tolist()
    [[3.0, -3.0, 0.0, 0.0]]
    >>> signs_through(rows, best_signs).square().sum().backward()
    >>> rows.grad.tolist()
    [[6.0, -6.0, 0.0, 0.0]]
    """
    return _Through.apply(rows, fit)


def _wide(rows: Tensor) -> Tensor:
    check_rows(rows)
    return rows.detach().to(torch.promote_types(rows.dtype, torch.float32))


def _falling(sizes: Tensor) -> Tensor:
    """Each row sorted, the largest first. On a CPU, NumPy is fifteen times as fast at that."""
    if sizes.device.type == "cpu" and not is_fake(sizes):
        return torch.from_numpy(np.sort(sizes.numpy(), axis=1)).flip(1)
    return sizes.sort(dim=1, descending=True).values


def _mean(sizes: Tensor) -> Tensor:
    """Of each row, (R, 1), above 0. Divided first: the sum may be beyond float32."""
    return (sizes / sizes.shape[1]).sum(dim=1, keepdim=True).clamp(min=SMALLEST)


def _signs(rows: Tensor, chosen: Tensor) -> Signs:
    """sign(w) where chosen, else 0, and the mean |w| of the chosen."""
    count = chosen.sum(dim=1, keepdim=True).clamp(min=1)
    alpha = (rows.abs() * chosen / count).sum(dim=1, keepdim=True)
    return (rows.sign() * chosen).to(torch.int8), alpha.clamp(min=SMALLEST)
