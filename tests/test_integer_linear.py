import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from course_lib.quantization.calibration import minmax_range
from course_lib.quantization.integer_linear import dynamic_linear, integer_linear, integer_matmul
from course_lib.quantization.linear import Format, Grid, dequantize, fit_grid, quantize
from course_lib.quantization.rows import to_rows

sizes = st.integers(1, 9)
formats = st.builds(Format, bits=st.integers(2, 8), symmetric=st.booleans())


def coded(rows: Tensor, format: Format) -> tuple[Tensor, Grid]:
    grid = fit_grid(*minmax_range(rows), format)
    return quantize(rows, grid), grid


def float64_product(x: tuple[Tensor, Grid], w: tuple[Tensor, Grid]) -> Tensor:
    """x wᵀ of the dequantized numbers, with scales and products in float64."""
    (x, w) = ((codes.double() - grid.zero_point) * grid.scale.double() for codes, grid in (x, w))
    return x @ w.T


# ------------------------------------------------------------------ the integer product


@settings(max_examples=50)
@given(sizes, sizes, st.sampled_from([1, 7, 1023, 1024, 1025, 3000]), st.integers(0, 2**32 - 1))
def test_the_product_is_numpys_in_integers(tokens, outputs, inputs, seed):
    generator = np.random.default_rng(seed)
    a, b = (
        generator.integers(-128, 128, size=(n, inputs), dtype=np.int8) for n in (tokens, outputs)
    )
    found = integer_matmul(torch.from_numpy(a), torch.from_numpy(b))
    assert found.dtype == torch.int32
    assert np.array_equal(found.numpy(), a.astype(np.int64) @ b.astype(np.int64).T)


def test_the_product_is_torchs_own():
    generator = torch.Generator().manual_seed(0)
    a = torch.randint(-128, 128, (32, 2048), generator=generator, dtype=torch.int8)
    b = torch.randint(-128, 128, (16, 2048), generator=generator, dtype=torch.int8)
    assert torch.equal(integer_matmul(a, b), torch._int_mm(a, b.T))


@pytest.mark.parametrize("a, b", [(-128, -128), (-128, 127), (127, 127)])
def test_the_longest_sum_of_extremes_is_exact(a, b):
    """It lies far above 2²⁴, up to which float32 holds every integer; the runs of 1024 do not."""
    inputs = 2**15
    x, w = (torch.full((1, inputs), code, dtype=torch.int8) for code in (a, b))
    x[0, -1] = w[0, -1] = 1
    assert integer_matmul(x, w).item() == (inputs - 1) * a * b + 1


# ------------------------------------------------------------------ the layer


@settings(max_examples=100)
@given(sizes, sizes, st.integers(1, 40), formats, formats, st.integers(0, 2**32 - 1))
def test_it_equals_the_product_of_the_dequantized(
    tokens, outputs, inputs, x_format, w_format, seed
):
    generator = torch.Generator().manual_seed(seed)
    x = coded(torch.randn(tokens, inputs, generator=generator) + 1, x_format)
    w = coded(torch.randn(outputs, inputs, generator=generator) - 0.3, w_format)
    bias = torch.randn(outputs, generator=generator)
    found = integer_linear(*x, *w, bias)
    exact = float64_product(x, w) + bias
    assert found.shape == (tokens, outputs)
    torch.testing.assert_close(found.double(), exact, rtol=2e-6, atol=1e-6)
    floats = dequantize(*x) @ dequantize(*w).T + bias
    torch.testing.assert_close(found, floats, rtol=1e-4, atol=1e-4)


def test_scales_may_be_one_for_all():
    x, w = torch.randn(3, 20), torch.randn(5, 20)
    x_codes, x_grid = coded(to_rows(x, "tensor"), Format(8))
    w_codes, w_grid = coded(to_rows(w, "tensor"), Format(8, symmetric=True))
    x_codes, w_codes = x_codes.view_as(x), w_codes.view_as(w)  # (1, T·I) -> (T, I)
    found = integer_linear(x_codes, x_grid, w_codes, w_grid)
    exact = float64_product((x_codes, x_grid), (w_codes, w_grid))
    torch.testing.assert_close(found.double(), exact, rtol=2e-6, atol=1e-6)


def test_the_sum_never_leaves_int32():
    """32,768 inputs at the far ends of both grids: 2¹⁵ · 255² is just below 2³¹."""
    x = torch.full((1, 2**15), 3.0)
    w = torch.full((1, 2**15), -2.0)
    found = integer_linear(*coded(x, Format(8)), *coded(w, Format(8)))
    assert found.item() == pytest.approx(-6.0 * 2**15, rel=1e-6)


