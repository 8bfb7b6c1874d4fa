"""What a learner opens: made from a lesson, restored on request, never lost."""

from copy import deepcopy
from datetime import datetime
from itertools import count
from pathlib import Path

import nbformat
from nbformat import NotebookNode
from nbgrader.preprocessors import (
    CheckCellMetadata,
    ClearOutput,
    ClearSolutions,
    ComputeChecksums,
    LockCells,
)
from nbgrader.utils import compute_checksum

from course_lib.classroom.lesson import Lesson, grade_id, read_lesson, set_ids

STEPS = (LockCells, ClearSolutions, ClearOutput, CheckCellMetadata, ComputeChecksums)


def student_notebook(lesson: Lesson) -> NotebookNode:
    """The lesson without solutions and outputs: what `nbgrader generate_assignment` makes of it."""
    notebook, resources = deepcopy(lesson.notebook), {}
    for step in STEPS:
        notebook, resources = step().preprocess(notebook, resources)
    return notebook


def write(path: Path, notebook: NotebookNode) -> None:
    """Write a notebook, the same bytes on every system; a file that has them is left alone."""
    data = (nbformat.writes(notebook) + "\n").encode()
    if not path.exists() or path.read_bytes() != data:
        path.write_bytes(data)


def is_touched(path: Path) -> bool:
    """Whether somebody wrote into a student notebook, be it a notebook of an earlier build.

    Every cell vouches for its own source: by its id, or by nbgrader's checksum.
    """
    if not path.exists():
        return False
    cells = _cells(path)
    renamed = deepcopy(cells)
    set_ids(renamed)
    return not cells or any(
        cell.get("id") != same.id
        or grade_id(cell)
        and cell.metadata.nbgrader.get("checksum") != compute_checksum(cell)
        for cell, same in zip(cells, renamed, strict=True)
    )


def keep(path: Path) -> Path:
    """Copy a notebook to NAME.mine-YYYYMMDD-HHMMSS.ipynb beside it; nothing is overwritten."""
    stamp = datetime.now().strftime("%Y%m%d-%H%M%S")
    for number in count(1):
        again = f"-{number}" if number > 1 else ""
        kept = path.with_name(f"{path.stem}.mine-{stamp}{again}.ipynb")
        try:
            with kept.open("xb") as file:
                file.write(path.read_bytes())
            return kept
        except FileExistsError:
            continue


def reset(source: Path, notebook: Path) -> str:
    """Restore the untouched student notebook of a lesson, keep the learner's, say what was done."""
    fresh = student_notebook(read_lesson(source))
    if not notebook.exists():
        write(notebook, fresh)
        return f"{notebook.name} was missing and is restored."
    cells = _cells(notebook)
    if _contents(cells) == _contents(fresh.cells) and _marks(cells) == _marks(fresh.cells):
        return f"{notebook.name} is untouched: nothing to do."
    kept = keep(notebook)
    write(notebook, fresh)
    return (
        f"{notebook.name} is restored; yours is kept as {kept.name}.\n"
        "Where it is open in JupyterLab: File > Reload Notebook from Disk."
    )


def _cells(path: Path) -> list[NotebookNode]:
    """A notebook's cells; none where the file is no notebook (any more)."""
    try:
        return nbformat.read(path, as_version=4).cells
    except Exception:  # be it text, a list or half a file: nothing that this course wrote
        return []


def _marks(cells: list[NotebookNode]) -> list[dict | None]:
    """nbgrader's metadata of the cells, by which answers and checks are found; editors drop it."""
    return [cell.metadata.get("nbgrader") for cell in cells]


def _contents(cells: list[NotebookNode]) -> list[tuple]:
    return [(cell.cell_type, cell.source, cell.get("outputs", [])) for cell in cells]
