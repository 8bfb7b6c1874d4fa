"""The message back: encoded by the child, and decoded by a parent that trusts no byte of it.

    8 bytes   length of the JSON text, little-endian
    JSON      outcomes; an array is named by its dtype, shape and kind
    bytes     the arrays' numbers, one array after the other, nothing between or behind

Nothing is ever unpickled. Whatever is not exactly of this form raises ProtocolError: another
length, an unknown key, dtype or kind, a shape that does not fit its bytes, a gradient by no input,
lists nested too deep. A forged message that is of this form gains nothing: its values still have to
be right for inputs that its author has not seen. What a child says of itself, though, stays its
word: whether inputs were altered, the gradients, and its seconds (used where nobody else counts).
"""

import json
import math
import struct
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from course_lib.classroom.grading.sandbox.job import Signature
from course_lib.exercises.engine.run import Outcome
from course_lib.exercises.engine.values import DEEPEST, Array, Opaque

MOST_BYTES = 32 * 2**20  # of a message; the largest that a model answer needs is 2.2 MB
MOST_JSON = 8 * 2**20  # of its text: as Python objects it takes some ten times that
LONGEST = 2000  # characters of an error's message
DIGITS = 1000  # of an integer
MOST_DIMENSIONS = 16
KINDS = ("tensor", "NumPy array")
DTYPES = {
    str(dtype).removeprefix("torch."): dtype
    for dtype in (
        *(torch.bool, torch.uint8, torch.int8, torch.uint16, torch.int16),
        *(torch.uint32, torch.int32, torch.uint64, torch.int64),
        *(torch.float16, torch.bfloat16, torch.float32, torch.float64),
        *(torch.float8_e4m3fn, torch.float8_e5m2, torch.float8_e4m3fnuz),
        *(torch.float8_e5m2fnuz, torch.float8_e8m0fnu),
        *(torch.complex32, torch.complex64, torch.complex128),
    )
}


class ProtocolError(ValueError):
    """A message that is not of the agreed form; the text says where."""


# ---------------------------------------------------------------------- child


def encode(outcomes: Sequence[Outcome], text: str = "", ended: str = "") -> bytes:
    """A message.

    Args:
        outcomes: one for each case.
        text: what to tell: the exception of a block that failed.
        ended: the exception that ended the whole, such as "SystemExit"; "" where none did.

    >>> encode([Outcome(value=2)])[8:30]
    b'{"outcomes": [{"value"'
    """
    blobs: list[bytes] = []
    shown = [
        {
            "value": _node(one.value, blobs),
            "error": one.error and one.error[:200],
            "message": one.message[:LONGEST],
            "line": one.line[:LONGEST],
            "altered": list(one.altered),
            "gradients": one.gradients and {k: _node(v, blobs) for k, v in one.gradients.items()},
            "seconds": one.seconds,
        }
        for one in outcomes
    ]
    head = {"outcomes": shown, "text": text[:LONGEST], "ended": ended[:200]}
    encoded = json.dumps(head).encode()
    return struct.pack("<Q", len(encoded)) + encoded + b"".join(blobs)


def _node(value: Any, blobs: list[bytes]) -> Any:
    """Plain data as JSON; the numbers of its arrays are appended to `blobs`."""
    if isinstance(value, Array):
        name = str(value.data.dtype).removeprefix("torch.")
        size = value.data.numel() * value.data.element_size()
        if name not in DTYPES or sum(map(len, blobs)) + size > MOST_BYTES - MOST_JSON:
            return {"opaque": f"{value.kind} of {name}, shape {tuple(value.data.shape)}"[:200]}
        blobs.append(_bytes(value.data))
        return {"array": [name, list(value.data.shape), value.kind]}
    if isinstance(value, Opaque):
        return {"opaque": str(value.type_name)[:200]}
    if isinstance(value, dict):
        return {"dict": {key: _node(item, blobs) for key, item in value.items()}}
    if isinstance(value, list):
        return [_node(item, blobs) for item in value]
    if type(value) is int and value.bit_length() > 3 * DIGITS:
        return {"opaque": f"int of {value.bit_length()} bits"}
    return value


def _bytes(tensor: Tensor) -> bytes:
    # A copy, for of one number any stride counts as contiguous.
    flat = tensor.reshape(-1).clone(memory_format=torch.contiguous_format)
    return flat.view(torch.uint8).numpy().tobytes()


# ---------------------------------------------------------------------- parent


