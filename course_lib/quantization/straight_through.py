"""Training through rounding: forward the level, backward as if nothing had been rounded.

Rounding is a staircase. Its derivative is 0 wherever there is one, so a weight behind it never
learns. The straight-through estimator takes another one: that of the identity, and of clipping,

    x̂ = s · (clamp(round(x / s) + z, q_min, q_max) − z)
    ∂x̂/∂x := 1 where q_min ≤ round(x / s) + z ≤ q_max, else 0

How wrong is that? Blur the staircase with noise as wide as a step, u between −½ and ½. The mean of
round(x + u) is x: its derivative is 1, and the estimator is right. For a loss that curves, L(x) =
½ h x² + b x, the mean of L(round(x + u)) goes straight from level to level. Its slope is L' at the
middle m of two levels. The estimator's mean is L'(x), so its bias is h (x − m): of one sign below
the middle, of the other above, and 0 on average over a cell.

NaN is passed on, forward and backward: hidden, it would be found much later.

Axes: R rows sharing one scale, C numbers in a row.

Source: Bengio, Léonard, Courville, 2013, "Estimating or Propagating Gradients Through Stochastic
Neurons for Conditional Computation".
"""

from typing import Any

import torch
from torch import Tensor

from course_lib.quantization.linear import Grid

SMALLEST = 2**-24  # the smallest float16 above 0


class _Round(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        return x.round()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient


def round_through(x: Tensor) -> Tensor:
    """round(x), ties to even; its gradient is that of x.

    >>> x = torch.tensor([0.4, 1.7], requires_grad=True)
    >>> round_through(x).square().sum().backward()
    >>> x.grad.tolist()
    [0.0, 4.0]
    """
    return _Round.apply(x)


def smooth_round(x: Tensor, width: float) -> Tensor:
    """The mean of round(x + t u) over u between −½ and ½: a staircase with ramps of width t.

        ⌊x⌋ + clamp((x − ⌊x⌋ − ½) / t + ½, 0, 1)

    At t = 1 it is x itself, and for small t it is `round`. Its derivative is a true one: 1/t on the
    ramps, 0 between them.

    Args:
        x: floats of any shape.
        width: t, above 0 and at most 1.

    Raises:
        ValueError: a width outside that.

    >>> x = torch.tensor([0.1, 0.45, 0.55, 0.9])
    >>> smooth_round(x, 1.0), smooth_round(x, 0.2)
    (tensor([0.1000, 0.4500, 0.5500, 0.9000]), tensor([0.0000, 0.2500, 0.7500, 1.0000]))
    """
    if not 0 < width <= 1:
        raise ValueError(f"width must be above 0 and at most 1; got {width}")
    level = x.floor()
    return level + ((x - level - 0.5) / width + 0.5).clamp(0, 1)


class _FakeQuantize(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor, grid: Grid) -> Tensor:
        format = grid.format
        codes = (rows * (1 / grid.scale)).round_()  # as `linear` does it, step by step
        if not format.symmetric:
            codes.add_(grid.zero_point)
        clipped = codes.clamp(format.lowest, format.highest)
        ctx.save_for_backward(clipped == codes)
        if not format.symmetric:
            clipped.sub_(grid.zero_point)
        return clipped.mul_(grid.scale)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (inside,) = ctx.saved_tensors
        return gradient * inside, None


def fake_quantize_through(rows: Tensor, grid: Grid) -> Tensor:
    """The level nearest to each number, bit for bit as `linear` has it; the gradient goes through.

        ∂x̂/∂x := 1 where the code needed no clipping, else 0

    So a number up to s/2 beyond the last level still learns, as in PyTorch's `fake_quantize_*`.

    Args:
        rows: (R, C), floats; not checked, as this runs in every step of a training.
        grid: the levels of its R rows, which do not learn.

    Returns:
        (R, C), in the dtype of the scale, or of the rows if that is wider.

    >>> from course_lib.quantization.linear import fit_affine
    >>> grid = fit_affine(torch.tensor([[-1.0]]), torch.tensor([[2.0]]), bits=2)
    >>> rows = torch.tensor([[-3.0, 0.4, 2.4, 2.6]], requires_grad=True)
    >>> fake_quantize_through(rows, grid).tolist()
    [[-1.0, 0.0, 2.0, 2.0]]
    >>> fake_quantize_through(rows, grid).sum().backward()
    >>> rows.grad.tolist()
    [[0.0, 1.0, 1.0, 0.0]]
    """
    return _FakeQuantize.apply(rows, grid)


class _Float16(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, scale: Tensor) -> Tensor:
        return scale.to(torch.float16).clamp(min=SMALLEST).to(scale.dtype)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient


def float16_through(scale: Tensor) -> Tensor:
    """A scale as a file holds it, rounded to float16 and above 0; its gradient is that of `scale`.

    With it a model in training has the very levels that its file will give back.

    >>> scale = torch.tensor([1 / 15, 1e-12], requires_grad=True)
    >>> [f"{stored:.4g}" for stored in float16_through(scale).tolist()]
    ['0.06665', '5.96e-08']
    """
    return _Float16.apply(scale)
