"""Where an exercise asks for speed: an answer's CPU seconds beside those of a plain function.

Seconds of the CPU, not of the clock on the wall: a machine that is busy with other things spends no
more of them. Both functions take turns, case by case, and what is judged is a ratio. A right answer
that was too slow is tried again, for the machine may have been to blame.
"""

from collections.abc import Callable
from typing import Any

from course_lib.exercises.engine.judge import FAILED
from course_lib.exercises.engine.run import Outcome, TimeLimit, run
from course_lib.exercises.engine.spec import Case, Exercise

ATTEMPTS = 3  # of an answer that is right and too slow
NEAR = 1.2  # times the share that is asked for: what is slower is not tried again


def run_beside(
    exercise: Exercise, function: Callable, cases: list[Case], device: str = "cpu"
) -> tuple[list[Outcome], float | None]:
    """The outcomes of a function, and its CPU seconds as a share of the plain function's.

    Where the exercise has no pace, the share is None.

    >>> double = Exercise(lambda x: 2 * x, lambda seed: [Case("three", {"x": 3})], hints=())
    >>> run_beside(double, double.reference, double.cases())[1] is None
    True
    """
    if exercise.pace is None:
        return run(function, cases, exercise.seconds, device), None
    outcomes: list[Outcome] = []
    plain_seconds = 0.0
    for case in cases:
        if outcomes and outcomes[-1].error == TimeLimit.__name__:
            outcomes.append(outcomes[-1])
            continue
        plain_seconds += run(exercise.pace.plain, [case], exercise.seconds, device)[0].seconds
        outcomes += run(function, [case], exercise.seconds, device)
    return outcomes, share(sum(one.seconds for one in outcomes), plain_seconds)


def share(own: float, plain: float) -> float:
    """own / plain, and at least something of it: a clock that stood still tells nothing."""
    return own / plain if own > 0 and plain > 0 else float("inf")


def best_attempt(exercise: Exercise, attempt: Callable[[], tuple[Any, float | None]]) -> Any:
    """What the first of three attempts found that was not just a little too slow; else the last.

    Args:
        attempt: gives what it found, with `status`, and its share of the plain function's seconds.
    """
    for _ in range(ATTEMPTS):
        found, taken = attempt()
        if found.status != FAILED or taken is None:
            break
        if not exercise.pace.at_most < taken <= NEAR * exercise.pace.at_most:
            break
    return found
