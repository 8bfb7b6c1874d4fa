"""Nearest levels: against brute force, at midpoints, with scales, in half precision; refused."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from course_lib.quantization.codebook import (
    TABLE_PAYS,
    absmax,
    logarithmic_levels,
    lookup,
    midpoints,
    nearest_codes,
    rms,
)

numbers = st.floats(-(2.0**100), 2.0**100, width=32)


@given(st.lists(numbers, min_size=1), st.lists(numbers, min_size=1, max_size=20))
def test_no_level_is_nearer(x, levels):
    rows, levels = torch.tensor([x]), torch.tensor([sorted(levels)])
    codes = nearest_codes(rows, levels)
    distance = (rows[0, :, None].double() - levels[0].double()).abs()
    found = distance.gather(1, codes[0, :, None].long())[:, 0]
    # A midpoint is rounded to float32, and a number beside it may be taken for the other side.
    slack = 1e-7 * levels.abs().max()
    assert (found <= distance.amin(dim=1) + 2 * slack + 1e-44).all()


@pytest.mark.parametrize("k", [1, 2, 16, 200, 256])
def test_a_large_tensor_gets_the_codes_of_its_parts(k):
    """A table serves large tensors, a search small ones."""
    rows = torch.randn(1, TABLE_PAYS + 5) * 0.1
    levels = torch.randn(1, k).sort(dim=1).values
    middles = midpoints(levels)[0]
    rows[0, : len(middles)] = middles  # ties
    rows[0, -3:] = torch.tensor([0.0, -0.0, 1e-45])
    whole = nearest_codes(rows, levels)
    parts = torch.cat([nearest_codes(part, levels) for part in rows.split(1000, dim=1)], dim=1)
    assert torch.equal(whole, parts)
    assert torch.equal(whole[0].long(), torch.bucketize(rows[0], middles))


def test_each_row_has_its_levels_and_its_scale():
    rows = torch.randn(7, 50)
    levels = torch.randn(7, 5).sort(dim=1).values
    scale = torch.rand(7, 1) + 0.1
    together = nearest_codes(rows, levels, scale)
    alone = [nearest_codes(rows[i : i + 1] / scale[i], levels[i : i + 1]) for i in range(7)]
    assert torch.equal(together, torch.cat(alone))
    values = lookup(together, levels, scale)
    every = (rows[:, :, None] - (scale * levels)[:, None, :]).abs()
    assert torch.allclose((rows - values).abs(), every.amin(dim=2), atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64], ids=str)
def test_other_floats_get_the_codes_of_their_numbers(dtype):
    rows = torch.randn(3, 40).to(dtype)
    levels = torch.randn(1, 9).sort(dim=1).values
    assert torch.equal(nearest_codes(rows, levels), nearest_codes(rows.float(), levels))


def test_extreme_levels_and_equal_ones():
    big = torch.finfo(torch.float32).max
    assert nearest_codes(
        torch.tensor([[big, -big, 1.0]]), torch.tensor([[-big, big]])
    ).tolist() == [[1, 0, 1]]
    assert nearest_codes(torch.tensor([[1.0, 3.0]]), torch.ones(1, 4)).max() < 4


def test_scales():
    rows = torch.tensor([[3.0, -4.0], [0.0, 0.0]])
    assert absmax(rows)[:, 0].tolist() == [4.0, torch.finfo(torch.float32).tiny]
    assert rms(rows)[0].item() == pytest.approx(12.5**0.5) and rms(rows)[1].item() < 1e-37
    large = torch.full((1, 100), 1e38)
    assert rms(large).item() == pytest.approx(1e38)
    assert rms(torch.full((1, 100), 300.0).half()).item() == pytest.approx(300)
    codes = nearest_codes(rows, torch.tensor([[-1.0, 0.0, 1.0]]), absmax(rows))
    assert codes.tolist() == [[2, 0], [1, 1]]


@pytest.mark.parametrize("bits", range(2, 9))
def test_logarithmic_levels_are_powers_of_two(bits):
    levels = logarithmic_levels(bits)
    assert levels.shape == (1, 2**bits - 1) and torch.equal(levels, -levels.flip(1))
    assert (levels.diff(dim=1) > 0).all() and levels.max() == 1
    assert set(torch.frexp(levels[levels != 0].abs()).mantissa.tolist()) == {0.5}


def test_bad_input_is_refused():
    rows, levels = torch.randn(2, 8), torch.tensor([[0.0, 1.0]])
    with pytest.raises(ValueError, match="rows must be finite; got 1 NaN"):
        nearest_codes(torch.tensor([[torch.nan]]), levels)
    with pytest.raises(ValueError, match="rows must not be empty"):
        nearest_codes(torch.zeros(1, 0), levels)
    with pytest.raises(TypeError, match="rows must be a tensor of floats"):
        nearest_codes(torch.zeros(1, 3, dtype=torch.int32), levels)
    with pytest.raises(ValueError, match="levels must ascend"):
        nearest_codes(rows, levels.flip(1))
    with pytest.raises(ValueError, match="levels must be finite"):
        nearest_codes(rows, levels / 0)
    with pytest.raises(
        ValueError, match=r"levels must have shape \(1, k\) or \(2, k\).*got \(3, 2"
    ):
        nearest_codes(rows, levels.expand(3, 2))
    with pytest.raises(ValueError, match="k up to 256; got"):
        nearest_codes(rows, torch.arange(257.0)[None])
    with pytest.raises(ValueError, match="scale must be above 0; got 0"):
        nearest_codes(rows, levels, torch.tensor([[1.0], [0.0]]))
    with pytest.raises(ValueError, match=r"scale must have shape \(2, 1\)"):
        nearest_codes(rows, levels, torch.ones(1, 1))
    with pytest.raises(ValueError, match="codes must be from 0 to 1; got 0 to 2"):
        lookup(torch.tensor([[0, 2]]), levels)
    with pytest.raises(ValueError, match="codes must be integers; got torch.float32"):
        lookup(torch.zeros(1, 2), levels)
    with pytest.raises(ValueError, match="codes must have shape"):
        lookup(torch.zeros(2, 2, dtype=torch.uint8), levels.expand(3, 2))
    with pytest.raises(ValueError, match="bits must be from 2 to 8; got 9"):
        logarithmic_levels(9)
