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
from course_lib.models.finite import check_finite


@dataclass(eq=False)
class Moments:
    """Averages over the inputs that were added so far.

    gram: G, the mean of x xᵀ, (I, I).
    mean_abs: the mean of |x|, (I,).
    max_abs: the largest |x|, (I,).
    count: N, how many inputs.
    """

    gram: Tensor
    mean_abs: Tensor
    max_abs: Tensor
    count: int = 0

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
    def add(self, x: Tensor) -> "Moments":
        """In place: take some more inputs into the averages. Gives itself.

            G ← G · N / (N + n) + Σ x xᵀ / (N + n)

        Args:
            x: (n, I), or with more axes before the last; in any float type.

        Raises:
            TypeError: x is not floats.
            ValueError: x is empty, NaN or infinite, or has not I inputs.

        >>> moments = Moments.empty(2).add(torch.tensor([[1.0, -2.0]])).add(torch.zeros(1, 2))
        >>> moments.gram.tolist(), moments.mean_abs.tolist(), moments.count
        ([[0.5, -1.0], [-1.0, 2.0]], [0.5, 1.0], 2)
        """
        if x.dim() < 2 or x.shape[-1] != len(self.gram):
            raise ValueError(f"x must have shape (n, {len(self.gram)}); got {tuple(x.shape)}")
        check_finite(x, "x")
        x = x.flatten(0, -2).to(self.gram.dtype)  # (…, I) -> (n, I)
        count = self.count + len(x)
        kept = self.count / count
        _add_products(self.gram, x, kept, 1 / count)
        magnitude = x.abs()
        self.mean_abs.mul_(kept).add_(magnitude.sum(dim=0), alpha=1 / count)
        torch.maximum(self.max_abs, magnitude.amax(dim=0), out=self.max_abs)
        self.count = count
        return self


@without_autocast
def _add_products(gram: Tensor, x: Tensor, kept: float, share: float) -> None:
    gram.addmm_(x.T, x, beta=kept, alpha=share)  # (I, n) (n, I) -> (I, I)


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
