"""Where is graded: here, or by two worker processes, one of them killed midway; none is lost."""

import os
import signal
import threading
import time

import pytest
from in_process import RIGHT, SEED, WRONG

from course_lib.classroom.grading import executor as module
from course_lib.classroom.grading.executor import WeakSandbox, executor
from course_lib.classroom.grading.gradebook import STORE, Terms, grade_all, graded
from course_lib.classroom.grading.sandbox import best_tier
from course_lib.classroom.release import assignment
from course_lib.classroom.submissions.submission import Submission

COUNT = 24


@pytest.fixture(scope="module")
def local_cluster():
    """A scheduler and two workers, processes of their own, within reach of this machine alone."""
    from distributed import LocalCluster

    with LocalCluster(
        n_workers=2,
        threads_per_worker=1,
        processes=True,
        host="127.0.0.1",
        dashboard_address=None,
    ) as made:
        yield made


def submissions():
    kinds = [RIGHT, WRONG, "def to_uint8(weight):\n    return 1 / 0"]
    return [
        Submission(f"s{number:02}", {"to_uint8": f"{kinds[number % 3]}  # {number}"})
        for number in range(COUNT)
    ]


def kill_one(pids, store):
    """Kill a worker once a few grades are stored."""
    deadline = time.monotonic() + 300
    while len(list(store.glob("*.json"))) < COUNT // 4 and time.monotonic() < deadline:
        time.sleep(0.02)
    os.kill(pids[0], signal.SIGKILL)


def test_a_worker_killed_midway_costs_nothing(local_cluster, tmp_path):
    from distributed import Client

    with Client(local_cluster.scheduler_address, set_as_default=False) as client:
        pids = list(client.run(os.getpid).values())
    assert len(set(pids)) == 2 and os.getpid() not in pids
    with executor(0, local_cluster.scheduler_address, weak_too=True) as (tier, jobs, call):
        assert (tier, jobs) == (best_tier(), 2)
        terms = Terms(assignment("05"), SEED, tier)
        killer = threading.Thread(target=kill_one, args=(pids, tmp_path / STORE))
        killer.start()
        there = list(grade_all(submissions(), terms, tmp_path, jobs, call))
        killer.join()
    with pytest.raises(ProcessLookupError):
        os.kill(pids[0], 0)
    assert len(there) == COUNT == len(list((tmp_path / STORE).glob("*.json")))
    here = dict(grade_all(submissions(), terms, tmp_path / "here", 2))
    assert dict(there) == here
    assert {grade.points for grade in here.values()} == {0, 1}


def test_weak_workers_are_refused(local_cluster, monkeypatch):
    monkeypatch.setattr("course_lib.classroom.grading.executor.WEAK", (best_tier(),))
    with (
        pytest.raises(WeakSandbox),
        executor(0, local_cluster.scheduler_address, weak_too=False),
    ):
        pass


def test_a_worker_of_another_version_is_refused(local_cluster, monkeypatch):
    ours = os.getpid()
    monkeypatch.setattr(
        "course_lib.classroom.grading.executor.course_version", lambda: str(os.getpid() == ours)
    )
    with (
        pytest.raises(ValueError, match="not this version of the course"),
        executor(0, local_cluster.scheduler_address, weak_too=True),
    ):
        pass


def test_a_weak_sandbox_is_refused_unless_asked_for(monkeypatch):
    monkeypatch.setattr(module, "best_tier", lambda: "process")
    with pytest.raises(WeakSandbox, match="--allow-weak-sandbox"), executor(0, "", weak_too=False):
        pass
    with executor(3, "", weak_too=True) as here:
        assert here == ("process", 3, graded)
    monkeypatch.setattr(module, "best_tier", lambda: "bubblewrap")
    with executor(0, "", weak_too=False) as (tier, jobs, _):
        assert tier == "bubblewrap" and 1 <= jobs <= os.cpu_count()


def test_of_several_machines_the_weakest_sandbox_is_named():
    assert module._allowed({"bubblewrap", "process"}, weak_too=True) == "process"
    with pytest.raises(WeakSandbox):
        module._allowed({"bubblewrap", "process"}, weak_too=False)
