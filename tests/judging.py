"""Verdicts on many answers to one exercise, by the same cases."""

from dataclasses import replace
from functools import cache

from course_lib.exercises.engine.judge import PASSED, Verdict, judge
from course_lib.exercises.engine.pace import best_attempt, run_beside
from course_lib.exercises.engine.run import remembering, run

SEEDS = (0, 1, 2)  # notebooks use 0, graders their own


def seeds_of(exercise) -> tuple[int, ...]:
    """An open task takes many seconds for each seed, and that seed brings the same model and text,
    in another order: one of a grader's is enough."""
    return SEEDS if exercise.seconds < 20 else (1,)


@cache
def cases_of(exercise, seed: int) -> list:
    return exercise.cases(seed)


run_once = remembering()  # the reference and the known wrong answers


def verdict_on(exercise, function, seed: int = 0, patience: int = 1) -> Verdict:
    """What `check` says of a function; the function itself is run anew, within so many times the
    exercise's seconds."""
    cases = cases_of(exercise, seed)
    patient = replace(exercise, seconds=patience * exercise.seconds)

    def attempt() -> tuple[Verdict, float | None]:
        outcomes, share = run_beside(patient, function, cases)
        return judge(exercise, cases, outcomes, run=run_once, share=share), share

    return best_attempt(exercise, attempt)


def verdict_on_own(exercise, function, seed: int) -> Verdict:
    """What `check` says of a function of the course; in an open task, which compares with nothing,
    one run of it is enough for all tests."""
    if exercise.compare or exercise.pace:
        return verdict_on(exercise, function, seed)
    cases = cases_of(exercise, seed)
    return judge(exercise, cases, run_once(function, cases, exercise.seconds), run=run_once)


def seconds_for_a_mutant(exercise) -> float:
    """What takes ten times as long as the reference never ends."""
    cases = cases_of(exercise, seeds_of(exercise)[0])
    outcomes = run_once(exercise.reference, cases, exercise.seconds)
    return min(exercise.seconds, 2 + 10 * max(one.seconds for one in outcomes))


def is_wrong(exercise, cases: list, outcomes: list) -> bool:
    """Whether outcomes do not pass, the pace aside.

    What takes longer than to judge is left out: the likely cause, the words on what was reached,
    and in an open task all properties behind the first that is lacking.
    """
    silent = replace(exercise, misconceptions=(), pace=None, reached=None)
    apart = [replace(silent, properties=(one,)) for one in exercise.properties]
    parts = [silent] if exercise.compare else apart
    return any(judge(part, cases, outcomes, run=run_once).status != PASSED for part in parts)


def is_rejected(exercise, function, seed: int = 0, seconds: float | None = None) -> bool:
    """Whether `check` would not pass a function: case by case, up to the first that is wrong.

    Each case is judged by itself, so the cases after a wrong one cannot save an answer. The pace
    is judged where all values are right.

    Args:
        seconds: of a call, if not the exercise's.
    """
    for case in cases_of(exercise, seed):
        if is_wrong(exercise, [case], run(function, [case], seconds or exercise.seconds)):
            return True
    return bool(exercise.pace) and verdict_on(exercise, function, seed).status != PASSED
