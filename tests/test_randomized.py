"""Randomized SVD: near the best of its rank, on every spectrum, the same for the same noise."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.utils.extmath import randomized_svd

from course_lib.low_rank.randomized import randomized, range_basis
from course_lib.low_rank.svd import error_norms, truncated

N = 200


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def with_spectrum(sigma, rows=N, columns=N, seed=0):
    """A matrix with given singular values, in float64."""
    m, noise = len(sigma), seeded(seed)
    U, V = (
        torch.linalg.qr(torch.randn(n, m, generator=noise, dtype=torch.float64)).Q
        for n in (rows, columns)
    )
    return U * sigma.double() @ V.T


K = torch.arange(1, N + 1.0)
SPECTRA = {
    "1 / k": with_spectrum(1 / K),
    "1 / sqrt k": with_spectrum(K**-0.5),
    "exponential": with_spectrum(torch.exp(-K / 5)),
    "white noise": torch.randn(N, N, generator=seeded(1), dtype=torch.float64),
    "flat": with_spectrum(torch.ones(N)),
    "tall": torch.randn(3 * N, N, generator=seeded(2), dtype=torch.float64),
}


def error(weight, factors):
    return torch.linalg.matrix_norm(weight.double() - factors[0].double() @ factors[1].double())


@pytest.mark.parametrize("name", SPECTRA)
@pytest.mark.parametrize("rank", [1, 10])
@pytest.mark.parametrize("turned", [False, True])
def test_near_the_least_error_on_every_spectrum(name, rank, turned):
    weight = SPECTRA[name].T if turned else SPECTRA[name]
    least = error_norms(torch.linalg.svdvals(weight), rank).frobenius
    for seed in range(5):
        found = error(weight, randomized(weight, rank, generator=seeded(seed)))
        assert least * (1 - 1e-9) <= found <= 1.02 * least


@pytest.mark.parametrize("name", SPECTRA)
def test_no_worse_than_others(name):
    """With as many columns: torch's has 2 rounds, sklearn's 4 or 7."""
    weight = SPECTRA[name].float()
    ours = sum(error(weight, randomized(weight, 30, generator=seeded(s))) for s in range(3))
    U, sigma, V = torch.svd_lowrank(weight, 46)
    torchs = 3 * error(weight, (U[:, :30] * sigma[:30], V[:, :30].T))
    U, sigma, V = randomized_svd(weight.numpy(), 30, n_oversamples=16, random_state=0)
    sklearns = 3 * error(weight, (torch.from_numpy(U * sigma), torch.from_numpy(V)))
    assert ours <= 1.002 * torchs and ours <= 1.005 * sklearns


@given(st.integers(1, 12), st.integers(1, 12), st.integers(0, 3), st.integers(0, 1000))
@settings(max_examples=60, deadline=None)
def test_the_basis_is_orthonormal_whatever_the_shape(rows, columns, rounds, seed):
    weight = torch.randn(rows, columns, generator=seeded(seed))
    for count in range(1, min(rows, columns) + 1):
        basis = range_basis(weight, count, rounds, seeded(seed))
        assert basis.shape == (rows, count)
        torch.testing.assert_close(basis.T @ basis, torch.eye(count), atol=1e-5, rtol=0)


@pytest.mark.parametrize("rounds", [0, 2])
def test_a_matrix_of_low_rank_is_found_exactly(rounds):
    weight = with_spectrum(torch.tensor([5.0, 3.0, 0.1]), 30, 20)
    for columns in (3, 7):
        basis = range_basis(weight, columns, rounds, seeded(0))
        torch.testing.assert_close(basis @ (basis.T @ weight), weight, atol=1e-12, rtol=0)
    found = randomized(weight, 3, extra=0, rounds=rounds, generator=seeded(0))
    torch.testing.assert_close(found.product, weight, atol=1e-12, rtol=0)


def test_all_columns_give_the_truncated_svd_with_its_balance():
    weight = torch.randn(9, 6, generator=seeded(3))
    for rank in range(7):
        found, best = randomized(weight, rank, generator=seeded(0)), truncated(weight, rank)
        torch.testing.assert_close(found.product, best.product, atol=1e-5, rtol=0)
        sigma = torch.linalg.svdvals(weight)[:rank].diag()
        torch.testing.assert_close(found.left.T @ found.left, sigma, atol=1e-4, rtol=0)
        torch.testing.assert_close(found.right @ found.right.T, sigma, atol=1e-4, rtol=0)


def test_each_round_and_each_extra_column_helps():
    weight = SPECTRA["white noise"]

    def mean_error(**named):
        return sum(error(weight, randomized(weight, 10, generator=seeded(s), **named))
                   for s in range(5))  # fmt: skip

    by_round = [mean_error(rounds=t) for t in range(5)]
    by_column = [mean_error(extra=p, rounds=1) for p in (0, 8, 32)]
    assert by_round == sorted(by_round, reverse=True)
    assert by_column == sorted(by_column, reverse=True)


def test_qr_between_the_rounds_keeps_weak_directions():
    """Without it, σ⁷ of the fourth is 1e-21 of the first's: rounding."""
    weight = with_spectrum(torch.logspace(0, -4, 5), 40, 30)
    noise = torch.randn(30, 5, generator=seeded(0), dtype=torch.float64)
    powers = torch.linalg.matrix_power(weight @ weight.T, 3) @ weight @ noise
    plain = torch.linalg.qr(powers).Q
    ours = range_basis(weight, 5, 3, seeded(0))
    missing = [error(weight, (basis, basis.T @ weight)) for basis in (ours, plain)]
    assert missing[0] < 1e-12 and missing[1] > 1e-5