def decode(message: bytes, cases: Sequence[Signature]) -> tuple[tuple[Outcome, ...], str, str]:
    """Outcomes, text and `ended` again.

    Args:
        message: what came back, at most MOST_BYTES of it.
        cases: what the outcomes must fit.

    Raises:
        ProtocolError: the message is not of the agreed form.

    >>> decode(encode([Outcome(value=[1, 2.5, None])]), [Signature(("x",), ())])[0][0].value
    [1, 2.5, None]
    """
    _require(8 <= len(message) <= MOST_BYTES, f"a message of {len(message)} bytes")
    (length,) = struct.unpack_from("<Q", message)
    _require(length <= min(MOST_JSON, len(message) - 8), f"a text of {length} bytes")
    try:
        head = json.loads(message[8 : 8 + length].decode(), parse_int=_integer)
    except (ValueError, RecursionError) as error:
        raise ProtocolError(f"no JSON: {str(error)[:200]}") from None
    _keys(head, {"outcomes", "text", "ended"})
    numbers = _Numbers(message, 8 + length)
    shown, ended = head["outcomes"], _text(head["ended"], 200)
    _require(isinstance(shown, list), "outcomes that are no list")
    _require(len(shown) == (0 if ended else len(cases)), f"{len(shown)} outcomes")
    outcomes = tuple(_outcome(*both, numbers) for both in zip(shown, cases, strict=False))
    _require(numbers.place == len(message), "bytes behind the message")
    return outcomes, _text(head["text"], LONGEST), ended


def _require(condition: bool, seen: str) -> None:
    if not condition:
        raise ProtocolError(f"the sandbox sent {seen}")


def _keys(node: Any, keys: set[str]) -> None:
    _require(isinstance(node, dict) and set(node) == keys, f"an object without {sorted(keys)}")


def _text(node: Any, longest: int) -> str:
    """A string that any file can hold: lone surrogates are replaced."""
    _require(isinstance(node, str) and len(node) <= longest, "a text too long, or none")
    return node.encode("utf-8", "replace").decode("utf-8")


def _integer(digits: str) -> int:
    _require(len(digits) <= DIGITS + 1, f"an integer of {len(digits)} digits")
    return int(digits)


def _outcome(node: Any, case: Signature, numbers: "_Numbers") -> Outcome:
    _keys(node, {"value", "error", "message", "line", "altered", "gradients", "seconds"})
    failed = node["error"] is not None
    error = _text(node["error"], 200) if failed else None
    _require(error != "", "an error without a name")
    value = _value(node["value"], numbers)
    altered, gradients = node["altered"], node["gradients"]
    _require(isinstance(altered, list) and all(k in case.inputs for k in altered), "altered inputs")
    if gradients is not None:
        _require(isinstance(gradients, dict), "gradients that are no object")
        _require(set(gradients) in (set(), set(case.leaves)), "gradients by no input")
        gradients = {key: _value(item, numbers) for key, item in gradients.items()}
    has_gradients = bool(case.leaves) and not failed
    _require((gradients is not None) == has_gradients, "gradients where none are, or none")
    _require(not (failed and (value is not None or altered)), "an error and a value")
    message, line = _text(node["message"], LONGEST), _text(node["line"], LONGEST)
    seconds = node["seconds"]
    _require(type(seconds) in (int, float) and 0 <= seconds < 10**6, "impossible seconds")
    return Outcome(value, error, message, line, tuple(altered), gradients, seconds)


def _value(node: Any, numbers: "_Numbers", depth: int = 0) -> Any:
    """Plain data of one node."""
    _require(depth <= DEEPEST + 2, "lists nested too deep")
    if node is None or type(node) in (bool, int, float):
        return node
    if isinstance(node, str):
        return _text(node, MOST_JSON)
    if isinstance(node, list):
        return [_value(item, numbers, depth + 1) for item in node]
    _require(isinstance(node, dict) and len(node) == 1, "an unknown object")
    ((kind, content),) = node.items()
    if kind == "dict":
        _require(isinstance(content, dict), "a dictionary that is none")
        return {
            _text(k, MOST_JSON): _value(item, numbers, depth + 1) for k, item in content.items()
        }
    if kind == "opaque":
        return Opaque(_text(content, 200))
    _require(kind == "array" and isinstance(content, list), "an unknown object")
    return _array(content, numbers)


def _array(content: list, numbers: "_Numbers") -> Array:
    _require(len(content) == 3, "an array without dtype, shape and kind")
    name, shape, kind = content
    _require(isinstance(name, str) and name in DTYPES and kind in KINDS, "an unknown dtype or kind")
    _require(isinstance(shape, list) and len(shape) <= MOST_DIMENSIONS, "an array without a shape")
    _require(all(type(n) is int and 0 <= n < 2**31 for n in shape), "an impossible shape")
    _require(math.prod(max(n, 1) for n in shape) < 2**40, "an impossible shape")
    return Array(numbers.take(DTYPES[name], shape), kind, "cpu")


class _Numbers:
    """The bytes behind the text, given out one array after the other."""

    def __init__(self, message: bytes, place: int):
        self.message, self.place = message, place

    def take(self, dtype: torch.dtype, shape: list[int]) -> Tensor:
        size = math.prod(shape) * dtype.itemsize
        _require(size <= len(self.message) - self.place, "fewer numbers than the shape needs")
        part = bytearray(self.message[self.place : self.place + size])
        self.place += size
        if not part:
            return torch.empty(shape, dtype=dtype)
        _require(dtype != torch.bool or max(part) <= 1, "a truth value beyond 0 and 1")
        return torch.frombuffer(part, dtype=torch.uint8).view(dtype).reshape(shape)
