import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from torch.ao.quantization import MinMaxObserver, PerChannelMinMaxObserver
from torchao.quantization.quant_primitives import (
    MappingType,
    choose_qparams_affine,
    quantize_affine,
)

from course_lib.quantization.linear import (
    Format,
    Grid,
    dequantize,
    fake_quantize,
    fit_affine,
    fit_grid,
    fit_symmetric,
    quantize,
)
from course_lib.quantization.rows import to_rows

TINY = torch.finfo(torch.float32).tiny


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


NORMAL = torch.randn(6, 40, generator=seeded())
TENSORS = {
    "random": NORMAL,
    "heavy-tailed": NORMAL / torch.rand(6, 40, generator=seeded(1)).clamp(min=1e-3),
    "constant": torch.full((6, 40), 0.37),
    "all zero": torch.zeros(6, 40),
    "one element": torch.tensor([[-1.7]]),
    "denormal": NORMAL * 1e-39,
    "huge": NORMAL * 5e37,
    "negative only": -NORMAL.abs() - 1,
    "positive only": NORMAL.abs() + 1,
    "one outlier": torch.cat([NORMAL[:, 1:], torch.full((6, 1), 1e4)], dim=1),
}
FORMATS = [Format(2), Format(4), Format(8), Format(8, symmetric=True), Format(4, symmetric=True)]

moderate = st.floats(-(2.0**100), 2.0**100, width=32)
matrices = arrays(np.float32, array_shapes(min_dims=2, max_dims=2, max_side=8), elements=moderate)
formats = st.builds(Format, bits=st.integers(2, 16), symmetric=st.booleans())


def minmax_grid(rows: torch.Tensor, format: Format) -> Grid:
    return fit_grid(rows.amin(1, keepdim=True), rows.amax(1, keepdim=True), format)


def bound(grid: Grid) -> torch.Tensor:
    """s/2 and float32's rounding: 1/s, x · (1/s), s · (q − z) and s, 2⁻²⁴ of the range each."""
    steps = grid.format.highest - grid.format.lowest
    return grid.scale.double() * (0.5 + steps * 2**-22)


# ------------------------------------------------------------------ the same as PyTorch


@pytest.mark.parametrize("name", TENSORS)
@pytest.mark.parametrize("format", FORMATS, ids=str)
def test_scale_and_zero_point_are_those_of_torch_observers(name, format):
    """The observers put a floor under the scale, by default 1.2e-7; here it is set to ours."""
    rows = TENSORS[name]
    schemes = (torch.per_channel_affine, torch.per_channel_symmetric)
    observer = PerChannelMinMaxObserver(
        dtype=torch.qint8 if format.symmetric else torch.quint8,
        qscheme=schemes[format.symmetric],
        quant_min=format.lowest,
        quant_max=format.highest,
        eps=TINY,
    )
    scale, zero_point = observer(rows) is not None and observer.calculate_qparams()
    grid = minmax_grid(rows, format)
    assert torch.equal(grid.scale.flatten(), scale)
    assert torch.equal(grid.zero_point.flatten(), zero_point.int())


@pytest.mark.parametrize("name", TENSORS)
@pytest.mark.parametrize("format", FORMATS, ids=str)
def test_codes_are_those_of_quantize_per_channel(name, format):
    rows = TENSORS[name]
    grid = minmax_grid(rows, format)
    theirs = torch.quantize_per_channel(
        rows,
        grid.scale.flatten(),
        grid.zero_point.flatten(),
        axis=0,
        dtype=torch.qint8 if format.symmetric else torch.quint8,
    ).int_repr()
    codes = quantize(rows, grid)
    assert codes.dtype == theirs.dtype
    # PyTorch clamps to the type's range; only with 8 affine bits is that the format's.
    assert torch.equal(codes, theirs.clamp(format.lowest, format.highest))


@pytest.mark.parametrize("name", TENSORS)
@pytest.mark.parametrize("format", [Format(8), Format(8, symmetric=True)], ids=str)
def test_codes_and_values_are_those_of_quantize_per_tensor(name, format):
    rows = to_rows(TENSORS[name], "tensor")
    dtype = torch.qint8 if format.symmetric else torch.quint8
    observer = MinMaxObserver(
        dtype=dtype,
        qscheme=torch.per_tensor_symmetric if format.symmetric else torch.per_tensor_affine,
        quant_min=format.lowest,
        quant_max=format.highest,
        eps=TINY,
    )
    observer(rows)
    scale, zero_point = observer.calculate_qparams()
    theirs = torch.quantize_per_tensor(rows, scale.item(), zero_point.item(), dtype)
    grid = minmax_grid(rows, format)
    codes = quantize(rows, grid)
    assert torch.equal(grid.scale.flatten(), scale)
    assert torch.equal(codes, theirs.int_repr())
    assert torch.equal(dequantize(codes, grid), theirs.dequantize())


