"""What flows into a layer, in a few numbers: enough to know what an error in its weight costs.

A layer gives W x. With the weight Ŵ instead, its mean squared error on N recorded inputs x is

    1/N · Σ ‖(W − Ŵ) x‖²  =  Σ over the outputs of  δᵀ G δ        G = 1/N · Σ x xᵀ

where δ is an output's row of W − Ŵ. So the Gram matrix G, of I² numbers, replaces all the inputs.
2 G is the error's matrix of second derivatives (the Hessian), for each output the same.

Axes: N tokens, I inputs of a layer, O outputs.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from course_lib.device import without_autocast
from course_lib.models.finite import check_finite, is_fake


@dataclass(eq=False)
class Moments:
    """Averages over the inputs that were added so far.

    gram: G, the mean of x xᵀ, (I, I).
    mean_abs: the mean of |x|, (I,).
    max_abs: the largest |x|, (I,).
    count: N, how many inputs; where they are weighted, the sum of their weights.
    """

    gram: Tensor
    mean_abs: Tensor
    max_abs: Tensor
    count: float = 0

    @classmethod
    def empty(
        cls, inputs: int, dtype: torch.dtype = torch.float32, device: torch.device | None = None
    ) -> "Moments":
        """Of no inputs yet: zeros.

        Args:
            inputs: I.
            dtype: what the sums are held in; float32 or float64.
        """
        if inputs < 1 or dtype not in (torch.float32, torch.float64):
            raise ValueError(
                f"inputs must be at least 1 and dtype float32 or float64; got {inputs} and {dtype}"
            )
        gram = torch.zeros(inputs, inputs, dtype=dtype, device=device)
        return cls(gram, torch.zeros_like(gram[0]), torch.zeros_like(gram[0]))

    @torch.no_grad()
    def add(self, x: Tensor, weights: Tensor | None = None) -> "Moments":
        """In place: take some more inputs into the averages. Gives itself.

            G ← G · N / (N + n) + Σ c x xᵀ / (N + n)        n = Σ c

        Args:
            x: (n, I), or with more axes before the last; in any float type.
            weights: c ≥ 0, how often each input counts: the shape of x without its last axis, or
                what broadcasts to it. By default each counts once.

        Raises:
            TypeError: x is not floats.
            ValueError: x is empty, NaN or infinite, or has not I inputs; weights do not fit, are
                negative, NaN or infinite, or all 0.

        >>> moments = Moments.empty(2).add(torch.tensor([[1.0, -2.0]])).add(torch.zeros(1, 2))
        >>> moments.gram.tolist(), moments.mean_abs.tolist(), moments.count
        ([[0.5, -1.0], [-1.0, 2.0]], [0.5, 1.0], 2)
        """
        if x.dim() < 2 or x.shape[-1] != len(self.gram):
            raise ValueError(f"x must have shape (n, {len(self.gram)}); got {tuple(x.shape)}")
        check_finite(x, "x")
        counted = None if weights is None else _of_rows(weights, x).to(self.gram.dtype)  # (n, 1)
        x = x.flatten(0, -2).to(self.gram.dtype)  # (…, I) -> (n, I)
        count = self.count + (len(x) if counted is None else counted.sum().item())
        kept, share = self.count / count, 1 / count
        magnitude = x.abs()
        torch.maximum(self.max_abs, magnitude.amax(dim=0), out=self.max_abs)
        if counted is None:
            _add_products(self.gram, x, x, kept, share)
        else:
            _add_products(self.gram, x * counted, x, kept, share)
            magnitude *= counted
        self.mean_abs.mul_(kept).add_(magnitude.sum(dim=0), alpha=share)
        self.count = count
        return self


def _of_rows(weights: Tensor, x: Tensor) -> Tensor:
    """One weight for each input: (n, 1)."""
    check_finite(weights, "weights")
    try:
        wide = weights.expand(x.shape[:-1])
    except RuntimeError:
        raise ValueError(
            f"weights must broadcast to {tuple(x.shape[:-1])}; got {tuple(weights.shape)}"
        ) from None
    if not is_fake(wide) and ((wide < 0).any() or not wide.any()):
        raise ValueError("weights must be at least 0, and not all 0")
    return wide.reshape(-1, 1)  # (…) -> (n, 1)


@without_autocast
def _add_products(gram: Tensor, x: Tensor, y: Tensor, kept: float, share: float) -> None:
    gram.addmm_(x.T, y, beta=kept, alpha=share)  # (I, n) (n, I) -> (I, I)


@without_autocast
def output_error(change: Tensor, gram: Tensor) -> Tensor:
    """The mean of ‖Δ x‖² for each output: δᵀ G δ of each row δ of Δ, (O,).

    Args:
        change: Δ = W − Ŵ, (O, I).
        gram: G, (I, I).

    >>> x = torch.tensor([[1.0, 2.0], [0.0, 1.0]])
    >>> change = torch.tensor([[1.0, 1.0]])
    >>> output_error(change, Moments.empty(2).add(x).gram), (x @ change.T).square().mean()
    (tensor([5.]), tensor(5.))
    """
    change = change.to(gram.dtype)
    return (change @ gram).mul_(change).sum(dim=1)  # (O, I) (I, I) -> (O, I) -> (O,)
