"""AdaRound: never worse than nearest, near the best of all roundings, and GPTQ beside it."""

import itertools

import pytest
import torch

from course_lib.formats.linear import Codes, Scheme, fit_stored, nearest_codes
from course_lib.language_models.gptq import gptq
from course_lib.models.moments import Moments, output_error
from course_lib.quantization.linear import Format, dequantize, quantize
from course_lib.quantization.rounding import adaround
from course_lib.quantization.rows import to_rows


def layer(seed: int, outputs: int, inputs: int, format: Format, granularity="channel"):
    """A weight, the Gram matrix of inputs that go together, and a grid."""
    generator = torch.Generator().manual_seed(seed)
    mix = torch.randn(inputs, inputs, generator=generator)
    x = torch.randn(400, inputs, generator=generator) @ mix
    weight = torch.randn(outputs, inputs, generator=generator)
    scheme = Scheme(format, granularity)
    gram = Moments.empty(inputs).add(x).gram
    return weight, gram, fit_stored(to_rows(weight, granularity), scheme), scheme


def error(weight, codes, grid, gram):
    return output_error(weight - Codes(codes, grid).weight, gram)


@pytest.mark.parametrize("format", [Format(2), Format(3, symmetric=True)], ids=str)
def test_it_is_near_the_best_of_all_roundings_up_and_down(format):
    """Over all 2⁶ roundings of each output. Nearest has a multiple of the best error."""
    weight, gram, grid, scheme = layer(0, 12, 6, format)
    places = weight / grid.scale + grid.zero_point
    best = torch.full((12,), torch.inf)
    for up in itertools.product((0, 1), repeat=6):
        codes = (places.floor() + torch.tensor(up)).clamp(format.lowest, format.highest)
        best = torch.minimum(best, error(weight, codes, grid, gram))
    found = error(weight, adaround(weight, gram, grid), grid, gram)
    nearest = error(weight, nearest_codes(weight, scheme).codes, grid, gram)
    assert (found >= best * (1 - 1e-4)).all()
    assert found.sum() - best.sum() < 0.5 * (nearest.sum() - best.sum())


@pytest.mark.parametrize("granularity", ["tensor", "channel", 8])
def test_no_output_is_worse_than_with_nearest_and_codes_differ_by_one_at_most(granularity):
    weight, gram, grid, scheme = layer(1, 20, 24, Format(3), granularity)
    codes, nearest = adaround(weight, gram, grid, 100), nearest_codes(weight, scheme).codes
    assert codes.dtype == nearest.dtype and codes.shape == weight.shape
    assert (error(weight, codes, grid, gram) <= error(weight, nearest, grid, gram) * 1.0001).all()
    assert (codes.int() - nearest.int()).abs().max() == 1


@pytest.mark.parametrize("seed", range(2))
def test_it_stands_beside_gptq_on_one_layer_and_grid(seed):
    weight, gram, grid, scheme = layer(seed, 32, 32, Format(3))
    ours = error(weight, adaround(weight, gram, grid), grid, gram).sum()
    theirs = error(weight, gptq(weight, gram, grid).codes, grid, gram).sum()
    nearest = error(weight, nearest_codes(weight, scheme).codes, grid, gram).sum()
    assert ours < 0.7 * nearest and ours < 1.5 * theirs


def test_white_inputs_leave_nearest_as_it_is():
    weight, _, grid, scheme = layer(2, 6, 10, Format(4))
    codes = adaround(weight, torch.eye(10), grid, 100)
    assert torch.equal(codes, nearest_codes(weight, scheme).codes)


def test_the_unit_of_inputs_and_weights_makes_no_difference():
    weight, gram, grid, _ = layer(3, 6, 8, Format(3))
    codes = adaround(weight, gram, grid, 100)
    for power in (2.0**-30, 2.0**30):
        assert torch.equal(adaround(weight, gram * power, grid, 100), codes)


def test_dead_inputs_equal_weights_and_weights_on_their_levels():
    _, gram, grid, scheme = layer(4, 6, 8, Format(3))
    on_levels = dequantize(quantize(torch.randn(6, 8), grid), grid)
    assert torch.equal(adaround(on_levels, gram, grid, 20), quantize(on_levels, grid))
    for weight in (torch.zeros(6, 8), torch.full((6, 8), 0.37)):
        chosen = nearest_codes(weight, scheme)
        dead = adaround(weight, torch.zeros(8, 8), chosen.grid, 20)
        assert torch.equal(dead, chosen.codes)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_dtypes(dtype):
    weight, gram, _, scheme = layer(5, 4, 8, Format(3))
    weight = weight.to(dtype)
    grid = fit_stored(weight, scheme)
    codes = adaround(weight, gram, grid, 50)
    assert codes.dtype == torch.uint8
    nearest = nearest_codes(weight, scheme).codes
    wide = weight.to(grid.scale.dtype)
    assert error(wide, codes, grid, gram).sum() <= error(wide, nearest, grid, gram).sum() * 1.0001


def test_bad_input_is_refused():
    weight, gram, grid, _ = layer(6, 4, 8, Format(3))
    with pytest.raises(ValueError, match=r"weight must have shape \(O, I\) and gram \(I, I\)"):
        adaround(weight, gram[1:, 1:], grid)
    with pytest.raises(ValueError, match="weight must be finite"):
        adaround(weight * torch.nan, gram, grid)
    with pytest.raises(ValueError, match="gram must be finite"):
        adaround(weight, gram * torch.inf, grid)
    with pytest.raises(ValueError, match="diagonal must not be negative"):
        adaround(weight, -gram, grid)
    with pytest.raises(ValueError, match="steps must be at least 1"):
        adaround(weight, gram, grid, 0)
    with pytest.raises(ValueError, match="fill the weight's 32 numbers evenly; got 3"):
        adaround(weight, gram, grid[:3])
