import time
from contextlib import suppress

import pytest
import torch

from course_lib.exercises.engine.run import run
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
    import warnings

    run(lambda x: warnings.warn("deprecated", stacklevel=1), one(1))
    assert capfd.readouterr().err == ""


def test_interrupting_is_not_swallowed():
    def interrupted(x):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(interrupted, one(1))
