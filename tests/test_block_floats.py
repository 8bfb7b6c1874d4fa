"""MX and NVFP4: by the standard's rule number for number, and beside torchao where it loads."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from course_lib.quantization.block_floats import (
    decode_mx,
    decode_nvfp4,
    encode_mx,
    encode_nvfp4,
)
from course_lib.quantization.floats import E2M1, E2M3, E3M2, E4M3, E5M2, decode, encode

ELEMENTS = {"E2M1": E2M1, "E2M3": E2M3, "E3M2": E3M2, "E4M3": E4M3, "E5M2": E5M2}


@pytest.mark.parametrize("element", ELEMENTS.values(), ids=ELEMENTS)
@given(
    st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1, max_size=32)
)
def test_mx_is_the_standards_rule(element, numbers):
    rows = torch.tensor([numbers])
    codes, exponents = encode_mx(rows, element)
    largest = max(abs(x) for x in rows[0].tolist())
    top = {E2M1: 2, E2M3: 2, E3M2: 4, E4M3: 8, E5M2: 15}[element]
    power = max(-127, math.floor(math.frexp(largest)[1] - 1) - top) if largest else -127
    assert exponents.tolist() == [power + 127]
    scaled = (rows.double() / 2.0**power).float()
    assert torch.equal(codes, encode(scaled, element, saturate=True))
    values = decode(codes, element).double() * 2.0**power
    assert torch.equal(decode_mx(codes, exponents, element).double(), values)


def test_mx_worked_example():
    rows = torch.tensor([[7.9, -0.26, 0.0, 3.5], [0.0, -0.0, 0.0, 0.0], [2**-140, 0, 0, 0]])
    values = decode_mx(*encode_mx(rows))
    assert values.tolist() == [[6.0, -0.5, 0.0, 4.0], [0.0] * 4, [0.0] * 4]
    assert decode_mx(torch.tensor([[1]]), torch.tensor([255], dtype=torch.uint8)).isnan().all()
    with pytest.raises(ValueError, match="codes must be from 0 to 15; got 0 to 16"):
        decode_mx(torch.tensor([[0, 16]]), torch.zeros(1, dtype=torch.uint8))
    with pytest.raises(ValueError, match=r"exponents \(R,\); got \(1, 2\) and \(2,\)"):
        decode_mx(torch.zeros(1, 2, dtype=torch.uint8), torch.zeros(2, dtype=torch.uint8))


def test_powers_of_two_pass_through_mx():
    rows = torch.randn(50, 32).sign() * 2.0 ** torch.randint(-2, 1, (50, 32))
    assert torch.equal(decode_mx(*encode_mx(rows)), rows)
    assert torch.equal(decode_mx(*encode_mx(rows * 2.0**100)), rows * 2.0**100)


def test_nvfp4_by_its_formula():
    rows = torch.randn(200, 16) * torch.randn(200, 1).exp()
    codes, scales, tensor_scale = encode_nvfp4(rows)
    largest = rows.abs().amax(dim=1)
    assert tensor_scale.item() == pytest.approx(rows.abs().max().item() / 2688)
    expected = largest / 6 / tensor_scale
    assert torch.equal(scales, encode(expected, E4M3, saturate=True))
    step = decode(scales, E4M3) * tensor_scale
    levels = torch.cat([E2M1.levels, -E2M1.levels])
    distance = (rows[:, :, None] / step[:, None, None] - levels).abs().amin(dim=2)
    off = (decode_nvfp4(codes, scales, tensor_scale) / step[:, None] - rows / step[:, None]).abs()
    assert torch.allclose(off, distance, atol=1e-5)


@pytest.mark.slow  # to import torchao takes most of it
def test_agrees_with_torchao():
    formats = pytest.importorskip("torchao.prototype.mx_formats.mx_tensor")
    rows = torch.randn(64, 32)
    scales, data = formats.to_mx(rows, torch.float4_e2m1fn_x2, 32)
    codes, exponents = encode_mx(rows)
    assert torch.equal(scales.view(torch.uint8).flatten(), exponents)
    packed = codes[:, 0::2] | codes[:, 1::2] << 4
    assert torch.equal(data.view(torch.uint8).flatten(), packed.flatten())

    formats = pytest.importorskip("torchao.prototype.mx_formats.nvfp4_tensor")
    rows = rows * torch.randn(64, 1).exp()
    codes, scales, tensor_scale = encode_nvfp4(rows.view(-1, 16))
    theirs, data = formats.nvfp4_quantize(rows, 16, tensor_scale)
    assert torch.equal(tensor_scale, formats.per_tensor_amax_to_scale(rows.abs().max()))
    assert torch.equal(theirs.view(torch.uint8).flatten(), scales)
    packed = codes[:, 0::2] | codes[:, 1::2] << 4
    assert torch.equal(data.flatten(), packed.flatten())


def test_nasty_rows():
    zeros = torch.zeros(3, 16)
    assert torch.equal(decode_nvfp4(*encode_nvfp4(zeros)), zeros)
    assert torch.equal(decode_mx(*encode_mx(zeros)), zeros)
    assert decode_nvfp4(*encode_nvfp4(torch.tensor([[-3.0]]))).item() == pytest.approx(-3)
    mixed = torch.cat([torch.full((1, 16), 1000.0), torch.full((1, 16), 1e-6)])
    assert decode_nvfp4(*encode_nvfp4(mixed))[1].abs().max() <= 1e-3  # beneath the scale's reach
    for dtype in (torch.float16, torch.bfloat16, torch.float64):
        rows = torch.randn(4, 32).to(dtype)
        assert torch.equal(encode_mx(rows)[0], encode_mx(rows.float())[0])
        assert torch.equal(encode_nvfp4(rows)[0], encode_nvfp4(rows.float())[0])
    big = torch.full((2, 32), torch.finfo(torch.float32).max)
    assert decode_mx(*encode_mx(big)).isfinite().all()
    assert decode_nvfp4(*encode_nvfp4(big)).isfinite().all()
    for encoder in (encode_mx, encode_nvfp4):
        with pytest.raises(ValueError, match="rows must be finite"):
            encoder(torch.tensor([[torch.nan]]))
        with pytest.raises(ValueError, match="rows must not be empty"):
            encoder(torch.zeros(0, 16))
        with pytest.raises(ValueError, match=r"rows must have shape \(R, C\)"):
            encoder(torch.zeros(16))
    with pytest.raises(ValueError, match="rows, in float32, must be finite"):
        encode_nvfp4(torch.tensor([[1e300]], dtype=torch.float64))


def test_a_million_numbers_lose_what_the_formats_cost():
    rows = torch.randn(2**20 // 32, 32)
    power = rows.double().square().sum()
    decibels = []
    for values in (decode_mx(*encode_mx(rows)), decode_nvfp4(*encode_nvfp4(rows.view(-1, 16)))):
        error = (values.view_as(rows) - rows).double().square().sum()
        decibels.append(10 * math.log10(power / error))
    assert 18 < decibels[0] < 19.5 < decibels[1] < 21.5
