import pytest
import torch

from course_lib.exercises.engine.judge import FAILED, NOT_ATTEMPTED, PASSED, judge
from course_lib.exercises.engine.run import run
from course_lib.exercises.engine.show import words
from course_lib.exercises.engine.spec import Case, Exercise, Misconception, Property


def halve(x, by=2):
    if by == 0:
        raise ValueError("by must not be zero")
    return x / by


HALVE = Exercise(
    reference=halve,
    cases=lambda seed: [
        Case("four numbers", {"x": torch.arange(4.0), "by": 2}),
        Case("bad input", {"x": torch.arange(4.0), "by": 0}),
    ],
    hints=("Divide.",),
    properties=(Property("no number grows", lambda i, v: bool((v.abs() <= i["x"].abs()).all())),),
    misconceptions=(
        Misconception("doubled", lambda x, by: x * by if by else halve(x, by), "You multiplied."),
    ),
)


def verdict_on(function, exercise=HALVE):
    return judge(exercise, exercise.cases(), run(function, exercise.cases()))


def test_a_right_answer_passes():
    assert verdict_on(halve).status == PASSED


def test_a_wrong_answer_shows_case_yours_expected_difference_cause_and_property():
    text = words(verdict_on(lambda x, by: x * by if by else halve(x, by)))
    assert text == (
        "✘ halve · 1 of 2 cases\n"
        "  four numbers · by = 2\n"
        "    given     x = [0, 1, 2, 3]\n"
        "    yours     [0, 2, 4, 6]\n"
        "    expected  [0, 0.5, 1, 1.5]\n"
        "              first difference at [1]: 2, expected 0.5\n"
        "    must hold no number grows\n"
        "  Likely cause: You multiplied.\n"
        '  hint("halve") says more.'
    )


def test_an_open_task_says_what_was_reached_and_what_is_asked():
    exercise = Exercise(
        reference=halve,
        cases=lambda seed: [Case("four numbers", {"x": torch.arange(4.0), "by": 2})],
        hints=(),
        compare=False,
        properties=(Property("the sum is at most 3", lambda i, v: bool(v.sum() <= 3)),),
        reached=lambda i, v: f"sum {v.sum().item():g} (asked: at most 3)",
    )
    passed = words(verdict_on(halve, exercise))
    assert passed == "✔ halve · 1 of 1 cases\n    reached   sum 3 (asked: at most 3)"
    failed = verdict_on(lambda x, by: x, exercise)
    assert ("reached", "sum 6 (asked: at most 3)") in failed.details
    assert ("must hold", "the sum is at most 3") in failed.details
    assert ("yours", "'three'") in verdict_on(lambda x, by: "three", exercise).details


def test_an_open_task_is_judged_without_a_run_of_its_reference():
    calls = []
    anything = Exercise(
        reference=lambda x: calls.append(x) or x,
        cases=lambda seed: [Case(str(x), {"x": float(x)}) for x in range(5)],
        hints=(),
        compare=False,
        properties=(Property("not negative", lambda i, v: v >= 0),),
        reached=lambda i, v: f"{v:g}",
    )
    passed = verdict_on(lambda x: x + 1, anything)
    assert [text for _, text in passed.details] == ["1", "2", "3"]  # of five: the first cases
    assert verdict_on(lambda x: -1.0, anything).status == FAILED and not calls
    assert verdict_on(lambda x: 1 / x, anything).passed == 4 and len(calls) == 1


def test_an_expected_error_that_does_not_come_is_named():
    verdict = verdict_on(lambda x, by: x / 2)
    assert (verdict.passed, verdict.case) == (1, "bad input · by = 0")
    assert ("expected", "to raise ValueError") in verdict.details


def test_another_error_is_shown_with_its_line():
    verdict = verdict_on(lambda x, by: x.half_of_it())
    assert "AttributeError" in verdict.details[0][1]
    assert verdict.details[1][0] == "your line"


def test_a_stub_is_not_attempted_but_one_finished_case_is():
    def stub(x, by):
        raise NotImplementedError

    def half_done(x, by):
        return stub(x, by) if by else halve(x, by)

    assert verdict_on(stub).status == NOT_ATTEMPTED
    assert verdict_on(half_done).status == FAILED


def test_where_many_answers_are_right_only_properties_decide():
    anything = Exercise(halve, HALVE.cases, HALVE.hints, properties=HALVE.properties, compare=False)
    assert verdict_on(lambda x, by: halve(x, 4 * by), anything).status == PASSED
    assert verdict_on(lambda x, by: halve(x, by) + 9, anything).status == FAILED
    assert verdict_on(lambda x, by: halve(x, by) and None, anything).status == FAILED


def test_a_misconception_on_some_cases_only_is_not_blamed():
    verdict = verdict_on(lambda x, by: x * by)
    assert (verdict.status, verdict.misconception) == (FAILED, "")


