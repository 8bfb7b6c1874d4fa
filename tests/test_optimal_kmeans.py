"""The exact codebook: against brute force, the plain recursion, ckwrap where it is, and Lloyd."""

from itertools import combinations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from course_lib.quantization.kmeans import STARTS, kmeans, squared_error
from course_lib.quantization.optimal_kmeans import optimal_levels


def run_error(numbers: np.ndarray, weights: np.ndarray) -> float:
    """Σ w (x − mean)²."""
    return float(weights @ (numbers - np.average(numbers, weights=weights)) ** 2)


def every_partition(numbers: np.ndarray, weights: np.ndarray, k: int) -> float:
    """The least error of all ways to cut ascending numbers into k runs."""
    n = len(numbers)
    ways = ((0, *cuts, n) for cuts in combinations(range(1, n), min(k, n) - 1))
    runs = [[slice(*ends) for ends in zip(way, way[1:], strict=False)] for way in ways]
    return min(sum(run_error(numbers[r], weights[r]) for r in way) for way in runs)


def plain_recursion(numbers: np.ndarray, k: int) -> float:
    """F_m(b) = min over a of F_{m−1}(a) + w(a, b), in k n² steps."""
    x = np.sort(numbers.astype(np.float64))
    n, x = len(x), x - x.mean()
    one, two = (np.concatenate([[0], np.cumsum(p)]) for p in (x, x * x))
    a, b = np.meshgrid(np.arange(n + 1), np.arange(n + 1), indexing="ij")
    w = two[b] - two[a] - (one[b] - one[a]) ** 2 / np.maximum(b - a, 1)
    w[b < a] = np.inf
    least = w[0]
    for _ in range(k - 1):
        least = (least[:, None] + w).min(axis=0)
    return least[n]


def error(rows: torch.Tensor, k: int) -> float:
    return squared_error(rows, optimal_levels(rows, k)).item()


@settings(max_examples=60)
@given(
    st.lists(
        st.tuples(st.floats(-50, 50, width=16), st.integers(1, 4)),
        min_size=1, max_size=9, unique_by=lambda pair: pair[0],
    ),
    st.integers(1, 5),
)  # fmt: skip
def test_no_partition_is_better(pairs, k):
    numbers, weights = (np.array(side, dtype=np.float64) for side in zip(*sorted(pairs)))  # noqa: B905
    least = every_partition(numbers, weights, k)
    rows, counts = torch.tensor(numbers[None]), torch.tensor(weights[None])
    levels = optimal_levels(rows, k, counts)
    assert levels.shape == (1, k) and (levels.diff(dim=1) >= 0).all()
    distance = (rows[0, :, None] - levels[0]).square().amin(dim=1)
    assert (counts[0] * distance).sum().item() == pytest.approx(least, rel=1e-9, abs=1e-9)
    repeated = rows.repeat_interleave(counts[0].long(), dim=1)
    assert torch.allclose(optimal_levels(repeated, k), levels)


SHAPES = {
    "normal": lambda n: torch.randn(n),
    "Student": lambda n: torch.distributions.StudentT(3.0).sample((n,)),
    "Cauchy": lambda n: torch.distributions.Cauchy(0.0, 1.0).sample((n,)),
    "even": lambda n: torch.arange(n).float(),
    "log-normal": lambda n: torch.randn(n).mul(3).exp(),
    "two heaps": lambda n: torch.randn(n) / 9 + torch.where(torch.arange(n) % 2 == 0, -5, 5),
    "ten equal heaps": lambda n: (torch.arange(n) % 10) * 100.0 + torch.arange(n) // 10 / n,
    "few different": lambda n: torch.randn(n).mul(20).round(),
}  # fmt: skip


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("k", [2, 7, 16])
def test_the_plain_recursion_finds_nothing_better(shape, k):
    rows = SHAPES[shape](1200)[None]
    least, total = plain_recursion(rows[0].numpy(), k), plain_recursion(rows[0].numpy(), 1)
    # Levels are rounded to float32; an error of 1e-10 of the variance is rounding of either side.
    assert error(rows, k) == pytest.approx(least, rel=1e-6, abs=1e-10 * total)


