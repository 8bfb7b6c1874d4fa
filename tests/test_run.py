import time
import warnings
from contextlib import suppress

import numpy as np
import pytest
import torch

from course_lib.exercises.engine.run import is_stub, run
from course_lib.exercises.engine.spec import Case


def one(value):
    return [Case("one", {"x": value})]


def test_an_exception_comes_with_the_learners_own_line():
    def wrong(x):
        return torch.zeros(2) @ x  # the line to be shown

    outcome = run(wrong, one(torch.zeros(3)))[0]
    assert outcome.error == "RuntimeError"
    assert outcome.line == "return torch.zeros(2) @ x  # the line to be shown"


@pytest.mark.parametrize("catch", [Exception, ()])
def test_a_call_that_does_not_return_is_stopped(catch):
    def endless(x):
        while True:
            with suppress(catch):
                time.sleep(0.01)

    start = time.monotonic()
    outcomes = run(endless, one(1) * 4, seconds=0.2)
    assert [outcome.error for outcome in outcomes] == ["TimeLimit"] * 4
    assert time.monotonic() - start < 5


def test_a_function_that_alters_its_input_is_noticed_and_the_case_is_kept():
    def careless(x, y):
        x += 1
        return x

    case = Case("two", {"x": torch.zeros(2), "y": torch.zeros(2)})
    outcomes = run(careless, [case, case])
    assert [outcome.altered for outcome in outcomes] == [("x",), ("x",)]
    assert case.inputs["x"].tolist() == [0, 0]


def test_random_numbers_are_seeded_and_the_callers_state_is_left_alone():
    torch.manual_seed(5)
    state = torch.get_rng_state()
    first, second = (run(lambda x: torch.rand(3), one(1))[0].value.data for _ in range(2))
    assert torch.equal(first, second)
    assert torch.equal(torch.get_rng_state(), state)


def test_warnings_stay_quiet(capfd):
    run(lambda x: warnings.warn("deprecated", stacklevel=1), one(1))
    assert capfd.readouterr().err == ""


def test_interrupting_is_not_swallowed():
    def interrupted(x):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(interrupted, one(1))


def set_and_restore(set_it, value, before):
    def change():
        set_it(value)
        return lambda: set_it(before)

    return change


def filters():
    saved = warnings.filters[:]
    warnings.simplefilter("error")
    return lambda: warnings.filters.__setitem__(slice(None), saved)


def entered(context):
    def change():
        made = context()
        made.__enter__()
        return lambda: made.__exit__(None, None, None)

    return change


CHANGES = {
    "float64": set_and_restore(torch.set_default_dtype, torch.float64, torch.float32),
    "bfloat16": set_and_restore(torch.set_default_dtype, torch.bfloat16, torch.float32),
    "no gradients": entered(torch.no_grad),
    "inference": entered(torch.inference_mode),
    "autocast": entered(lambda: torch.autocast("cpu", dtype=torch.bfloat16)),
    "warnings are errors": filters,
    "deterministic": set_and_restore(torch.use_deterministic_algorithms, True, False),
    "matmul precision": set_and_restore(torch.set_float32_matmul_precision, "medium", "highest"),
    "NumPy raises": entered(lambda: np.errstate(all="raise")),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_what_a_cell_set_for_all_changes_no_outcome(change):
    def answer(x):
        warnings.warn("deprecated", stacklevel=1)
        np.float32(1) / np.float32(0)
        return (x @ x.T + torch.rand(2, 2)).sum()

    case = [Case("one", {"x": torch.full((2, 3), 1 / 3, requires_grad=True)})]
    usual = run(answer, case)
    undo = change()
    try:
        assert same(run(answer, case), usual)
        state = torch.get_default_dtype(), torch.is_grad_enabled(), np.geterr(), warnings.filters
        run(answer, case)
        after = torch.get_default_dtype(), torch.is_grad_enabled(), np.geterr(), warnings.filters
        assert state == after
    finally:
        undo()


def same(ones, others):
    ((one,), (other,)) = ones, others
    return (
        (one.error, one.value.data.dtype) == (other.error, other.value.data.dtype)
        and torch.equal(one.value.data, other.value.data)
        and torch.equal(one.gradients["x"].data, other.gradients["x"].data)
    )


class Mute(Exception):
    def __str__(self):
        raise RuntimeError("no text")


def test_an_error_whose_text_fails_is_still_an_error():
    def mute(x):
        raise Mute

    outcome = run(mute, one(1))[0]
    assert (outcome.error, outcome.message) == ("Mute", "")


def test_only_a_stub_that_says_nothing_is_one():
    def stub(x):
        raise NotImplementedError()

    def explained(x):
        raise NotImplementedError("no kernel")

    assert is_stub(run(stub, one(1))[0]) and not is_stub(run(explained, one(1))[0])
