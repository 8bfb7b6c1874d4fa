"""Every reference runs on every device: a fake accelerator always, cuda where there is one."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from course_lib.exercises.engine.catalogue import all_exercises
from course_lib.exercises.engine.judge import PASSED, judge
from course_lib.exercises.engine.run import run


def test_references_on_a_fake_accelerator():
    script = Path(__file__).parent / "fake_accelerator.py"
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no cuda device on this machine")
@pytest.mark.parametrize("exercise", all_exercises().values(), ids=lambda e: e.name)
def test_references_on_cuda(exercise):
    cases = exercise.cases()
    outcomes = run(exercise.reference, cases, exercise.seconds, "cuda")
    assert judge(exercise, cases, outcomes, "cuda").status == PASSED
