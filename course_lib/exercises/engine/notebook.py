"""What a learner calls: check, hint, yours, progress."""

from collections.abc import Callable

from course_lib.device import best_device
from course_lib.exercises.engine.catalogue import by_chapter, find
from course_lib.exercises.engine.judge import PASSED, Verdict, judge
from course_lib.exercises.engine.pace import best_attempt, run_beside
from course_lib.exercises.engine.progress import latest, record
from course_lib.exercises.engine.show import coloured, progress_table, words
from course_lib.exercises.engine.spec import Exercise

_passed: dict[str, Callable] = {}  # the learner's functions that passed in this kernel
_hints_given: dict[str, int] = {}
_checking = False  # while a learner's function runs, yours() gives nothing


class CheckFailed(Exception):
    """A wrong or missing answer; in a notebook it shows as its text alone."""

    def __init__(self, text: str, coloured_text: str):
        super().__init__(text)
        self.coloured_text = coloured_text

    def _render_traceback_(self) -> list[str]:
        return self.coloured_text.split("\n")


def check(function: Callable) -> None:
    """Say whether `function` solves the exercise of its name, and if not, what is wrong.

    In a notebook a wrong answer shows as an error of this cell, and the cells below still run.

    Raises:
        CheckFailed: the answer is wrong or missing (outside a notebook).
    """
    name = getattr(function, "__name__", repr(function))
    exercise = find(name)
    if function is exercise.reference:
        text = f"✘ {name} · not yours\n  That is the reference. Write the function yourself."
        return _show_error(CheckFailed(text, text))
    verdict = _verdict(exercise, function, seed=0)
    record(verdict)
    if verdict.status == PASSED:
        _passed[name] = function
        print(words(verdict))
    else:
        _passed.pop(name, None)
        _show_error(CheckFailed(words(verdict), coloured(verdict)))


def check_unseen(function: Callable, seed: int) -> None:
    """A grader's second check, with other inputs; it prints nothing and records nothing.

    Args:
        function: an answer that `check` sees, too.
        seed: what a grader's inputs are drawn from; a notebook's own are drawn from 0.

    Raises:
        CheckFailed: the answer is wrong or missing (outside a notebook).
    """
    exercise = find(getattr(function, "__name__", repr(function)))
    verdict = _verdict(exercise, function, seed)
    if verdict.status != PASSED:
        _show_error(CheckFailed(words(verdict), coloured(verdict)))


def _verdict(exercise: Exercise, function: Callable, seed: int) -> Verdict:
    device = best_device().type
    cases = exercise.cases(seed)

    def attempt() -> tuple[Verdict, float | None]:
        outcomes, share = _outcomes(exercise, function, cases, device)
        return judge(exercise, cases, outcomes, device, share=share), share

    return best_attempt(exercise, attempt)


def _outcomes(exercise: Exercise, function: Callable, cases: list, device: str) -> tuple:
    global _checking
    _checking = True
    try:
        return run_beside(exercise, function, cases, device)
    finally:
        _checking = False


def _show_error(error: CheckFailed) -> None:
    """Publish the error and go on where a notebook shows it; else raise it."""
    try:
        shell = get_ipython()  # defined by IPython in every notebook
    except NameError:
        raise error from None
    if not hasattr(shell, "kernel"):  # a terminal
        raise error
    shell.showtraceback((type(error), error, None))


def hint(name: str | Callable) -> None:
    """Print one more hint on the exercise `name` each time; its function will do, too."""
    name = getattr(name, "__name__", name)
    hints = find(name).hints
    given = min(_hints_given.get(name, 0) + 1, len(hints))
    _hints_given[name] = given
    print(f"Hint {given} of {len(hints)}: {hints[given - 1]}")


def yours(name: str | Callable) -> Callable:
    """Your function of that name if it passed its check in this session, else the reference."""
    name = getattr(name, "__name__", name)
    if _checking:
        raise RuntimeError(f"yours({name!r}) gives nothing while a check runs")
    reference = find(name).reference
    print(f"using {'yours' if name in _passed else 'the reference'}: {name}")
    return _passed.get(name, reference)


def progress() -> None:
    """Print the exercises of every chapter: ✔ passed, ✘ tried, ○ not yet."""
    chapters = {chapter: [one.name for one in ones] for chapter, ones in by_chapter().items()}
    print(progress_table(chapters, latest()))
