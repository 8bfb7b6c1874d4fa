"""LoRA: what a layer learns anew is a product of two thin matrices beside it.

A weight W (O, I) that is fine-tuned becomes W + ΔW. LoRA holds W still and learns ΔW alone, at rank
r, from a product:

    y = W x + (α / r) B A x           B = `left` (O, r),  A = `right` (r, I)

So r (O + I) numbers get gradients and an optimizer's state in place of O I, and a file holds these
alone. With the loss's gradient g for y,

    gradient of B  =  (α / r) g (A x)ᵀ          gradient of A  =  (α / r) Bᵀ g xᵀ

At the start A is random and B is 0: the model is what it was, and B moves first. If both were 0,
both gradients would be 0, and stay so. If both were random, the model would start as another one.

Why should a low rank do? What fine-tuning has to change has few dimensions, in models that have
learned much before (Aghajanyan et al., 2021). α / r is there so that a learning rate that was found
at one rank does at others; at large ranks α / √r keeps that better (Kalajdzievski, 2023), which is
α √r in place of α here.

`merge` makes one matrix of W and ΔW, which then costs no time. It rounds to the dtype of W, so that
taking ΔW out again gives W back up to that rounding only.

Axes: O outputs, I inputs, r rank.

Source: Hu et al., 2022, "LoRA: Low-Rank Adaptation of Large Language Models".
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from course_lib.device import without_autocast
from course_lib.models.finite import check_finite


class LoRALinear(nn.Module):
    """y = base(x) + (α / r) B A x: a layer that stays, and a change of rank r that learns.

    Args:
        base: W, with `in_features` I and `out_features` O: a linear layer, or one that stands for
            it, as of packed codes. Its parameters need no gradient any more.
        rank: r, from 1 to min(O, I).
        alpha: α, above 0.
        generator: draws A, uniform from −1/√I to 1/√I; on the CPU, so that a seed gives one start
            on every device.

    B and A are parameters in float32, or in float64 if the base is; y has the dtype of base(x).

    Raises:
        ValueError: rank or alpha out of range; a base without `in_features` and `out_features`.

    >>> layer = LoRALinear(nn.Linear(6, 4), rank=2, alpha=4.0)
    >>> x = torch.randn(3, 6)
    >>> torch.equal(layer(x), layer.base(x)), layer.left.shape, layer.right.shape
    (True, torch.Size([4, 2]), torch.Size([2, 6]))
    """

    def __init__(
        self, base: nn.Module, rank: int, alpha: float, generator: torch.Generator | None = None
    ):
        super().__init__()
        self.out_features, self.in_features = features_of(base)
        most = min(self.out_features, self.in_features)
        if not 1 <= rank <= most:
            raise ValueError(
                f"rank must be from 1 to {most} for a layer of {self.in_features} inputs and "
                f"{self.out_features} outputs; got {rank}"
            )
        if not 0 < alpha < torch.inf:
            raise ValueError(f"alpha must be above 0 and finite; got {alpha}")
        self.base, self.rank, self.alpha = base.requires_grad_(False), rank, float(alpha)
        like = next(iter((*base.parameters(), *base.buffers())))
        wide = {"device": like.device, "dtype": torch.promote_types(like.dtype, torch.float32)}
        drawn = torch.empty(rank, self.in_features)
        nn.init.kaiming_uniform_(drawn, a=5**0.5, generator=generator)  # bound 1/√I
        self.left = nn.Parameter(torch.zeros(self.out_features, rank, **wide))
        self.right = nn.Parameter(drawn.to(**wide))

    def forward(self, x: Tensor) -> Tensor:
        """(…, I) -> (…, O)."""
        y = self.base(x)
        change = F.linear(F.linear(x.to(self.right.dtype), self.right), self.left)
        return (y + change * (self.alpha / self.rank)).to(y.dtype)

    def extra_repr(self) -> str:
        return f"{self.in_features}, {self.out_features}, rank={self.rank}, alpha={self.alpha:g}"


def features_of(base: nn.Module) -> tuple[int, int]:
    """O and I of a layer.

    Raises:
        ValueError: it does not say.

    >>> features_of(nn.Linear(6, 4))
    (4, 6)
    """
    found = getattr(base, "out_features", None), getattr(base, "in_features", None)
    if None in found:
        raise ValueError(
            f"base must be a layer with in_features and out_features; got {type(base).__name__}"
        )
    return found


@without_autocast
@torch.no_grad()
def merge(weight: Tensor, left: Tensor, right: Tensor, alpha: float) -> Tensor:
    """W + (α / r) B A: one matrix. With −α in place of α it takes the change out again.

    Args:
        weight: W, (O, I), any float type; left as it is.
        left: B, (O, r).
        right: A, (r, I).
        alpha: α, finite.

    Returns:
        (O, I), in the dtype of W; summed in float32 or wider, and rounded once. What is lost
        there does not come back: in bfloat16 each number of W is known to 2⁻⁸ of itself.

    Raises:
        TypeError: not floats.
        ValueError: the shapes do not fit; NaN or infinity, in the sum as well.

    >>> merge(torch.eye(2), torch.tensor([[1.0], [0.0]]), torch.tensor([[0.0, 3.0]]), alpha=2.0)
    tensor([[1., 6.],
            [0., 1.]])
    """
    fits = left.dim() == right.dim() == 2 and left.shape[1] == len(right) > 0
    if not fits or weight.shape != (len(left), right.shape[1]):
        raise ValueError(
            "weight must have shape (O, I), left (O, r) and right (r, I), r at least 1; "
            f"got {tuple(weight.shape)}, {tuple(left.shape)} and {tuple(right.shape)}"
        )
    for name, tensor in {"weight": weight, "left": left, "right": right}.items():
        check_finite(tensor, name)
    wide = torch.promote_types(torch.promote_types(weight.dtype, left.dtype), torch.float32)
    change = (left.to(wide) @ right.to(wide)) * (alpha / len(right))
    merged = (weight.to(wide) + change).to(weight.dtype)
    check_finite(merged, f"the merged weight, in {weight.dtype},")
    return merged
