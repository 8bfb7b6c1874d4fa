"""Truncated SVD: numpy's, the best of its rank in both norms, at every scale and in every dtype."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from course_lib.low_rank.svd import Factors, error_norms, saving_rank, scaled_to_one, truncated

SHAPES = [(1, 1), (1, 7), (7, 1), (5, 5), (9, 4), (4, 9)]


def random_matrix(seed, rows=7, columns=5, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rows, columns, generator=generator, dtype=torch.float64).to(dtype)


@pytest.mark.parametrize("shape", SHAPES)
def test_truncated_is_numpys(shape):
    weight = random_matrix(0, *shape)
    U, sigma, V = np.linalg.svd(weight.double().numpy(), full_matrices=False)
    for rank in range(min(shape) + 1):
        found = truncated(weight, rank)
        assert found.left.shape == (shape[0], rank) and found.right.shape == (rank, shape[1])
        expected = torch.from_numpy(U[:, :rank] * sigma[:rank] @ V[:rank]).float()
        torch.testing.assert_close(found.product, expected, atol=1e-5, rtol=0)  # float32


def test_the_factors_share_sigma_evenly():
    weight = random_matrix(1)
    left, right = truncated(weight, 3)
    sigma = torch.linalg.svdvals(weight)[:3]
    torch.testing.assert_close(left.T @ left, sigma.diag(), atol=1e-5, rtol=0)
    torch.testing.assert_close(right @ right.T, sigma.diag(), atol=1e-5, rtol=0)


@given(st.integers(0, 10_000), st.integers(1, 4), st.sampled_from([1e-4, 1e-2, 1.0]))
@settings(max_examples=60, deadline=None)
def test_no_competitor_of_its_rank_is_nearer_in_either_norm(seed, rank, step):
    weight = random_matrix(seed, dtype=torch.float64)
    best = error_norms(torch.linalg.svdvals(weight), rank)
    left, right = truncated(weight, rank)
    noise = random_matrix(seed + 1, 7, rank, torch.float64)
    basis = torch.linalg.qr(left + step * noise).Q
    moved = right + step * random_matrix(seed + 2, rank, 5, torch.float64)
    fitted = basis @ (basis.T @ weight)  # the best right factor for a left one
    for other in (fitted, (left + step * noise) @ moved, noise @ moved):
        error = weight - other
        assert torch.linalg.matrix_norm(error) >= best.frobenius * (1 - 1e-12)
        assert torch.linalg.matrix_norm(error, 2) >= best.spectral * (1 - 1e-12)


def test_no_matrix_of_rank_one_on_a_grid_is_nearer():
    """Brute force: all directions of a 2 x 2 matrix, each with its best right factor."""
    weight = random_matrix(3, 2, 2, torch.float64)
    angles = torch.linspace(0, torch.pi, 20_001, dtype=torch.float64)
    directions = torch.stack([angles.cos(), angles.sin()], dim=1)[:, :, None]  # (n, 2, 1)
    errors = weight - directions @ (directions.mT @ weight)
    found = weight - truncated(weight, 1).product
    for order in ("fro", 2):
        least = torch.linalg.matrix_norm(errors, order).min()
        ours = torch.linalg.matrix_norm(found, order)
        assert least >= ours * (1 - 1e-12)
        torch.testing.assert_close(ours, least, rtol=1e-6, atol=0)  # the grid is that fine


@pytest.mark.parametrize("shape", SHAPES)
def test_error_norms_are_those_of_what_is_missing(shape):
    weight = random_matrix(4, *shape, torch.float64)
    spectrum = torch.linalg.svdvals(weight)
    for rank in range(min(shape) + 1):
        missing = weight - truncated(weight, rank).product
        found = error_norms(spectrum, rank)
        for value, order in ((found.frobenius, "fro"), (found.spectral, 2)):
            expected = torch.linalg.matrix_norm(missing, order)
            torch.testing.assert_close(value, expected, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("scale", [1e-38, 1e-30, 1.0, 1e30, 1e38])
def test_norms_neither_overflow_nor_vanish(scale):
    spectrum = torch.tensor([2.0, 0.8, 0.6, 0.0]) * scale
    found = error_norms(spectrum, 1)
    torch.testing.assert_close(found.frobenius, torch.tensor(scale), rtol=1e-6, atol=0)
    assert found.spectral == spectrum[1] and found.frobenius.dtype == torch.float32
    assert error_norms(spectrum, 3) == (0, 0) and error_norms(spectrum, 4) == (0, 0)


def test_a_small_tail_behind_a_large_head_is_not_lost():
    """The difference of the whole sum and the head's would be 0 in float32."""
    spectrum = torch.cat([torch.tensor([1e6]), torch.full((400,), 0.5)])
    assert error_norms(spectrum, 1).frobenius == 10


