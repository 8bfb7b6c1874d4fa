"""What the benchmarks measure with: CPU seconds of sides that take turns, and extra peak memory."""

from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

from course_lib.measure.latency import cpu_seconds as cpu_seconds


def report(title: str, seconds: dict[str, float], goal: float) -> None:
    """Print each side's time and the first one's ratio to the others; the second is the peer."""
    (_, ours), *peers = seconds.items()
    print(title)
    for name, value in seconds.items():
        print(f"    {name:44} {value:8.4f} s")
    ratios = ", ".join(f"{ours / value:.3f}" for _, value in peers)
    print(f"    ratio {ratios} (goal ≤ {goal})", flush=True)


def in_a_fresh_process(function: Callable, *arguments: object) -> float:
    """What `function` of an importable module returns there."""
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def extra_bytes(function: Callable, *arguments: object) -> int:
    """How much this process's peak memory grows during one call, its result included."""
    Path("/proc/self/clear_refs").write_text("5", "utf-8")  # the peak is now what is in use
    before = _peak_bytes()
    result = function(*arguments)
    grown = _peak_bytes() - before
    del result
    return grown


def _peak_bytes() -> int:
    """This process's peak memory. (`resource` would count what the parent had at its start.)"""
    status = Path("/proc/self/status").read_text("utf-8")
    return 1024 * int(status.split("VmHWM:")[1].split()[0])
