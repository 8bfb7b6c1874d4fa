"""NF4's table beside the published numbers, and scales that are quantized in turn."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from course_lib.quantization.normal_float import (
    dequantize_scales,
    normal_float,
    quantize_scales,
)

# Dettmers et al., 2023, appendix E.
PUBLISHED = [
    -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635,
    -0.18477343022823334, -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725,
    0.24611230194568634, 0.33791524171829224, 0.44070982933044434, 0.5626170039176941,
    0.7229568362236023, 1.0,
]  # fmt: skip


def test_the_table_is_the_published_one():
    assert normal_float()[0].tolist() == pytest.approx(PUBLISHED, abs=1e-6)


@pytest.mark.parametrize("bits", range(2, 9))
def test_tables_of_other_sizes(bits):
    levels = normal_float(bits)
    assert levels.shape == (1, 2**bits) and (levels.diff(dim=1) > 0).all()
    assert levels[0, 0] == -1 and levels[0, -1] == 1 and (levels == 0).sum() == 1


def test_normal_numbers_use_the_levels_about_equally():
    middles = torch.tensor(PUBLISHED).unfold(0, 2, 1).mean(dim=1)
    largest = 1.848  # Φ⁻¹(1 − δ)
    codes = torch.bucketize(torch.randn(400_000) / largest, middles)
    shares = torch.bincount(codes, minlength=16) / 400_000
    assert 0.03 < shares.min() <= shares.max() < 0.09


@given(st.lists(st.floats(0, 100, width=32), min_size=1, max_size=600))
def test_scales_come_back_within_half_a_step(numbers):
    scale = torch.tensor(numbers)[:, None]
    codes, step, mean = quantize_scales(scale)
    assert codes.dtype == torch.int8 and codes.shape == (len(scale),)
    back = dequantize_scales(codes, step, mean)
    steps = step.repeat_interleave(256)[: len(scale), None]
    assert ((back - scale).abs() <= steps * 0.5 + 1e-4).all() and (back >= 0).all()


def test_what_double_quantization_costs():
    scale = torch.randn(4096, 64).abs().amax(dim=1, keepdim=True)
    codes, step, mean = quantize_scales(scale)
    bits = 8 * (codes.nbytes + step.nbytes + mean.nbytes) / (4096 * 64)
    assert bits == pytest.approx(0.127, abs=1e-3)
    off = (dequantize_scales(codes, step, mean) / scale - 1).abs()
    assert off.max() < 0.02


def test_bad_input_is_refused():
    for bits in (1, 9):
        with pytest.raises(ValueError, match=f"bits must be from 2 to 8; got {bits}"):
            normal_float(bits)
    with pytest.raises(ValueError, match=r"scale must have shape \(R, 1\).*from -1"):
        quantize_scales(-torch.ones(3, 1))
    with pytest.raises(ValueError, match=r"scale must have shape \(R, 1\)"):
        quantize_scales(torch.ones(3))
    with pytest.raises(ValueError, match="scale must be finite"):
        quantize_scales(torch.tensor([[torch.nan]]))
    codes, step, mean = quantize_scales(torch.ones(300, 1))
    with pytest.raises(ValueError, match="a number for each 256 of them"):
        dequantize_scales(codes, step[:1], mean)