@pytest.mark.parametrize("name", TENSORS)
def test_groups_are_those_of_torchao(name):
    weight = TENSORS[name]
    if weight.numel() == 1:
        pytest.skip("no groups")
    block = (1, 8)
    scale, zero_point = choose_qparams_affine(
        weight, MappingType.ASYMMETRIC, block, torch.uint8, quant_min=0, quant_max=15, eps=TINY
    )
    theirs = quantize_affine(weight, block, scale, zero_point, torch.uint8, 0, 15)
    rows = to_rows(weight, 8)
    grid = minmax_grid(rows, Format(4))
    assert torch.equal(grid.scale.flatten(), scale.flatten())
    assert torch.equal(quantize(rows, grid).view_as(weight), theirs)


@pytest.mark.parametrize("zero_point", [0, 1, 2, 101])
def test_torch_disagrees_with_itself_on_ties(zero_point):
    """fake_quantize and torchao round x / s, then add z; here, too.

    On x86, quantize_per_tensor and per_channel add z before they round, so their ties differ where
    z is odd; their loop for other machines rounds first. Where z is even, all are one.
    """
    rows = torch.arange(-3.0, 37.0)[None] / 2  # whole numbers and ties by turns
    scale, zero = torch.ones(1), torch.tensor([zero_point], dtype=torch.int32)
    codes = quantize(rows, Grid(scale[:, None], zero[:, None], Format(8)))
    faked = torch.fake_quantize_per_tensor_affine(rows, 1.0, zero_point, 0, 255)
    assert torch.equal(codes - zero, faked.int())
    faked = torch.fake_quantize_per_channel_affine(rows, scale, zero, 0, 0, 255)
    assert torch.equal(codes - zero, faked.int())
    assert torch.equal(codes, quantize_affine(rows, (1, 40), scale, zero, torch.uint8, 0, 255))

    added_first = (rows + zero_point).round().clamp(0, 255).to(torch.uint8)
    for theirs in (
        torch.quantize_per_tensor(rows, 1.0, zero_point, torch.quint8).int_repr(),
        torch.quantize_per_channel(rows, scale, zero, 0, torch.quint8).int_repr(),
    ):
        assert torch.equal(theirs, codes) or torch.equal(theirs, added_first)
    assert torch.equal(added_first, codes) == (zero_point % 2 == 0)


def test_torch_loses_small_numbers_and_overflows_on_huge_ones():
    """Its floor of 1.2e-7 makes all small tensors 0; its max − min is infinite beyond 3.4e38."""
    small = NORMAL * 1e-30
    observer = MinMaxObserver(dtype=torch.quint8)
    observer(small)
    assert (small / observer.calculate_qparams()[0]).round().abs().max() == 0
    grid = minmax_grid(small, Format(8))
    assert torch.equal(quantize(small, grid), quantize(NORMAL, minmax_grid(NORMAL, Format(8))))

    wide = torch.tensor([[-2e38, 1e38, 2e38]])
    observer = MinMaxObserver(dtype=torch.quint8, quant_min=0, quant_max=255)
    observer(wide)
    assert observer.calculate_qparams()[0].isinf()
    grid = minmax_grid(wide, Format(8))
    assert ((wide - fake_quantize(wide, grid)).abs() <= bound(grid)).all()


# ------------------------------------------------------------------ properties


@given(matrices, matrices, formats)
def test_codes_are_in_range_whatever_comes(fitted, array, format):
    grid = minmax_grid(torch.from_numpy(fitted), format)[slice(0, 1)]
    codes = quantize(torch.from_numpy(array).reshape(1, -1), grid)
    assert codes.dtype == format.dtype
    assert codes.min() >= format.lowest and codes.max() <= format.highest


@given(matrices, formats)
def test_error_is_at_most_half_a_step(array, format):
    rows = torch.from_numpy(array)
    grid = minmax_grid(rows, format)
    error = (rows.double() - fake_quantize(rows, grid).double()).abs()
    assert (error <= bound(grid)).all()


@given(matrices, formats)
def test_a_second_time_changes_nothing(array, format):
    rows = torch.from_numpy(array)
    grid = minmax_grid(rows, format)
    codes = quantize(rows, grid)
    values = dequantize(codes, grid)
    assert torch.equal(quantize(values, grid), codes)
    assert torch.equal(fake_quantize(rows, grid), values)


@given(matrices, formats)
def test_zero_is_exact(array, format):
    rows = torch.from_numpy(array)
    grid = minmax_grid(rows, format)
    zeros = torch.zeros_like(rows)
    assert torch.equal(quantize(zeros, grid), grid.zero_point.expand_as(rows).to(format.dtype))
    assert torch.equal(fake_quantize(zeros, grid).abs(), zeros)


@given(matrices, st.integers(2, 16))
def test_symmetric_is_odd(array, bits):
    rows = torch.from_numpy(array)
    grid = minmax_grid(rows, Format(bits, symmetric=True))
    assert torch.equal(quantize(-rows, grid), -quantize(rows, grid))


