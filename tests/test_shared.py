"""Few values and many zeros come back exactly, smaller than other forms, and damage is refused."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from course_lib.formats.model_file import pack_tensors, unpack_tensors
from course_lib.formats.shared import Shared, decode_shared, encode_shared, gap_symbols
from course_lib.formats.sparse import encode_sparse


def drawn(count, density, values, seed=0):
    generator = torch.Generator().manual_seed(seed)
    kept = torch.rand(count, generator=generator) < density
    codebook = torch.randn(values, generator=generator).half().float()
    return codebook[torch.randint(values, (count,), generator=generator)] * kept


@given(
    st.integers(0, 3000),
    st.sampled_from([0, 0.001, 0.05, 0.5, 1]),
    st.sampled_from([1, 2, 16]),
    st.integers(0, 99),
)
@settings(deadline=None)
def test_what_is_stored_comes_back(count, density, values, seed):
    tensors = {"w": drawn(count, density, values, seed).view(-1, 1)}
    packed = pack_tensors(tensors, {"w": Shared()})
    assert unpack_tensors(packed, tensors)["w"].equal(tensors["w"])


def test_smaller_than_values_and_gaps_in_bytes():
    weight = drawn(50_000, 0.07, 8)
    shared = encode_shared(weight)["shared"]
    sparse = encode_sparse(weight.to(torch.uint8).where(weight == 0, 1))  # a byte for a value
    entropy = 50_000 * 0.366  # bits of where, for a density of 0.07
    assert len(shared) < 0.6 * sum(part.nbytes for part in sparse.values())
    assert len(shared) < 1.05 * (entropy + 3 * 3500) / 8


@given(st.lists(st.integers(0, 400), unique=True), st.sampled_from([1, 2, 15, 255]))
@settings(deadline=None)
def test_gaps_and_spans(places, span):
    places = torch.tensor(sorted(places), dtype=torch.int64)
    symbols = gap_symbols(places, span)
    assert not len(symbols) or symbols.max() <= span
    at, found = 0, []
    for symbol in symbols.tolist():  # the slow way
        at += symbol
        if symbol < span:
            found.append(at)
            at += 1
    assert found == places.tolist()


def test_dtypes_and_devices_of_the_parts():
    weight = torch.tensor([[0.0, 0.5], [-1.0, 0.5]])
    for dtype in (torch.float16, torch.bfloat16, torch.float64):
        assert decode_shared(encode_shared(weight.to(dtype)), (2, 2)).equal(weight)


@pytest.mark.parametrize(
    ("tensor", "message"),
    [
        (torch.tensor([0.1]), "float16 numbers; got 1 values, the largest 0.1"),
        (torch.tensor([1e6]), r"the largest 1e\+06: round"),
        (torch.tensor([torch.nan]), "tensor"),
        (
            torch.arange(-2048, 2049, dtype=torch.float32)[:, None] / 2048 * torch.arange(1, 10),
            "at",
        ),
    ],
)
def test_what_is_not_shared(tensor, message):
    with pytest.raises(ValueError, match=message):
        encode_shared(tensor)


def test_a_damaged_file_and_one_of_another_tensor():
    weight = drawn(1000, 0.1, 4)
    weight[-1] = 1.0
    parts = encode_shared(weight)
    with pytest.raises(ValueError, match=r"tensor of \(999,\)"):
        decode_shared(parts, (999,))
    for at in range(len(parts["shared"])):
        broken = parts["shared"].clone()
        broken[at] ^= 16
        with pytest.raises(ValueError, match="damaged"):
            decode_shared({"shared": broken}, weight.shape)
