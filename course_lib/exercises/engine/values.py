"""Returned values as plain data, and the first difference between two of them.

A learner's function may return anything, even an object whose `__eq__` always says True. So a value
is first copied into plain data: tensors, numbers, strings, and lists and dictionaries of them.
Whatever else comes back is only named, never asked.
"""

import dataclasses
import itertools
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

DEEPEST = 20  # lists within lists
LINE = 80  # characters of a value that is shown


@dataclass(frozen=True)
class Opaque:
    """Something that no exercise asks for; only its type's name is kept."""

    type_name: str


@dataclass(frozen=True)
class Array:
    """A tensor or a NumPy array: what it holds, and what it was."""

    data: Tensor  # on the CPU, detached
    kind: str  # "tensor" or "NumPy array"
    device: str

    def __str__(self) -> str:
        return f"{self.kind} of {_dtype(self.data)}, shape {tuple(self.data.shape)}"


def plain(value: Any, depth: int = 0) -> Any:
    """Copy a value into plain data: None, bool, int, float, str, Array, list, dict or Opaque.

    >>> plain((1, {"a": 2.5}))
    [1, {'a': 2.5}]
    >>> plain(object())
    Opaque(type_name='object')
    """
    if value is None or type(value) in (bool, int, float, str):
        return value
    if isinstance(value, np.bool_ | np.integer | np.floating) and value.itemsize <= 8:
        return value.item()
    if type(value) in (Tensor, nn.Parameter):
        return _array_of_tensor(value)
    if type(value) is np.ndarray:
        numbers = value.dtype.kind in "biuf" and value.dtype.itemsize <= 8
        named = Opaque(f"NumPy array of {value.dtype}")
        return Array(torch.from_numpy(np.array(value)), "NumPy array", "cpu") if numbers else named
    if depth > DEEPEST:
        return Opaque(type(value).__name__)
    if isinstance(value, nn.Module):
        return {name: plain(tensor, depth + 1) for name, tensor in value.state_dict().items()}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name), depth + 1) for f in fields(value)}
    if isinstance(value, dict):  # the type's own methods: a learner's class may have others
        return {str(key): plain(item, depth + 1) for key, item in dict.items(value)}
    if isinstance(value, list | tuple):
        base = list if isinstance(value, list) else tuple
        return [plain(item, depth + 1) for item in base.__iter__(value)]
    return Opaque(type(value).__name__)


def _array_of_tensor(value: Tensor) -> Array | Opaque:
    """A tensor's numbers, where it has them one by one in memory."""
    if value.layout != torch.strided or value.is_meta or value.is_quantized or value.is_nested:
        odd = {"meta": value.is_meta, "quantized": value.is_quantized, "nested": value.is_nested}
        layout = str(value.layout).removeprefix("torch.")
        return Opaque(f"tensor ({next((kind for kind in odd if odd[kind]), layout)})")
    numbers = value.detach().resolve_conj().resolve_neg().cpu().clone()
    return Array(numbers, "tensor", value.device.type)


def bare(value: Any) -> Any:
    """Plain data with each Array as what it was, on the CPU: what a property looks at."""
    if isinstance(value, Array):
        return value.data if value.kind == "tensor" else value.data.numpy()
    if isinstance(value, list):
        return [bare(item) for item in value]
    if isinstance(value, dict):
        return {key: bare(item) for key, item in value.items()}
    return value


def same_form(yours: Any, expected: Any) -> bool:
    """Whether two plain values have the same types (but for dtypes), keys, lengths and shapes.

    >>> same_form([1, {"a": 2.5}], [3, {"a": 0.0}]), same_form([1], [1, 2])
    (True, False)
    """
    if type(yours) is not type(expected):
        return {type(yours), type(expected)} == {int, float}
    if isinstance(expected, Array):
        return yours.data.shape == expected.data.shape
    if isinstance(expected, dict):
        return yours.keys() == expected.keys() and all(
            same_form(yours[key], item) for key, item in expected.items()
        )
    if isinstance(expected, list):
        return len(yours) == len(expected) and all(map(same_form, yours, expected))
    return True


def is_real(value: Any) -> bool:
    """Whether no array in a plain value holds complex numbers.

    >>> is_real([1, plain(torch.zeros(2))]), is_real({"a": plain(torch.zeros(2) * 1j)})
    (True, False)
    """
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        return all(map(is_real, value))
    return not (isinstance(value, Array) and value.data.is_complex())


def difference(yours: Any, expected: Any, rtol: float = 0.0, atol: float = 0.0) -> str | None:
    """The first difference between two plain values, as a sentence; None where they agree.

    >>> difference([1, 2, 4], [1, 2, 3])
    'first difference at [2]: 4, expected 3'
    >>> difference(3, 3.0) is None, difference("a", 1)
    (True, 'yours is a str, expected an int')
    """
    found = _difference(yours, expected, rtol, atol, place="")
    if found is None:
        return None
    place, text = found
    return f"first difference at {place}: {text}" if place else text


