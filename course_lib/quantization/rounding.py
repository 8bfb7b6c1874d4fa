"""AdaRound: learn for each weight of a layer whether it is rounded up or down.

Nearest makes each weight's error small. What counts is the error of the output: with the Gram
matrix G of the inputs (`models.moments`), it is δᵀ G δ for each row δ of W − Ŵ. Errors of two
weights whose inputs go together may cancel, if one is rounded up and the other down. So let

    ŵ = s · (clamp(⌊w / s⌋ + z + h(v), q_min, q_max) − z)    h(v) = clamp(1.2 σ(v) − 0.1, 0, 1)

with one v for each weight, and descend on

    ρ · Σ δᵀ G δ  +  λ · Σ (1 − |2h − 1|^β)

The second sum is 0 where every h is 0 or 1. For large β it is flat but near 0 and 1, and lets h
move; as β falls from 20 to 2, it pushes each h to an end. ρ scales the first sum so that rounding
to nearest costs 1/16 a weight: so the same λ serves every layer, whatever its unit. (The paper has
the mean over inputs and λ = 0.01.)

An output's error depends on its own weights alone. Where the descent ends with more than nearest
has, nearest is kept: no output gets worse.

Axes: O outputs, I inputs, R rows sharing one scale.

Source: Nagel et al., 2020, "Up or Down? Adaptive Rounding for Post-Training Quantization".
"""

import torch
from torch import Tensor

from course_lib.device import without_autocast
from course_lib.models.finite import check_finite, is_fake
from course_lib.models.moments import output_error
from course_lib.quantization.linear import Grid

LOW, HIGH = -0.1, 1.1  # where the stretched sigmoid ends, before it is clipped
WARM_UP = 0.2  # share of the steps without the second sum
BETA = (20.0, 2.0)  # from, to
PRICE = 0.1  # λ
RATE = 0.05  # of Adam
NEAREST_COSTS = 1 / 16  # a weight, in the unit of λ


@without_autocast
def adaround(weight: Tensor, gram: Tensor, grid: Grid, steps: int = 500) -> Tensor:
    """The codes of a weight, each rounded up or down so that the layer's output errs little.

    Args:
        weight: W, (O, I), floats.
        gram: G, the mean of x xᵀ over the layer's inputs, (I, I).
        grid: the levels of R rows, as `rows.to_rows` makes them of W.
        steps: of Adam, each a product (O, I) (I, I).

    Returns:
        Codes (O, I) in the format's integer type. The error δᵀ G δ of each output is at most what
        rounding to nearest has.

    Raises:
        ValueError: the shapes do not fit; NaN or infinity; steps below 1.

    >>> from course_lib.quantization.linear import Format, fit_grid
    >>> grid = fit_grid(torch.tensor([[0.0]]), torch.tensor([[3.0]]), Format(2))
    >>> gram = torch.tensor([[1.0, 1.0], [1.0, 1.0]])  # both inputs are always equal
    >>> adaround(torch.tensor([[0.4, 0.3]]), gram, grid).tolist()  # their sum is nearer
    [[1, 0]]
    """
    _check(weight, gram, grid, steps)
    rows = weight.detach().to(grid.scale.dtype).reshape(len(grid.scale), -1)  # (O, I) -> (R, C)
    places = rows / grid.scale + grid.zero_point
    floor, ends = places.floor(), (grid.format.lowest, grid.format.highest)

    def levels(up: Tensor) -> Tensor:
        return (floor + up).clamp(*ends)

    def errors(up: Tensor) -> Tensor:
        change = (levels(up) - places) * grid.scale
        return output_error(change.view(weight.shape), gram)  # (O,)

    nearest = _up_in_rounding(places)
    with torch.no_grad():
        before = errors(nearest)
    up = _descend(places - floor, errors, before, steps)
    better = (errors(up) < before)[:, None].expand(weight.shape).reshape(rows.shape)
    codes = levels(torch.where(better, up, nearest))
    return codes.to(grid.format.dtype).view(weight.shape)  # (R, C) -> (O, I)


def _up_in_rounding(places: Tensor) -> Tensor:
    """1 where `round` goes up, else 0."""
    return places.round() - places.floor()


def _descend(share: Tensor, errors, before: Tensor, steps: int) -> Tensor:
    """1 where a weight is to be rounded up, else 0; (R, C).

    Args:
        share: w / s − ⌊w / s⌋, where h begins, so that ŵ begins at w.
    """
    total = before.sum()
    scale = torch.where(total > 0, share.numel() * NEAREST_COSTS / total, 0)  # ρ
    v = torch.logit((share - LOW) / (HIGH - LOW)).requires_grad_()
    optimizer = torch.optim.Adam([v], lr=RATE)
    with torch.enable_grad():
        for step in range(steps):
            h = _stretched(v)
            loss = scale * errors(h).sum()
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
