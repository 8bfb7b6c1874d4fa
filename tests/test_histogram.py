import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from torch import Tensor
from torch.ao.quantization import HistogramObserver

from course_lib.quantization import histogram as module
from course_lib.quantization.calibration import minmax_range, mse_range, rounding_error
from course_lib.quantization.histogram import BINS, histogram, kl_range
from course_lib.quantization.linear import Format, Grid, fit_grid, quantize
from course_lib.quantization.rows import to_rows

whole = arrays(np.float32, st.integers(1, 60), elements=st.integers(-64, 64).map(float))


def activations(R: int = 64, C: int = 512) -> Tensor:
    """Normal numbers times a gain for each column, a few of the gains large."""
    generator = torch.Generator().manual_seed(0)
    gains = torch.randn(C, generator=generator).mul(0.7).exp()
    return torch.randn(R, C, generator=generator) * gains


def decibels(rows: Tensor, grid: Grid) -> float:
    """Signal to error, 10 log₁₀ Σ x² / Σ (x − x̂)², with one grid for all rows."""
    flat = to_rows(rows, "tensor")
    ratio = flat.double().square().sum() / rounding_error(flat, grid).double().sum()
    return 10 * ratio.log10().item()


# ------------------------------------------------------------------ the histogram


def test_it_is_numpys_histogram():
    """Over the same ends in float64; a number on an edge may fall to either side of it."""
    rows = activations()
    centres, counts = histogram(rows)
    assert centres.shape == counts.shape == (1, BINS) and counts.sum() == rows.numel()
    exact, edges = np.histogram(rows.double().numpy(), BINS)
    assert np.abs(counts[0].numpy() - exact).sum() <= 1e-3 * rows.numel()
    assert np.allclose(centres[0], (edges[1:] + edges[:-1]) / 2, atol=1e-5)


@settings(max_examples=50)
@given(whole)
def test_every_number_lies_within_half_a_bin_of_its_centre(array):
    rows = torch.from_numpy(array)[None]
    centres, counts = histogram(rows)
    assert counts.sum() == rows.numel()
    found = centres[0].repeat_interleave(counts[0])
    width = (rows.max() - rows.min()) / BINS
    assert ((found - rows[0].sort().values).abs() <= width / 2 + 1e-4).all()


@pytest.mark.parametrize("number", [0.0, 0.37, -3e38, 1e-40])
def test_a_constant_falls_into_one_bin(number):
    centres, counts = histogram(torch.full((2, 3), number))
    assert counts[0, 0] == 6 and counts.sum() == 6
    assert centres[0, 0].item() == pytest.approx(number, rel=1e-6)