def _difference(yours, expected, rtol, atol, place) -> tuple[str, str] | None:
    if type(expected) is float and type(yours) is int:
        yours = _as_float(yours)
    if type(yours) is not type(expected):
        return place, f"yours is {_name(yours)}, expected {_name(expected)}"
    if isinstance(expected, Array):
        return _array_difference(yours, expected, rtol, atol, place)
    if isinstance(expected, dict):
        return _dict_difference(yours, expected, rtol, atol, place)
    if isinstance(expected, list):
        if len(yours) != len(expected):
            return place, f"yours has {len(yours)} items, expected {len(expected)}"
        pairs = enumerate(zip(yours, expected, strict=True))
        found = (_difference(y, e, rtol, atol, f"{place}[{i}]") for i, (y, e) in pairs)
        return next((f for f in found if f), None)
    if type(expected) is float:
        one, other = torch.tensor([yours, expected], dtype=torch.float64)
        agree = torch.isclose(one, other, rtol, atol, equal_nan=True)
    else:
        agree = yours == expected
    return None if agree else (place, _apart(yours, expected))


def _as_float(x: int) -> float:
    try:
        return float(x)
    except OverflowError:
        return float("inf") if x > 0 else float("-inf")


def _dict_difference(yours, expected, rtol, atol, place) -> tuple[str, str] | None:
    missing = [key for key in expected if key not in yours]
    extra = [key for key in yours if key not in expected]
    if missing or extra:
        wrong = f"{missing[0]!r} is missing" if missing else f"{extra[0]!r} should not be there"
        return place, f"the keys differ: {wrong}"
    found = (_difference(yours[k], expected[k], rtol, atol, f"{place}[{k!r}]") for k in expected)
    return next((f for f in found if f), None)


def _array_difference(yours: Array, expected: Array, rtol, atol, place):
    mine, wanted = yours.data, expected.data
    for word, one, other in (
        ("a", yours.kind, expected.kind),
        ("of shape", tuple(mine.shape), tuple(wanted.shape)),
        ("of dtype", _dtype(mine), _dtype(wanted)),
        ("on device", yours.device, expected.device),
    ):
        if one != other:
            return place, f"yours is {word} {one}, expected {word} {other}"
    if wanted.dtype.is_floating_point:
        agree = torch.isclose(mine.double(), wanted.double(), rtol, atol, equal_nan=True)
    elif wanted.dtype.is_complex:
        agree = torch.isclose(mine, wanted, rtol, atol, equal_nan=True)
    else:
        agree = torch.as_tensor(mine.numpy() == wanted.numpy())  # uint16 and its like, too
    if agree.all():
        return None
    where = tuple(int(i) for i in (~agree).nonzero()[0])
    place += f"[{', '.join(map(str, where))}]" if where else ""
    return place, _apart(mine[where].item(), wanted[where].item())


def _apart(yours: Any, expected: Any) -> str:
    """Both values; of numbers that differ far behind the point, all digits."""
    one, other = short(yours), short(expected)
    if one == other and type(yours) is type(expected) is float:
        one, other = repr(yours), repr(expected)
    return f"{one}, expected {other}"


def short(value: Any) -> str:
    """A value on one line: at most eight numbers of a tensor, at most 80 characters."""
    if isinstance(value, Opaque):
        return f"<{value.type_name}>"
    if isinstance(value, Array):
        if value.data.dim() == 0:
            return _number(value.data.item())
        flat = value.data.flatten()
        numbers = ", ".join(_number(x) for x in flat[:8].tolist())
        more = ", …" if flat.numel() > 8 else ""
        shape = f"  shape {tuple(value.data.shape)}" if value.data.dim() != 1 else ""
        return f"[{numbers}{more}]{shape}"
    if isinstance(value, list):
        text = "[" + ", ".join(short(item) for item in value[:LINE]) + "]"
    elif isinstance(value, dict):
        few = itertools.islice(value.items(), LINE)
        text = "{" + ", ".join(f"{k or repr(k)}: {short(v)}" for k, v in few) + "}"
    else:
        text = _number(value)
    return text if len(text) <= LINE else text[: LINE - 1] + "…"


def _number(x: Any) -> str:
    if type(x) is int and x.bit_length() > 256:
        return f"an integer of {x.bit_length()} bits"
    return f"{x:.6g}" if type(x) is float else repr(x)


def _dtype(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def _name(value: Any) -> str:
    if isinstance(value, Array):
        return f"a {value}"
    word = value.type_name if isinstance(value, Opaque) else type(value).__name__
    word = {"NoneType": "None (does it return something?)"}.get(word, word)
    return f"{'an' if word[0] in 'aeiou' else 'a'} {word}" if word[0].islower() else word
