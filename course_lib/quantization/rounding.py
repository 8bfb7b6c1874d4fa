"""AdaRound: learn for each weight of a layer whether it is rounded up or down.

Nearest makes each weight's error small. What counts is the error of the output: with the Gram
matrix G of the inputs (`models.moments`), it is δᵀ G δ for each row δ of W − Ŵ. Errors of two
weights whose inputs go together may cancel, if one is rounded up and the other down. So let

    ŵ = s · clamp(⌊w / s⌋ + h(v), q_min − z, q_max − z)    h(v) = clamp(1.2 σ(v) − 0.1, 0, 1)

with one v for each weight, and descend, for each output, on

    ρ · δᵀ G δ  +  λ · Σ (1 − |2h − 1|^β)

The second sum is 0 where every h is 0 or 1. For large β it is flat but near 0 and 1, and lets h
move; as β falls from 20 to 2, it pushes each h to an end. ρ scales the first term so that rounding
to nearest would cost 1 a weight: so one λ serves every output of every layer, whatever its unit.
(The paper has the mean over inputs as it is, and λ = 0.01.)

An output's error depends on its own weights alone. Where the descent ends with no less than nearest
has, nearest is kept: no output gets worse.

Axes: O outputs, I inputs, R rows sharing one scale, C numbers in a row.

Source: Nagel et al., 2020, "Up or Down? Adaptive Rounding for Post-Training Quantization".
"""

from collections.abc import Callable

import torch
from torch import Tensor

from course_lib.device import without_autocast
from course_lib.models.finite import check_finite, is_fake
from course_lib.models.moments import output_error
from course_lib.quantization.linear import Grid, dequantize, quantize

LOW, HIGH = -0.1, 1.1  # where the stretched sigmoid ends, before it is clipped
WARM_UP = 0.2  # share of the steps without the second sum
BETA = (20.0, 2.0)  # from, to
PRICE = 8.0  # λ; with any from 6 to 50 the errors are the same within 3 %
RATE = 0.05  # of Adam


@without_autocast
def adaround(weight: Tensor, gram: Tensor, grid: Grid, steps: int = 500) -> Tensor:
    """The codes of a weight, each rounded up or down so that the layer's output errs little.

    Args:
        weight: W, (O, I), floats.
        gram: G, the mean of x xᵀ over the layer's inputs, (I, I).
        grid: the levels of R rows, as `rows.to_rows` makes them of W.
        steps: of Adam, each a product (O, I) (I, I) and its gradient.

    Returns:
        Codes (O, I) in the format's integer type. The error δᵀ G δ of each output, in float64, is
        at most what `linear.quantize` has.

    Raises:
        TypeError: weight or gram is not of floats.
        ValueError: the shapes do not fit; NaN or infinity; steps below 1.

    >>> from course_lib.quantization.linear import Format, fit_grid
    >>> grid = fit_grid(torch.tensor([[0.0]]), torch.tensor([[3.0]]), Format(2))
    >>> gram = torch.tensor([[1.0, 1.0], [1.0, 1.0]])  # both inputs are always equal
    >>> adaround(torch.tensor([[0.4, 0.3]]), gram, grid).tolist()  # their sum is nearer
    [[1, 0]]
    """
    _check(weight, gram, grid, steps)
    weight = weight.detach().to(torch.promote_types(weight.dtype, grid.scale.dtype))
    gram = gram.detach().to(torch.promote_types(gram.dtype, torch.float32))
    rows = weight.reshape(len(grid.scale), -1)  # (O, I) -> (R, C)
    places = rows * (1 / grid.scale)  # counted from the level of 0
    low, high = (end - grid.zero_point for end in (grid.format.lowest, grid.format.highest))

    def levels(up: Tensor) -> Tensor:
        return (places.floor() + up).clamp(low, high)

    def errors(up: Tensor) -> Tensor:
        change = (levels(up) - places) * grid.scale
        return output_error(change.view(weight.shape), gram)  # (O,)

    nearest = quantize(rows, grid).view(weight.shape)
    before = _exact_errors(weight, nearest, gram, grid)
    up = _descend(places - places.floor(), errors, before, steps)
    codes = (levels(up) + grid.zero_point).to(nearest.dtype).view(weight.shape)
    better = _exact_errors(weight, codes, gram, grid) < before
    return torch.where(better[:, None], codes, nearest)


def _exact_errors(weight: Tensor, codes: Tensor, gram: Tensor, grid: Grid) -> Tensor:
    """δᵀ G δ with the levels that a file gives back: (O,) float64."""
    levels = dequantize(codes.view(len(grid.scale), -1), grid).view(weight.shape)
    return output_error(weight.double() - levels.double(), gram.double())


def _descend(
    share: Tensor, errors: Callable[[Tensor], Tensor], before: Tensor, steps: int
) -> Tensor:
    """1 where a weight is to be rounded up, else 0: (R, C).

    Args:
        share: w / s − ⌊w / s⌋, (R, C): where h begins, so that ŵ begins at w.
        errors: h -> δᵀ G δ, (O,).
        before: the same with weights rounded to nearest.
    """
    a_weight = before * len(before) / share.numel()  # what nearest costs a weight
    factor = (1 / a_weight).where(a_weight > 0, 0)  # ρ
    v = torch.logit((share - LOW) / (HIGH - LOW)).requires_grad_()
    optimizer = torch.optim.Adam([v], lr=RATE)
    with torch.enable_grad():
        for step in range(steps):
            h = _stretched(v)
            loss = (errors(h) * factor.to(h.dtype)).sum()
            progress = (step / steps - WARM_UP) / (1 - WARM_UP)
            if progress >= 0:
                beta = BETA[1] + (BETA[0] - BETA[1]) * (1 - progress)
                loss = loss + PRICE * (1 - (2 * h - 1).abs() ** beta).sum()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return (_stretched(v.detach()) >= 0.5).to(share.dtype)


def _stretched(v: Tensor) -> Tensor:
    """h(v) = clamp(1.2 σ(v) − 0.1, 0, 1)."""
    return (v.sigmoid() * (HIGH - LOW) + LOW).clamp(0, 1)


def _check(weight: Tensor, gram: Tensor, grid: Grid, steps: int) -> None:
    if weight.dim() != 2 or gram.shape != (weight.shape[-1],) * 2:
        raise ValueError(
            "weight must have shape (O, I) and gram (I, I); "
            f"got {tuple(weight.shape)} and {tuple(gram.shape)}"
        )
    check_finite(weight, "weight")
    check_finite(gram, "gram")
    if weight.numel() % len(grid.scale):
        raise ValueError(
            f"the grid's rows must fill the weight's {weight.numel()} numbers evenly; "
            f"got {len(grid.scale)}"
        )
    if steps < 1:
        raise ValueError(f"steps must be at least 1; got {steps}")
    if not is_fake(gram) and (gram.diagonal() < 0).any():
        raise ValueError("gram's diagonal must not be negative")
