"""k-means in d dimensions against scikit-learn and brute force; stages; bytes in a file."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from course_lib.formats.model_file import pack_tensors, unpack_tensors
from course_lib.formats.vectors import Vectors, decode_vectors, encode_vectors
from course_lib.quantization.vectors import fit_stages, lloyd, nearest, restored


def gaussian(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def error(vectors, codebook):
    return (vectors - codebook[nearest(vectors, codebook)]).square().sum().item()


@given(st.integers(1, 50), st.integers(1, 9), st.integers(1, 5), st.integers(0, 99))
@settings(deadline=None)
def test_nearest_by_all_distances(N, k, d, seed):
    vectors, codebook = gaussian(N, d, seed=seed), gaussian(k, d, seed=seed + 1)
    distances = (vectors[:, None] - codebook).square().sum(2)  # (N, 1, d) - (k, d) -> (N, k)
    found = distances.gather(1, nearest(vectors, codebook)[:, None]).squeeze(1)
    assert torch.allclose(found, distances.min(1).values, atol=1e-5)


@pytest.mark.parametrize("d", [1, 2, 4])
def test_lloyd_beside_scikit_learn(d):
    from sklearn.cluster import KMeans

    vectors = gaussian(3000, d)
    start = vectors[:16]
    ours = error(vectors, lloyd(vectors, start, rounds=300))
    peer = KMeans(16, init=start.numpy(), n_init=1, max_iter=300, tol=0, algorithm="lloyd")
    assert ours == pytest.approx(peer.fit(vectors.numpy()).inertia_, rel=2e-3)


@given(st.integers(1, 60), st.integers(1, 8), st.integers(1, 3), st.integers(0, 99))
@settings(deadline=None)
def test_no_step_makes_it_worse(N, k, d, seed):
    vectors = gaussian(N, d, seed=seed).round(decimals=1)
    codebook = gaussian(k, d, seed=seed + 1) * 3
    before = error(vectors, codebook)
    for _ in range(5):
        codebook = lloyd(vectors, codebook, rounds=1)
        after = error(vectors, codebook)
        assert after <= before * (1 + 1e-5) + 1e-5
        before = after


def test_an_empty_cell_takes_the_vector_that_lies_farthest():
    vectors = torch.tensor([[0.0, 0.0], [0.0, 2.0], [9.0, 9.0]])
    codebook = torch.tensor([[0.0, 1.0], [100.0, 100.0]])
    assert lloyd(vectors, codebook, rounds=1)[1].tolist() == [9.0, 9.0]
    assert error(vectors, lloyd(vectors, codebook)) == 2


def test_fewer_different_vectors_than_the_codebook_has():
    vectors = torch.tensor([[1.0, 2.0], [3.0, 4.0]]).repeat(20, 1)
    assert error(vectors, lloyd(vectors, gaussian(8, 2))) == 0
    assert restored(fit_stages(vectors, [8, 4])).equal(vectors)


def test_each_stage_makes_the_error_smaller_and_vectors_beat_numbers():
    vectors = gaussian(2**14, 4)
    errors = [
        (restored(fit_stages(vectors, [64] * m)) - vectors).square().mean().item()
        for m in (1, 2, 3)
    ]
    assert errors[0] > 2 * errors[1] > 4 * errors[2]
    numbers = fit_stages(vectors.view(-1, 1), [4])  # 2 bits each
    pairs = fit_stages(vectors.view(-1, 2), [16])
    fours = fit_stages(vectors, [256])
    one, two, four = (
        (restored(s).view(-1) - vectors.view(-1)).square().mean() for s in (numbers, pairs, fours)
    )
    assert four < 0.99 * two < 0.98 * one


def test_the_same_seed_gives_the_same_codes():
    vectors = gaussian(500, 2)
    one, other = fit_stages(vectors, [16, 16], seed=3), fit_stages(vectors, [16, 16], seed=3)
    assert all(a.equal(b) for a, b in zip(one.codes, other.codes, strict=True))


@pytest.mark.parametrize("scale", [1e-30, 1e-9, 1e9, 1e30])
def test_every_scale(scale):
    weight = gaussian(64, 64)
    back = decode_vectors(encode_vectors(weight * scale, Vectors(2, 6)), weight.shape) / scale
    assert (back - weight).square().mean() < 0.06


@pytest.mark.parametrize(("d", "bits", "stages"), [(1, 4, 1), (2, 8, 1), (4, 8, 2), (2, 3, 3)])
def test_what_a_file_takes_and_gives_back(d, bits, stages):
    weight = gaussian(64, 128)
    packed = pack_tensors({"w": weight}, {"w": Vectors(d, bits, stages)})
    count = sum(part.nbytes for part in packed.values())
    assert count == stages * (bits * 64 * 128 // d // 8 + 2 * 2**bits * d)
    expected = restored(fit_stages(weight.view(-1, d), [2**bits] * stages)).view_as(weight)
    assert unpack_tensors(packed, {"w": weight})["w"].equal(expected)


def test_half_precision_and_transposed():
    weight = gaussian(32, 64).half().T
    assert decode_vectors(encode_vectors(weight, Vectors(2, 4)), weight.shape).shape == (64, 32)


@pytest.mark.parametrize(
    ("weight", "scheme", "message"),
    [
        (gaussian(4, 9), Vectors(2, 2), r"divide the last axis of \(4, 9\); got 2"),
        (gaussian(4, 8), Vectors(0, 2), "got 0"),
        (gaussian(4, 8), Vectors(2, 9), "from 1 to 16"),
        (gaussian(40, 80), Vectors(2, 9), "bits must be from 2 to 8"),
        (gaussian(4, 8), Vectors(2, 2, 0), "at least one"),
        (torch.full((4, 8), torch.nan), Vectors(2, 2), "vectors"),
    ],
)
def test_what_is_refused(weight, scheme, message):
    with pytest.raises(ValueError, match=message):
        encode_vectors(weight, scheme)


def test_vectors_that_do_not_fit():
    with pytest.raises(ValueError, match=r"\(N, d\) and \(k, d\)"):
        nearest(gaussian(3, 2), gaussian(3, 4))
    with pytest.raises(ValueError, match="must not be empty"):
        nearest(gaussian(3, 2), gaussian(0, 2))


def test_parts_of_another_shape_and_a_file_cut_off():
    parts = encode_vectors(gaussian(8, 8), Vectors(2, 3))
    with pytest.raises(ValueError, match="do not make a weight"):
        decode_vectors(parts, (3, 3))
    with pytest.raises(ValueError, match=r"packed must be uint8 of shape \(12,\)"):
        decode_vectors(parts | {"stages": parts["stages"][:, :-1]}, (8, 8))
