"""Processes that talk: sums, errors that are told, time that runs out, parents that are killed."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType

import pytest
import toy_tasks

from course_lib.acceleration.parallel_worker import Traffic
from course_lib.acceleration.workers import Workers

ORPHANS = """
import time
from course_lib.acceleration.workers import Workers
if __name__ == "__main__":
    workers = Workers(2)
    print(*[process.pid for process in workers.processes], flush=True)
    time.sleep(300)
"""
NO_GUARD = """
from course_lib.acceleration.workers import Workers
Workers(1)
"""


@pytest.fixture(scope="module")
def two():
    with Workers(2) as workers:
        yield workers


def test_each_has_its_own_arguments_and_all_the_sum(two):
    assert two.run(toy_tasks.add_up, [(3,), (4,)]) == [(0, 7, 1), (1, 7, 1)]


def test_what_is_sent_arrives_and_is_counted(two):
    (first, sent), (second, nothing) = two.run(toy_tasks.pass_on, [([1, 2],), ([0, 0],)])
    assert (first, second) == ([1, 2], [2, 3])
    assert (sent, nothing) == (Traffic(1, 16), Traffic(0, 0))


def test_the_wrong_number_of_arguments_leaves_the_workers_alone(two):
    with pytest.raises(ValueError, match="must be those of 2 workers; got 1"):
        two.run(toy_tasks.add_up, [(3,)])
    assert len(two.run(toy_tasks.add_up, [(3,), (4,)])) == 2


def test_a_function_of_a_cell_is_refused_before_it_is_sent(two, monkeypatch):
    def of_a_cell(wire): ...

    of_a_cell.__module__ = "__main__"
    monkeypatch.setitem(sys.modules, "__main__", ModuleType("__main__"))
    with pytest.raises(ValueError, match="task must be a function of a module; got <function"):
        two.run(of_a_cell, [(), ()])
    monkeypatch.undo()
    assert len(two.run(toy_tasks.add_up, [(3,), (4,)])) == 2


@pytest.mark.parametrize(
    "task, error, message",
    [
        (toy_tasks.fail, RuntimeError, "worker 1 failed:(.|\n)*ArithmeticError: no such number"),
        (toy_tasks.vanish, RuntimeError, "worker 1 ended without an answer"),
    ],
)
def test_one_that_fails_ends_all_and_is_named(task, error, message):
    with Workers(2) as workers:
        processes = list(workers.processes)
        with pytest.raises(error, match=message):
            workers.run(task, [(1,), (1,)])
        assert not any(process.is_alive() for process in processes) and len(workers) == 0
        with pytest.raises(ValueError, match="must be those of 0 workers"):
            workers.run(task, [(1,), (1,)])


def test_time_runs_out_and_output_is_heard(capfd):
    with Workers(1) as workers:
        assert workers.run(toy_tasks.say_something, [()]) == [None]
        processes, workers.timeout = list(workers.processes), 0.2
        with pytest.raises(TimeoutError, match=r"workers \[0\] took over 0.2 seconds"):
            workers.run(toy_tasks.sleep, [(60,)])
        assert not processes[0].is_alive()
    output = capfd.readouterr()
    assert "Gloo" not in output.out + output.err


@pytest.mark.parametrize("count, timeout", [(0, 1.0), (2, 0.0), (2, float("nan"))])
def test_bad_input_is_refused(count, timeout):
    with pytest.raises(ValueError, match="count and timeout must be positive"):
        Workers(count, timeout)


@pytest.mark.skipif(os.name != "posix", reason="kills by signal")
def test_a_killed_parent_leaves_no_orphans(tmp_path):
    """They go within a minute, though the deadline of their task is far."""
    script = tmp_path / "orphans.py"
    script.write_text(ORPHANS)
    parent = subprocess.Popen(
        [sys.executable, str(script)], stdout=subprocess.PIPE, text=True, env=_environment()
    )
    try:
        pids = [int(pid) for pid in parent.stdout.readline().split()]
        assert len(pids) == 2
    finally:
        parent.send_signal(signal.SIGKILL)
        parent.wait()
    deadline = time.monotonic() + 60
    while any(map(_runs, pids)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not any(map(_runs, pids))


def test_a_script_without_a_guard_is_told_so(tmp_path):
    script = tmp_path / "no_guard.py"
    script.write_text(NO_GUARD)
    run = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, env=_environment()
    )
    assert run.returncode and "a script must start workers under" in run.stderr


def _runs(pid: int) -> bool:
    """Whether a process is there and not a zombie that nobody has asked about."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    stat = Path(f"/proc/{pid}/stat")
    return not (stat.exists() and stat.read_text().rpartition(")")[2].split()[0] == "Z")


def _environment() -> dict[str, str]:
    root = str(Path(__file__).resolve().parent.parent)
    return {**os.environ, "PYTHONPATH": root}
