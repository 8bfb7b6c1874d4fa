"""One submission, one grade: a pure function of submission, assignment, seed and version.

What a student wrote is executed elsewhere, by `run`; here its values are judged, and here alone are
references and points. Whatever comes back is somebody else's data: at worst it earns nothing.
"""

import json
import threading
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from dataclasses import fields as fields_of
from functools import cache

from course_lib.classroom.grading.sandbox import (
    BAD_TYPE,
    PROTOCOL_ERROR,
    Job,
    Reply,
    SandboxError,
    pack_cases,
)
from course_lib.classroom.release import Assignment
from course_lib.classroom.submissions.submission import Submission
from course_lib.exercises.engine.catalogue import find
from course_lib.exercises.engine.judge import FAILED, NOT_ATTEMPTED, PASSED, Verdict, judge
from course_lib.exercises.engine.pace import best_attempt, share
from course_lib.exercises.engine.run import remembering
from course_lib.exercises.engine.show import words
from course_lib.exercises.engine.spec import Case, Exercise
from course_lib.exercises.engine.values import Opaque

PATIENCE = 5  # times the seconds that a learner's own machine gives: a busy one changes no grade
LONGEST = 2000  # characters of a text that a submission made
TOLD = ("yours", "reached", "stopped", "altered", "gradient", "must hold")  # of a wrong answer

_judging = threading.Lock()  # while it judges, PyTorch's settings are the standard ones for all


@dataclass(frozen=True)
class Result:
    """What one exercise of one student earned, and why; all texts are plain."""

    exercise: str
    points: float
    possible: int
    status: str  # passed, failed, not attempted, or one of sandbox.STATUSES
    misconception: str = ""
    words: str = ""  # the verdict as a learner reads it
    passed: int = 0  # cases
    cases: int = 0
    value: str = ""  # of the first failing case, short: equal wrong answers have equal ones
    answer: str = ""  # the source


@dataclass(frozen=True)
class Grade:
    """All results of one student, in the lesson's order, and what they were made with."""

    student: str
    chapter: str
    results: tuple[Result, ...]
    status: str = ""  # the submission's: "" where it could be read
    notes: tuple[str, ...] = ()
    guesses: tuple[Mapping, ...] = ()
    tier: str = ""  # of the sandbox
    version: str = ""  # of the course

    @property
    def points(self) -> float:
        return sum(result.points for result in self.results)

    @property
    def possible(self) -> int:
        return sum(result.possible for result in self.results)


def grade(
    submission: Submission, assignment: Assignment, seed: int, run: Callable[[Job], Reply]
) -> Grade:
    """Judge every exercise of the assignment; each is a job of its own, a blank one needs none.

    Args:
        submission: what came back; exercises that the assignment does not have are ignored.
        assignment: the exercises and their points.
        seed: of the cases.
        run: executes an answer and gives back values, as `Sandbox.run` does.
    """
    results = [
        _result(name, submission, assignment, seed, run) if name in submission.answers
        else _blank(name, assignment.points[name])
        for name in assignment.points
    ]  # fmt: skip
    return Grade(
        submission.student,
        assignment.chapter,
        tuple(results),
        submission.status,
        tuple(submission.notes),
        tuple(submission.guesses),
    )


def as_json(grade: Grade) -> str:
    """A grade as JSON in ASCII.

    >>> from_json(as_json(Grade("Ada", "05_linear_quantization", ()))).student
    'Ada'
    """
    return json.dumps(
        asdict(grade) | {"points": grade.points, "possible": grade.possible}, indent=1
    )


def from_json(text: str) -> Grade:
    """The grade that `as_json` wrote.

    Raises:
        ValueError: it did not write that.
    """
    try:
        fields = json.loads(text)
        del fields["points"], fields["possible"]
        results = tuple(Result(**one) for one in fields.pop("results"))
        lists = {name: tuple(fields.pop(name)) for name in ("notes", "guesses")}
        made = Grade(results=results, **lists, **fields)
    except (KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"this is no grade: {error!r}") from None
    if not all(map(_is_typed, (made, *made.results))):
        raise ValueError("this is no grade: a number or a text is something else")
    return made


def _is_typed(one: Grade | Result) -> bool:
    """Whether its numbers are numbers and its texts are texts."""
    kinds = {str: str, int: int, float: int | float}
    wanted = {field.name: kinds[field.type] for field in fields_of(one) if field.type in kinds}
    return all(isinstance(getattr(one, name), kind) for name, kind in wanted.items())


