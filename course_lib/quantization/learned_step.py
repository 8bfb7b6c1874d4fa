"""Learned steps: the distance between levels is a parameter, and so is the place of clipping.

LSQ. A number v becomes v̂ = s · clamp(round(v / s), −Q_N, Q_P). If round's gradient is passed
straight through,

                       v/s ≤ −Q_N        between         Q_P ≤ v/s
    ∂v̂/∂s                 −Q_N      round(v/s) − v/s        Q_P
    ∂v̂/∂v                   0              1                 0

Many weights pull at one step, so its gradient is multiplied by g = 1 / √(N Q_P), N weights a step.
The step starts at 2 · mean |v| / √Q_P.

An optimizer may take a step below 0, where there are no levels. So what is learned in a model is
ln s (`roundings.LearnedStep`): an update multiplies s by a factor, and a step that wants to be
negative only shrinks. The function here takes s itself, and refuses nothing: it runs every step.

PACT. Inputs are clipped at a learned α, and then get even levels up to α:

    x̂ = s · round(clamp(x, −α, α) / s)      s = α / Q_P
    ∂x̂/∂α = 1 where x ≥ α, −1 where x ≤ −α, else 0

The paper has inputs that a ReLU made, and clips at 0 below: that is the affine format. PACT's
gradient sees the clipped numbers alone; LSQ's, with α = Q_P s, also the rounding of the others.

Sources: Esser et al., 2020, "Learned Step Size Quantization"; Choi et al., 2018, "PACT:
Parameterized Clipping Activation for Quantized Neural Networks"; Jain et al., 2020, "Trained
Quantization Thresholds for Accurate and Efficient Fixed-Point Inference of Deep Neural Networks"
(the logarithm).

Axes: R rows sharing one step, C numbers in a row.
"""

from typing import Any

import torch
from torch import Tensor

from course_lib.models.finite import check_finite
from course_lib.quantization.calibration import CANDIDATES, rounding_error
from course_lib.quantization.linear import Format, Grid
from course_lib.quantization.rows import check_rows
from course_lib.quantization.straight_through import SMALLEST


def ends(format: Format) -> tuple[int, int]:
    """Q_N and Q_P: how many levels lie below 0 and above it.

    Affine codes have 0 at code 2ⁿ⁻¹, as two's complement has: one level more below than above.

    >>> ends(Format(2)), ends(Format(3, symmetric=True))
    ((2, 1), (3, 3))
    """
    below = format.highest if format.symmetric else 2 ** (format.bits - 1)
    return below, format.highest - (0 if format.symmetric else below)


def step_grid(step: Tensor, format: Format) -> Grid:
    """The grid of levels s · (−Q_N … Q_P), for steps (R, 1).

    >>> from course_lib.quantization.linear import dequantize
    >>> dequantize(torch.arange(4)[None], step_grid(torch.tensor([[0.5]]), Format(2))).tolist()
    [[-1.0, -0.5, 0.0, 0.5]]
    """
    zero_point = 0 if format.symmetric else ends(format)[0]
    return Grid(step, torch.full_like(step, zero_point, dtype=torch.int32), format)


def first_step(rows: Tensor, format: Format) -> Tensor:
    """Where a learned step starts: 2 · mean |v| / √Q_P of each row, (R, C) -> (R, 1).

    In float32 or wider, and not below 2⁻²⁴, which is what a row of zeros gets.

    Raises:
        TypeError: rows are not floats.
        ValueError: rows are not (R, C), empty, NaN or infinite.

    >>> first_step(torch.tensor([[-1.0, 3.0], [0.0, 0.0]]), Format(2))
    tensor([[4.0000e+00],
            [5.9605e-08]])
    """
    check_rows(rows)
    wide = rows.to(torch.promote_types(rows.dtype, torch.float32))
    share = 2 / ends(format)[1] ** 0.5 / rows.shape[1]
    return (wide.abs() * share).sum(dim=1, keepdim=True).clamp(min=SMALLEST)


def best_step(rows: Tensor, format: Format) -> Tensor:
    """Where a learned step may start, too: the one of the least squared error, (R, C) -> (R, 1).

        s* = argmin over s in {1/80, 2/80, … 1} · max |v| / Q_P of Σ (v − v̂)²

    The paper's start suits 2 and 3 bits. It is twice as wide at 4 bits, and five times at 8, for
    normal weights: a long training mends that, a short one does not. Raises: as `first_step`.

    >>> best_step(torch.tensor([[-1.0, -0.5, 0.0, 0.5]]), Format(2))
    tensor([[0.5000]])
    """
    check_rows(rows)
    wide = rows.detach().to(torch.promote_types(rows.dtype, torch.float32))
    widest = (wide.abs().amax(dim=1, keepdim=True) / ends(format)[1]).clamp(min=SMALLEST)
    best, least = widest, torch.full_like(widest, torch.inf)
    for k in range(CANDIDATES, 0, -1):
        step = (widest * (k / CANDIDATES)).clamp(min=SMALLEST)
        error = rounding_error(wide / widest, step_grid(step / widest, format))
        best, least = torch.where(error < least, step, best), torch.minimum(error, least)
    return best


