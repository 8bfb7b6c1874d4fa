"""How long something takes on the clock: the median of repeats, after warm-up.

Times differ between machines, and on one machine from minute to minute. What holds is a ratio: the
candidate beside the baseline, in turns, in the same run. Assert ratios, never times.

`cpu_seconds` does not ask the clock on the wall but how long the processor worked for this program.
On a busy machine, with one thread, its ratios hold where those of the wall do not.
"""

import statistics
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch

WARM_UP = 2
# What a program used of the processor; Windows counts that in steps of 16 ms.
CPU_CLOCK = time.perf_counter if sys.platform == "win32" else time.process_time


@dataclass(frozen=True)
class Latency:
    """Median seconds of a candidate and of the baseline that took turns with it."""

    seconds: float
    baseline_seconds: float

    @property
    def ratio(self) -> float:
        """seconds / baseline_seconds: below 1 the candidate is the faster one."""
        return self.seconds / self.baseline_seconds


def latency(
    candidate: Callable[[], object], baseline: Callable[[], object], repeats: int = 7
) -> Latency:
    """Median seconds of both functions, called in turns; two calls of each are not counted.

    >>> more, less = torch.zeros(1_000_000), torch.zeros(1_000)
    >>> latency(lambda: more.exp(), lambda: less.exp()).ratio > 1
    True
    """
    return Latency(*_medians([candidate, baseline], repeats))


def seconds(function: Callable[[], object], repeats: int = 7) -> float:
    """Median seconds of one function; two calls are not counted.

    >>> seconds(lambda: time.sleep(0.002), repeats=3) > 0.001
    True
    """
    return _medians([function], repeats)[0]


def cpu_seconds(sides: Mapping[str, Callable[[], object]], repeats: int = 7) -> dict[str, float]:
    """Median CPU seconds of each side, which take turns. Seconds of all threads count.

    >>> more, less = torch.zeros(1_000_000), torch.zeros(1_000)
    >>> found = cpu_seconds({"more": more.exp, "less": less.exp})
    >>> found["more"] > found["less"]
    True
    """
    return {name: statistics.median(times) for name, times in cpu_turns(sides, repeats).items()}


def cpu_turns(
    sides: Mapping[str, Callable[[], object]], repeats: int = 7
) -> dict[str, list[float]]:
    """CPU seconds of each side's every call, in the order of the turns.

    >>> [len(times) for times in cpu_turns({"one": list, "other": dict}, repeats=3).values()]
    [3, 3]
    """
    turns: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(repeats):
        for name, function in sides.items():
            start = CPU_CLOCK()
            function()
            turns[name].append(CPU_CLOCK() - start)
    return turns


def _medians(functions: list[Callable[[], object]], repeats: int) -> list[float]:
    for function in functions:
        if not callable(function):
            raise TypeError(f"what is timed must be callable; got {type(function).__name__}")
    if repeats < 1:
        raise ValueError(f"repeats must be at least 1; got {repeats}")
    turns = [[_once(function) for function in functions] for _ in range(WARM_UP + repeats)]
    return [statistics.median(times) for times in zip(*turns[WARM_UP:], strict=True)]


def _once(function: Callable[[], object]) -> float:
    _wait_for_accelerator()
    start = time.perf_counter()
    function()
    _wait_for_accelerator()
    return time.perf_counter() - start


def _wait_for_accelerator() -> None:
    """An accelerator works on after the call that gave it the work returned."""
    if torch.accelerator.is_available():
        torch.accelerator.synchronize()