@dataclass(frozen=True)
class _Set:
    """An exercise with the cases of one seed, made once for all submissions."""

    exercise: Exercise
    cases: list[Case]
    packed: bytes
    run: Callable  # for the judge: it remembers


@cache
def _set(name: str, seed: int) -> _Set:
    exercise = find(name)
    cases = exercise.cases(seed)
    return _Set(exercise, cases, pack_cases(cases), remembering())


def _blank(name: str, possible: int, cases: int = 0) -> Result:
    text = words(Verdict(name, NOT_ATTEMPTED, 0, cases))
    return Result(name, 0, possible, NOT_ATTEMPTED, words=text, cases=cases)


def _result(name: str, submission: Submission, assignment: Assignment, seed: int, run) -> Result:
    """Execute one exercise's answer, and judge what it gave."""
    from course_lib.classroom.submissions.answers import blocks

    with _judging:
        made = _set(name, seed)
    if submission.borrowed:
        assignment = replace(assignment, given=(*assignment.given, *submission.borrowed))
    sources = blocks(assignment, submission.answers, name)
    timed = made.exercise.pace is not None
    job = Job(sources, name, made.packed, PATIENCE * made.exercise.seconds, timed)

    def attempt() -> tuple[Result, float | None]:
        plain = [_plain_seconds(made, job, run)] if timed else []
        reply = run(job)
        if timed:  # before and after: a machine that is slow for a moment helps nobody
            plain.append(_plain_seconds(made, job, run))
        taken = share(reply.seconds, min(plain)) if timed else None
        return _judged(made, reply, assignment.points[name], taken), taken

    result = best_attempt(made.exercise, attempt)
    return replace(result, answer=submission.answers[name])


def _plain_seconds(made: _Set, job: Job, run) -> float:
    """What the plain function of the exercise's pace takes for the same cases, in a like job.

    Raises:
        SandboxError: it did not run there.
    """
    plain = made.exercise.pace.plain
    block = f"from {plain.__module__} import {plain.__name__} as {job.function}"
    reply = run(replace(job, blocks=(block,)))
    if reply.status or any(one.error for one in reply.outcomes):
        raise SandboxError(f"{plain.__name__} did not run: {reply.status} {reply.text}")
    return reply.seconds


def _judged(made: _Set, reply: Reply, possible: int, taken: float | None) -> Result:
    name, total = made.exercise.name, len(made.cases)
    try:
        if len(reply.outcomes) != total:
            raise ValueError(f"{len(reply.outcomes)} values for {total} cases")
        with _judging:
            outcomes = list(reply.outcomes)
            verdict = judge(made.exercise, made.cases, outcomes, run=made.run, share=taken)
    except Exception as error:  # values that no call of a function gives
        reply = reply if reply.status else Reply(PROTOCOL_ERROR, text=repr(error))
        verdict = Verdict(name, FAILED, 0, total)
    if verdict.status == NOT_ATTEMPTED and not reply.status:
        return _blank(name, possible, total)
    opaque = verdict.status == FAILED and any(_is_opaque(one.value) for one in reply.outcomes)
    status = reply.status or (BAD_TYPE if opaque else verdict.status)
    return Result(
        name,
        possible if status == PASSED else 0,
        possible,
        status,
        verdict.misconception,
        _words(verdict, status, reply),
        verdict.passed,
        total,
        _wrong_value(verdict, status, reply),
    )


def _words(verdict: Verdict, status: str, reply: Reply) -> str:
    """The verdict's words; under the sandbox's status if it has one, with what else is known."""
    if status == PASSED:
        return words(verdict)
    first, *lines = words(verdict).split("\n")
    lines = [line for line in lines if line.strip()] if verdict.status == FAILED else []
    if status != verdict.status:
        first = f"✘ {verdict.exercise} · {status}"
    lines = [f"  {reply.text}", *lines] if reply.text else lines
    lines += [f"  It printed: {reply.printed}"] if reply.printed else []
    return "\n".join([first, *(line[:LONGEST] for line in lines)])


def _is_opaque(value) -> bool:
    """Whether something that no exercise asks for stands anywhere in a value."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        return any(map(_is_opaque, value))
    return isinstance(value, Opaque)


def _wrong_value(verdict: Verdict, status: str, reply: Reply) -> str:
    """The first failing case and what came of it."""
    if status == PASSED:
        return ""
    told = [text for what, text in verdict.details if what in TOLD]
    lost = [] if status == verdict.status else [status, reply.text]
    return " · ".join(filter(None, [*lost, verdict.case, *told]))[:LONGEST]
