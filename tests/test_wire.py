"""The message back: every value makes the round trip, and nothing else gets through."""

import json
import math
import pickle
import struct

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given

from course_lib.classroom.grading.sandbox import wire
from course_lib.classroom.grading.sandbox.job import Signature, pack_cases, signatures, unpack_cases
from course_lib.classroom.grading.sandbox.wire import DTYPES, ProtocolError, decode, encode
from course_lib.exercises.engine.catalogue import all_exercises
from course_lib.exercises.engine.run import Outcome
from course_lib.exercises.engine.spec import Case
from course_lib.exercises.engine.values import Array, Opaque, difference, plain

ONE = [Signature(("x",), ())]
LEAF = [Signature(("x", "y"), ("x",))]


def there_and_back(value):
    return decode(encode([Outcome(value=plain(value))]), ONE)[0][0].value


def same_bits(one: Array, other: Array) -> bool:
    """Kind, dtype, shape and every bit."""
    a, b = one.data.contiguous().reshape(-1), other.data.contiguous().reshape(-1)
    return (
        (one.kind, one.device) == (other.kind, other.device)
        and (one.data.dtype, one.data.shape) == (other.data.dtype, other.data.shape)
        and torch.equal(a.view(torch.uint8), b.view(torch.uint8))
    )


@pytest.mark.parametrize("shape", [(3, 2), (), (0,), (2, 0, 3), (1, 1, 1, 1)], ids=str)
@pytest.mark.parametrize("name", DTYPES)
def test_a_tensor_of_every_dtype_and_shape_makes_the_round_trip(name, shape):
    size = math.prod(shape) * DTYPES[name].itemsize
    raw = torch.randint(0, 2 if name == "bool" else 256, (size,), dtype=torch.uint8)
    tensor = raw.view(DTYPES[name]).reshape(shape) if size else torch.empty(shape).to(DTYPES[name])
    assert same_bits(there_and_back(tensor), plain(tensor))


@pytest.mark.parametrize("dtype", ["bool", "i1", "u2", "i8", "u8", "f2", "f4", "f8"])
def test_an_array_of_numpy_stays_one(dtype):
    array = np.arange(6).reshape(2, 3).astype(dtype)
    assert same_bits(there_and_back(array), plain(array))


def test_tensors_that_are_views_arrive_as_they_look():
    x = torch.arange(12.0).reshape(3, 4)
    for view in (x.T, x[::2, 1:], x[:, :1].expand(3, 5), x.flip(0), (x + 1j * x).conj()):
        assert same_bits(there_and_back(view), plain(view))


@pytest.mark.parametrize("name", DTYPES)
def test_one_number_taken_out_of_many_arrives(name):
    """Its stride is that of where it was taken from, and yet it counts as contiguous."""
    grid = torch.zeros(3, 4).to(DTYPES[name])
    for view in (grid[:1, 2], grid[2:, 3:], grid[:, 1][2:]):
        alone = torch.zeros(view.shape).to(view.dtype)
        assert same_bits(there_and_back(view), plain(alone))


@pytest.mark.parametrize(
    "value",
    [None, True, False, 0, -1, 2**64, -(10**900), 0.0, -0.0, 1e-323, 0.1, math.inf, -math.inf]
    + ["", "ü\n\x00→𝄞", [], {}, [[], {}, None], {"a": [1, {"b": 2.5}], "": None}, {"dict": 1}]
    + [{"array": ["float32", [1], "tensor"]}, {"opaque": "x"}],
    ids=lambda value: repr(value)[:20],
)
def test_plain_values_make_the_round_trip(value):
    back = there_and_back(value)
    assert back == value and type(back) is type(value)
    assert not isinstance(value, float) or math.copysign(1, back) == math.copysign(1, value)


def test_nan_makes_the_round_trip():
    assert math.isnan(there_and_back(math.nan))


leaves = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False)
leaves |= st.text(st.characters(exclude_categories=("Cs",)))


@given(
    st.recursive(
        leaves, lambda x: st.lists(x, max_size=4) | st.dictionaries(st.text("ab"), x, max_size=3)
    )
)
def test_any_nested_value_makes_the_round_trip(value):
    assert there_and_back(value) == plain(value)


def test_lists_may_be_nested_as_deep_as_plain_data_goes():
    value = 1
    for _ in range(50):
        value = [value]
    assert there_and_back(value) == plain(value)
    assert "Opaque" in repr(plain(value))


def test_what_no_exercise_asks_for_is_named():
    assert there_and_back(object()) == Opaque("object")
    assert there_and_back(10**5000) == Opaque(f"int of {(10**5000).bit_length()} bits")


