"""Radix selection against sorting, against torch.topk and against pruning in PyTorch."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from course_lib.models import selection
from course_lib.models.selection import INTEGERS, highest_masks, kth_largest, largest_masks
from course_lib.pruning.objective import largest_mask

any_floats = arrays.arrays(
    "float32",
    st.integers(1, 40),
    elements=st.floats(width=32, allow_nan=False)
    | st.sampled_from([0.0, -0.0, 1.0, -1.0, 1e-45, float("inf")]),
)


@given(any_floats, any_floats, st.data())
def test_the_kth_largest_is_the_one_that_sorting_finds(first, second, data):
    tensors = {"a": torch.from_numpy(first), "b": torch.from_numpy(second)[None]}
    magnitudes = torch.cat([t.flatten() for t in tensors.values()]).abs()
    k = data.draw(st.integers(1, len(magnitudes)))
    threshold, ties = kth_largest(tensors, k)
    assert threshold == magnitudes.sort(descending=True).values[k - 1]
    assert ties == k - int((magnitudes > threshold).sum())


@given(any_floats, any_floats, st.data())
def test_masks_are_those_of_the_joined_tensor(first, second, data):
    joined = torch.cat([torch.from_numpy(first), torch.from_numpy(second)])
    k = data.draw(st.integers(0, len(joined)))
    tensors = dict(zip("ab", joined.split([len(first), len(second)]), strict=True))
    masks = largest_masks(tensors, k)
    assert torch.cat([masks["a"], masks["b"]]).equal(largest_mask(joined, k))


def highest_by_sorting(scores, k):
    mask = torch.zeros(scores.numel(), dtype=torch.bool)
    mask[scores.flatten().argsort(descending=True, stable=True)[:k]] = True
    return mask.view(scores.shape)


@given(any_floats, any_floats, st.data())
def test_the_highest_are_those_of_the_sorted_joined_tensor(first, second, data):
    joined = torch.cat([torch.from_numpy(first), torch.from_numpy(second)])
    k = data.draw(st.integers(0, len(joined)))
    tensors = dict(zip("ab", joined.split([len(first), len(second)]), strict=True))
    masks = highest_masks(tensors, k)
    assert torch.cat([masks["a"], masks["b"]]).equal(highest_by_sorting(joined, k))
    if k:
        assert kth_largest(tensors, k, signed=True)[0] == joined.sort(descending=True).values[k - 1]


@pytest.mark.parametrize("dtype", INTEGERS)
def test_the_highest_of_every_width_of_float(dtype):
    scores = torch.randn(50, 60, generator=torch.Generator().manual_seed(0)).to(dtype)
    for k in (0, 1, 7, 1500, 2999, 3000):
        assert highest_masks({"w": scores}, k)["w"].equal(highest_by_sorting(scores, k))


@pytest.mark.parametrize("dtype", INTEGERS)
def test_every_width_of_float(dtype):
    weight = torch.randn(50, 60, generator=torch.Generator().manual_seed(0)).to(dtype)
    for k in (1, 7, 1500, 2999, 3000):
        assert largest_masks({"w": weight}, k)["w"].equal(largest_mask(weight, k))


def test_more_numbers_than_a_block(monkeypatch):
    monkeypatch.setattr(selection, "BLOCK", 64)
    weight = torch.randn(1000, generator=torch.Generator().manual_seed(0))
    assert largest_masks({"w": weight}, 100)["w"].equal(largest_mask(weight, 100))


def test_agrees_with_topk():
    weight = torch.randn(300, 300, generator=torch.Generator().manual_seed(0))
    kept = weight.flatten()[largest_masks({"w": weight}, 9000)["w"].flatten()].abs()
    assert kept.sort().values.equal(weight.flatten().abs().topk(9000).values.sort().values)


def test_numbers_of_equal_leading_digit():
    """All share their first 16 bits; those are zero for the smallest numbers."""
    for lowest in (0x3F800000, 0):
        weight = torch.arange(lowest, lowest + 1000, dtype=torch.int32).view(torch.float32)
        assert largest_masks({"w": weight}, 10)["w"].nonzero().flatten().tolist() == [
            *range(990, 1000)
        ]


def test_a_transposed_tensor_keeps_its_shape_and_order():
    mask = largest_masks({"w": torch.ones(2, 3).T}, 2)["w"]
    assert mask.tolist() == [[True, True], [False, False], [False, False]]


@pytest.mark.parametrize(
    ("tensors", "k", "says"),
    [
        ({"w": torch.ones(3)}, 4, "k must be from 0 to 3, the number of entries; got 4"),
        ({"w": torch.ones(3)}, -1, "got -1"),
        ({"w": torch.tensor([1.0, float("nan")])}, 1, "must not hold NaN; 'w' does"),
        ({"w": torch.ones(3).int()}, 1, "one floating dtype"),
        ({"a": torch.ones(3), "b": torch.ones(3).half()}, 1, "one floating dtype"),
        ({}, 0, "one floating dtype"),
    ],
)
def test_bad_input_is_refused(tensors, k, says):
    with pytest.raises(ValueError, match=says):
        largest_masks(tensors, k)


def test_an_empty_tensor_among_others():
    masks = largest_masks({"none": torch.empty(0, 3), "w": torch.tensor([1.0, 2.0])}, 1)
    assert masks["none"].shape == (0, 3)
    assert masks["w"].tolist() == [False, True]