@pytest.mark.parametrize("scale", [1e-38, 1e-30, 1e30, 1e37])
@pytest.mark.parametrize("shape", [(6, 4), (4, 6)])
def test_factors_at_huge_and_tiny_scales(scale, shape):
    weight = random_matrix(5, *shape)
    for rank in (1, 4):
        found, plain = truncated(weight * scale, rank), truncated(weight, rank)
        torch.testing.assert_close(found.product / scale, plain.product, atol=1e-5, rtol=0)
        assert max(found.left.abs().max(), found.right.abs().max()) < 1e20


@pytest.mark.parametrize(
    ("dtype", "tolerance"),
    [(torch.float16, 2e-3), (torch.bfloat16, 2e-2), (torch.float64, 1e-14)],  # its own rounding
)
def test_other_dtypes(dtype, tolerance):
    weight = random_matrix(6, 8, 6).to(dtype)
    found = truncated(weight, 6)
    assert {found.left.dtype, found.right.dtype, found.product.dtype} == {dtype}
    torch.testing.assert_close(found.product, weight, atol=4 * tolerance, rtol=0)
    largest = torch.full((40, 30), torch.finfo(dtype).max / 2, dtype=dtype)  # sigma overflows
    torch.testing.assert_close(truncated(largest, 1).product, largest, rtol=4 * tolerance, atol=0)


def test_zeros_one_element_rank_0_and_views():
    zeros = truncated(torch.zeros(3, 4), 2)
    assert zeros.product.tolist() == torch.zeros(3, 4).tolist()
    torch.testing.assert_close(truncated(torch.tensor([[-3.0]]), 1).product, torch.tensor([[-3.0]]))
    empty = truncated(torch.ones(3, 4), 0)
    assert (empty.rank, empty.count) == (0, 0) and torch.equal(empty.product, torch.zeros(3, 4))
    weight = random_matrix(7, 6, 8)
    for view in (weight.T, weight[::2, 1::3]):
        before = view.clone()
        found = truncated(view, 2).product
        torch.testing.assert_close(found, truncated(view.contiguous(), 2).product)
        assert torch.equal(view, before)


def test_factors_leave_no_gradient_and_are_exact_under_autocast():
    weight = random_matrix(8).requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = truncated(weight, 5)
        assert not found.left.requires_grad
        torch.testing.assert_close(found.product, weight.detach(), atol=1e-5, rtol=0)


def test_count_and_saving_rank():
    factors = Factors(torch.ones(5, 2), torch.ones(2, 3))
    assert (factors.rank, factors.count) == (2, 16)
    for outputs in range(1, 12):
        for inputs in range(1, 12):
            rank = saving_rank(outputs, inputs)
            assert rank * (outputs + inputs) < outputs * inputs <= (rank + 1) * (outputs + inputs)
    for bad in ((0, 3), (3, -1)):
        with pytest.raises(ValueError, match="outputs and inputs must be at least 1"):
            saving_rank(*bad)


def test_scaled_to_one():
    wide, scale = scaled_to_one(torch.tensor([[-4.0, 2.0]]).half(), 1)
    assert wide.tolist() == [[-1, 0.5]] and wide.dtype == torch.float32 and scale == 4
    assert scaled_to_one(torch.zeros(1, 1), 0)[1] == 1


def test_bad_input_is_refused():
    for wrong in (torch.nan, torch.inf):
        with pytest.raises(ValueError, match="weight must be finite"):
            truncated(torch.tensor([[1.0, wrong]]), 1)
        with pytest.raises(ValueError, match="spectrum must be finite"):
            error_norms(torch.tensor([wrong]), 0)
    with pytest.raises(TypeError, match="weight must be a tensor of floats"):
        truncated(torch.ones(2, 2, dtype=torch.int64), 1)
    with pytest.raises(ValueError, match="weight must not be empty"):
        truncated(torch.ones(0, 2), 0)
    for weight, rank in ((torch.ones(2, 3), 3), (torch.ones(2, 3), -1), (torch.ones(4), 1)):
        with pytest.raises(ValueError, match=r"weight must have shape \(O, I\) and rank be from 0"):
            truncated(weight, rank)
    with pytest.raises(ValueError, match=r"spectrum must have shape \(m,\) and rank be from 0 to"):
        error_norms(torch.ones(3), 4)
    for spectrum in ([1.0, 2.0], [1.0, -1.0]):
        with pytest.raises(ValueError, match="spectrum must descend"):
            error_norms(torch.tensor(spectrum), 1)
