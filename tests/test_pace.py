"""An exercise that asks for speed: CPU seconds beside a plain function's; nobody forges them."""

import os
import re
import threading
import time
from pathlib import Path

import pytest
import torch

from course_lib.classroom.grading.grade import grade
from course_lib.classroom.grading.sandbox import Job, Reply, Sandbox, pack_cases, tiers
from course_lib.classroom.release import Assignment
from course_lib.classroom.submissions.submission import Submission
from course_lib.exercises.engine.catalogue import find
from course_lib.exercises.engine.judge import FAILED, PASSED, judge
from course_lib.exercises.engine.pace import ATTEMPTS, best_attempt, run_beside, share
from course_lib.exercises.engine.run import Outcome, run
from course_lib.exercises.engine.spec import Case, Exercise, Misconception, Pace

ANSWERS = Path(__file__).parent / "answers" / "10_acceleration.txt"


AT_MOST = 0.4  # far from the 1 of who does it plainly, on a machine however restless


def total(count):
    """0 + 1 + … + count − 1."""
    return count * (count - 1) // 2


def plainly(count):
    found = 0
    for number in range(count):
        found += number
    return found


EXERCISE = Exercise(
    total,
    lambda seed: [Case(f"{n}", {"count": n}) for n in (300_000, 2, 400_000)],
    hints=(),
    misconceptions=(Misconception("one by one", plainly, "that is the plain loop"),),
    pace=Pace(plainly, AT_MOST),
)
CASES = EXERCISE.cases(0)


def verdict(function):
    outcomes, taken = run_beside(EXERCISE, function, CASES)
    return judge(EXERCISE, CASES, outcomes, share=taken)


def test_a_quick_answer_passes_and_is_told_how_quick_it_is():
    found = verdict(lambda count: total(count))
    assert found.status == PASSED
    ((what, text),) = found.details
    taken = re.fullmatch(r"(0\.\d\d) of the CPU seconds of plainly \(asked: at most 0\.4\)", text)
    assert what == "reached" and float(taken[1]) <= AT_MOST


def test_a_right_answer_that_is_slow_fails_under_its_own_name():
    found = verdict(plainly)
    assert (found.status, found.passed, found.misconception) == (FAILED, 3, "one by one")
    assert found.case == "every value is right, and takes too long"


def test_a_quick_answer_that_is_wrong_fails_for_its_value():
    found = verdict(lambda count: 0)
    assert (found.status, found.passed) == (FAILED, 0) and "expected" in dict(found.details)


def test_clocks_that_stand_still_gain_nothing(monkeypatch):
    def patches(count):
        for name in ("process_time", "perf_counter", "monotonic", "time", "thread_time"):
            monkeypatch.setattr(time, name, lambda: 0.0)
        return plainly(count)

    assert verdict(patches).status == FAILED


def test_the_seconds_of_threads_count():
    def elsewhere(count):
        found = []
        thread = threading.Thread(target=lambda: found.append(plainly(count)))
        thread.start()
        thread.join()
        return found[0]

    assert verdict(elsewhere).status == FAILED


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_the_seconds_of_a_child_count():
    def elsewhere(count):
        pid = os.fork()
        if pid == 0:
            plainly(20 * count)
            os._exit(0)
        os.waitpid(pid, 0)
        return total(count)

    assert verdict(elsewhere).status == FAILED


def test_sleep_costs_nothing():
    """As on a machine that does other things meanwhile."""
    (slept,) = run(lambda x: time.sleep(0.3) or x, [Case("", {"x": 1})])
    assert slept.seconds < 0.1


def test_an_exercise_without_pace_has_no_share():
    plain = Exercise(total, EXERCISE.cases, hints=())
    outcomes, taken = run_beside(plain, plainly, CASES)
    assert taken is None and judge(plain, CASES, outcomes).status == PASSED


def test_a_clock_that_tells_nothing_is_no_proof():
    assert share(0.0, 1.0) == share(1.0, 0.0) == float("inf") and share(1.0, 2.0) == 0.5


@pytest.mark.parametrize(
    ("shares", "tried"),
    [([0.3], 1), ([0.45, 0.3], 2), ([0.45] * 9, ATTEMPTS), ([0.6], 1), ([float("inf")], 1)],
)
def test_a_right_answer_that_was_a_little_too_slow_is_tried_again(shares, tried):
    outcomes, left = run(total, CASES), list(shares)

    def attempt():
        taken = left.pop(0)
        return judge(EXERCISE, CASES, outcomes, share=taken), taken

    found = best_attempt(EXERCISE, attempt)
    assert len(shares) - len(left) == tried
    assert found.status == (PASSED if shares[tried - 1] <= AT_MOST else FAILED)


def test_an_answer_that_never_ends_is_stopped_once():
    def never(count):
        while True:
            pass

    quick = Exercise(total, EXERCISE.cases, hints=(), seconds=0.3, pace=EXERCISE.pace)
    outcomes, _ = run_beside(quick, never, CASES)
    assert [one.error for one in outcomes] == ["TimeLimit"] * 3


