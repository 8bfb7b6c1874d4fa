"""Fake quantization: its values are those of `linear`, its gradients those of PyTorch, torchao."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from on_accelerator import run_on_accelerator
from torchao.quantization.quant_primitives import _fake_quantize_affine

from course_lib.quantization.calibration import minmax_range, mse_range
from course_lib.quantization.linear import Format, dequantize, fit_grid, quantize
from course_lib.quantization.straight_through import (
    fake_quantize_through,
    float16_through,
    round_through,
    smooth_round,
)

FORMATS = [Format(n, symmetric) for n in (2, 3, 4, 8) for symmetric in (False, True)]


def drawn(seed: int, shape: tuple[int, ...] = (6, 40)) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def narrow(rows: torch.Tensor, format: Format):
    """A grid on which a good part of the numbers is clipped."""
    low, high = mse_range(rows, format)
    return fit_grid(low * 0.6, high * 0.6, format)


@pytest.mark.parametrize("format", FORMATS, ids=str)
@pytest.mark.parametrize("scale", [1e-30, 1e-9, 1.0, 1e9, 1e30])
def test_values_are_those_of_quantize_and_dequantize_bit_for_bit(format, scale):
    rows = drawn(0) * scale
    for grid in (narrow(rows, format), fit_grid(*minmax_range(rows), format)):
        assert torch.equal(
            fake_quantize_through(rows, grid), dequantize(quantize(rows, grid), grid)
        )


@pytest.mark.parametrize("format", FORMATS, ids=str)
@pytest.mark.parametrize("seed", range(3))
def test_values_and_gradients_are_those_of_pytorch_and_torchao(format, seed):
    rows, upstream = drawn(seed), drawn(seed + 10)
    rows[0, :3] = torch.tensor([0.0, 99.0, -99.0])
    grid = narrow(rows, format)

    def ours(x):
        return fake_quantize_through(x, grid)

    def pytorch(x):
        scale, zero_point = grid.scale.flatten(), grid.zero_point.flatten()
        ends = format.lowest, format.highest
        return torch.fake_quantize_per_channel_affine(x, scale, zero_point, 0, *ends)

    def torchao(x):
        ends = format.lowest, format.highest
        block = (1, x.shape[1])
        return _fake_quantize_affine(x, block, grid.scale, grid.zero_point, torch.int32, *ends)

    found = []
    for function in (ours, pytorch, torchao):
        x = rows.clone().requires_grad_()
        values = function(x)
        values.backward(upstream)
        found.append((values.detach(), x.grad))
    assert 0 < (found[0][1] == 0).sum() < rows.numel() / 2
    for values, gradient in found[1:]:
        assert torch.equal(values, found[0][0])
        # torchao multiplies a gradient by s and by 1/s: two roundings of 2⁻²⁴.
        torch.testing.assert_close(gradient, found[0][1], rtol=2**-22, atol=0)
    assert torch.equal(found[1][1], found[0][1])


def test_a_dead_row_and_a_row_of_equals_learn_on():
    rows = torch.stack([torch.zeros(5), torch.full((5,), 0.37)]).requires_grad_()
    for format in FORMATS:
        grid = fit_grid(*minmax_range(rows.detach()), format)
        values = fake_quantize_through(rows, grid)
        torch.testing.assert_close(values, rows, atol=0, rtol=1e-6)
        assert torch.equal(torch.autograd.grad(values.sum(), rows)[0], torch.ones(2, 5))


def test_nan_is_passed_on_and_not_hidden():
    rows = torch.tensor([[0.1, 9.0, torch.nan]], requires_grad=True)
    grid = fit_grid(torch.tensor([[-1.0]]), torch.tensor([[1.0]]), Format(4, symmetric=True))
    values = fake_quantize_through(rows, grid)
    assert values.isnan().tolist() == [[False, False, True]]
    values.backward(torch.full((1, 3), torch.nan))
    assert rows.grad.isnan().all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_dtypes(dtype):
    rows = drawn(1).to(dtype).requires_grad_()
    grid = narrow(rows.detach(), Format(4))
    values = fake_quantize_through(rows, grid)
    assert values.dtype == grid.scale.dtype == torch.promote_types(dtype, torch.float32)
    assert torch.equal(values, dequantize(quantize(rows.detach(), grid), grid))
    values.sum().backward()
    assert rows.grad.dtype == dtype and set(rows.grad.unique().tolist()) == {0, 1}


def test_rounding_has_the_gradient_of_the_identity_under_transforms_too():
    x = drawn(2, (7,)) * 3
    assert torch.equal(round_through(x), x.round())
    gradient = torch.func.vmap(torch.func.grad(lambda a: round_through(a) ** 2))(x)
    assert torch.equal(gradient, 2 * x.round())


@given(st.floats(-5, 5, width=32), st.sampled_from([0.1, 0.3, 0.75, 1.0]))
def test_the_smooth_staircase_is_the_mean_over_noise(x, width):
    noise = (torch.arange(20_000, dtype=torch.float64) + 0.5) / 20_000 - 0.5
    mean = (x + width * noise).round().mean()
    smooth = smooth_round(torch.tensor(x, dtype=torch.float64), width)
    torch.testing.assert_close(smooth, mean, atol=2e-4, rtol=0)  # a point is 1/20,000 of the noise


def test_the_estimators_bias_is_the_distance_from_the_middle_times_the_curvature():
    """Against finite differences of the expected loss, and the estimator's own mean over noise."""
    h, b = 1.7, -0.4
    noise = (torch.arange(100_000, dtype=torch.float64) + 0.5) / 100_000 - 0.5

    def expected(x):
        levels = (x + noise).round()
        return (h * levels**2 / 2 + b * levels).mean()

    for x in (0.1, 0.37, 0.5, 0.8, 2.9, -0.2):
        middle = torch.tensor(x).floor().item() + 0.5
        slope = (expected(x + 0.01) - expected(x - 0.01)) / 0.02
        leaf = torch.tensor(x, dtype=torch.float64, requires_grad=True)
        levels = round_through(leaf + noise)
        (h * levels**2 / 2 + b * levels).mean().backward()
        assert leaf.grad.item() == pytest.approx(h * x + b, abs=1e-3)
        assert (leaf.grad - slope).item() == pytest.approx(h * (x - middle), abs=3e-3)


def test_a_scale_becomes_what_a_file_holds():
    scale = torch.tensor([0.1, 1e-30, 3.0], requires_grad=True)
    stored = float16_through(scale)
    assert torch.equal(stored.half().float(), stored) and (stored > 0).all()
    stored.sum().backward()
    assert torch.equal(scale.grad, torch.ones(3))


@pytest.mark.parametrize("width", [0, -1, 1.01, float("nan")])
def test_a_width_that_is_none_is_refused(width):
    with pytest.raises(ValueError, match="width must be above 0 and at most 1"):
        smooth_round(torch.zeros(1), width)


def test_on_an_accelerator():
    run_on_accelerator("""
import torch
from fake_accelerator import accelerator
from course_lib.quantization.linear import Format, fit_grid
from course_lib.quantization.straight_through import fake_quantize_through, float16_through
with accelerator() as put:
    rows = put(torch.randn(4, 9)).requires_grad_()
    grid = fit_grid(rows.detach().amin(1, True), rows.detach().amax(1, True), Format(3))
    values = fake_quantize_through(rows, grid)
    values.sum().backward()
    assert values.device == rows.grad.device == float16_through(grid.scale).device == rows.device
""")
