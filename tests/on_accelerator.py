"""Run a script in a process of its own, where `fake_accelerator` may add its device."""

import subprocess
import sys
from pathlib import Path


def run_on_accelerator(script: str) -> None:
    """Fail with what the script printed to stderr, if it fails. It may import from tests."""
    tests = Path(__file__).resolve().parent
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tests, capture_output=True, text=True,
        env={"PYTHONPATH": f"{tests}:{tests.parent}"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
