"""Child: execute an answer's blocks and call its function. The only stage that runs submitted code.

Submitted code may change anything in this process, this module included. It gains what it could
have had without: whatever it sends is judged elsewhere.
"""

import linecache
import sys
import types
from collections.abc import Callable, Sequence

from course_lib.classroom.grading.sandbox.wire import encode
from course_lib.exercises.engine.run import Outcome, TimeLimit, run, time_limit
from course_lib.exercises.engine.spec import Case

MARGIN, GRACE = 1.5, 1.0  # a step that does not heed its own limit is ended from outside


def allowance(seconds: float) -> float:
    """How long one step, a block or a case, may take before its process is ended.

    >>> allowance(2.0)
    4.0
    """
    return MARGIN * seconds + GRACE


def answer(
    blocks: Sequence[str],
    function: str,
    cases: list[Case],
    seconds: float,
    step: Callable[[], None],
) -> bytes:
    """The message for the parent.

    Args:
        blocks, function, seconds: a Job's.
        cases: a Job's, unpacked.
        step: called before each block and each case.
    """
    module = types.ModuleType("__main__")
    sys.modules["__main__"] = module
    failure: BaseException | None = None
    for number, block in enumerate(blocks):
        step()
        failure = _execute(block, f"<block {number}>", module.__dict__, seconds) or failure
    text = f"{type(failure).__name__}: {_text(failure)}" if failure else ""
    called = module.__dict__.get(function)
    if called is None:
        failure = failure or NameError(f"there is no function {function!r}")
        if isinstance(failure, SystemExit | KeyboardInterrupt):
            return encode([], text, ended=type(failure).__name__)
        outcome = Outcome(error=type(failure).__name__, message=_text(failure), line=_line(failure))
        return encode([outcome] * len(cases), text)
    outcomes: list[Outcome] = []
    try:
        for case in cases:
            stopped = outcomes and outcomes[-1].error == TimeLimit.__name__
            step()
            outcomes += outcomes[-1:] if stopped else run(called, [case], seconds)
    except BaseException as error:  # run() lets by what is no Exception
        return encode([], f"{type(error).__name__}: {_text(error)}", type(error).__name__)
    return encode(outcomes, text)


def _execute(
    block: str, name: str, namespace: dict[str, object], seconds: float
) -> BaseException | None:
    """Execute one block; what it raised."""
    linecache.cache[name] = (len(block), None, block.splitlines(True), name)
    try:
        with time_limit(seconds):
            exec(compile(block, name, "exec", dont_inherit=True), namespace)
    except TimeLimit:
        return TimeLimit(f"no end within {seconds:g} s")
    except BaseException as error:
        return error
    return None


def _text(error: BaseException) -> str:
    """Its text, which the submission's own class may make."""
    try:
        return str(error)
    except Exception:
        return ""


def _line(error: BaseException) -> str:
    """The last line of a block on the way to the error."""
    if isinstance(error, SyntaxError):
        return (error.text or "").strip()
    line, trace = "", error.__traceback__
    while trace:
        file = trace.tb_frame.f_code.co_filename
        line = linecache.getline(file, trace.tb_lineno) if file.startswith("<block ") else line
        trace = trace.tb_next
    return line.strip()
