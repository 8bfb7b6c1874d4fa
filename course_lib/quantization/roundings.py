"""Roundings as modules: what a layer's weight goes through, and what its input may go through.

A rounding of weights is called as f(weight), the weight's shape in and out, and differentiable;
f.codes(weight) gives the codes and the grid that stand for just those values in a file:

    OnGrid         levels fitted once, before the training
    LearnedStep    levels whose distance is learned
    ToSigns        −α, 0, α of the weights as they are now

A rounding of inputs is called as f(x) and needs no codes, as no file holds inputs:

    ClippedInput   levels up to a learned α
    TokenInput     levels up to the largest |x| of each token

Scales are float16 numbers throughout, as in a file. What is learned is a logarithm: ln s, ln α. So
an update multiplies, and no step falls to 0 or below it. The parameters have one axis or none: what
sorts parameters by their axes, such as `training.make_optimizers`, does not take them for matrices.

Axes: O outputs, I inputs, R rows sharing one scale.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from course_lib.models.finite import check_finite
from course_lib.quantization.calibration import Range, mse_range
from course_lib.quantization.learned_step import best_step, first_clip, lsq, pact, step_grid
from course_lib.quantization.linear import Format, Grid, fit_grid, quantize
from course_lib.quantization.rows import to_rows
from course_lib.quantization.straight_through import fake_quantize_through, float16_through
from course_lib.quantization.ternary import Signs, best_signs, signs_through

TERNARY = Format(2, symmetric=True)  # codes −1, 0, 1


class OnGrid(nn.Module):
    """Levels that are fitted to a weight once; the weight learns, and they stay.

    Args:
        weight: (O, I), that the levels are for.
        format: of the codes.
        granularity: which weights share a scale, as in `rows.to_rows`.
        calibrate: (rows, format) -> (low, high); one of `calibration`.

    >>> weight = torch.tensor([[0.0, 0.4, 1.5]])
    >>> from course_lib.quantization.calibration import minmax_range
    >>> rounding = OnGrid(weight, Format(2), calibrate=minmax_range)
    >>> rounding(weight + 0.2).tolist(), rounding.codes(weight)[0].tolist()
    ([[0.0, 0.5, 1.5]], [[0, 1, 3]])
    """

    def __init__(
        self,
        weight: Tensor,
        format: Format,
        granularity: str | int = "channel",
        calibrate: Callable[[Tensor, Format], Range] = mse_range,
    ):
        super().__init__()
        rows = to_rows(weight.detach(), granularity)
        grid = fit_grid(*calibrate(rows, format), format)
        self.register_buffer("scale", float16_through(grid.scale))
        self.register_buffer("zero_point", grid.zero_point)
        self.format = format

    def grid(self) -> Grid:
        """The levels; the scale in float32 or wider, whatever the model was converted to."""
        return Grid(_wide(self.scale), self.zero_point, self.format)

    def forward(self, weight: Tensor) -> Tensor:
        rows = weight.reshape(len(self.scale), -1)  # (O, I) -> (R, C)
        return fake_quantize_through(rows, self.grid()).view(weight.shape).to(weight.dtype)

    def codes(self, weight: Tensor) -> tuple[Tensor, Grid]:
        """Codes (O, I) and grid."""
        return _nearest(weight, self.grid())


class LearnedStep(nn.Module):
    """Levels at a learned distance, one for each row: s · (−Q_N … Q_P).

    Args:
        weight, format, granularity: as for `OnGrid`.
        start: (rows, format) -> the first steps; the paper's is `learned_step.first_step`.

    >>> weight = torch.tensor([[1.0, -1.0, 0.1, 0.3]])
    >>> rounding = LearnedStep(weight, Format(3, symmetric=True))
    >>> rounding(weight).sum().backward()
    >>> rounding.log_step.grad.shape
    torch.Size([1])
    """

    def __init__(
        self,
        weight: Tensor,
        format: Format,
        granularity: str | int = "channel",
        start: Callable[[Tensor, Format], Tensor] = best_step,
    ):
        super().__init__()
        first = start(to_rows(weight.detach(), granularity), format)
        self.log_step = nn.Parameter(first.log().flatten())  # (R,)
        self.format = format

    def step(self) -> Tensor:
        """s, (R, 1), a float16 number in float32 or wider."""
        return float16_through(_wide(self.log_step).exp())[:, None]

    def forward(self, weight: Tensor) -> Tensor:
        rows = weight.reshape(len(self.log_step), -1)  # (O, I) -> (R, C)
        return lsq(rows, self.step(), self.format).view(weight.shape).to(weight.dtype)

    def codes(self, weight: Tensor) -> tuple[Tensor, Grid]:
        """Codes (O, I) and grid."""
        return _nearest(weight, step_grid(self.step().detach(), self.format))


class ToSigns(nn.Module):
    """−α, 0 and α, found anew for the weights of each step.

    Args:
        fit: rows -> t and α; one of `ternary`.
        granularity: which weights share α, as in `rows.to_rows`.

    >>> weight = torch.tensor([[4.0, -2.0, 0.5, 0.0]])
    >>> ToSigns()(weight).tolist()
    [[3.0, -3.0, 0.0, 0.0]]
    """

    def __init__(
        self, fit: Callable[[Tensor], Signs] = best_signs, granularity: str | int = "channel"
    ):
        super().__init__()
        self.fit, self.granularity = fit, granularity

    def forward(self, weight: Tensor) -> Tensor:
        rows = to_rows(weight, self.granularity)
        return signs_through(rows, self.fit).view(weight.shape).to(weight.dtype)

    def codes(self, weight: Tensor) -> tuple[Tensor, Grid]:
        """Codes −1, 0, 1, (O, I), and a grid that holds α."""
        codes, alpha = self.fit(to_rows(weight.detach(), self.granularity))
        alpha = float16_through(alpha)
        check_finite(alpha, "scale, in float16,")
        zero_point = torch.zeros_like(alpha, dtype=torch.int32)
        return codes.view(weight.shape), Grid(alpha, zero_point, TERNARY)


class ClippedInput(nn.Module):
    """Levels up to a learned α, one for the layer; see `learned_step.pact`.

    Args:
        x: inputs that the layer was given, to begin with; any shape.
        format: affine if they are all 0 or above, else symmetric.

    >>> ClippedInput(torch.linspace(-1, 1, 5), Format(2, symmetric=True))(torch.tensor([0.4, 7.0]))
    tensor([0., 1.], grad_fn=<_LearnedClipBackward>)
    """

    def __init__(self, x: Tensor, format: Format):
        super().__init__()
        self.log_alpha = nn.Parameter(first_clip(x).log())
        self.format = format

    def forward(self, x: Tensor) -> Tensor:
        return pact(x, _wide(self.log_alpha).exp(), self.format)


class TokenInput(nn.Module):
    """Symmetric levels up to the largest |x| of each token: nothing is clipped, nothing learned.

    Args:
        bits: from 2 to 16.

    >>> TokenInput(bits=2)(torch.tensor([[0.4, -2.0], [0.4, 0.1]]))
    tensor([[ 0.0000, -2.0000],
            [ 0.4000,  0.0000]])
    """

    def __init__(self, bits: int = 8):
        super().__init__()
        self.format = Format(bits, symmetric=True)

    def forward(self, x: Tensor) -> Tensor:
        tokens = _wide(x.reshape(-1, x.shape[-1]))  # (…, I) -> (T, I)
        top = tokens.detach().abs().amax(dim=1, keepdim=True)
        scale = (top / self.format.highest).clamp(min=torch.finfo(tokens.dtype).tiny)
        grid = Grid(scale, torch.zeros_like(scale, dtype=torch.int32), self.format)
        return fake_quantize_through(tokens, grid).view(x.shape).to(x.dtype)


def _wide(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _nearest(weight: Tensor, grid: Grid) -> tuple[Tensor, Grid]:
    check_finite(grid.scale, "scale, in float16,")
    rows = weight.detach().reshape(len(grid.scale), -1)  # (O, I) -> (R, C)
    return quantize(rows, grid).view(weight.shape), grid
