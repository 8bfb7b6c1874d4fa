import pytest
import scipy.linalg
import torch

from course_lib.language_models.hadamard import hadamard

ORDERS = [1, 2, 4, 8, 12, 16, 20, 24, 28, 32, 36, 40, 44, 48, 64, 72, 76]


@pytest.mark.parametrize("n", [*ORDERS, 192, 512, 576, 1536])
def test_rows_are_of_signs_and_at_right_angles(n):
    """Integers below 2⁵³ in float64: exact."""
    H = hadamard(n)
    assert H.dtype == torch.float64
    assert H.abs().eq(1).all()
    assert (H @ H.T).equal(n * torch.eye(n, dtype=torch.float64))


@pytest.mark.parametrize("n", [1, 2, 64, 512])
def test_powers_of_two_are_scipys(n):
    assert hadamard(n).equal(torch.from_numpy(scipy.linalg.hadamard(n)).double())


@pytest.mark.parametrize("n", [-4, 0, 3, 6, 10, 90, 92])
def test_other_orders_are_refused(n):
    """There is one of order 92, but these constructions do not find it."""
    with pytest.raises(ValueError, match=f"known here; got {n}"):
        hadamard(n)
