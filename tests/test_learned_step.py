"""LSQ's gradients: the paper's formula, PyTorch's operator, finite differences. PACT's likewise."""

import pytest
import torch
from on_accelerator import run_on_accelerator

from course_lib.quantization.learned_step import (
    ends,
    first_clip,
    first_step,
    lsq,
    pact,
    step_grid,
)
from course_lib.quantization.linear import Format, dequantize, fake_quantize, quantize

FORMATS = [Format(n, symmetric) for n in (2, 3, 4, 8) for symmetric in (False, True)]


def drawn(seed: int, shape: tuple[int, ...] = (5, 60)) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def gradients(rows, step, format, upstream):
    v, s = rows.clone().requires_grad_(), step.clone().requires_grad_()
    values = lsq(v, s, format)
    values.backward(upstream)
    return values.detach(), v.grad, s.grad


@pytest.mark.parametrize("format", FORMATS, ids=str)
def test_the_gradients_are_the_papers_number_by_number(format):
    rows, upstream = drawn(0), drawn(1)
    step = 0.8 * first_step(rows, format)
    _, of_rows, of_step = gradients(rows, step, format, upstream)
    below, above = ends(format)
    assert below + above + 1 == 2**format.bits - format.symmetric
    for r in range(len(rows)):
        pull = 0.0
        for c in range(rows.shape[1]):
            place = rows[r, c].item() / step[r].item()
            inside = -below < place < above
            slope = round(place) - place if inside else (-below if place <= -below else above)
            pull += upstream[r, c].item() * slope
            assert of_rows[r, c].item() == (upstream[r, c].item() if inside else 0)
        assert of_step[r].item() == pytest.approx(pull / (rows.shape[1] * above) ** 0.5, abs=1e-4)


@pytest.mark.parametrize("format", FORMATS, ids=str)
def test_they_are_those_of_pytorchs_learnable_operator_but_just_beyond_the_ends(format):
    """There, up to s/2 beyond the last level, PyTorch asks the rounded place, the paper v/s."""
    rows, upstream = drawn(2), drawn(3)
    step = 0.8 * first_step(rows, format)
    below, above = ends(format)
    place = rows / step
    outside = place.clamp(-below, above) != place
    beyond = outside & (place.round().clamp(-below, above) == place.round())
    rows = torch.where(beyond, 0.3 * step, rows)
    scale, zero = step.flatten().requires_grad_(), step_grid(step, format).zero_point.flatten()
    x = rows.clone().requires_grad_()
    factor = (rows.shape[1] * above) ** -0.5
    theirs = torch._fake_quantize_learnable_per_channel_affine(
        x, scale, zero.float().requires_grad_(), 0, format.lowest, format.highest, factor
    )
    theirs.backward(upstream)
    values, of_rows, of_step = gradients(rows, step.detach(), format, upstream)
    torch.testing.assert_close(values, theirs.detach())
    assert torch.equal(of_rows, x.grad)
    torch.testing.assert_close(of_step.flatten(), scale.grad, rtol=1e-4, atol=1e-5)


def test_finite_differences_of_the_step_where_the_derivative_is_a_true_one():
    """Clipped numbers stay on a level that moves with s: −Q_N and Q_P times its change. The others
    move with their level, q; the estimator takes v/s off that, as if levels were everywhere."""
    format, step = Format(3), torch.tensor([[0.5]], dtype=torch.float64)
    below, above = ends(format)
    rows = torch.tensor([[-9.0, -3.1, 7.0, 2.2, 0.6, -0.9, 0.1]], dtype=torch.float64)
    slope = (lsq(rows, step + 1e-6, format) - lsq(rows, step - 1e-6, format)) / 2e-6
    for c, v in enumerate(rows[0]):
        _, _, of_step = gradients(v.view(1, 1), step, format, torch.ones(1, 1, dtype=torch.float64))
        found = of_step.item() * above**0.5
        clipped = not -below < v / step < above
        expected = slope[0, c] - (0 if clipped else v / step)
        assert found == pytest.approx(expected.item(), abs=1e-6)


@pytest.mark.parametrize("format", FORMATS, ids=str)
@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e9])
def test_values_are_those_of_the_grid_bit_for_bit(format, scale):
    rows = drawn(4) * scale
    step = first_step(rows, format)
    grid, values = step_grid(step, format), lsq(rows, step, format)
    assert torch.equal(values, fake_quantize(rows, grid))
    assert torch.equal(values, dequantize(quantize(rows, grid), grid))


def test_the_start_is_the_papers_and_dead_rows_have_one():
    rows = torch.stack([torch.zeros(4), torch.full((4,), -0.37), torch.arange(4.0)])
    step = first_step(rows, Format(4, symmetric=True))
    expected = [2**-24, 2 * 0.37 / 7**0.5, 2 * 1.5 / 7**0.5]
    torch.testing.assert_close(step.flatten(), torch.tensor(expected))
    values, of_rows, of_step = gradients(rows, step, Format(4, symmetric=True), torch.ones(3, 4))
    assert values.isfinite().all() and of_rows.isfinite().all() and of_step.isfinite().all()
    assert torch.equal(values[0], torch.zeros(4)) and of_step[0] == 0
    assert first_step(rows[1:] * 1e38, Format(4)).isfinite().all()  # no sum beyond float32


