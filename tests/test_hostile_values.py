"""Values that would make the judge itself slow or large: it runs outside of every sandbox."""

import subprocess
import sys

import pytest

from course_lib.exercises.engine.catalogue import all_exercises

OPEN = [one.name for one in all_exercises().values() if not one.compare]
GIGABYTES = 1.5  # PyTorch and a chapter's models take half of one

JUDGE = """
import sys
import torch
from course_lib.exercises.engine.catalogue import find
from course_lib.exercises.engine.judge import PASSED, judge
from course_lib.exercises.engine.run import Outcome
from course_lib.exercises.engine.values import plain

tiny = {"0.weight": torch.zeros(1, 64), "0.bias": torch.zeros(1), "2.weight": torch.zeros(10, 1),
        "2.bias": torch.zeros(10), "4.weight": torch.zeros(10, 1), "4.bias": torch.zeros(10)}
values = {
    "many small networks": [tiny] * 300,
    "numbers that broadcast": [torch.zeros(30_000, 1, 1), torch.ones(1, 1)],
    "more that broadcast": [torch.zeros(1, 1), torch.zeros(2_000, 1, 1)],
    "a long vector": torch.zeros(6_000_000, dtype=torch.int64),
    "a long list": [0] * 1_000_000,
    "a large number": 10**999,
    "not a number": [{name: part * float("nan") for name, part in tiny.items()}] * 5,
}
# What the known wrong answers are said to give: compared by broadcasting, it would be large.
known = Outcome(plain([torch.zeros(1, 30_000, 1), torch.ones(1, 1)]))
for exercise in map(find, sys.argv[2:]):
    cases = exercise.cases(1)[:2]  # the same value in each
    for name, value in values.items():
        outcomes = [Outcome(plain(value))] * len(cases)
        verdict = judge(exercise, cases, outcomes, run=lambda _, some, *how: [known] * len(some))
        assert verdict.status != PASSED, (exercise.name, name)
        with open("/proc/self/status") as lines:  # getrusage would count what the parent once held
            peak = 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
        assert peak < float(sys.argv[1]) * 1e9, (exercise.name, name, peak)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="memory is counted in kilobytes on Linux")
def test_no_value_makes_the_judge_large():
    line = [sys.executable, "-c", JUDGE, str(GIGABYTES), *OPEN]
    done = subprocess.run(line, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr[-2000:]
