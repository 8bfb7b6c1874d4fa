"""The packed 2 of 4: bit by bit, in a file, against PyTorch's own form, and what it costs."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import nn
from torch.sparse._semi_structured_conversions import sparse_semi_structured_from_dense_cutlass

from course_lib.formats.linear import Scheme, decode_linear, encode_linear
from course_lib.formats.model_file import pack_model, pack_tensors, unpack_model, unpack_tensors
from course_lib.formats.packing import unpack
from course_lib.formats.two_of_four import TwoOfFour, decode_two_of_four, encode_two_of_four
from course_lib.measure.size import size
from course_lib.models.n_of_m import n_of_m_mask
from course_lib.quantization.linear import Format

INT4 = Scheme(Format(4, symmetric=True), 32)


def sparse(O, I, seed=0, n=2, dtype=torch.float32):  # noqa: E741
    weight = torch.randn(O, I, generator=torch.Generator().manual_seed(seed)).to(dtype)
    return weight * n_of_m_mask(weight.abs().float(), n, 4)


@given(st.integers(1, 5), st.integers(1, 9), st.integers(0, 999), st.integers(0, 2))
def test_what_is_stored_comes_back(O, fours, seed, n):  # noqa: E741
    weight = sparse(O, 4 * fours, seed, n)
    for dtype in (torch.float32, torch.float16, torch.bfloat16, torch.float64):
        narrow = weight.to(dtype)
        back = decode_two_of_four(encode_two_of_four(narrow), weight.shape)
        assert back.dtype == dtype and back.equal(narrow)


def test_the_values_are_those_of_pytorchs_own_form():
    weight = sparse(32, 128, dtype=torch.float16)
    values, _ = sparse_semi_structured_from_dense_cutlass(weight)
    assert encode_two_of_four(weight)["values"].equal(values)


def test_places_are_columns_in_twos_from_left_to_right():
    weight = torch.tensor([[0, 5.0, 0, 7], [9, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 1]])
    parts = encode_two_of_four(weight)
    assert unpack(parts["places"], 2, 8).view(4, 2).tolist() == [[1, 3], [0, 1], [0, 1], [0, 3]]
    assert parts["values"].tolist() == [[5, 7], [9, 0], [0, 0], [0, 1]]


@pytest.mark.parametrize("values", [INT4, Scheme(Format(4), 32), Scheme(Format(8), "channel")])
def test_values_are_quantized_as_the_matrix_of_values_would_be(values):
    weight = sparse(6, 128)
    back = decode_two_of_four(encode_two_of_four(weight, TwoOfFour(values)), weight.shape)
    dense = weight[weight != 0].view(6, 64)
    alone = decode_linear(encode_linear(dense, values), dense.shape)
    assert back[weight != 0].view(6, 64).equal(alone)
    assert not back[weight == 0].any()


def test_three_and_a_quarter_bits_a_weight_in_a_file(tmp_path):
    """A dense weight of 4 bits takes 4.25, both with a scale for 64 weights."""
    model = nn.Linear(512, 256, bias=False)
    model.weight.data = sparse(256, 512)
    bits = {}
    dense = Scheme(Format(4, symmetric=True), 64)
    for name, scheme in (("2:4", TwoOfFour(INT4)), ("dense", dense), ("floats", TwoOfFour())):
        packed = pack_model(model, {"weight": scheme})
        bits[name] = 8 * sum(part.nbytes for part in packed.values()) / model.weight.numel()
        save_file(packed, tmp_path / name)
        measured = size(packed, model.weight.numel())
        assert (tmp_path / name).stat().st_size == measured.bytes
        assert measured.bits_per_parameter == pytest.approx(bits[name], abs=0.02)
        loaded = unpack_model(load_file(tmp_path / name), model)
        assert torch.equal(loaded.weight == 0, model.weight == 0) or name != "floats"
    assert bits == {"2:4": 3.25, "dense": 4.25, "floats": 17.0}


def test_forms_are_told_apart_by_their_parts():
    weights = {name: sparse(4, 64, seed) for seed, name in enumerate("abcd")}
    schemes = {
        "a": TwoOfFour(), "b": TwoOfFour(INT4), "c": TwoOfFour(Scheme(Format(4), 32)), "d": INT4
    }  # fmt: skip
    back = unpack_tensors(pack_tensors(weights, schemes), weights)
    assert back["a"].equal(weights["a"])
    assert all((back[name] - weights[name]).abs().max() < 0.4 for name in "bcd")


@pytest.mark.parametrize(
    ("weight", "says"),
    [
        (torch.ones(2, 6), "4 dividing I; got"),
        (torch.ones(8), "must have shape"),
        (torch.ones(0, 8), "must have shape"),
        (torch.tensor([[1.0, 0, 0, 1, 1, 1, 0, 1]]), "first in row 0, columns 4 to 7"),
        (torch.tensor([[torch.nan, 0, 0, 1]]), "weight must be finite"),
    ],
)
def test_what_is_not_two_of_four_is_refused(weight, says):
    with pytest.raises(ValueError, match=says):
        encode_two_of_four(weight)
