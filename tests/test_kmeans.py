"""k-means in one dimension: never a worse step, and the same end as scikit-learn's."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.cluster import KMeans

from course_lib.quantization.kmeans import (
    STARTS,
    kmeans,
    lloyd,
    squared_error,
    start_levels,
)

rows_of_numbers = st.lists(st.floats(-100, 100, width=16), min_size=1, max_size=40)


@given(rows_of_numbers, st.integers(1, 12), st.sampled_from(["linear", "density"]))
def test_no_step_raises_the_error(numbers, k, start):
    rows = torch.tensor([numbers])
    levels = start_levels(rows, k, start)
    before = squared_error(rows, levels)
    for _ in range(8):
        levels = lloyd(rows, levels, steps=1)
        after = squared_error(rows, levels)
        assert (levels.diff(dim=1) >= 0).all()
        # A mean is rounded to float32: an error of 0 may become one of the last digit squared.
        assert after.item() <= before.item() * (1 + 1e-6) + len(numbers) * (100 * 2**-23) ** 2
        before = after


@pytest.mark.parametrize("start", STARTS)
def test_the_end_is_that_of_scikit_learn(start):
    rows = torch.randn(1, 3000)
    begin = start_levels(rows, 7, start, seed=3)
    theirs = KMeans(7, init=begin[0, :, None].numpy(), n_init=1, max_iter=1000, tol=0).fit(
        rows[0, :, None].numpy()
    )
    ours = lloyd(rows, begin, steps=1000)
    assert squared_error(rows, ours).item() == pytest.approx(theirs.inertia_, rel=1e-3)
    centres = torch.tensor(theirs.cluster_centers_[:, 0]).sort().values
    assert torch.allclose(ours[0], centres.float(), atol=0.02)


def test_rows_are_done_as_if_each_were_alone():
    rows = torch.randn(5, 200) * torch.tensor([[1e-6], [1.0], [1e6], [1.0], [0.0]])
    together = kmeans(rows, 4, "density")
    alone = torch.cat([kmeans(row[None], 4, "density") for row in rows])
    assert torch.allclose(together, alone, rtol=1e-5, atol=0)


def test_an_empty_cell_takes_the_farthest_number():
    rows = torch.tensor([[0.0, 1.0, 2.0, 10.0]])
    # Levels 50 and 60 have no number; 10 is farthest from the mean 3.25, 0 is next.
    moved = lloyd(rows, torch.tensor([[3.0, 50.0, 60.0]]), steps=1)
    assert moved.tolist() == [[0.0, 3.25, 10.0]]


def test_starts():
    rows = torch.tensor([[0.0, 1.0, 2.0, 3.0, 100.0]])
    assert start_levels(rows, 3).tolist() == [[0.0, 50.0, 100.0]]
    assert start_levels(rows, 5, "density").tolist() == rows.tolist()
    assert start_levels(rows, 1).tolist() == [[50.0]]
    drawn = start_levels(rows, 5, "random")
    assert drawn.tolist() == rows.tolist()
    some = start_levels(torch.randn(1, 1000), 4, "random", seed=1)
    assert not torch.equal(some, start_levels(torch.randn(1, 1000), 4, "random", seed=2))
    big = torch.finfo(torch.float32).max
    assert start_levels(torch.tensor([[-big, big]]), 3).isfinite().all()


@pytest.mark.parametrize("start", ["linear", "density"])
def test_nasty_rows(start):
    assert kmeans(torch.tensor([[3.0]]), 4, start)[0].unique().tolist() == [3.0]
    constant = kmeans(torch.full((2, 9), -0.25), 3, start)
    assert (constant == -0.25).all()
    few = kmeans(torch.tensor([[1.0, 2.0, 2.0, 1.0]]), 8, start)
    assert squared_error(torch.tensor([[1.0, 2.0]]), few).item() == 0
    assert kmeans(torch.randn(1, 9), 1, start).shape == (1, 1)
    halves = torch.randn(1, 2**12).half()
    assert torch.equal(kmeans(halves, 8, start), kmeans(halves.float(), 8, start))


def test_bad_input_is_refused():
    rows = torch.randn(1, 8)
    with pytest.raises(ValueError, match="k must be from 1 to 256; got 0"):
        kmeans(rows, 0)
    with pytest.raises(ValueError, match=r"start must be one of.*got 'even', k=3"):
        start_levels(rows, 3, "even")
    with pytest.raises(ValueError, match=r'"random" of 8 ≥ k.*k=9'):
        start_levels(rows, 9, "random")
    with pytest.raises(ValueError, match="rows must not be empty"):
        kmeans(torch.zeros(1, 0), 3)
    for wrong in (torch.nan, torch.inf):
        with pytest.raises(ValueError, match="rows must be finite"):
            kmeans(torch.tensor([[0.0, wrong]]), 2)
    with pytest.raises(ValueError, match="levels must ascend"):
        lloyd(rows, torch.tensor([[1.0, 0.0]]))