SQUARE = Exercise(
    reference=lambda x: x.square().sum(),
    cases=lambda seed: [Case("three", {"x": torch.tensor([1.0, -2.0, 3.0])})],
    hints=("Square.",),
    differentiable=("x",),
    misconceptions=(
        Misconception("half", lambda x: (x.square() + x.detach().square()).sum() / 2, "Half."),
    ),
)


def test_a_detached_value_is_named():
    for cut in (
        lambda x: x.detach().square().sum(),
        lambda x: torch.tensor(float(x.square().sum())),
        lambda x: x.data.square().sum(),
        torch.no_grad()(lambda x: x.square().sum()),
    ):
        verdict = verdict_on(cut, SQUARE)
        ((_, text),) = [line for line in verdict.details if line[0] == "gradient"]
        assert text.startswith("none: your value is cut off from x") and not verdict.misconception


def test_a_right_value_with_a_wrong_gradient_fails_under_its_own_name_alone():
    half = verdict_on(lambda x: (x.square() + x.detach().square()).sum() / 2, SQUARE)
    assert (half.status, half.misconception) == (FAILED, "half")
    assert "the value is right, its gradient by x is not" in dict(half.details)["gradient"]
    third = verdict_on(lambda x: (x.square() + 2 * x.detach().square()).sum() / 3, SQUARE)
    assert (third.status, third.misconception) == (FAILED, "")
    assert verdict_on(lambda x: x @ x, SQUARE).status == PASSED


@pytest.mark.parametrize(("factor", "rounding"), [(1 + 1e-4, True), (1.1, False)])
def test_a_difference_that_may_be_rounding_is_called_so(factor, rounding):
    exercise = Exercise(halve, lambda seed: [Case("one", {"x": 3.0, "by": 2})], hints=())
    verdict = verdict_on(lambda x, by: factor * x / by, exercise)
    assert verdict.status == FAILED
    assert any(what == "rounding" for what, _ in verdict.details) == rounding


def test_small_dictionaries_are_shown_and_what_is_cut_short_is_not():
    tables = {"small": {"a": torch.tensor([1.0, 2.0])}, "long": {"a": torch.ones(9)}}
    exercise = Exercise(lambda small, long: 0, lambda seed: [Case("two", tables)], hints=())
    details = verdict_on(lambda small, long: 1, exercise).details
    assert ("given", "small = {a: [1, 2]}") in details and "long" not in str(details)


def test_numbers_that_differ_by_more_than_a_thousandth_are_not_called_rounding():
    loose = Exercise(
        lambda x: x, lambda seed: [Case("one", {"x": 1.0})], (), relative_tolerance=1e-4
    )
    for factor, rounding in ((1.0005, True), (1.005, False)):
        details = verdict_on(lambda x, by=factor: by * x, loose).details
        assert any(what == "rounding" for what, _ in details) == rounding


def test_small_inputs_are_shown_and_large_ones_are_not():
    for count, shown in ((4, True), (13, False)):
        exercise = Exercise(
            halve, lambda seed, n=count: [Case("some", {"x": torch.ones(n), "by": 2})], hints=()
        )
        verdict = verdict_on(lambda x, by: x, exercise)
        assert (("given", "x = [1, 1, 1, 1]") in verdict.details) == shown


def test_pytorchs_own_not_implemented_is_an_error_and_no_missing_answer():
    verdict = verdict_on(lambda x, by: x.long().softmax(-1))
    assert verdict.status == FAILED and "NotImplementedError" in verdict.details[0][1]


def test_after_a_form_that_does_not_hold_nothing_is_asked_of_the_value():
    asked = []

    def no(inputs, value):
        asked.append(value)
        return False

    open_task = Exercise(
        reference=halve,
        cases=lambda seed: [Case("one number", {"x": torch.ones(1), "by": 2})],
        hints=(),
        compare=False,
        reached=lambda inputs, value: str(no(inputs, value)),
        properties=(
            Property("one number", lambda inputs, value: value.shape == (1,), form=True),
            Property("never", no),
        ),
    )
    text = words(verdict_on(lambda x, by: torch.ones(2), open_task))
    assert "must hold one number" in text and "never" not in text and asked == []
    text = words(verdict_on(lambda x, by: torch.ones(1), open_task))
    assert "must hold never" in text and "reached   False" in text and len(asked) == 2


def test_a_property_is_not_asked_of_a_value_of_another_shape():
    text = words(verdict_on(lambda x, by: torch.ones(9, 9) if by else halve(x, by)))
    assert "of shape (9, 9), expected" in text and "must hold" not in text


def test_an_open_task_wants_real_numbers():
    open_task = Exercise(
        reference=halve,
        cases=lambda seed: [Case("one number", {"x": torch.ones(1), "by": 2})],
        hints=(),
        compare=False,
        properties=(Property("a small square", lambda i, v: bool((v * v).real.sum() <= 1)),),
    )
    assert verdict_on(lambda x, by: x / by, open_task).status == PASSED
    for wrong in (lambda x, by: 9j * x, lambda x, by: [{"a": 9j * x}]):
        verdict = verdict_on(wrong, open_task)
        assert verdict.status == FAILED and ("must hold", "every number is real") in verdict.details
