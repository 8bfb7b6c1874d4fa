import math

import numpy as np
import pytest
import scipy.stats
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from course_lib.redundancy.spectra import (
    effective_rank,
    energy_rank,
    singular_values,
    stable_rank,
)

RANKS = [stable_rank, effective_rank, lambda matrix: energy_rank(matrix, 0.95)]


def random_matrix(seed, rows=7, columns=5):
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))


def test_ranks_against_numpy():
    matrix = random_matrix(0, 40, 30)
    values = np.linalg.svd(matrix.double().numpy(), compute_uv=False)
    energy = np.cumsum(values**2) / np.sum(values**2)
    torch.testing.assert_close(singular_values(matrix), torch.from_numpy(values).float())
    assert float(stable_rank(matrix)) == pytest.approx(np.sum(values**2) / values[0] ** 2)
    entropy = scipy.stats.entropy(values / values.sum())
    assert float(effective_rank(matrix)) == pytest.approx(math.exp(entropy))
    for share in (0.1, 0.5, 0.9, 0.99):
        assert int(energy_rank(matrix, share)) == int(np.argmax(energy >= share)) + 1
    assert int(energy_rank(matrix, 1.0)) == 30


@pytest.mark.parametrize("rank", RANKS)
def test_known_ranks(rank):
    column = torch.arange(1.0, 6.0)
    assert float(rank(torch.zeros(4, 3))) == 0
    assert float(rank(torch.outer(column, column))) == pytest.approx(1, abs=1e-4)
    assert float(rank(torch.eye(6))) == pytest.approx(6)


@pytest.mark.parametrize("rank", RANKS)
@given(seed=st.integers(0, 1000), scale=st.floats(1e-3, 1e3))
@settings(max_examples=20, deadline=None)
def test_ranks_do_not_change_with_scale_rotation_or_transposition(rank, seed, scale):
    matrix = random_matrix(seed)
    rotation, _ = torch.linalg.qr(random_matrix(seed + 1, 7, 7))
    expected = float(rank(matrix))
    for same in (scale * matrix, rotation @ matrix, matrix.T):
        assert float(rank(same)) == pytest.approx(expected, rel=1e-4)  # float32
    assert 1 <= expected <= 5


def test_half_precision_is_computed_in_float32():
    matrix = random_matrix(0).half()
    assert effective_rank(matrix).dtype == torch.float32
    assert effective_rank(matrix) == effective_rank(matrix.float())


@pytest.mark.parametrize("matrix", [torch.zeros(3), torch.zeros(0, 3), torch.ones(2, 2).int()])
def test_what_is_no_matrix(matrix):
    with pytest.raises(ValueError, match="matrix must be a floating-point tensor"):
        effective_rank(matrix)


def test_bad_arguments():
    with pytest.raises(ValueError, match="share must be above 0"):
        energy_rank(torch.eye(2), 0.0)
