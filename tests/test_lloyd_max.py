"""Levels for a density: Max's tables, Laplace's and Student's by other means, and samples."""

import numpy as np
import pytest
import torch
from scipy import integrate, stats

from course_lib.quantization.kmeans import lloyd
from course_lib.quantization.lloyd_max import (
    laplace,
    lloyd_max,
    mean_squared_error,
    normal,
    normal_levels,
    student,
)

# Max, 1960, "Quantizing for Minimum Distortion", table 1: positive levels, mean squared error.
MAX = {
    2: ([0.7980], 0.3634),
    4: ([0.4528, 1.510], 0.1175),
    8: ([0.2451, 0.7560, 1.344, 2.152], 0.03454),
    16: ([0.1284, 0.3881, 0.6568, 0.9424, 1.256, 1.618, 2.069, 2.733], 0.009497),
}


@pytest.mark.parametrize("k", MAX)
def test_the_published_table_of_the_normal_density(k):
    levels = lloyd_max(normal, k)
    positive, error = MAX[k]
    assert levels.shape == (1, k) and torch.allclose(levels, -levels.flip(1), atol=2e-4)
    assert levels[0, k // 2 :].tolist() == pytest.approx(positive, rel=6e-4)
    assert mean_squared_error(normal, levels) == pytest.approx(error, rel=6e-4)


@pytest.mark.parametrize("density, theirs", [
    (normal, stats.norm()),
    (laplace, stats.laplace(scale=0.5**0.5)),
    (student(5.0), stats.t(5, scale=(3 / 5) ** 0.5)),
], ids=["normal", "Laplace", "Student"])  # fmt: skip
def test_levels_are_the_means_of_their_cells(density, theirs):
    """What makes them best, with the integrals of scipy."""
    levels = lloyd_max(density, 8)[0].double().numpy()
    ends = [-60, *(levels[1:] + levels[:-1]) / 2, 60]
    for level, a, b in zip(levels, ends, ends[1:], strict=False):
        first = integrate.quad(lambda x: x * theirs.pdf(x), a, b, limit=200)[0]
        assert level == pytest.approx(first / (theirs.cdf(b) - theirs.cdf(a)), abs=1e-3)
    variance = mean_squared_error(density, torch.zeros(1, 1))
    assert variance == pytest.approx(1, abs=1e-3)  # of Student's, a little lies beyond 60


def test_levels_of_a_sample_lead_to_those_of_the_density():
    rows = torch.randn(1, 200_000)
    assert torch.allclose(lloyd(rows, lloyd_max(normal, 4)), lloyd_max(normal, 4), atol=0.02)


def test_each_bit_gains_nearly_6_decibels():
    errors = [mean_squared_error(normal, lloyd_max(normal, 2**n)) for n in range(1, 7)]
    gains = 10 * np.log10(np.array(errors[:-1]) / errors[1:])
    assert (np.diff(gains) > 0).all() and 5.8 < gains[-1] < 6.03


def test_other_ranges_and_levels():
    even = lloyd_max(torch.ones_like, 4, low=0, high=1)
    assert torch.allclose(even, torch.tensor([[0.125, 0.375, 0.625, 0.875]]), atol=1e-4)
    assert lloyd_max(normal, 1).abs().item() < 1e-4
    assert normal_levels(3) == tuple(lloyd_max(normal, 8)[0].tolist())


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="low must be below high"):
        lloyd_max(normal, 4, low=1, high=1)
    with pytest.raises(ValueError, match="density must be finite, at least 0"):
        lloyd_max(lambda x: -normal(x), 4)
    with pytest.raises(ValueError, match="density must be finite"):
        lloyd_max(lambda x: x / 0, 4)
    with pytest.raises(ValueError, match="k must be from 1 to 256; got 0"):
        lloyd_max(normal, 0)
    with pytest.raises(ValueError, match="freedom must be above 2"):
        student(2.0)