@given(matrices, st.booleans())
def test_the_bound_falls_with_every_bit(array, symmetric):
    rows = torch.from_numpy(array)
    scales = [minmax_grid(rows, Format(bits, symmetric)).scale for bits in range(2, 17)]
    for coarse, fine in zip(scales, scales[1:], strict=False):
        assert ((fine < coarse) | (coarse == TINY)).all()


def test_the_error_itself_may_rise_with_a_bit():
    """Numbers that lie on the levels of 2 bits do not lie on those of 3."""
    rows = torch.tensor([[0.0, 1.0, 2.0, 3.0]])
    errors = [
        (rows - fake_quantize(rows, minmax_grid(rows, Format(bits)))).abs().max().item()
        for bits in (2, 3)
    ]
    assert errors[0] == 0 and errors[1] > 0.1


@settings(max_examples=40)
@given(matrices, formats, st.sampled_from([torch.float16, torch.bfloat16]))
def test_half_precision_is_computed_in_float32(array, format, dtype):
    rows = torch.from_numpy(array).clamp(-1e4, 1e4).to(dtype)
    grid = minmax_grid(rows, format)
    assert grid.scale.dtype == torch.float32
    assert torch.equal(quantize(rows, grid), quantize(rows.float(), grid))


def test_long_rows_and_many_rows_are_cut_into_blocks_that_fit_together():
    for shape in ((2, 300_000), (30_000, 20)):
        rows = torch.randn(shape)
        grid = minmax_grid(rows, Format(4))
        codes = quantize(rows, grid)
        whole = ((rows * (1 / grid.scale)).round() + grid.zero_point).clamp(0, 15)
        assert torch.equal(codes.float(), whole)
        assert torch.equal(dequantize(codes, grid), (whole - grid.zero_point) * grid.scale)


# ------------------------------------------------------------------ worked examples, bad input


def test_worked_examples():
    rows = torch.tensor([[0.5, 1.0, 1.5]])
    assert fake_quantize(rows, minmax_grid(rows, Format(2))).tolist() == [[0.5, 1.0, 1.5]]
    rows = torch.tensor([[-1.0, 0.3, 1.0]])
    assert quantize(rows, minmax_grid(rows, Format(8, symmetric=True))).tolist() == [
        [-127, 38, 127]
    ]
    rows = torch.tensor([[-0.06, 0.01, 0.03, 0.05]])  # s = 0.06 / 7; x / s = −7, 1.17, 3.5, 5.83
    grid = minmax_grid(rows, Format(4, symmetric=True))
    assert quantize(rows, grid).tolist() == [[-7, 1, 4, 6]]  # the tie goes to the even neighbour
    values = fake_quantize(rows, grid).flatten().tolist()
    assert values == pytest.approx([-0.06, 0.0086, 0.0343, 0.0514], abs=5e-5)


@pytest.mark.parametrize("bits", [-1, 1, 17, 32])
def test_other_bits_are_refused(bits):
    with pytest.raises(ValueError, match=f"bits must be from 2 to 16; got {bits}"):
        Format(bits)
    for fit_some in (fit_affine, fit_symmetric):
        with pytest.raises(ValueError, match="bits must be"):
            fit_some(torch.zeros(1, 1), torch.ones(1, 1), bits)


@pytest.mark.parametrize("wrong", [torch.nan, torch.inf, -torch.inf])
def test_nan_and_infinity_are_refused(wrong):
    grid = fit_affine(torch.zeros(1, 1), torch.ones(1, 1), 4)
    with pytest.raises(ValueError, match="rows must be finite; got 1 NaN or infinity among 2"):
        quantize(torch.tensor([[0.0, wrong]]), grid)
    with pytest.raises(ValueError, match="high must be finite"):
        fit_affine(torch.zeros(1, 1), torch.full((1, 1), wrong), 4)
    with pytest.raises(ValueError, match="low must be finite"):
        fit_symmetric(torch.full((1, 1), wrong), torch.zeros(1, 1), 4)


def test_what_does_not_fit_is_refused():
    grid = fit_affine(torch.zeros(2, 1), torch.ones(2, 1), 4)
    with pytest.raises(ValueError, match="low must not be above high"):
        fit_affine(torch.ones(2, 1), torch.zeros(2, 1), 4)
    with pytest.raises(ValueError, match=r"must have shape \(R, 1\); got \(2, 1\) and \(3, 1\)"):
        fit_affine(torch.zeros(2, 1), torch.ones(3, 1), 4)
    with pytest.raises(ValueError, match=r"rows must have.*got \(3, 4\) and \(2, 1\)"):
        quantize(torch.zeros(3, 4), grid)
    with pytest.raises(ValueError, match=r"codes must have.*got \(3, 4\) and \(2, 1\)"):
        dequantize(torch.zeros(3, 4, dtype=torch.uint8), grid)
    with pytest.raises(ValueError, match="rows must not be empty"):
        quantize(torch.zeros(2, 0), grid)
    with pytest.raises(TypeError, match="rows must be a tensor of floats; got torch.int64"):
        quantize(torch.zeros(2, 4, dtype=torch.int64), grid)
