"""A linear layer in integers: both the weight and its input are codes of at most 8 bits.

With x = s_x (q_x − z_x) and w = s_w (q_w − z_w), the scales leave the sum over the inputs:

    y = Σ x w = s_x s_w [Σ q_x q_w − z_w Σ q_x − z_x Σ q_w + I z_x z_w]

The bracket is an integer. Its first term is the product int8 × int8 → int32 that fast hardware has;
the others correct for the zero-points, and vanish for symmetric codes. Groups cannot be used: their
scales change within the sum.

A weight's grid is fitted once. That of an input is fitted to each token as it comes ("dynamic").

Axes: T tokens, I inputs, O outputs.

Source: Jacob et al., 2018, "Quantization and Training of Neural Networks for Efficient
Integer-Arithmetic-Only Inference", section 2.3.
"""

import torch
from torch import Tensor

from course_lib.device import without_autocast
from course_lib.quantization.calibration import minmax_range
from course_lib.quantization.linear import Grid, fit_affine, quantize


@without_autocast
def integer_matmul(a: Tensor, b: Tensor) -> Tensor:
    """a bᵀ of int8 matrices, exactly: (T, I), (O, I) -> (T, O), int32.

    PyTorch has no int8 product for every device. Float32 holds integers up to 2²⁴ exactly, and 1024
    products of two numbers up to 2⁷ do not exceed that: so the product is taken in runs of 1024.

    >>> integer_matmul(torch.tensor([[1, -2]]).char(), torch.tensor([[100, 100]]).char())
    tensor([[-100]], dtype=torch.int32)
    """
    total = torch.zeros(len(a), len(b), dtype=torch.int32, device=a.device)
    for a_run, b_run in zip(a.split(1024, dim=1), b.split(1024, dim=1), strict=True):
        total += (a_run.float() @ b_run.float().T).to(torch.int32)
    return total


def integer_linear(
    x_codes: Tensor, x_grid: Grid, w_codes: Tensor, w_grid: Grid, bias: Tensor | None = None
) -> Tensor:
    """x wᵀ + bias from codes: y = s_x s_w [Σ q_x q_w − z_w Σ q_x − z_x Σ q_w + I z_x z_w] + bias.

    Args:
        x_codes: (T, I), with one scale a token (T, 1) or one for all (1, 1).
        w_codes: (O, I), with one scale an output (O, 1) or one for all (1, 1).
        bias: (O,), floats.

    Returns:
        (T, O), floats; equal, but for rounding, to the product of the dequantized x and w.

    Raises:
        ValueError: codes of more than 8 bits; shapes that do not fit; more than 32,768 inputs,
            whose sum may overflow int32.

    >>> x_grid = fit_affine(torch.tensor([[0.0]]), torch.tensor([[3.0]]), bits=2)
    >>> w_grid = fit_affine(torch.tensor([[-1.0]]), torch.tensor([[2.0]]), bits=2)
    >>> integer_linear(torch.tensor([[3, 1]]), x_grid, torch.tensor([[0, 3]]), w_grid)
    tensor([[-1.]])
    """
    _check(x_codes, x_grid, "x")
    _check(w_codes, w_grid, "w")
    inputs = x_codes.shape[1]
    if w_codes.shape[1] != inputs or inputs > 2**15:
        raise ValueError(
            f"x and w must have the same number of inputs, at most {2**15}; "
            f"got {inputs} and {w_codes.shape[1]}"
        )
    q_x, z_x = _as_int8(x_codes, x_grid)
    q_w, z_w = _as_int8(w_codes, w_grid)
    sum_x = q_x.sum(dim=1, keepdim=True, dtype=torch.int32)  # (T, 1)
    sum_w = q_w.sum(dim=1, keepdim=True, dtype=torch.int32).T  # (O, 1) -> (1, O)
    z_w, s_w = z_w.T, w_grid.scale.T  # (O, 1) -> (1, O)
    total = integer_matmul(q_x, q_w) - z_w * sum_x - z_x * sum_w + inputs * z_x * z_w
    y = total * x_grid.scale * s_w
    return y if bias is None else y + bias


def dynamic_linear(
    x: Tensor, w_codes: Tensor, w_grid: Grid, bias: Tensor | None = None, bits: int = 8
) -> Tensor:
    """`integer_linear` of floats: each token x is quantized to affine codes of its own range first.

    Args:
        x: (…, I), floats.
        w_codes, w_grid, bias: as for `integer_linear`.
        bits: of the codes of x, from 2 to 8.

    Returns:
        (…, O), floats.

    >>> w_grid = fit_affine(torch.tensor([[-1.0]]), torch.tensor([[2.0]]), bits=2)
    >>> dynamic_linear(torch.tensor([[[2.55, 0.01]]]), torch.tensor([[0, 3]]), w_grid)
    tensor([[[-2.5300]]])
    """
    tokens = x.reshape(-1, x.shape[-1])  # (…, I) -> (T, I)
    grid = fit_affine(*minmax_range(tokens), bits)
    y = integer_linear(quantize(tokens, grid), grid, w_codes, w_grid, bias)
    return y.view(*x.shape[:-1], -1)  # (T, O) -> (…, O)


def _as_int8(codes: Tensor, grid: Grid) -> tuple[Tensor, Tensor]:
    """Codes and zero-point as int8 and int32; affine codes go down by 128, as 255 is no int8."""
    offset = 0 if grid.format.symmetric else 128
    return (codes.to(torch.int16) - offset).to(torch.int8), grid.zero_point - offset


def _check(codes: Tensor, grid: Grid, name: str) -> None:
    if grid.format.bits > 8:
        raise ValueError(f"{name} must have codes of at most 8 bits; got {grid.format.bits}")
    if codes.dim() != 2 or grid.scale.shape not in ((len(codes), 1), (1, 1)):
        raise ValueError(
            f"the codes of {name} must be a matrix with one scale a row or one for all; "
            f"got codes {tuple(codes.shape)} and scales {tuple(grid.scale.shape)}"
        )
