"""Stage two of three: call a function on every case. The only place where a learner's code runs."""

import copy
import io
import linecache
import signal
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass, field
from functools import cache
from os import times  # by their own names: a clock that is patched later tells nothing here
from time import process_time
from typing import Any

import torch
from torch import Tensor, nn

from course_lib.exercises.engine.spec import Case
from course_lib.exercises.engine.state import standard_state
from course_lib.exercises.engine.values import difference, plain

STUB = "NotImplementedError"  # with no text: not attempted


@dataclass(frozen=True)
class Outcome:
    """What one call gave: a value, or the reason why there is none."""

    value: Any = None  # plain data
    error: str | None = None  # the exception's type, "TimeLimit" where the call was stopped
    message: str = ""  # the exception's text
    line: str = ""  # the learner's own line that raised it
    altered: tuple[str, ...] = ()  # inputs that the call changed
    gradients: dict[str, Any] | None = None  # by input, plain; empty where the value is cut off
    seconds: float = field(default=0.0, compare=False, repr=False)  # of the CPU, all its threads


class TimeLimit(BaseException):
    """Stops a call that does not return; no Exception, so that `except Exception` lets it by."""


@standard_state()
def run(
    function: Callable, cases: list[Case], seconds: float = 2.0, device: str = "cpu"
) -> list[Outcome]:
    """Call `function` on a copy of each case's inputs, moved to `device`, within `seconds` each.

    After one call that had to be stopped the rest are not tried. Warnings and other text on the
    error stream are kept quiet: nbgrader takes them for a failure. Where an input requires a
    gradient, the value is differentiated by it.

    >>> run(lambda x: x + 1, [Case("one", {"x": 1})])[0].value
    2
    """
    _warm_up()
    outcomes: list[Outcome] = []
    for case in cases:
        stopped = outcomes and outcomes[-1].error == "TimeLimit"
        outcomes.append(outcomes[-1] if stopped else _call(function, case, seconds, device))
    return outcomes


def remembering() -> Callable[..., list[Outcome]]:
    """A `run` that calls a function once on each case, for many verdicts by the same cases.

    >>> once, case, calls = remembering(), Case("one", {"x": 1}), []
    >>> [len(once(calls.append, [case])) and len(calls) for _ in range(2)]
    [1, 1]
    """
    known: dict[tuple[Callable, int], tuple[Case, Outcome]] = {}

    def once(function: Callable, cases: list[Case], *how) -> list[Outcome]:
        for case in cases:
            if (function, id(case)) not in known:
                known[function, id(case)] = case, run(function, [case], *how)[0]
        return [known[function, id(case)][1] for case in cases]

    return once


@cache
def _warm_up() -> None:
    """PyTorch's first optimizer imports much; not within the time that an answer has."""
    torch.optim.SGD([nn.Parameter(torch.zeros(1))])


def _call(function: Callable, case: Case, seconds: float, device: str) -> Outcome:
    inputs = to_device(_copies(case.inputs), device)
    leaves = {k: x for k, x in inputs.items() if isinstance(x, Tensor) and x.requires_grad}
    inputs |= {name: leaf.clone() for name, leaf in leaves.items()}  # a leaf cannot be written into
    before = {name: plain(value) for name, value in inputs.items()}
    try:
        with redirect_stderr(io.StringIO()), torch.random.fork_rng(devices=[]):
            _seed(device)
            with time_limit(seconds):
                began = _cpu_seconds()
                returned = function(*inputs.values())
                value, gradients = plain(returned), _gradients(returned, leaves)
                taken = _cpu_seconds() - began
    except TimeLimit:
        return Outcome(error="TimeLimit", message=f"no answer within {seconds:g} s")
    except Exception as error:
        return _failure(function, error)
    altered = tuple(k for k in inputs if difference(plain(inputs[k]), before[k]))
    return Outcome(value=value, altered=altered, gradients=gradients, seconds=taken)


def _copies(inputs: dict[str, Any]) -> dict[str, Any]:
    """Deep copies. A plain tensor's numbers are copied by themselves: that takes a tenth."""
    quick = {
        id(one): one.detach().clone().requires_grad_(one.requires_grad)
        for one in inputs.values()
        if type(one) is Tensor and one.is_contiguous()
    }
    return copy.deepcopy(inputs, quick)


def _seed(device: str) -> None:
    """Seed what a call may draw from.

    `torch.manual_seed` writes down the stack for each accelerator that was not used yet, and that
    takes longer than most answers.
    """
    if torch.device(device).type == "cpu":
        torch.default_generator.manual_seed(0)
    else:
        torch.manual_seed(0)


def _cpu_seconds() -> float:
    """What this process took so far, all threads together, and the children that it waited for."""
    children = times()
    return process_time() + children.children_user + children.children_system


def _failure(function: Callable, error: Exception) -> Outcome:
    """What is kept of an error. Its text may be made by the learner's own class, and fail, too."""
    try:
        message = str(error)
    except Exception:
        message = ""
    return Outcome(error=type(error).__name__, message=message, line=_own_line(function, error))


def is_stub(outcome: Outcome) -> bool:
    """Whether the call ended as the stub does: in a NotImplementedError that says nothing.

    PyTorch raises the same error, with a text, where it has no kernel for a dtype.
    """
    return outcome.error == STUB and not outcome.message


def _gradients(value: Any, leaves: dict[str, Tensor]) -> dict[str, Any] | None:
    """By each leaf, of a fixed weighted sum of what was returned; {} where nothing flows back."""
    if not leaves:
        return None
    items = value if isinstance(value, list | tuple) else [value]
    outputs = [item for item in items if isinstance(item, Tensor) and item.requires_grad]
    if not outputs:
        return {}
    weights = [
        torch.arange(t.numel(), device=t.device).cos().to(t.dtype).view_as(t) for t in outputs
    ]
    found = torch.autograd.grad(outputs, leaves.values(), weights, allow_unused=True)
    return {
        name: plain(torch.zeros_like(leaf) if gradient is None else gradient)
        for (name, leaf), gradient in zip(leaves.items(), found, strict=True)
    }


def to_device(value: Any, device: str) -> Any:
    """Tensors and modules inside lists, tuples and dictionaries, moved to `device`."""
    if isinstance(value, Tensor | nn.Module):
        return value.to(device)
    if isinstance(value, dict):
        return {key: to_device(item, device) for key, item in value.items()}
    if type(value) in (list, tuple):
        return type(value)(to_device(item, device) for item in value)
    return value


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raise TimeLimit after `seconds`, again and again; only the main thread can be stopped so."""
    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "SIGALRM"):
        yield
        return

    def stop(signum, frame):
        raise TimeLimit

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds, 0.1)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _own_line(function: Callable, error: Exception) -> str:
    """The last line of the function's own source file (or cell) on the way to the error."""
    code = getattr(function, "__code__", None)
    frames = traceback.extract_tb(error.__traceback__)
    own = [f for f in frames if code and f.filename == code.co_filename]
    return linecache.getline(own[-1].filename, own[-1].lineno).strip() if own else ""