class _LearnedStep(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor, step: Tensor, format: Format) -> Tensor:
        below, above = ends(format)
        places = rows * (1 / step)
        levels = places.round().clamp_(-below, above)
        ctx.save_for_backward(places, levels)
        ctx.ends, ctx.dtypes = (below, above), (rows.dtype, step.dtype)
        return levels * step

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        places, levels = ctx.saved_tensors
        below, above = ctx.ends
        inside = (places > -below) & (places < above)
        through = gradient * inside
        of_step = None
        if ctx.needs_input_grad[1]:
            # Σ gradient · (level − place where inside), and g.
            pull = (gradient * levels).sub_(through * places).sum(dim=1, keepdim=True)
            of_step = (pull / (places.shape[1] * above) ** 0.5).to(ctx.dtypes[1])
        return through.to(ctx.dtypes[0]), of_step, None


def lsq(rows: Tensor, step: Tensor, format: Format) -> Tensor:
    """s · clamp(round(v / s), −Q_N, Q_P), whose gradients reach the numbers and the step.

    Args:
        rows: v, (R, C), floats; not checked, as this runs in every step of a training.
        step: s, (R, 1), above 0. Its gradient comes with the factor g = 1 / √(C Q_P).
        format: of the codes; 0 is a level, in the middle or one above it.

    Returns:
        (R, C), bit for bit what `linear.fake_quantize` gives on `step_grid(step, format)`.

    >>> v = torch.tensor([[0.4, 1.3, 9.0, -9.0]], requires_grad=True)
    >>> s = torch.tensor([[1.0]], requires_grad=True)
    >>> lsq(v, s, Format(3)).tolist()
    [[0.0, 1.0, 3.0, -4.0]]
    >>> lsq(v, s, Format(3)).sum().backward()
    >>> v.grad.tolist(), round(s.grad.item() * (4 * 3) ** 0.5, 3)  # −0.4 − 0.3 + 3 − 4
    ([[1.0, 1.0, 0.0, 0.0]], -1.7)
    """
    return _LearnedStep.apply(rows, step, format)


class _LearnedClip(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, alpha: Tensor, format: Format) -> Tensor:
        low = -alpha if format.symmetric else torch.zeros_like(alpha)
        step = alpha / format.highest
        ctx.save_for_backward(x >= alpha, (x <= low))
        ctx.both, ctx.dtype = format.symmetric, alpha.dtype
        wide = x.to(torch.promote_types(x.dtype, alpha.dtype))
        return (wide.clamp(low, alpha) * (1 / step)).round_().mul_(step).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None]:
        over, under = ctx.saved_tensors
        pull = (gradient * over).sum(dtype=ctx.dtype)
        if ctx.both:
            pull = pull - (gradient * under).sum(dtype=ctx.dtype)
        return gradient * ~(over | under), pull, None


def pact(x: Tensor, alpha: Tensor, format: Format) -> Tensor:
    """x clipped at a learned α, then rounded to even levels between the ends.

    Args:
        x: floats of any shape. An affine format clips to [0, α], a symmetric one to [−α, α].
        alpha: α, a 0-d tensor in float32 or wider, above 0.
        format: of the codes.

    Returns:
        In the shape and dtype of x. At an end itself the gradient goes to α, not to x.

    >>> x = torch.tensor([-2.0, 0.2, 0.7, 5.0], requires_grad=True)
    >>> alpha = torch.tensor(1.5, requires_grad=True)
    >>> values = pact(x, alpha, Format(2))
    >>> values.tolist()
    [0.0, 0.0, 0.5, 1.5]
    >>> values.sum().backward()
    >>> x.grad.tolist(), alpha.grad.item()
    ([0.0, 1.0, 1.0, 0.0], 1.0)
    """
    return _LearnedClip.apply(x, alpha, format)


def first_clip(x: Tensor, share: float = 0.999) -> Tensor:
    """Where α starts: the largest |x| but for a share of 1/1000, a 0-d tensor, not below 2⁻²⁴.

    Args:
        x: recorded inputs of a layer, any shape.
        share: of the |x| that are at or below α, above 0 and at most 1.

    Raises:
        TypeError: x is not floats.
        ValueError: x is empty, NaN or infinite; a share outside that.

    >>> first_clip(torch.linspace(-1, 1, 2001), share=0.9).item()
    0.8999999761581421
    """
    check_finite(x, "x")
    if not 0 < share <= 1:
        raise ValueError(f"share must be above 0 and at most 1; got {share}")
    flat = x.detach().flatten().abs().to(torch.promote_types(x.dtype, torch.float32))
    place = max(1, round(share * len(flat)))
    return flat.kthvalue(place).values.clamp(min=SMALLEST)
