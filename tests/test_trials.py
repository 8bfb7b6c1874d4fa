"""What PyTorch says of a kernel that it lacks, or that counts wrong."""

import pytest
import torch

from course_lib.acceleration import trials
from course_lib.acceleration.trials import available


@pytest.fixture(autouse=True)
def untried():
    trials._reason.cache_clear()
    yield
    trials._reason.cache_clear()


def missing():
    raise RuntimeError("not implemented for 'CPU'\nand a long list")


@pytest.mark.parametrize(
    "trial, reason",
    [
        (lambda: torch.full((2,), 127.0 * 127 * 32), None),
        (missing, "not implemented for 'CPU'"),
        (lambda: torch.ops.aten._there_is_no_such_operation(), "no attribute"),
        (lambda: torch.full((2,), 32767), "it gives 32767 where 516128 is right"),
    ],
)
def test_there_and_right_or_what_happened(trial, reason, monkeypatch):
    monkeypatch.setitem(trials.TRIALS, "csr", trial)
    found = available()["csr"]
    assert found is None if reason is None else reason in found


def test_each_is_tried_once(monkeypatch):
    tried = []
    monkeypatch.setitem(trials.TRIALS, "csr", lambda: tried.append(1) or torch.tensor(516128))
    assert available() == available() and len(tried) == 1
