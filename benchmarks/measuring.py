"""What the benchmarks measure with: CPU seconds of sides that take turns, and extra peak memory.

`report` prints a comparison. Under `make bench` it also writes it down, a line of JSON in the file
that RECORD names; `results.py` makes the table of all of them.
"""

import json
import os
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, field
from multiprocessing import get_context
from pathlib import Path

from torch import Tensor

from course_lib.measure.latency import cpu_turns

RECORD = "BENCH_RECORD"  # names a file in the environment
QUICK = bool(os.environ.get("BENCH_QUICK"))  # smaller sizes, and fewer turns:
TURNS = 3
EQUAL = 1e-4  # a quality this share below the peer's is not worse


class Seconds(float):
    """The median of some turns, which it remembers."""

    turns: tuple[float, ...]

    def __new__(cls, turns: Sequence[float]):
        made = super().__new__(cls, statistics.median(turns))
        made.turns = tuple(turns)
        return made


def cpu_seconds(sides: Mapping[str, Callable[[], object]], repeats: int = 7) -> dict[str, Seconds]:
    """Median CPU seconds of each side; they take turns. In a quick run, three turns at most."""
    turns = cpu_turns(sides, min(repeats, TURNS) if QUICK else repeats)
    return {name: Seconds(times) for name, times in turns.items()}


@dataclass(frozen=True)
class Comparison:
    """One method beside its peers: sides by name, the first one ours, the second one the peer.

    title: the workload, and what was found.
    turns: side -> CPU seconds of its every turn.
    goal: the largest ratio of our time to the peer's that is good enough; None: no goal.
    method: what it is, in a few words.
    quality: side -> a number, in `unit`. More of it is better if `more`.
    equal: a difference from the peer's quality that counts as none, as a share of it.
    memory: side -> extra bytes; `memory_goal` is their ratio's.
    """

    title: str
    turns: dict[str, Sequence[float]]
    goal: float | None
    method: str = ""
    quality: dict[str, float] = field(default_factory=dict)
    unit: str = ""
    more: bool = True
    equal: float = EQUAL
    memory: dict[str, float] = field(default_factory=dict)
    memory_goal: float | None = None

    @property
    def ours(self) -> str:
        return next(iter(self.turns))

    @property
    def peers(self) -> list[str]:
        return list(self.turns)[1:]

    def ratio(self, peer: str) -> tuple[float, float, float]:
        """Our time beside the peer's: of the medians; the least and the largest of a turn."""
        mine, theirs = self.turns[self.ours], self.turns[peer]
        single = [a / b for a, b in zip(mine, theirs, strict=True)]
        return statistics.median(mine) / statistics.median(theirs), min(single), max(single)

    def memory_ratio(self, peer: str) -> float | None:
        """Our extra memory beside the peer's, if both were measured."""
        known = {self.ours, peer} <= self.memory.keys() and self.memory[peer] > 0
        return self.memory[self.ours] / self.memory[peer] if known else None

    def as_good(self, peer: str) -> bool | None:
        """Whether our quality is not worse; None where it was not compared."""
        if not {self.ours, peer} <= self.quality.keys():
            return None
        mine, theirs = self.quality[self.ours], self.quality[peer]
        gain = mine - theirs if self.more else theirs - mine
        return gain >= -self.equal * abs(theirs)

    def is_ahead(self, peer: str) -> bool:
        """Faster in every turn, and known to be as good."""
        return self.ratio(peer)[2] < 1 and self.as_good(peer) is True

    def is_met(self) -> bool | None:
        """Whether the goal beside the first peer is met, in time, memory and quality."""
        if self.goal is None or not self.peers:
            return None
        peer = self.peers[0]
        memory = self.memory_ratio(peer)
        small = self.memory_goal is None or (memory is not None and memory <= self.memory_goal)
        return self.ratio(peer)[0] <= self.goal and small and self.as_good(peer) is not False


def report(title: str, seconds: Mapping[str, float], goal: float | None, **more) -> Comparison:
    """Print each side's time and the first one's ratio to the others; the second is the peer.

    Args:
        title: the workload.
        seconds: side -> what `cpu_seconds` found, ours first.
        goal: of the ratio to the peer; None if there is none.
        more: fields of `Comparison`. A quality may be given as numbers in the sides' order.
    """
    for name in ("quality", "memory"):
        if not isinstance(more.get(name, {}), Mapping):
            more[name] = dict(zip(seconds, map(float, more[name]), strict=False))
    turns = {name: getattr(value, "turns", (float(value),)) for name, value in seconds.items()}
    found = Comparison(title, turns, goal, **more)
    print(title)
    for name, value in seconds.items():
        print(f"    {name:44} {value:8.4f} s  {_beside(found, name)}".rstrip())
    ratios = ", ".join("{:.3f} ({:.2f} to {:.2f})".format(*found.ratio(p)) for p in found.peers)
    wanted = "" if goal is None else f" (goal ≤ {goal})"
    print(f"    ratio {ratios}{wanted}", flush=True)
    record(found)
    return found


def record(found: Comparison) -> None:
    """Write a comparison down, where somebody wants to know."""
    if RECORD in os.environ:
        with Path(os.environ[RECORD]).open("a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(found), ensure_ascii=False) + "\n")


def _beside(found: Comparison, name: str) -> str:
    """A side's quality and extra memory, as far as they are known."""
    parts = [f"{found.quality[name]:.5g} {found.unit}"] if name in found.quality else []
    parts += [f"+{found.memory[name] / 2**20:.0f} MiB"] if name in found.memory else []
    return ", ".join(parts)


def run_tables(tables: Mapping[str, Callable[[], object]], standard: Sequence[str]) -> None:
    """Print the tables that the command line names, or the standard ones."""
    chosen = sys.argv[1:] or standard
    if set(chosen) - tables.keys():
        sys.exit(f"which table? {' | '.join(tables)}")
    for name in chosen:
        tables[name]()


def decibels(x: Tensor, values: Tensor) -> float:
    """10 log₁₀ Σ x² / Σ (x − x̂)²."""
    error = (values.view_as(x).double() - x.double()).square().sum()
    return 10 * (x.double().square().sum() / error).log10().item()


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
