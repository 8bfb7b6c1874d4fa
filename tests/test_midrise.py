import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from course_lib.quantization.midrise import dequantize_midrise, printed_codes, quantize_midrise

SHARES = torch.tensor([0.0, 0.375, 0.5, 0.9, 1.0])


def test_worked_example_of_the_sources():
    x = -1 + 2 * SHARES
    codes = quantize_midrise(x, -1, 1, bits=3)
    assert codes.tolist() == [0, 3, 4, 7, 7]
    assert dequantize_midrise(codes, -1, 1, bits=3).tolist() == [
        -0.875,
        -0.125,
        0.125,
        0.875,
        0.875,
    ]


def test_the_printed_formula_needs_one_code_too_many():
    codes = printed_codes(torch.linspace(0, 1, 10_001), 0, 1, bits=8)
    assert codes.unique().tolist() == list(range(257))
    assert codes.to(torch.uint8)[-1] == 0  # the largest number becomes the smallest
    assert printed_codes(-1 + 2 * SHARES, -1, 1, bits=3).tolist() == [0, 2, 4, 7, 8]
    edges = torch.arange(8) / 16  # ties go up and down by turns
    assert printed_codes(edges, 0, 1, bits=4).tolist() == [0, 0, 2, 2, 4, 4, 6, 6]


def test_inside_the_cells_both_formulas_agree():
    x = (torch.arange(256) + torch.rand(256) * 0.98 + 0.01) / 256
    assert torch.equal(printed_codes(x, 0, 1, 8), quantize_midrise(x, 0, 1, 8).int())
    assert torch.equal(quantize_midrise(x, 0, 1, 8).int(), torch.arange(256, dtype=torch.int32))


@given(st.lists(st.floats(-3, 3, width=32), min_size=1), st.integers(2, 16))
def test_codes_fit_and_the_error_is_half_a_cell(numbers, bits):
    x = torch.tensor(numbers)
    codes = quantize_midrise(x, -2, 2, bits)
    assert codes.min() >= 0 and codes.max() <= 2**bits - 1
    error = (dequantize_midrise(codes, -2, 2, bits) - x.clamp(-2, 2)).abs()
    assert (error <= 2.0 / 2**bits + 1e-6).all()  # float32 holds numbers up to 2 to 1.2e-7


def test_the_errors_variance_is_a_twelfth_of_the_cells_square():
    x = torch.rand(200_000, generator=torch.Generator().manual_seed(0))
    error = dequantize_midrise(quantize_midrise(x, 0, 1, 4), 0, 1, 4) - x
    # The mean of 200,000 squares has a standard error of 0.2 %.
    assert error.square().mean().item() == pytest.approx((1 / 16) ** 2 / 12, rel=0.01)


@pytest.mark.parametrize("low, high", [(1, 1), (2, 1), (0, torch.inf), (torch.nan, 1)])
@pytest.mark.parametrize("function", [quantize_midrise, printed_codes])
def test_an_impossible_range_is_refused(function, low, high):
    with pytest.raises(ValueError, match="low must be below high, and both finite; got low="):
        function(torch.zeros(3), low, high, 4)


def test_bad_numbers_are_refused():
    with pytest.raises(ValueError, match="x must be finite"):
        quantize_midrise(torch.tensor([torch.nan]), 0, 1, 4)
    with pytest.raises(ValueError, match="x must not be empty"):
        quantize_midrise(torch.zeros(0), 0, 1, 4)
    with pytest.raises(ValueError, match="bits must be from 2 to 16; got 1"):
        quantize_midrise(torch.zeros(3), 0, 1, 1)
