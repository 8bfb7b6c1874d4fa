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


def test_a_property_sees_an_array_of_numpy_as_one():
    seen = bare(plain({"one": np.zeros(2), "other": torch.zeros(2)}))
    assert {name: type(array) for name, array in seen.items()} == {
        "one": np.ndarray,
        "other": torch.Tensor,
    }


def test_short_fits_on_a_line():
    assert short(plain(torch.arange(100))) == "[0, 1, 2, 3, 4, 5, 6, 7, …]"
    assert len(short("x" * 500)) == 80
    assert short({"": 1, "up": 2}) == "{'': 1, up: 2}"
    assert short(Array(torch.tensor(0.25), "tensor", "cpu")) == "0.25"


class Subclass(np.ndarray):
    pass


def nested_in_itself():
    value = []
    value.append(value)
    return value


ODD = {
    "sparse": lambda: torch.eye(2).to_sparse(),
    "sparse rows": lambda: torch.eye(2).to_sparse_csr(),
    "meta": lambda: torch.zeros(2, device="meta"),
    "quantized": lambda: torch.quantize_per_tensor(torch.ones(2), 0.5, 0, torch.quint8),
    "nested": lambda: torch.nested.nested_tensor([torch.ones(2)]),
    "complex": lambda: torch.ones(2, dtype=torch.complex64),
    "float8": lambda: torch.ones(2).to(torch.float8_e4m3fn),
    "uint16": lambda: np.ones(2, np.uint16),
    "record": lambda: np.zeros(2, dtype=[("a", int)]),
    "dates": lambda: np.array(["2020-01-01"], dtype="datetime64[D]"),
    "long double": lambda: np.ones(2, np.longdouble),
    "subclass": lambda: np.ones(2).view(Subclass),
    "masked": lambda: np.ma.masked_array([1, 2], mask=True),
    "backwards": lambda: np.arange(3)[::-1],
    "in itself": nested_in_itself,
    "a huge integer": lambda: 10**5000,
    "endless": lambda: iter(int, 1),
    "a class": lambda: dict,
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("make", ODD.values(), ids=ODD)
@pytest.mark.parametrize("expected", [torch.zeros(2), 1.5, [1, 2], {"a": 1}], ids=str)
def test_an_odd_value_is_unlike_any_answer_and_can_be_shown(make, expected):
    assert compare(make(), expected)
    assert len(short(plain(make()))) <= 80


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ["meta", "quantized", "nested"])
def test_a_tensor_without_numbers_is_named(kind):
    assert short(plain(ODD[kind]())) == f"<tensor ({kind})>"


def test_unsigned_and_complex_values_can_be_right():
    for kind in ("uint16", "complex", "float8", "backwards"):
        assert compare(ODD[kind](), ODD[kind]()) is None