def test_the_same_noise_gives_the_same():
    weight = SPECTRA["white noise"].float()
    first, again, other = (randomized(weight, 5, generator=seeded(s)) for s in (0, 0, 1))
    assert torch.equal(first.left, again.left) and torch.equal(first.right, again.right)
    assert not torch.equal(first.left, other.left)
    torch.manual_seed(7)
    first = randomized(weight, 5)
    torch.manual_seed(7)
    assert torch.equal(first.left, randomized(weight, 5).left)


@pytest.mark.parametrize("scale", [1e-38, 1e-30, 1e30, 1e37])
def test_huge_and_tiny_scales(scale):
    weight = torch.randn(8, 6, generator=seeded(4))
    found = randomized(weight * scale, 2, generator=seeded(0)).product / scale
    expected = randomized(weight, 2, generator=seeded(0)).product
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_dtypes(dtype):
    weight = torch.randn(8, 6, generator=seeded(5)).to(dtype)
    found = randomized(weight, 6, generator=seeded(0))
    assert {found.left.dtype, found.right.dtype} == {dtype}
    atol = 50 * torch.finfo(dtype).eps
    torch.testing.assert_close(found.product, weight, atol=atol, rtol=0)
    assert range_basis(weight, 2).dtype == torch.promote_types(dtype, torch.float32)


def test_zeros_rank_0_one_element_views_and_autocast():
    assert torch.equal(randomized(torch.zeros(4, 3), 2).product, torch.zeros(4, 3))
    assert torch.equal(randomized(torch.ones(4, 3), 0, extra=0).product, torch.zeros(4, 3))
    torch.testing.assert_close(
        randomized(torch.tensor([[-2.0]]), 1).product, torch.tensor([[-2.0]])
    )
    weight = torch.randn(6, 8, generator=seeded(6))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        view = randomized(weight.T.requires_grad_(), 3, generator=seeded(0))
    assert not view.left.requires_grad
    whole = randomized(weight.T.contiguous(), 3, generator=seeded(0))
    torch.testing.assert_close(view.product, whole.product, atol=1e-5, rtol=0)


def test_bad_input_is_refused():
    weight = torch.ones(3, 4)
    for columns in (0, 4):
        with pytest.raises(ValueError, match="columns must be from 1 to 3"):
            range_basis(weight, columns)
    for call in (range_basis, randomized):
        with pytest.raises(ValueError, match="rounds must be at least 0; got -1"):
            call(weight, 2, rounds=-1)
        with pytest.raises(ValueError, match="weight must be finite"):
            call(weight * torch.nan, 2)
        with pytest.raises(TypeError, match="weight must be a tensor of floats"):
            call(weight.long(), 2)
    with pytest.raises(ValueError, match="extra must be at least 0; got -1"):
        randomized(weight, 2, extra=-1)
    with pytest.raises(ValueError, match="rank be from 0"):
        randomized(weight, 4)
