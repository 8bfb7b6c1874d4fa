import dataclasses

import numpy as np
import pytest
import torch
from torch import nn

from course_lib.exercises.engine.values import Array, Opaque, bare, difference, plain, short


class AgreesWithEverything:
    def __eq__(self, other):
        return True


def compare(yours, expected, **tolerance):
    return difference(plain(yours), plain(expected), **tolerance)


def test_an_object_that_equals_everything_gains_nothing():
    assert plain(AgreesWithEverything()) == Opaque("AgreesWithEverything")
    assert "expected a float" in compare(AgreesWithEverything(), 1.0)
    assert "expected a tensor" in compare(AgreesWithEverything(), torch.zeros(2))


def test_a_tensor_subclass_becomes_a_plain_tensor():
    class Liar(torch.Tensor):
        @classmethod
        def __torch_function__(cls, function, types, args=(), kwargs=None):
            if function is torch.Tensor.eq:
                return torch.ones(args[0].shape, dtype=torch.bool)
            return super().__torch_function__(function, types, args, kwargs or {})

    lie = torch.zeros(2).as_subclass(Liar)
    assert compare(lie, torch.ones(2)) is not None


@pytest.mark.parametrize(
    ("yours", "expected", "says"),
    [
        (torch.zeros(2, 3), torch.zeros(3, 2), "of shape (2, 3), expected of shape (3, 2)"),
        (torch.zeros(2).long(), torch.zeros(2), "of dtype int64, expected of dtype float32"),
        (np.zeros(2, np.float32), torch.zeros(2), "a NumPy array, expected a tensor"),
        (1, torch.zeros(()), "yours is an int, expected a tensor"),
        (torch.tensor(2.0), 2.0, "yours is a tensor of float32, shape (), expected a float"),
        (None, 2.0, "None (does it return something?)"),
        ([1, 2], [1, 2, 3], "yours has 2 items, expected 3"),
        ({"a": 1}, {"b": 1}, "'b' is missing"),
        ({"a": 1, "b": 2}, {"a": 1}, "'b' should not be there"),
        (True, 1, "yours is a bool, expected an int"),
        ({"a": [1, 5]}, {"a": [1, 2]}, "first difference at ['a'][1]: 5, expected 2"),
        (torch.tensor([1, 7]), torch.tensor([1, 6]), "first difference at [1]: 7, expected 6"),
        (float("nan"), 1.0, "nan, expected 1"),
    ],
)
def test_the_first_difference_is_named(yours, expected, says):
    assert says in compare(yours, expected)


@pytest.mark.parametrize(
    "value",
    [None, True, 3, 2.5, "a", [1, (2, 3)], {"a": torch.ones(2)}, float("nan"), np.float32(2)],
)
def test_a_value_agrees_with_itself(value):
    assert compare(value, value) is None


def test_lists_tuples_and_whole_numbers_are_taken_as_meant():
    assert compare((1, 2), [1, 2]) is None
    assert compare(3, 3.0) is None
    assert compare(np.int64(3), 3) is None


def test_tolerances():
    near = torch.tensor([1.0, 1.00001])
    assert compare(near, torch.ones(2)) is not None
    assert compare(near, torch.ones(2), rtol=1e-4) is None
    assert compare(1e-7, 0.0, atol=1e-6) is None


def test_modules_and_dataclasses_become_dictionaries():
    @dataclasses.dataclass
    class Pair:
        scale: float
        zero_point: int

    assert plain(Pair(0.5, 3)) == {"scale": 0.5, "zero_point": 3}
    assert list(plain(nn.Linear(2, 1))) == ["weight", "bias"]


def test_a_plain_value_no_longer_changes_with_the_original():
    original = torch.zeros(2)
    copied = plain([original])
    original += 1
    assert bare(copied)[0].tolist() == [0, 0]


def test_short_fits_on_a_line():
    assert short(plain(torch.arange(100))) == "[0, 1, 2, 3, 4, 5, 6, 7, …]"
    assert len(short("x" * 500)) == 80
    assert short(Array(torch.tensor(0.25), "tensor", "cpu")) == "0.25"
