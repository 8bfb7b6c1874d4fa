"""Stage three of three: compare values with the reference's and find the likely cause.

Nothing here sees or calls the learner's function: only what it returned.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from course_lib.exercises.engine.run import Outcome, is_stub, run
from course_lib.exercises.engine.spec import Case, Exercise
from course_lib.exercises.engine.state import standard_state
from course_lib.exercises.engine.values import bare, difference, is_real, plain, same_form, short

PASSED, FAILED, NOT_ATTEMPTED = "passed", "failed", "not attempted"
ROUNDING = 100  # times the tolerance: nearer than this, a difference may be rounding,
AT_MOST = 1e-3  # but not where the numbers differ by more than this share
NEARLY = "all numbers agree to three digits and more: round later, or reckon in a wider dtype"
SMALL = 12  # numbers of a tensor that is shown whole
FEW = 3  # cases of an open task that passed whose values are shown
REAL = "every number is real"  # asked of an open task's value: squares of others can be negative


@dataclass(frozen=True)
class Verdict:
    """What a learner is told; `details` are (what, text) lines about the first failing case.

    Of an open task that passed, they say what the first cases reached.
    """

    exercise: str
    status: str
    passed: int
    total: int
    case: str = ""
    details: tuple[tuple[str, str], ...] = ()
    cause: str = ""
    misconception: str = ""


@standard_state()
def judge(
    exercise: Exercise,
    cases: list[Case],
    outcomes: list[Outcome],
    device: str = "cpu",
    run: Callable[..., list[Outcome]] = run,
    share: float | None = None,
) -> Verdict:
    """The verdict on the outcomes of a function's calls.

    `run` calls the reference and the known wrong answers; `remembering()` is one for many verdicts.
    `share` is what of the plain function's CPU seconds the calls took, where the exercise asks for
    a pace and they were counted.

    >>> double = Exercise(lambda x: 2 * x, lambda seed: [Case("three", {"x": 3})], hints=())
    >>> judge(double, double.cases(), run(lambda x: x + x, double.cases())).status
    'passed'
    """
    total = len(cases)
    if all(map(is_stub, outcomes)):
        return Verdict(exercise.name, NOT_ATTEMPTED, 0, total)
    expected = _expected(exercise, cases, outcomes, device, run)
    problems = [_problem(exercise, *three) for three in zip(cases, outcomes, expected, strict=True)]
    failing = [i for i, problem in enumerate(problems) if problem]
    slow = exercise.pace is not None and share is not None and share > exercise.pace.at_most
    if not (failing or slow):
        few = zip(cases[:FEW], outcomes, strict=False) if exercise.reached else ()
        reached = tuple(_shown(exercise, *both) for both in few)
        details = (*reached, *_pace(exercise, share))
        return Verdict(exercise.name, PASSED, total, total, details=details)
    known = _misconception(exercise, cases, outcomes, expected, device, run)
    return Verdict(
        exercise.name,
        FAILED,
        total - len(failing),
        total,
        case=_describe(cases[failing[0]])
        if failing
        else "every value is right, and takes too long",
        details=problems[failing[0]] if failing else _pace(exercise, share),
        cause=known.explanation if known else "",
        misconception=known.name if known else "",
    )


def _expected(exercise: Exercise, cases: list[Case], outcomes: list[Outcome], device: str, run):
    """What the reference gives. An open task is judged without it, but where a call went wrong."""
    asked = [exercise.compare or bool(one.error or one.altered) for one in outcomes]
    some = [case for case, needed in zip(cases, asked, strict=True) if needed]
    found = iter(run(exercise.reference, some, exercise.seconds, device))
    return [next(found) if needed else Outcome() for needed in asked]


def _problem(exercise: Exercise, case: Case, yours: Outcome, expected: Outcome):
    """What is wrong with one outcome, as (what, text) lines; nothing where it is right."""
    if yours.error == "TimeLimit":
        return (("stopped", f"{yours.message}; is there a loop that never ends?"),)
    if yours.error and yours.error != expected.error:
        at = (("your line", yours.line),) if yours.line else ()
        return (("yours", f"raised {yours.error}: {yours.message}"), *at)
    if expected.error and not yours.error:
        return (("yours", short(yours.value)), ("expected", f"to raise {expected.error}"))
    if yours.altered and not expected.altered:
        return (("altered", f"your function changed its input {yours.altered[0]}; work on a copy"),)
    found = _difference(exercise, yours, expected) if exercise.compare else None
    asked = not (expected.error or found and not same_form(yours.value, expected.value))
    broken = _broken(exercise, case, yours, unlike=found is not None) if asked else []
    wrong_gradient = "" if found else _gradient_problem(exercise, yours, expected)
    if not (found or broken or wrong_gradient):
        return ()
    lines = [*_given(case), _shown(exercise, case, yours, broken)]
    if found:
        lines.append(("expected", short(expected.value)))
        one_number = found == f"{short(yours.value)}, expected {short(expected.value)}"
        lines += [] if one_number else [("", found)]
        if _difference(exercise, yours, expected, slack=ROUNDING) is None:
            lines.append(("rounding", NEARLY))
    if wrong_gradient:
        lines.append(("gradient", wrong_gradient))
    return (*lines, *(("must hold", text) for text in broken))


def _shown(
    exercise: Exercise, case: Case, yours: Outcome, broken: Sequence[str] = ()
) -> tuple[str, str]:
    """What an open task reached, else the value."""
    forms = {REAL, *(item.text for item in exercise.properties if item.form)}
    if exercise.reached and forms.isdisjoint(broken):
        try:
            return "reached", exercise.reached(case.inputs, bare(yours.value))
        except Exception:  # a value of another type or shape: it is shown as it is
            pass
    return "yours", short(yours.value)


def _pace(exercise: Exercise, share: float | None) -> tuple[tuple[str, str], ...]:
    """How quick the calls were, and should be."""
    if exercise.pace is None or share is None:
        return ()
    plain, most = exercise.pace.plain.__name__, exercise.pace.at_most
    return (("reached", f"{share:.2f} of the CPU seconds of {plain} (asked: at most {most:g})"),)


def _gradient_problem(exercise: Exercise, yours: Outcome, expected: Outcome) -> str:
    """What is wrong with the gradients of a value that is right; nothing where they are right."""
    if not (exercise.compare and expected.gradients):
        return ""
    if not yours.gradients:
        names = ", ".join(expected.gradients)
        return (
            f"none: your value is cut off from {names}, so nothing can learn from it "
            "(.detach(), .item(), .data, float(…), torch.tensor(…) and no_grad cut)"
        )
    for name, wanted in expected.gradients.items():
        mine = yours.gradients[name]
        if found := difference(
            mine, wanted, exercise.relative_tolerance, exercise.absolute_tolerance
        ):
            return f"the value is right, its gradient by {name} is not: {found}"
    return ""


def _given(case: Case) -> list[tuple[str, str]]:
    """The inputs of a case that are small enough to work it by hand, whole."""
    shown = []
    for name, value in case.inputs.items():
        if torch.is_tensor(value) and value.numel() <= SMALL:
            text = _nested(value.detach().tolist())
        elif isinstance(value, dict | str | list | tuple):
            text = short(plain(value))
        else:
            continue
        if len(text) < 80 and (isinstance(value, str) or "…" not in text):  # nothing was left out
            shown.append(("given" if not shown else "", f"{name} = {text}"))
    return shown


def _nested(value: Any) -> str:
    """Numbers in nested lists, each as short as it can be."""
    if isinstance(value, list):
        return "[" + ", ".join(map(_nested, value)) + "]"
    return short(value)


def _difference(
    exercise: Exercise, yours: Outcome, expected: Outcome, slack: float = 1.0
) -> str | None:
    relative = exercise.relative_tolerance
    return difference(
        yours.value,
        expected.value,
        max(relative, min(slack * relative, AT_MOST)),
        slack * exercise.absolute_tolerance,
    )


def _broken(exercise: Exercise, case: Case, yours: Outcome, unlike: bool) -> list[str]:
    """The texts of the properties that one value lacks.

    A value so unlike the expected one that a property cannot be asked of it lacks nothing more.
    """
    if not (exercise.compare or is_real(yours.value)):
        return [REAL]
    value = bare(yours.value)
    broken = []
    for item in exercise.properties:
        try:
            holds = bool(item.holds(case.inputs, value))
        except Exception:  # a value of another type or shape than the property is about
            holds = unlike
        if not holds:
            broken.append(item.text)
            if item.form:
                break
    return broken


def _misconception(exercise: Exercise, cases, outcomes, expected, device, run):
    """The known wrong answer that gives the very same outcome on every case, if there is one."""
    three = list(zip(cases, outcomes, expected, strict=True))
    for known in exercise.misconceptions:
        if _gives(exercise, known.function, three, device, run):
            return known
    return None


def _gives(exercise: Exercise, function: Callable, three: list, device: str, run) -> bool:
    """Whether a function gives these outcomes; it is called up to the first that differs."""
    for case, yours, right in three:
        [same] = run(function, [case], exercise.seconds, device)
        if not _same(exercise, yours, same, right):
            return False
        if same.error == "TimeLimit":  # neither was called again
            return True
    return True


def _same(exercise: Exercise, one: Outcome, other: Outcome, expected: Outcome) -> bool:
    """Whether two wrong answers are one; where the value is right, their gradients decide."""
    if (one.error, one.altered) != (other.error, other.altered):
        return False
    if one.error:
        return True
    if bool(one.gradients) != bool(other.gradients) or _difference(exercise, one, other):
        return False
    right = _difference(exercise, one, expected) is None
    return not (right and _gradient_problem(exercise, one, other))


def _describe(case: Case) -> str:
    """The label and the inputs that fit on the line."""
    shown = [f"{k} = {short(v)}" for k, v in case.inputs.items() if type(v) in (bool, int, float)]
    return " · ".join([case.label, ", ".join(shown)] if shown else [case.label])
