"""The stored form gives the tensor back, and is the smallest of those that there are."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from course_lib.formats.model_file import pack_tensors, unpack_tensors
from course_lib.formats.sparse import Sparse
from course_lib.measure.size import size


def sparse_tensors(tensors):
    return pack_tensors(tensors, dict.fromkeys(tensors, Sparse()))


def random_sparse(entries, density, dtype=torch.float32, seed=0):
    generator = torch.Generator().manual_seed(seed)
    kept = torch.rand(entries, generator=generator) < density
    return (torch.randn(entries, generator=generator) * kept).to(dtype)


def form(stored):
    return {name.partition(":")[2] for name in stored} - {"values"}


@given(st.integers(0, 700), st.sampled_from([0, 0.001, 0.004, 0.05, 0.3, 1]), st.integers(0, 99))
def test_what_is_stored_comes_back(entries, density, seed):
    tensors = {"w": random_sparse(entries, density, seed=seed), "b": torch.ones(3)}
    back = unpack_tensors(sparse_tensors(tensors), tensors)
    assert back.keys() == tensors.keys()
    assert all(back[name].equal(tensor) for name, tensor in tensors.items())


@pytest.mark.parametrize(
    ("density", "expected"),
    [(0.99, {""}), (0.5, {"bitmap"}), (0.2, {"bitmap"}), (0.05, {"gaps"}), (0.001, {"indices"})],
)
def test_the_form_follows_from_the_density(density, expected):
    assert form(sparse_tensors({"w": random_sparse(100_000, density)})) == expected


@pytest.mark.parametrize("density", [0.5, 0.05, 0.001])
@pytest.mark.parametrize("dtype", [torch.float16, torch.float64, torch.uint8, torch.bool])
def test_every_dtype_and_shape_in_a_file(tmp_path, density, dtype):
    weight = random_sparse(40_000, density, dtype).view(50, 20, 40)
    stored = sparse_tensors({"layer.weight": weight})
    save_file(stored, tmp_path / "sparse.safetensors")
    back = unpack_tensors(load_file(tmp_path / "sparse.safetensors"), {"layer.weight": weight})[
        "layer.weight"
    ]
    assert back.dtype == dtype
    assert back.equal(weight)


def test_the_file_is_as_small_as_the_formula_says(tmp_path):
    weight = random_sparse(100_000, 0.1)
    count = int((weight != 0).sum())
    for density_form, sizes in {"bitmap": 4 * count + 100_000 / 8, "gaps": 5 * count}.items():
        save_file(sparse_tensors({"w": weight}), tmp_path / density_form)
        assert (tmp_path / density_form).stat().st_size <= sizes + 200  # the header


def test_small_and_dense_tensors_are_left_alone():
    tensors = {
        "bias": torch.tensor([0.0, 1.0, 0.0]),
        "none": torch.empty(0),
        "one": torch.tensor(0.0),
    }
    assert sparse_tensors(tensors).keys() == tensors.keys()


def test_gaps_of_just_one_byte():
    """Distances of 255, 256 and of several fillers in a row."""
    weight = torch.zeros(30_000)
    weight[torch.tensor([254, 255, 255 + 256, 511 + 255, 2000])] = torch.arange(1.0, 6)
    weight[2001:2200] = 7.0
    stored = sparse_tensors({"w": weight})
    assert form(stored) == {"gaps"}
    assert unpack_tensors(stored, {"w": weight})["w"].equal(weight)


def test_a_transposed_tensor_and_one_of_zeros():
    tensors = {"t": random_sparse(6000, 0.1).view(60, 100).T, "zeros": torch.zeros(500, 4)}
    back = unpack_tensors(sparse_tensors(tensors), tensors)
    assert all(back[name].equal(tensor) for name, tensor in tensors.items())


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="may not hold a colon; got 'a:b'"):
        sparse_tensors({"a:b": torch.ones(3)})
    like = {"w": random_sparse(1000, 0.05)}
    stored = sparse_tensors(like)
    for part in stored:
        broken = {name: tensor for name, tensor in stored.items() if name != part}
        with pytest.raises(ValueError, match="no form here has the parts .* which w has"):
            unpack_tensors(broken, like)


def test_a_tied_tensor_is_stored_once():
    weight = random_sparse(60_000, 0.1).view(200, 300)
    once = size(sparse_tensors({"embedding": weight})).bytes
    twice = size(sparse_tensors({"embedding": weight, "head": weight})).bytes
    assert twice < once + 200
