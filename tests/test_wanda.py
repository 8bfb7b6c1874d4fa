"""Wanda: its score is what an output loses, its masks keep just so many, the authors agree."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from benchmarks import authors
from course_lib.language_models.wanda import row_mask, wanda_score
from course_lib.models.moments import Moments
from course_lib.models.n_of_m import largest_of_few, n_of_m_mask


def test_the_score_is_what_the_output_moves_by_without_that_weight():
    x, weight = torch.randn(30, 5), torch.randn(3, 5)
    score = wanda_score(weight, Moments.empty(5).add(x).gram)
    for i in range(3):
        for j in range(5):
            without = weight.clone()
            without[i, j] = 0
            moved = (x @ weight.T - x @ without.T).square().mean(0).sqrt()
            torch.testing.assert_close(score[i, j], moved[i])


@pytest.mark.parametrize("density", [0.25, 0.5, 0.9])
def test_masks_are_those_of_the_authors(density):
    x, weight = torch.randn(99, 64), torch.randn(40, 64)
    moments = Moments.empty(64).add(x)
    mask = row_mask(wanda_score(weight, moments.gram), density)
    assert torch.equal(mask, authors.wanda(weight, moments.gram.diagonal(), density))


scores = st.lists(st.integers(0, 4), min_size=1, max_size=12)


@given(scores, st.floats(0, 1))
def test_a_row_keeps_just_so_many_and_of_equals_the_first(values, density):
    score = torch.tensor([values, values[::-1]]).float()
    mask = row_mask(score, density)
    for row, kept in zip(score.tolist(), mask.tolist(), strict=True):
        best = sorted(range(len(row)), key=lambda i: (-row[i], i))[: round(density * len(row))]
        assert sorted(best) == [i for i, stays in enumerate(kept) if stays]


@given(st.lists(scores.filter(lambda v: len(v) >= 4), min_size=1, max_size=3), st.integers(0, 4))
def test_n_of_4_keeps_the_largest_and_of_equals_the_first(groups, n):
    score = torch.tensor([group[:4] for group in groups]).float().view(1, -1)
    mask = n_of_m_mask(score, n, 4).view(-1, 4)
    for row, kept in zip(score.view(-1, 4).tolist(), mask.tolist(), strict=True):
        best = sorted(range(4), key=lambda i: (-row[i], i))[:n]
        assert sorted(best) == [i for i, stays in enumerate(kept) if stays]


def test_the_largest_along_another_axis():
    values = torch.rand(5, 7)
    assert torch.equal(largest_of_few(values, 2, dim=0), largest_of_few(values.T, 2).T)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_dtypes(dtype):
    weight, gram = torch.randn(4, 8).to(dtype), torch.eye(8) * 4
    score = wanda_score(weight, gram)
    assert score.dtype == torch.promote_types(dtype, torch.float32)
    torch.testing.assert_close(score, 2 * weight.abs().to(score.dtype))
    assert torch.equal(row_mask(weight.abs(), 0.5), row_mask(weight.abs().double(), 0.5))


def test_dead_inputs_go_first_and_huge_ones_do_not_overflow():
    gram = torch.diag(torch.tensor([0.0, 1e30, 1e-30, 0.0]))
    score = wanda_score(torch.tensor([[1e5, 1.0, 1.0, -7.0]]), gram)
    assert row_mask(score, 0.5).tolist() == [[False, True, True, False]]


def test_bad_input_is_refused():
    score = torch.rand(2, 6)
    for density in (-0.1, 1.1, float("nan")):
        with pytest.raises(ValueError, match="density must be from 0 to 1"):
            row_mask(score, density)
    for wrong in (torch.nan, torch.inf):
        with pytest.raises(ValueError, match="score must be finite"):
            row_mask(torch.tensor([[0.0, wrong]]), 0.5)
        with pytest.raises(ValueError, match="weight must be finite"):
            wanda_score(torch.tensor([[0.0, wrong]]), torch.eye(2))
        with pytest.raises(ValueError, match="gram's diagonal must be finite"):
            wanda_score(torch.ones(1, 2), torch.diag(torch.tensor([1.0, wrong])))
    with pytest.raises(ValueError, match="gram's diagonal must be finite"):
        wanda_score(torch.ones(1, 2), -torch.eye(2))
    with pytest.raises(ValueError, match=r"weight must have shape \(O, I\) and gram \(I, I\)"):
        wanda_score(torch.ones(1, 2), torch.eye(3))
    with pytest.raises(ValueError, match=r"score must have shape \(O, I\); got \(6,\)"):
        row_mask(score[0], 0.5)
    with pytest.raises(ValueError, match="score must not be empty"):
        row_mask(torch.zeros(0, 3), 0.5)
    with pytest.raises(ValueError, match="m must divide the 6 inputs of an output; got 4"):
        n_of_m_mask(score, 2, 4)
    with pytest.raises(ValueError, match="n of m must have 0 ≤ n ≤ m and m ≥ 1; got 4 of 3"):
        n_of_m_mask(score, 4, 3)
