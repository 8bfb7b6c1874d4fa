"""Whole answers as people type them: every right one passes its check, every wrong one does not.

A file of tests/answers holds blocks: `### wrong|right EXERCISE what is special about it` and code.
"""

import copy
import linecache
import math
import re
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from judging import is_rejected, seeds_of, verdict_on
from torch import Tensor, nn

from course_lib.exercises.engine.catalogue import find
from course_lib.exercises.engine.judge import PASSED

ANSWERS = Path(__file__).parent / "answers"
OTHER_SEEDS = range(3, 13)
PATIENCE = 5  # times the seconds that a right answer has: a busy machine is not its fault
NAMES = {"copy": copy, "math": math, "re": re, "torch": torch, "F": F, "nn": nn, "Tensor": Tensor}


def blocks() -> list:
    """(kind, exercise, what is special, code) of every block, each with a name for pytest."""
    found = []
    for path in sorted(ANSWERS.glob("*.txt")):
        for block in re.split(r"(?m)^### ", path.read_text("utf-8"))[1:]:
            head, _, code = block.partition("\n")
            kind, exercise, why = head.split(maxsplit=2)
            found.append(pytest.param(kind, exercise, code, id=f"{kind}-{exercise}-{why}"))
    return found


def function_of(exercise: str, code: str):
    """The answer's function; its lines can be shown in a verdict."""
    file, space = f"<{exercise}>", {"__name__": "answer"} | NAMES
    linecache.cache[file] = (len(code), None, code.splitlines(True), file)
    exec(compile(code, file, "exec"), space)
    return space[exercise]


def passes(exercise, function, seed: int) -> bool:
    return verdict_on(exercise, function, seed, PATIENCE).status == PASSED


@pytest.mark.parametrize(("kind", "name", "code"), blocks())
def test_an_answer_is_judged_rightly(kind, name, code):
    assert kind in ("right", "wrong")
    exercise, function = find(name), function_of(name, code)
    for seed in seeds_of(exercise):
        if kind == "wrong":
            assert is_rejected(exercise, function, seed)
        else:
            assert passes(exercise, function, seed)


RIGHT = [block for block in blocks() if block.values[0] == "right"]


@pytest.mark.parametrize(("kind", "name", "code"), RIGHT)
def test_a_right_answer_passes_whatever_seed_a_grader_takes(kind, name, code):
    exercise, function = find(name), function_of(name, code)
    if exercise.seconds > 2:
        pytest.skip("an open task takes seconds for each seed")
    failed = [seed for seed in OTHER_SEEDS if not passes(exercise, function, seed)]
    assert failed == []
