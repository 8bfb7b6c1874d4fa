"""Verdicts on many answers to one exercise: its reference and known wrong answers are run once."""

from functools import cache

from course_lib.exercises.engine.judge import Verdict, judge
from course_lib.exercises.engine.run import Outcome, run


@cache
def cases_of(exercise, seed: int) -> list:
    return exercise.cases(seed)


@cache
def _outcomes_of(exercise, function, seed: int) -> list[Outcome]:
    return run(function, cases_of(exercise, seed), exercise.seconds)


def verdict_on(exercise, function, seed: int = 0, patience: int = 1) -> Verdict:
    """What `check` says of a function; the function itself is run anew, within so many times the
    exercise's seconds."""
    cases = cases_of(exercise, seed)
    outcomes = run(function, cases, patience * exercise.seconds)
    return judge(
        exercise, cases, outcomes, run=lambda known, *_: _outcomes_of(exercise, known, seed)
    )
