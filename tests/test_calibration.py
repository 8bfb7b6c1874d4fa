import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from torch import Tensor
from torch.ao.quantization import PerChannelMinMaxObserver

from course_lib.quantization.calibration import (
    CANDIDATES,
    minmax_range,
    mse_range,
    percentile_range,
    rounding_error,
)
from course_lib.quantization.linear import Format, fit_grid

EVERY = [minmax_range, percentile_range, mse_range]
FORMATS = [Format(2), Format(4), Format(8), Format(3, symmetric=True), Format(8, symmetric=True)]

moderate = st.floats(-(2.0**40), 2.0**40, width=32)
matrices = arrays(np.float32, array_shapes(min_dims=2, max_dims=2, max_side=12), elements=moderate)
formats = st.builds(Format, bits=st.integers(2, 8), symmetric=st.booleans())


def heavy_tailed(R: int = 5, C: int = 300) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(R, C, generator=generator)
    return rows / torch.rand(R, C, generator=generator).clamp(min=0.02)


def brute_force_error(row: np.ndarray, low: float, high: float, format: Format) -> float:
    """Σ (x − x̂)² in float64, by the distance to every single level."""
    if format.symmetric:
        m = max(abs(low), abs(high))
        levels = np.arange(format.lowest, format.highest + 1) * m / format.highest
    else:
        low, high = min(low, 0), max(high, 0)
        s = (high - low) / format.highest
        z = np.round(-low / s) if s else 0
        levels = (np.arange(2**format.bits) - z) * s
    return (np.abs(row[:, None] - levels).min(axis=1) ** 2).sum()


def test_minmax_is_what_torchs_observer_sees():
    rows = heavy_tailed()
    observer = PerChannelMinMaxObserver()
    observer(rows)
    low, high = minmax_range(rows)
    assert torch.equal(low.flatten(), observer.min_val)
    assert torch.equal(high.flatten(), observer.max_val)


@settings(max_examples=50)
@given(matrices, st.floats(50, 100))
def test_percentiles_are_numpys(array, percent):
    low, high = percentile_range(torch.from_numpy(array), percent=percent)
    assert (low <= high).all()
    exact = np.percentile(array.astype(np.float64), [100 - percent, percent], axis=1)
    least = np.finfo(np.float32).smallest_subnormal  # half of an odd number of these is rounded
    tolerance = 1e-6 * np.abs(array).max() + least
    assert np.allclose([low.flatten(), high.flatten()], exact, rtol=0, atol=tolerance)


@pytest.mark.parametrize("percent", [50, 75, 99, 99.9, 99.99, 100])
@pytest.mark.parametrize("columns", [1, 2, 10, 1000, 1009])
def test_percentiles_of_long_rows_are_numpys(percent, columns):
    rows = heavy_tailed(3, columns)
    exact = np.percentile(rows.double().numpy(), [100 - percent, percent], axis=1)
    found = torch.cat(percentile_range(rows, percent=percent), dim=1).T
    assert np.allclose(found, exact, rtol=1e-5, atol=1e-5)


def test_a_percentile_between_huge_numbers_is_finite():
    rows = torch.tensor([[-3e38, 3e38]])
    low, high = percentile_range(rows, percent=75)
    assert low.item() == pytest.approx(-1.5e38) and high.item() == pytest.approx(1.5e38)


@pytest.mark.parametrize("format", FORMATS, ids=str)
def test_rounding_error_is_that_of_the_nearest_levels(format):
    rows = heavy_tailed()
    low, high = percentile_range(rows, percent=95)
    exact = [
        brute_force_error(row, a.item(), b.item(), format)
        for row, a, b in zip(rows.double().numpy(), low, high, strict=True)
    ]
    found = rounding_error(rows, fit_grid(low, high, format)).flatten()
    assert found.tolist() == pytest.approx(exact, rel=1e-4)


@pytest.mark.parametrize("format", FORMATS, ids=str)
def test_the_search_finds_the_best_of_all_shares(format):
    """Against every share, tried one by one in float64; a tie may go to either of two shares."""
    rows = heavy_tailed(3, 100)
    low, high = mse_range(rows, format)
    for row, a, b in zip(rows.double().numpy(), low, high, strict=True):
        errors = [
            brute_force_error(row, row.min() * k / CANDIDATES, row.max() * k / CANDIDATES, format)
            for k in range(1, CANDIDATES + 1)
        ]
        assert brute_force_error(row, a.item(), b.item(), format) <= min(errors) * (1 + 1e-4)
        share = a.item() / row.min()
        assert share == pytest.approx(b.item() / row.max())
        assert share * CANDIDATES == pytest.approx(round(share * CANDIDATES), abs=1e-4)