def test_a_tensor_too_large_to_hand_in_is_named(monkeypatch):
    monkeypatch.setattr(wire, "MOST_BYTES", wire.MOST_JSON + 100)
    back = there_and_back([torch.zeros(20), torch.zeros(20)])
    assert isinstance(back[0], Array)
    assert back[1] == Opaque("tensor of float32, shape (20,)")


def test_lone_surrogates_do_not_arrive():
    assert there_and_back("a\ud800b") == "a?b"


def test_an_outcome_makes_the_round_trip():
    gradient = plain(torch.ones(2))
    outcomes = (
        Outcome(value=1, altered=("y",), gradients={"x": gradient}),
        Outcome(value=[2], gradients={}),
        Outcome(error="ValueError", message="no", line="raise ValueError('no')"),
    )
    back, text, ended = decode(encode(outcomes, "said"), LEAF * 3)
    assert (back[1:], text, ended) == (outcomes[1:], "said", "")
    assert back[0].altered == ("y",) and same_bits(back[0].gradients["x"], gradient)
    assert decode(encode([], "out", "SystemExit"), LEAF) == ((), "out", "SystemExit")


def test_long_texts_are_cut_by_the_sender():
    long = Outcome(error="E" * 999, message="m" * 9999, line="l" * 9999)
    back = decode(encode([long], "t" * 9999), ONE)
    assert (len(back[0][0].message), len(back[1])) == (wire.LONGEST, wire.LONGEST)


# ---------------------------------------------------------------------- what does not get through


def message(head, numbers=b"") -> bytes:
    text = head if isinstance(head, bytes) else json.dumps(head).encode()
    return struct.pack("<Q", len(text)) + text + numbers


def outcome(**changes) -> dict:
    whole = {"value": 1, "error": None, "message": "", "line": "", "altered": [], "gradients": None}
    return whole | {"seconds": 0.0} | changes


def head(*outcomes, text="", ended="") -> dict:
    return {"outcomes": list(outcomes or [outcome()]), "text": text, "ended": ended}


def array(dtype="float32", shape=(1,), kind="tensor") -> dict:
    return head(outcome(value={"array": [dtype, list(shape), kind]}))