def test_it_is_close_to_the_floats_that_it_stands_for():
    x, w = torch.randn(16, 256), torch.randn(32, 256)
    found = integer_linear(*coded(x, Format(8)), *coded(w, Format(8, symmetric=True)))
    error = (found - x @ w.T).square().mean() / (x @ w.T).square().mean()
    assert error.sqrt() < 0.02


# ------------------------------------------------------------------ dynamic activations


@settings(max_examples=50)
@given(sizes, sizes, st.integers(1, 40), st.integers(2, 8), st.integers(0, 2**32 - 1))
def test_each_token_gets_its_own_grid(tokens, outputs, inputs, bits, seed):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(2, tokens, inputs, generator=generator) * torch.tensor([1.0, 1e3]).view(2, 1, 1)
    w = coded(torch.randn(outputs, inputs, generator=generator), Format(8, symmetric=True))
    found = dynamic_linear(x, *w, bits=bits)
    for batch, rows in zip(x, found, strict=True):
        for token, row in zip(batch, rows, strict=True):  # by itself, in float64
            exact = float64_product(coded(token[None], Format(bits)), w)[0]
            scale = exact.abs().max().item() + token.abs().max().item()
            torch.testing.assert_close(row.double(), exact, rtol=2e-6, atol=1e-6 * scale)


def test_shapes_and_bias():
    w = coded(torch.randn(5, 12), Format(8, symmetric=True))
    bias = torch.randn(5)
    assert dynamic_linear(torch.randn(12), *w).shape == (5,)
    assert dynamic_linear(torch.randn(2, 3, 4, 12), *w, bias).shape == (2, 3, 4, 5)
    x = torch.randn(3, 12)
    assert torch.equal(dynamic_linear(x, *w, bias), dynamic_linear(x, *w) + bias)


def test_it_is_as_good_as_torchs_dynamic_layer():
    """Torch has one scale for all tokens, so one loud token makes all others coarse."""
    torch.manual_seed(0)
    layer = torch.nn.Linear(128, 64)
    x = torch.randn(20, 128)
    x[0] *= 50
    theirs = torch.ao.quantization.quantize_dynamic(
        torch.nn.Sequential(layer), {torch.nn.Linear}, dtype=torch.qint8
    )(x)
    w = coded(layer.weight.detach(), Format(8, symmetric=True))
    ours = dynamic_linear(x, *w, layer.bias.detach())
    errors = [(y - layer(x))[1:].square().mean().sqrt().item() for y in (ours, theirs)]
    assert errors[0] < 0.2 * errors[1]


# ------------------------------------------------------------------ bad input


def test_more_than_8_bits_are_refused():
    few, many = coded(torch.randn(2, 4), Format(8)), coded(torch.randn(2, 4), Format(9))
    with pytest.raises(ValueError, match="x must have codes of at most 8 bits; got 9"):
        integer_linear(*many, *few)
    with pytest.raises(ValueError, match="w must have codes of at most 8 bits; got 9"):
        integer_linear(*few, *many)
    with pytest.raises(ValueError, match="x must have codes of at most 8 bits; got 9"):
        dynamic_linear(torch.randn(2, 4), *few, bits=9)


def test_shapes_that_do_not_fit_are_refused():
    x, w = coded(torch.randn(3, 4), Format(8)), coded(torch.randn(2, 5), Format(8))
    with pytest.raises(ValueError, match="same number of inputs, at most 32768; got 4 and 5"):
        integer_linear(*x, *w)
    groups = coded(to_rows(torch.randn(2, 4), 2), Format(8))  # two scales an output
    with pytest.raises(ValueError, match=r"one scale a row.*got codes \(2, 4\).*scales \(4, 1\)"):
        integer_linear(*x, groups[0].view(2, 4), groups[1])
    with pytest.raises(ValueError, match=r"codes of x must be a matrix.*got codes \(4,\)"):
        integer_linear(x[0][0], x[1][:1], *w)


def test_sums_that_may_overflow_are_refused():
    x = coded(torch.ones(1, 2**15 + 1), Format(8))
    with pytest.raises(ValueError, match="at most 32768; got 32769 and 32769"):
        integer_linear(*x, *x)


def test_tokens_with_nan_are_refused():
    w = coded(torch.randn(5, 3), Format(8))
    with pytest.raises(ValueError, match="rows must be finite; got 1 NaN or infinity among 3"):
        dynamic_linear(torch.tensor([0.0, torch.nan, 1.0]), *w)