@pytest.mark.parametrize("shape", SHAPES)
def test_intervals_that_are_dropped_held_nothing(shape, monkeypatch):
    """From very few intervals on, many are cut and dropped: the result stays the same."""
    rows = SHAPES[shape](5000)[None].double()
    whole = error(rows, 9)
    total = error(rows, 1)
    for first, pieces in ((4, 2), (50, 3), (10_000, 2)):
        monkeypatch.setattr("course_lib.quantization.optimal_kmeans.FIRST", first)
        monkeypatch.setattr("course_lib.quantization.optimal_kmeans.PIECES", pieces)
        assert error(rows, 9) == pytest.approx(whole, rel=1e-9, abs=1e-12 * total)


@pytest.mark.parametrize("k", [4, 16])
def test_lloyd_is_never_better(k):
    rows = torch.randn(1, 20_000) ** 3
    best = error(rows, k)
    for start in STARTS:
        assert best <= squared_error(rows, kmeans(rows, k, start)).item() * (1 + 1e-9)


def test_agrees_with_ckwrap():
    ckwrap = pytest.importorskip("ckwrap")
    rows = torch.randn(1, 30_000) * 0.02
    theirs = ckwrap.ckmeans(rows[0].double().numpy(), 16)
    assert error(rows, 16) == pytest.approx(theirs.withinss.sum(), rel=1e-8)


@pytest.mark.slow
def test_a_million_weights():
    rows = torch.randn(1, 2**20) * 0.02
    best = error(rows, 16)
    assert best <= squared_error(rows, kmeans(rows, 16, "density")).item()
    # Max, 1960: 0.009497 of the variance for the density; a sample's best is a little lower.
    assert best / rows.double().square().sum().item() == pytest.approx(0.009497, rel=0.01)


def test_nasty_rows():
    assert optimal_levels(torch.tensor([[2.5]]), 3).tolist() == [[2.5, 2.5, 2.5]]
    assert optimal_levels(torch.full((1, 9), -1.0), 2).tolist() == [[-1.0, -1.0]]
    assert optimal_levels(torch.tensor([[3.0, 1.0, 1.0]]), 4).tolist() == [[1.0, 3.0, 3.0, 3.0]]
    assert optimal_levels(torch.tensor([[1.0, 2.0, 6.0]]), 1).tolist() == [[3.0]]
    assert optimal_levels(torch.randn(1, 300), 256).shape == (1, 256)
    big = torch.finfo(torch.float32).max
    far = optimal_levels(torch.tensor([[-big, big, big / 2]]), 2) / big
    assert torch.allclose(far, torch.tensor([[-1.0, 0.75]]))
    tiny = torch.tensor([[1e-40, 2e-40, 9e-40]])
    assert optimal_levels(tiny, 2)[0, 1].item() == pytest.approx(9e-40, rel=1e-4)
    halves = torch.randn(2, 3000).bfloat16()
    assert torch.equal(optimal_levels(halves, 8), optimal_levels(halves.float(), 8))
    weighed = optimal_levels(torch.tensor([[0.0, 1.0, 7.0]]), 2, torch.tensor([[1.0, 3.0, 0.0]]))
    assert weighed.tolist() == [[0.0, 1.0]]


def test_bad_input_is_refused():
    rows = torch.randn(1, 8)
    for k in (0, 257):
        with pytest.raises(ValueError, match=f"k must be from 1 to 256; got {k}"):
            optimal_levels(rows, k)
    with pytest.raises(ValueError, match="rows must be finite"):
        optimal_levels(torch.tensor([[0.0, -torch.inf]]), 2)
    with pytest.raises(ValueError, match="rows must not be empty"):
        optimal_levels(torch.zeros(1, 0), 2)
    for counts in (
        torch.zeros(1, 8),
        -torch.ones(1, 8),
        torch.ones(8),
        torch.full((1, 8), torch.nan),
    ):
        with pytest.raises(ValueError, match="counts must be at least 0, of shape"):
            optimal_levels(rows, 2, counts)
