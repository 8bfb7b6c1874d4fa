"""Floats of few bits: bit for bit those of PyTorch, and of ml_dtypes where it is installed."""

import math
import warnings

import numpy as np
import pytest
import torch

from course_lib.quantization.floats import E2M1, E2M3, E3M2, E4M3, E5M2, Float, decode, encode

FORMATS = {"E4M3": E4M3, "E5M2": E5M2, "E2M3": E2M3, "E3M2": E3M2, "E2M1": E2M1}
every_format = pytest.mark.parametrize("format", FORMATS.values(), ids=FORMATS)


def edges() -> torch.Tensor:
    """Each float32 whose lower half is at one of its ends or its middle, or beside: 393,216."""
    upper = torch.arange(2**16, dtype=torch.int32) << 16
    lower = torch.tensor([0, 1, 0x7FFF, 0x8000, 0x8001, 0xFFFF], dtype=torch.int32)
    return (upper[:, None] | lower).flatten().view(torch.float32)


def all_codes(format: Float) -> torch.Tensor:
    return torch.arange(2**format.bits, dtype=torch.int32).to(torch.uint8)


@pytest.mark.parametrize(
    "format, dtype", [(E4M3, torch.float8_e4m3fn), (E5M2, torch.float8_e5m2)], ids=["E4M3", "E5M2"]
)
def test_codes_and_numbers_are_those_of_pytorch(format, dtype):
    """Ties, subnormals, overflow, infinities, zeros and NaN of both signs are among the edges."""
    x = edges()
    saturates = torch.tensor([1e9]).to(dtype).float().isfinite().item()
    assert torch.equal(encode(x, format, saturates), x.to(dtype).view(torch.uint8))
    theirs = all_codes(format).view(dtype).float()
    assert torch.equal(decode(all_codes(format), format).nan_to_num(7.7), theirs.nan_to_num(7.7))


@pytest.mark.parametrize("name, theirs", [
    ("E4M3", "float8_e4m3fn"), ("E5M2", "float8_e5m2"), ("E2M3", "float6_e2m3fn"),
    ("E3M2", "float6_e3m2fn"), ("E2M1", "float4_e2m1fn"),
])  # fmt: skip
def test_codes_and_numbers_are_those_of_ml_dtypes(name, theirs):
    dtype = getattr(pytest.importorskip("ml_dtypes"), theirs)
    format, x = FORMATS[name], edges()
    x = x[~x.isnan()]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # overflow is meant
        codes = x.numpy().astype(dtype).view(np.uint8)
    assert np.array_equal(encode(x, format), codes)
    numbers = all_codes(format).numpy().view(dtype).astype(np.float32)
    assert np.array_equal(decode(all_codes(format), format), numbers, equal_nan=True)


def number(code: int, format: Float) -> float:
    """A code's number by the formula, the top codes taken as numbers."""
    field, m = divmod(code, 2**format.mantissa_bits)
    share = m / 2**format.mantissa_bits
    if field == 0:
        return 2.0 ** (1 - format.bias) * share
    return 2.0 ** (field - format.bias) * (1 + share)


@every_format
def test_decode_is_the_formula(format):
    values = decode(all_codes(format), format)
    half = 2 ** (format.bits - 1)
    for code in range(format.highest_code + 1):
        assert values[code] == number(code, format) and values[half + code] == -values[code]
        assert math.copysign(1, values[half + code]) == -1
    beyond = values[format.highest_code + 1 : half]
    assert not beyond.isfinite().any()
    assert torch.equal(format.levels, values[: format.highest_code + 1])


@every_format
def test_encode_is_the_nearest_level_and_a_tie_goes_to_the_even_code(format):
    levels = [number(code, format) for code in range(format.highest_code + 1)]
    for code, (a, b) in enumerate(zip(levels, levels[1:], strict=False)):
        middle = (a + b) / 2  # exact, in float32 too
        x = torch.tensor([a, middle, np.nextafter(np.float32(middle), np.float32(0)),
                          np.nextafter(np.float32(middle), np.float32(9e9)), b])  # fmt: skip
        assert encode(x, format).tolist() == [code, code + code % 2, code, code + 1, code + 1]


def test_what_the_top_codes_mean():
    assert [f.highest for f in FORMATS.values()] == [448, 57344, 7.5, 28, 6]
    x = torch.tensor([464.0, 464.1, torch.inf, -torch.inf])  # halfway to 480, which is no number
    assert encode(x, E4M3).tolist() == [0x7E, 0x7F, 0x7F, 0xFF]
    assert encode(x, E4M3, saturate=True).tolist() == [0x7E, 0x7E, 0x7E, 0xFE]
    x = torch.tensor([61439.0, 61440.0, torch.inf, -torch.inf])
    assert encode(x, E5M2).tolist() == [0x7B, 0x7C, 0x7C, 0xFC]
    assert encode(x, E5M2, saturate=True).tolist() == [0x7B, 0x7B, 0x7B, 0xFB]
    assert encode(x, E2M1).tolist() == [7, 7, 7, 15]
    nan = torch.tensor([torch.nan, -torch.nan])
    assert encode(nan, E5M2).tolist() == encode(nan, E4M3, saturate=True).tolist() == [127, 255]
    with pytest.raises(ValueError, match="x must not be NaN, which .* has no code for"):
        encode(nan, E2M1)


@every_format
def test_codes_of_numbers_are_codes_again(format):
    codes = all_codes(format)
    values = decode(codes, format)
    finite = values.isfinite()
    for x in (values, values.half(), values.bfloat16(), values.double()):
        assert torch.equal(encode(x[finite], format), codes[finite])


def test_shapes_and_a_large_tensor():
    assert encode(torch.tensor(1.0), E4M3).shape == ()
    x = torch.randn(2**20)
    assert torch.equal(encode(x.view(2, 4, -1), E4M3).flatten(), encode(x, E4M3))
    columns = torch.randn(30, 40).T
    assert torch.equal(encode(columns, E2M1), encode(columns.contiguous(), E2M1))


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="x must not be empty"):
        encode(torch.zeros(0), E4M3)
    with pytest.raises(TypeError, match="x must be a tensor of floats"):
        encode(torch.zeros(3, dtype=torch.int32), E4M3)
    with pytest.raises(ValueError, match="codes must be from 0 to 15; got 16 to 16"):
        decode(torch.tensor([16]), E2M1)
    assert decode(torch.zeros(0, dtype=torch.uint8), E2M1).shape == (0,)
    for wrong in [(0, 3, 1, "nan"), (5, 3, 1, "nan"), (4, 3, 200, "nan"), (4, 3, 7, "inf"),
                  (4, 0, 7, "nan"), (1, 2, 0, "ieee")]:  # fmt: skip
        with pytest.raises(ValueError, match=r"a Float must have|no normal numbers"):
            Float(*wrong)