@settings(max_examples=50)
@given(matrices, formats, st.sampled_from([torch.float32, torch.bfloat16, torch.float64]))
def test_the_search_is_never_worse_than_minmax(array, format, dtype):
    rows = torch.from_numpy(array).to(dtype)
    chosen = rounding_error(rows, fit_grid(*mse_range(rows, format), format))
    assert (chosen <= rounding_error(rows, fit_grid(*minmax_range(rows), format))).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_searched_in_float32(dtype):
    rows = heavy_tailed().to(dtype)
    for found, exact in zip(
        mse_range(rows, Format(4)), mse_range(rows.float(), Format(4)), strict=True
    ):
        assert torch.equal(found, exact)


def test_the_search_clips_an_outlier_and_minmax_does_not():
    rows = torch.cat([torch.linspace(-1, 1, 999), torch.tensor([10.0])])[None]
    format = Format(4, symmetric=True)
    low, high = mse_range(rows, format)
    gain = rounding_error(rows, fit_grid(*minmax_range(rows), format)) / rounding_error(
        rows, fit_grid(low, high, format)
    )
    assert high < 10 and gain > 1.5


def test_counts_stand_for_numbers_that_occur_again():
    rows = torch.tensor([[-1.0, 0.1, 0.4, 0.45, 3.0]])
    counts = torch.tensor([[2, 50, 30, 20, 1]])
    again = rows[0].repeat_interleave(counts[0])[None]
    for format in FORMATS:
        for found, exact in zip(
            mse_range(rows, format, counts), mse_range(again, format), strict=True
        ):
            assert torch.equal(found, exact)


def test_long_rows_are_searched_block_by_block():
    rows = heavy_tailed(1, 300_000)
    grid = fit_grid(*percentile_range(rows), Format(4))
    values = ((rows / grid.scale).round() + grid.zero_point).clamp(0, 15) - grid.zero_point
    exact = (values * grid.scale - rows).double().square().sum().item()
    assert rounding_error(rows, grid).item() == pytest.approx(exact, rel=1e-4)


@pytest.mark.parametrize("find", EVERY)
@pytest.mark.parametrize(
    "rows", [torch.zeros(2, 5), torch.full((1, 3), -0.37), torch.tensor([[7.0]]),
             torch.tensor([[1e-40, -3e-40]]), torch.tensor([[-3e38, 1.0, 3e38]])],
    ids=["all zero", "constant", "one element", "denormal", "huge"],
)  # fmt: skip
def test_every_range_lies_within_minmax_whatever_comes(find, rows):
    low, high = find(rows, Format(4))
    assert low.shape == high.shape == (len(rows), 1)
    assert (rows.amin(1, True) <= low + 1e-6).all() and (high <= rows.amax(1, True) + 1e-6).all()
    fit_grid(low, high, Format(4))  # finite, and in order


@pytest.mark.parametrize("find", EVERY)
def test_bad_rows_are_refused(find):
    for wrong, message in [
        (torch.tensor([[0.0, torch.nan]]), "rows must be finite; got 1 NaN or infinity among 2"),
        (torch.tensor([[torch.inf, 0.0]]), "rows must be finite"),
        (torch.zeros(0, 4), r"rows must not be empty; got shape \(0, 4\)"),
        (torch.zeros(4), r"rows must have shape \(R, C\); got \(4,\)"),
    ]:
        with pytest.raises(ValueError, match=message):
            find(wrong, Format(4))
    with pytest.raises(TypeError, match="rows must be a tensor of floats; got torch.int64"):
        find(torch.zeros(2, 4, dtype=torch.int64), Format(4))


@pytest.mark.parametrize("percent", [49.9, 100.1, -1, float("nan")])
def test_other_percentiles_are_refused(percent):
    with pytest.raises(ValueError, match=f"percent must be from 50 to 100; got {percent}"):
        percentile_range(torch.zeros(1, 3), percent=percent)