@pytest.mark.parametrize("seed", range(3))
def test_gradient_descent_on_the_squared_error_finds_a_good_step(seed):
    """It ends near the best step of a fine search: 0.1 to 0.8 % more error, measured."""
    format, rows = Format(3, symmetric=True), drawn(seed, (1, 4000))
    log_step = first_step(rows, format).log().requires_grad_()
    optimizer = torch.optim.Adam([log_step], lr=0.02)
    for _ in range(150):
        optimizer.zero_grad()
        (lsq(rows, log_step.exp(), format) - rows).square().mean().backward()
        optimizer.step()

    def error(step):
        return (lsq(rows, torch.tensor([[step]]), format) - rows).square().mean().item()

    best = min(error(k / 200) for k in range(20, 300))
    assert error(log_step.exp().item()) < 1.02 * best


def test_nan_is_passed_on_and_not_hidden():
    rows = torch.tensor([[0.1, 9.0]])
    for upstream in ([[torch.nan, 1.0]], [[1.0, torch.nan]]):
        _, of_rows, of_step = gradients(rows, torch.ones(1, 1), Format(3), torch.tensor(upstream))
        assert of_step.isnan().all() and of_rows.isnan().any()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_dtypes(dtype):
    rows = drawn(5).to(dtype)
    step = first_step(rows, Format(4))
    assert step.dtype == torch.promote_types(dtype, torch.float32)
    values, of_rows, of_step = gradients(rows, step, Format(4), drawn(6).to(step.dtype))
    assert of_rows.dtype == dtype and of_step.dtype == values.dtype == step.dtype
    x = rows.clone().requires_grad_()
    clipped = pact(x, torch.tensor(1.0), Format(4, symmetric=True))
    clipped.sum().backward()
    assert clipped.dtype == x.grad.dtype == dtype
    assert clipped.float().abs().max() == 1


@pytest.mark.parametrize("format", FORMATS, ids=str)
def test_pacts_values_and_gradients_are_the_papers(format):
    """y = ½ (|x| − |x − α| + α) is how the paper writes clipping; autograd differentiates it."""
    x, upstream = 2 * drawn(7), drawn(8)
    alpha = torch.tensor(1.3, requires_grad=True)
    leaf = x.clone().requires_grad_()
    levels = format.highest / alpha
    upper = (leaf.abs() - (leaf - alpha).abs() + alpha) / 2  # in [0, α]
    lower = ((-leaf).abs() - (-leaf - alpha).abs() + alpha) / 2
    y = upper - lower if format.symmetric else upper
    theirs = y + ((y * levels).round() / levels - y).detach()
    theirs.backward(upstream)
    ours_x, ours_alpha = x.clone().requires_grad_(), alpha.detach().clone().requires_grad_()
    ours = pact(ours_x, ours_alpha, format)
    ours.backward(upstream)
    torch.testing.assert_close(ours, theirs)
    torch.testing.assert_close(ours_x.grad, leaf.grad)
    torch.testing.assert_close(ours_alpha.grad, alpha.grad)


def test_the_first_clip_leaves_out_the_largest_thousandth():
    x = drawn(9, (10_000,))
    assert ((x.abs() > first_clip(x)).sum() / len(x)).item() == pytest.approx(0.001)
    assert first_clip(x, share=1) == x.abs().max()
    assert first_clip(torch.zeros(3)) == 2**-24
    assert first_clip(torch.tensor([7.0])) == 7


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="rows must be finite"):
        first_step(torch.tensor([[torch.nan]]), Format(2))
    with pytest.raises(ValueError, match=r"rows must have shape \(R, C\)"):
        first_step(torch.ones(3), Format(2))
    with pytest.raises(TypeError, match="rows must be a tensor of floats"):
        first_step(torch.ones(3, 3).int(), Format(2))
    with pytest.raises(ValueError, match="x must be finite"):
        first_clip(torch.tensor([torch.inf]))
    for share in (0, 1.1, float("nan")):
        with pytest.raises(ValueError, match="share must be above 0 and at most 1"):
            first_clip(torch.ones(3), share)


def test_on_an_accelerator():
    run_on_accelerator("""
import torch
from fake_accelerator import accelerator
from course_lib.quantization.learned_step import first_step, lsq, pact
from course_lib.quantization.linear import Format
with accelerator() as put:
    rows = put(torch.randn(4, 9)).requires_grad_()
    step = first_step(rows.detach(), Format(3)).requires_grad_()
    lsq(rows, step, Format(3)).sum().backward()
    alpha = put(torch.ones(())).requires_grad_()
    pact(rows, alpha, Format(3)).sum().backward()
    assert step.grad.device == alpha.grad.device == rows.grad.device == rows.device
""")