def test_a_range_beyond_float32_has_bins():
    """3.4e38 − −3.4e38 is infinite in float32, and so are the ends of torch's histogram."""
    centres, counts = histogram(torch.tensor([[-3.4e38, 0.0, 1.0, 3.4e38]]))
    assert centres.isfinite().all() and (centres.diff() > 0).all()
    assert counts[0].nonzero().flatten().tolist() == [0, BINS // 2, BINS - 1]


def test_long_rows_are_counted_block_by_block():
    rows = torch.arange(2.0**20 + 1)[None]  # 128 numbers a bin, and the last one
    counts = histogram(rows)[1]
    assert counts[0, :-1].unique().tolist() == [128] and counts[0, -1] == 129


# ------------------------------------------------------------------ ranges by squared error


@pytest.mark.parametrize("bits", [4, 8])
def test_the_range_of_activations_is_as_good_as_torchs(bits):
    rows = activations(256, 1024)
    format = Format(bits)
    ours = fit_grid(*mse_range(*_swap(histogram(rows), format)), format)
    observer = HistogramObserver(quant_min=0, quant_max=format.highest)
    observer(rows)
    scale, zero_point = observer.calculate_qparams()
    theirs = Grid(scale[:, None], zero_point.int()[:, None], format)
    assert decibels(rows, ours) >= decibels(rows, theirs) - 0.02
    assert decibels(rows, ours) >= decibels(
        rows, fit_grid(*minmax_range(to_rows(rows, "tensor")), format)
    )


def test_bins_find_nearly_the_range_that_all_numbers_find():
    rows, format = to_rows(activations(), "tensor"), Format(4)
    bins = fit_grid(*mse_range(*_swap(histogram(rows), format)), format)
    exact = fit_grid(*mse_range(rows, format), format)
    assert abs(decibels(rows, bins) - decibels(rows, exact)) < 0.02


def _swap(found: tuple[Tensor, Tensor], format: Format) -> tuple[Tensor, Format, Tensor]:
    """(centres, counts) -> the arguments of mse_range."""
    centres, counts = found
    return centres, format, counts


# ------------------------------------------------------------------ ranges by divergence


def brute_force_kl(x: np.ndarray, bits: int, bins: int) -> tuple[float, np.ndarray]:
    """Migacz's search, spelled out bin by bin: the best threshold, and all divergences."""
    top, levels = np.abs(x).max(), 2 ** (bits - 1)
    width = top / bins
    counts = np.zeros(bins)
    for number in np.abs(x):
        counts[min(int(number / width), bins - 1)] += 1
    divergences = []
    for kept in range(levels, bins + 1):
        p, q = counts[:kept].copy(), np.zeros(kept)
        p[-1] += counts[kept:].sum()
        members = [[] for _ in range(levels)]
        for place in range(kept):
            members[place * levels // kept].append(place)
        for places in members:
            filled = [place for place in places if counts[place] > 0]
            for place in filled:
                q[place] = counts[places].sum() / len(filled)
        p, q = p / p.sum(), q / max(q.sum(), 1e-300)
        with np.errstate(divide="ignore"):
            terms = p[p > 0] * np.log(p[p > 0] / q[p > 0])
        divergences.append(terms.sum())
    divergences = np.array(divergences)
    return (levels + divergences.argmin()) * width, divergences


@pytest.mark.parametrize("bits", [2, 4])
def test_the_kl_range_is_that_of_brute_force(bits, monkeypatch):
    bins = 128
    monkeypatch.setattr(module, "KL_BINS", bins)
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(3000, generator=generator) / torch.rand(3000, generator=generator).clamp(0.05)
    low, high = kl_range(x[None], Format(bits))
    t, divergences = brute_force_kl(x.double().numpy(), bits, bins)
    kept = round(max(-low.item(), high.item()) / x.abs().max().item() * bins)
    assert divergences[kept - 2 ** (bits - 1)] <= divergences.min() * (1 + 1e-3) + 1e-5
    assert max(-low.item(), high.item()) == pytest.approx(t, rel=1e-3)


def test_the_kl_range_keeps_the_shape_and_not_the_error():
    """It clips hard: on heavy tails its squared error is above that of min–max."""
    rows, format = to_rows(activations(256, 1024), "tensor"), Format(8)
    kl, minmax = (
        decibels(rows, fit_grid(*f(rows, format), format)) for f in (kl_range, minmax_range)
    )
    assert kl < minmax


def test_the_kl_range_stays_within_minmax_and_serves_all_rows():
    rows = activations().abs()
    low, high = kl_range(rows, Format(4))
    assert low.shape == high.shape == (64, 1)
    low_most, high_most = minmax_range(rows)
    assert (low >= low_most).all() and (high <= high_most).all()
    assert low.min() >= 0  # ReLU's numbers need no negative levels


@pytest.mark.parametrize("number", [0.0, 0.37, -3e38])
def test_the_kl_range_of_a_constant_is_the_constant(number):
    low, high = kl_range(torch.full((2, 3), number), Format(4))
    fit_grid(low, high, Format(4))
    assert low.tolist() == high.tolist() == torch.full((2, 1), number).tolist()


def test_the_kl_range_of_denormal_numbers_is_in_order():
    """They are below every scale, so that their codes are 0 whatever the range."""
    rows = torch.tensor([[1e-40, 3e-40], [-2e-40, 0.0]])
    low, high = kl_range(rows, Format(4))
    assert (quantize(rows, fit_grid(low, high, Format(4))) == 0).all()


def test_a_row_that_lies_beyond_the_kl_range_keeps_its_end():
    rows = torch.cat([torch.randn(1, 10_000), torch.full((1, 10_000), 4.0)])
    rows[1, 0] = 1000.0
    low, high = kl_range(rows, Format(4))
    assert high[0] <= high[1] < 1000
    fit_grid(low, high, Format(4))


# ------------------------------------------------------------------ bad input


@pytest.mark.parametrize("find", [histogram, lambda rows: kl_range(rows, Format(4))])
def test_bad_rows_are_refused(find):
    for wrong, message in [
        (torch.tensor([[0.0, torch.nan]]), "rows must be finite; got 1 NaN or infinity among 2"),
        (torch.zeros(0, 4), r"rows must not be empty; got shape \(0, 4\)"),
        (torch.zeros(4), r"rows must have shape \(R, C\); got \(4,\)"),
    ]:
        with pytest.raises(ValueError, match=message):
            find(wrong)


def test_more_levels_than_bins_are_refused():
    with pytest.raises(ValueError, match="format must have at most 11 bits.*got 12"):
        kl_range(torch.ones(1, 3), Format(12))


@pytest.mark.parametrize("zeros", [0.5, 0.99])
def test_zeros_do_not_count_for_the_kl_range(zeros):
    """After ReLU most numbers are zero; the range is that of the others."""
    others = torch.randn(1, 20_000).abs()
    padded = torch.cat([others, torch.zeros(1, int(20_000 * zeros / (1 - zeros)))], dim=1)
    assert kl_range(padded, Format(8))[1] == kl_range(others, Format(8))[1]
    assert kl_range(torch.zeros(1, 9), Format(8))[1] == 0
