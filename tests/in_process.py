"""A sandbox that is none, and answers to put in: for tests of what stands around the sandbox."""

import json
from pathlib import Path

from course_lib.classroom.grading.sandbox import Job, Reply
from course_lib.classroom.grading.sandbox.job import unpack_cases
from course_lib.classroom.release import Assignment
from course_lib.classroom.submissions.submission import Submission
from course_lib.exercises.engine.run import run

SEED = 7
NOTEBOOK = {"nbformat": 4, "nbformat_minor": 5, "metadata": {}}
OUTPUT = {"outputs": [], "execution_count": None}
POINTS = {"to_uint8": 1, "fit_symmetric": 2}
TOY = Assignment("05_linear_quantization", POINTS, ("import torch",), ())
RIGHT = "def to_uint8(weight):\n    return (weight * 255).round().to(torch.uint8)"
WRONG = "def to_uint8(weight):\n    return (weight * 255).to(torch.uint8)"
STUB = "def to_uint8(weight):\n    raise NotImplementedError()"


def run_here(job: Job) -> Reply:
    """What a sandbox's `run` does, in this process: for code that the tests themselves hold."""
    space = {"__name__": "answer"}
    for source in job.blocks:
        exec(source, space)
    cases = unpack_cases(job.cases)
    outcomes = tuple(run(space[job.function], cases, job.seconds))
    return Reply("", outcomes, seconds=sum(one.seconds for one in outcomes))


def submission(student: str = "ada", answer: str = RIGHT, **others) -> Submission:
    """One answer to the toy assignment's first exercise."""
    return Submission(student, {"to_uint8": answer}, **others)


def write_submission(path: Path, **answers: str) -> Path:
    """A notebook of chapter 05 with these answer cells, each below its name; returns its path."""
    cells = [_cell(source, grade_id=name, solution=True) for name, source in answers.items()]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(NOTEBOOK | {"cells": cells}), "utf-8")
    return path


def _cell(source: str, **nbgrader) -> dict:
    return {"cell_type": "code", "source": source, "metadata": {"nbgrader": nbgrader}} | OUTPUT