FOUR = b"\0" * 4
RIGHT = encode([Outcome(value=plain(torch.ones(3)))])
BAD = {
    "nothing": b"",
    "seven bytes": b"\0" * 7,
    "half a message": RIGHT[: len(RIGHT) // 2],
    "one number short": RIGHT[:-1],
    "one byte more": RIGHT + b"\0",
    "two messages": RIGHT + RIGHT,
    "text beyond the end": struct.pack("<Q", 2**63) + b"{}",
    "no JSON": message(b"\xff\xfe"),
    "a pickle": message(pickle.dumps(print)),
    "nested brackets": message(b"[" * 10**6),
    "nested objects": message(b'{"dict":' * 10**5 + b"1" + b"}" * 10**5),
    "lists nested too deep": message(head(outcome(value=json.loads("[" * 40 + "]" * 40)))),
    "an integer of 10000 digits": message(b'{"outcomes": [' + b"9" * 10000 + b"]}"),
    "a list at the top": message([]),
    "a key too many": message(head() | {"verdict": "passed"}),
    "no text": message({"outcomes": [outcome()], "ended": ""}),
    "outcomes that are no list": message(head() | {"outcomes": {"0": outcome()}}),
    "two outcomes for one case": message(head(outcome(), outcome())),
    "no outcome": message(head() | {"outcomes": []}),
    "outcomes although it ended": message(head(ended="SystemExit")),
    "an outcome that is a number": message(head() | {"outcomes": [1]}),
    "an outcome with a key too many": message(head(outcome(passed=True))),
    "a text that is a number": message(head(text=1)),
    "a text too long": message(head(text="x" * 5000)),
    "an error that is a list": message(head(outcome(value=None, error=["E"]))),
    "an error without a name": message(head(outcome(value=None, error=""))),
    "an error and a value": message(head(outcome(error="ValueError"))),
    "an altered input that is none": message(head(outcome(altered=["z"]))),
    "altered inputs as a text": message(head(outcome(altered="x"))),
    "gradients where none are": message(head(outcome(gradients={}))),
    "seconds below zero": message(head(outcome(seconds=-0.1))),
    "seconds that are none": message(head(outcome(seconds=math.nan))),
    "seconds that never end": message(head(outcome(seconds=math.inf))),
    "seconds as a truth value": message(head(outcome(seconds=True))),
    "seconds as a text": message(head(outcome(seconds="0"))),
    "an unknown object": message(head(outcome(value={"tensor": 1}))),
    "an empty object": message(head(outcome(value={}))),
    "an object of two": message(head(outcome(value={"dict": {}, "opaque": "a"}))),
    "a dictionary that is a list": message(head(outcome(value={"dict": [1]}))),
    "an opaque that is none": message(head(outcome(value={"opaque": 1}))),
    "an array that is a number": message(head(outcome(value={"array": 1}))),
    "an array of two": message(head(outcome(value={"array": ["float32", [1]]})), FOUR),
    "an unknown dtype": message(array("object"), FOUR),
    "a dtype that is a list": message(array(["float32"]), FOUR),
    "an unknown kind": message(array(kind="parameter"), FOUR),
    "a shape that is a number": message(
        head(outcome(value={"array": ["float32", 1, "tensor"]})), FOUR
    ),
    "a shape of NaN": message(array(shape=[math.nan]), FOUR),
    "a shape of infinity": message(array(shape=[math.inf]), FOUR),
    "a shape of truth values": message(array(shape=[True]), FOUR),
    "a shape of fractions": message(array(shape=[1.0]), FOUR),
    "a negative shape": message(array(shape=[-1]), FOUR),
    "a shape whose product overflows to one": message(array(shape=[2**32, 2**32]), FOUR),
    "a shape of nothing, and huge": message(array(shape=[0, 2**62])),
    "two huge sides and none": message(array(shape=[2**30, 2**30, 0])),
    "a shape of 10000 sides": message(array(shape=[1] * 10**4), FOUR),
    "more numbers than bytes": message(array(shape=[10**6]), FOUR),
    "fewer numbers than bytes": message(array(shape=[0]), FOUR),
    "a truth value of 2": message(array("bool"), b"\2"),
}


@pytest.mark.parametrize("what", BAD)
def test_what_is_not_of_the_form_is_refused(what):
    with pytest.raises(ProtocolError):
        decode(BAD[what], ONE)


def test_the_forms_that_these_differ_from_are_accepted():
    for good in (message(head()), message(array(), FOUR), message(array("bool"), b"\1")):
        decode(good, ONE)


@pytest.mark.parametrize("gradients", [None, {"y": 1}, {"x": 1, "y": 1}, [], "x"], ids=str)
def test_gradients_are_by_those_inputs_that_have_them(gradients):
    decode(message(head(outcome(gradients={"x": 1}))), LEAF)
    with pytest.raises(ProtocolError):
        decode(message(head(outcome(gradients=gradients))), LEAF)


@given(st.binary(max_size=60), st.integers(0, 400))
def test_bytes_in_the_middle_never_do_more_than_be_refused(noise, place):
    place %= len(RIGHT)
    try:
        decode(RIGHT[:place] + noise + RIGHT[place + len(noise) :], ONE)
    except ProtocolError as error:
        assert str(error)


@given(
    st.recursive(
        leaves,
        lambda x: (
            st.lists(x)
            | st.dictionaries(
                st.sampled_from(
                    ["outcomes", "text", "ended", "value", "error", "array", "dict", "opaque"]
                ),
                x,
            )
        ),
        max_leaves=9,
    )
)
def test_any_json_is_decoded_or_refused(node):
    try:
        decode(message(node), ONE)
    except ProtocolError as error:
        assert str(error)


def test_a_message_beyond_the_limit_is_refused():
    with pytest.raises(ProtocolError, match="bytes"):
        decode(bytes(wire.MOST_BYTES + 1), ONE)


# ---------------------------------------------------------------------- the way there


@pytest.mark.parametrize("name", all_exercises())
def test_the_cases_of_every_exercise_make_the_way_there(name):
    cases = all_exercises()[name].cases(3)
    packed = pack_cases(cases)
    back = unpack_cases(packed)
    assert [case.label for case in back] == [case.label for case in cases]
    assert [one.inputs for one in signatures(packed)] == [tuple(case.inputs) for case in cases]
    for one, other in zip(back, cases, strict=True):
        assert (
            difference(plain(list(one.inputs.values())), plain(list(other.inputs.values()))) is None
        )


def test_inputs_that_are_differentiated_are_told_and_stay_so():
    cases = [Case("", {"x": torch.ones(2, requires_grad=True), "y": torch.ones(2), "z": 3})]
    packed = pack_cases(cases)
    assert signatures(packed) == (Signature(("x", "y", "z"), ("x",)),)
    assert unpack_cases(packed)[0].inputs["x"].requires_grad
