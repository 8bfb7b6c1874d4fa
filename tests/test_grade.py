"""One submission, one grade: what is judged, what it earns, and what a broken reply costs."""

import json
from dataclasses import replace

import pytest
import torch
from in_process import RIGHT, SEED, STUB, TOY, WRONG, run_here, submission

from course_lib.classroom.grading import grade as module
from course_lib.classroom.grading.grade import as_json, from_json, grade
from course_lib.classroom.grading.sandbox import BAD_TYPE, PROTOCOL_ERROR, TIMEOUT, Reply
from course_lib.classroom.submissions.submission import Submission
from course_lib.exercises.engine import run as engine
from course_lib.exercises.engine.catalogue import find
from course_lib.exercises.engine.judge import FAILED, NOT_ATTEMPTED, PASSED
from course_lib.exercises.engine.run import Outcome
from course_lib.exercises.engine.values import Array, Opaque

CASES = len(find("to_uint8").cases(SEED))


def first(answer, run=run_here):
    return grade(submission(answer=answer), TOY, SEED, run).results[0]


def test_points_are_all_or_nothing_and_come_from_the_assignment():
    right, wrong = first(RIGHT), first(WRONG)
    assert (right.points, right.possible, right.status) == (1, 1, PASSED)
    assert (wrong.points, wrong.possible, wrong.status) == (0, 1, FAILED)
    assert wrong.passed < wrong.cases == right.passed == right.cases == CASES
    assert right.answer == RIGHT and right.value == ""


def test_a_wrong_answer_is_named_and_told_as_its_check_tells_it():
    wrong = first(WRONG)
    assert wrong.misconception in [one.name for one in find("to_uint8").misconceptions]
    assert wrong.words.startswith(f"✘ to_uint8 · {wrong.passed} of {CASES} cases")
    assert "Likely cause" in wrong.words


def test_equal_wrong_answers_have_equal_values_and_others_have_others():
    same = WRONG.replace("(weight * 255)", "(255 * weight)")
    other = WRONG.replace("255", "254")
    assert first(WRONG).value == first(same).value != first(other).value != ""


def test_results_are_the_assignments_in_its_order_whatever_was_handed_in():
    whole = grade(Submission("ada", {"no_such_exercise": "1 / 0"}), TOY, SEED, run_here)
    assert [one.exercise for one in whole.results] == list(TOY.points)
    assert {one.status for one in whole.results} == {NOT_ATTEMPTED}
    assert (whole.points, whole.possible, whole.chapter) == (0, 3, TOY.chapter)


def test_a_blank_exercise_needs_no_job_and_a_stub_is_one():
    def no_job(job):
        raise AssertionError(job)

    blank = grade(Submission("ada", {}, status="MALFORMED"), TOY, SEED, no_job)
    assert blank.status == "MALFORMED" and blank.points == 0
    assert (first(STUB).status, first(STUB).points) == (NOT_ATTEMPTED, 0)


def test_what_the_submission_brings_along_is_kept():
    given = submission(notes=("two cells",), guesses=({"name": "x", "guess": 1},))
    whole = grade(given, TOY, SEED, run_here)
    assert (whole.student, whole.notes, whole.guesses) == ("ada", given.notes, given.guesses)


def test_a_job_holds_the_answer_the_cases_and_five_times_the_learners_seconds():
    jobs = []

    def run(job):
        jobs.append(job)
        return run_here(job)

    grade(submission(), TOY, SEED, run)
    (job,) = jobs
    assert (job.function, job.seconds) == ("to_uint8", 5 * find("to_uint8").seconds)
    assert job.blocks[-1].strip() == RIGHT and isinstance(job.cases, bytes)


def test_a_status_of_the_sandbox_earns_nothing_and_is_told():
    said = first(
        RIGHT, lambda job: Reply(TIMEOUT, text="no answer within 10 s", printed="\x1b[1mhi")
    )
    assert (said.points, said.status, said.passed, said.cases) == (0, TIMEOUT, 0, CASES)
    assert said.words.startswith("✘ to_uint8 · TIMEOUT\n  no answer within 10 s\n")
    assert said.words.endswith("It printed: \x1b[1mhi") and said.answer == RIGHT
    assert said.value == "TIMEOUT · no answer within 10 s"


