"""What a learner opens, made from a lesson; and whether somebody has written into it."""

from copy import deepcopy
from pathlib import Path

from nbformat import NotebookNode
from nbgrader.preprocessors import (
    CheckCellMetadata,
    ClearOutput,
    ClearSolutions,
    ComputeChecksums,
    LockCells,
)
from nbgrader.utils import compute_checksum

from course_lib.classroom.learner import read_cells
from course_lib.classroom.lesson import Lesson, grade_id, set_ids

STEPS = (LockCells, ClearSolutions, ClearOutput, CheckCellMetadata, ComputeChecksums)


def student_notebook(lesson: Lesson) -> NotebookNode:
    """The lesson without solutions and outputs: what `nbgrader generate_assignment` makes of it."""
    notebook, resources = deepcopy(lesson.notebook), {}
    for step in STEPS:
        notebook, resources = step().preprocess(notebook, resources)
    return notebook


def is_touched(path: Path) -> bool:
    """Whether somebody wrote into a student notebook, be it a notebook of an earlier build.

    Every cell vouches for its own source: by its id, or by nbgrader's checksum.
    """
    if not path.exists():
        return False
    cells = read_cells(path)
    renamed = deepcopy(cells)
    set_ids(renamed)
    return not cells or any(
        cell.get("id") != same.id
        or grade_id(cell)
        and cell.metadata.nbgrader.get("checksum") != compute_checksum(cell)
        for cell, same in zip(cells, renamed, strict=True)
    )