# ---------------------------------------------------------------------- in the sandbox


@pytest.fixture(scope="module", params=["bubblewrap", "process"])
def sandbox(request):
    if not (tiers.forks(request.param) and tiers.starts(request.param)):
        pytest.skip(f"{request.param} does not work on this machine")
    with Sandbox(("course_lib.models.llama",), request.param) as one:
        yield one


def send(sandbox, source: str):
    cases = pack_cases([Case("", {"x": torch.ones(2)})])
    return sandbox.run(Job((source,), "f", cases, 20.0, timed=True))


BUSY = "def busy():\n    for _ in range(10_000_000): pass\n"


def test_the_watcher_counts_blocks_and_cases(sandbox):
    idle = [send(sandbox, "def f(x): return x") for _ in range(3)]
    assert all(one.status == "" and one.seconds > 0 for one in idle)
    for source in ("def f(x):\n    busy()\n    return x", "busy()\ndef f(x): return x"):
        taken = send(sandbox, BUSY + source).seconds
        assert taken > min(one.seconds for one in idle) + 0.05


def test_what_a_child_says_of_its_seconds_is_not_asked(sandbox):
    """Row 17: patched clocks, the engine's own included."""
    source = BUSY + (
        "import time\nimport course_lib.exercises.engine.run as engine\n"
        "engine.process_time = time.process_time = lambda: 0.0\n"
        "def f(x):\n    busy()\n    return x"
    )
    honest = send(sandbox, BUSY + "def f(x):\n    busy()\n    return x")
    forged = send(sandbox, source)
    assert forged.outcomes[0].seconds == 0 and forged.seconds > honest.seconds / 3


@pytest.mark.parametrize(
    "source",
    [
        "import os\ndef f(x):\n    if os.fork() == 0: os._exit(0)\n    return x",
        "import threading\ndef f(x):\n    threading.Thread(target=print).start()\n    return x",
        "import subprocess\ndef f(x):\n    subprocess.run(['true'])\n    return x",
    ],
    ids=["a process", "a thread", "a program"],
)
def test_a_timed_job_starts_nobody_whose_seconds_are_not_its_own(sandbox, source):
    if sandbox.tier != "bubblewrap":
        pytest.skip("this tier shuts nothing in")
    reply = send(sandbox, source)
    assert reply.status or reply.outcomes[0].error


def test_where_nobody_watches_the_childs_word_is_taken(sandbox, monkeypatch):
    with Sandbox((), "process") as one:
        monkeypatch.setattr("course_lib.classroom.grading.sandbox.worker.forks", lambda tier: False)
        reply = send(one, BUSY + "def f(x):\n    busy()\n    return x")
    assert reply.seconds == reply.outcomes[0].seconds > 0


# ---------------------------------------------------------------------- a grade


def graded(answer: str, run_job, seed: int = 5):
    assignment = Assignment("10_acceleration", {"fast_decode": 3}, (IMPORTS,), ())
    found = grade(Submission("ada", {"fast_decode": answer}), assignment, seed, run_job)
    return found.results[0]


IMPORTS = "import copy, torch\nimport torch.nn.functional as F"
PLAIN = """from course_lib.models.llama import generate
def fast_decode(model, tokens, count):
    return generate(model, tokens, count)
"""
FORGED = (
    PLAIN
    + """
import time
import course_lib.exercises.engine.run as engine
import course_lib.models.llama as llama
engine.process_time = time.process_time = time.perf_counter = lambda: 0.0
kept = llama.generate
llama.generate = lambda *inputs: kept(*inputs) and kept(*inputs)
"""
)


def right_answer() -> str:
    head = "### right fast_decode joined weights, no speculation\n"
    return ANSWERS.read_text("utf-8").split(head)[1].split("\n### ")[0]


def test_grades_are_for_speed_that_the_watcher_saw(sandbox):
    assert find("fast_decode").pace is not None
    right = graded(right_answer(), sandbox.run)
    assert (right.status, right.points) == (PASSED, 3), right.words
    for answer in (PLAIN, FORGED):
        slow = graded(answer, sandbox.run)
        assert (slow.status, slow.points, slow.misconception) == (FAILED, 0, "the plain loop")
        assert "of the CPU seconds of generate" in slow.words


def test_each_attempt_must_be_right_and_quick_at_once():
    """Right and a little too slow at first, then quick and wrong."""
    exercise, asked = find("fast_decode"), []
    right = tuple(run(exercise.pace.plain, exercise.cases(5)))

    def run_job(job):
        if "generate as" in job.blocks[-1]:
            return Reply("", right, seconds=1.0)
        asked.append(job)
        if len(asked) == 1:
            return Reply("", right, seconds=0.9)
        return Reply("", (Outcome(0),) * len(right), seconds=0.1)

    assert graded(PLAIN, run_job).status == FAILED and len(asked) == 2