@pytest.mark.parametrize("answer", [RIGHT, WRONG])
def test_what_came_back_beside_a_status_is_looked_at_and_earns_nothing(answer):
    known = first(answer)
    said = first(answer, lambda job: replace(run_here(job), status=BAD_TYPE, text="a Liar"))
    assert (said.points, said.status, said.passed) == (0, BAD_TYPE, known.passed)
    assert said.misconception == known.misconception
    assert said.words.startswith("✘ to_uint8 · BAD_TYPE\n") and "a Liar" in said.words
    assert ("expected" in said.words) == (answer == WRONG)


def reply(*values, **fields):
    return lambda job: Reply("", tuple(Outcome(value, **fields) for value in values))


FORGED = {
    "none": reply(),
    "too few": reply(1),
    "too many": reply(*range(CASES + 1)),
    "gradients of nothing": reply(*[1.0] * CASES, gradients={"x": 1}),
}


@pytest.mark.parametrize("run", FORGED.values(), ids=FORGED)
def test_a_forged_reply_earns_nothing(run):
    said = first(RIGHT, run)
    assert (said.points, said.cases) == (0, CASES)
    assert said.status in (PROTOCOL_ERROR, FAILED)


def test_what_the_judge_cannot_even_compare_is_no_reply(monkeypatch):
    def judge(*_, **__):
        raise KeyError("gradient")

    monkeypatch.setattr(module, "judge", judge)
    said = first(RIGHT)
    assert (said.status, said.points) == (PROTOCOL_ERROR, 0) and "KeyError" in said.words


@pytest.mark.parametrize("value", [Opaque("Liar"), [1, {"a": Opaque("Liar")}]])
def test_an_object_of_the_learners_own_is_a_bad_type(value):
    said = first(RIGHT, reply(*[value] * CASES))
    assert (said.status, said.points) == (BAD_TYPE, 0)


def test_a_nan_where_a_number_is_expected_is_a_wrong_value():
    nan = Array(torch.full((3,), float("nan")), "tensor", "cpu")
    said = first(RIGHT, reply(*[nan] * CASES))
    assert (said.status, said.points) == (FAILED, 0)


def test_another_seed_has_other_cases():
    assert module._set("to_uint8", 1).packed != module._set("to_uint8", 2).packed
    assert module._set("to_uint8", 1) is module._set("to_uint8", 1)


def test_reference_and_wrong_answers_run_once_for_all_submissions(monkeypatch):
    module._set.cache_clear()
    calls, run = [], engine.run

    def counted(function, cases, *others):
        calls.extend((function, case.label) for case in cases)
        return run(function, cases, *others)

    monkeypatch.setattr(engine, "run", counted)
    once = [first(WRONG.replace("255", number)) for number in ("255", "254", "3")]
    known = find("to_uint8")
    functions = {known.reference, *(one.function for one in known.misconceptions)}
    called = {function for function, _ in calls}
    assert len(calls) == len(set(calls)) and called <= functions and len(called) > 2
    module._set.cache_clear()
    again = [first(WRONG.replace("255", number)) for number in ("3", "254", "255")]
    assert again[::-1] == once


def test_a_grade_survives_json():
    made = replace(grade(submission("=\ud800中\x1b", notes=("n",)), TOY, SEED, run_here), tier="t")
    text = as_json(made)
    assert from_json(text) == made and text.isascii()
    assert (json.loads(text)["points"], json.loads(text)["possible"]) == (1, 3)


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", "null", '{"points": 1, "possible": 1}'])
def test_what_is_no_grade_is_said_to_be_none(text):
    with pytest.raises(ValueError):
        from_json(text)


@pytest.mark.parametrize("change", [{"points": "1"}, {"status": ["passed"]}, {"words": None}])
def test_a_grade_of_other_types_is_none(change):
    fields = json.loads(as_json(grade(submission(), TOY, SEED, run_here)))
    fields["results"][0] |= change
    with pytest.raises(ValueError, match="no grade"):
        from_json(json.dumps(fields))
    with pytest.raises(ValueError, match="no grade"):
        from_json("[" * 100_000)
