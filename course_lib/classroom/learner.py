"""A learner's folder: filled by `course start`, mended by `course reset`; nothing in it is lost.

In a checkout an untouched notebook is made from the lesson's source, which takes jupytext and
nbgrader. An installed package and a student edition bring it along.
"""

import shutil
from datetime import datetime
from itertools import count
from pathlib import Path

import nbformat
from nbformat import NotebookNode

from course_lib.classroom.files import NOTEBOOKS, PAGES, lesson_sources
from course_lib.places import is_checkout


def untouched(source: Path) -> NotebookNode:
    """A lesson as a learner first opens it.

    Raises:
        ImportError: this is a checkout without jupytext or nbgrader.
    """
    if source.suffix == ".ipynb":
        return nbformat.read(source, as_version=4)
    if not is_checkout():
        return nbformat.read(NOTEBOOKS / f"{source.stem}.ipynb", as_version=4)
    from course_lib.classroom.lesson import read_lesson
    from course_lib.classroom.student import student_notebook

    return student_notebook(read_lesson(source))


def write(path: Path, notebook: NotebookNode) -> None:
    """Write a notebook, the same bytes on every system; a file that has them is left alone."""
    data = (nbformat.writes(notebook) + "\n").encode()
    if not path.exists() or path.read_bytes() != data:
        path.write_bytes(data)


def start(folder: Path) -> list[str]:
    """Put notebooks and pages into a folder; returns the names of those that were there before.

    Raises:
        OSError: the folder cannot be made or written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    there = []
    for source in lesson_sources():
        path = folder / f"{source.stem}.ipynb"
        if path.exists():
            there.append(path.name)
        else:
            write(path, untouched(source))
    for page in PAGES:
        if (folder / page).exists():
            there.append(page)
        else:
            shutil.copyfile(NOTEBOOKS / page, folder / page)
    return there


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


def reset(notebook: Path, fresh: NotebookNode) -> str:
    """Write the untouched notebook, keep the learner's beside it, and say what was done."""
    if not notebook.exists():
        write(notebook, fresh)
        return f"{notebook.name} was missing and is restored."
    if _contents(read_cells(notebook)) == _contents(fresh.cells):
        return f"{notebook.name} is untouched: nothing to do."
    kept = keep(notebook)
    write(notebook, fresh)
    return (
        f"{notebook.name} is restored; yours is kept as {kept.name}.\n"
        "Where it is open in JupyterLab: File > Reload Notebook from Disk."
    )


def read_cells(path: Path) -> list[NotebookNode]:
    """A notebook's cells; none where the file is no notebook (any more)."""
    try:
        return nbformat.read(path, as_version=4).cells
    except Exception:  # be it text, a list or half a file: nothing that this course wrote
        return []


def _contents(cells: list[NotebookNode]) -> list[tuple]:
    """With nbgrader's metadata, by which answers and checks are found: some editors drop it."""
    return [
        (cell.cell_type, cell.source, cell.get("outputs", []), cell.metadata.get("nbgrader"))
        for cell in cells
    ]
