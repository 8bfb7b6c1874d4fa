"""`course build`: two notebooks from every lesson's source.

solutions/NN_topic.py -> solutions/NN_topic.ipynb   run, with outputs: nbval compares with them
                      -> notebooks/NN_topic.ipynb   what a learner opens: no solutions, no outputs

README.png is the last figure of the first lesson; beside the learner's notebooks lie the pages that
lessons link to: glossary, sources and bibliography.

Only a lesson whose code differs from its solved notebook's is run; where prose alone differs, the
outputs are kept. That a change in course_lib alters what a lesson prints is not seen here; nbval
sees it, in `make test`.
"""

import os
import re
import subprocess
import tempfile
import time
from base64 import b64decode
from copy import deepcopy
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellTimeoutError, DeadKernelError
from nbformat import NotebookNode
from nbgrader.preprocessors import ClearOutput

from course_lib.classroom.files import NOTEBOOKS, SOLUTIONS, lesson_sources
from course_lib.classroom.learner import keep, write
from course_lib.classroom.lesson import Lesson, LessonError, read_lessons
from course_lib.classroom.pages import write_pages
from course_lib.classroom.student import is_touched, student_notebook

CELL_SECONDS = 600
WIDGET = "application/vnd.jupyter.widget-view+json"
PNG_DATA = re.compile(r"data:image/png;base64,([\w+/=]+)")
IMAGE_DATA = re.compile(r"base64,[\w+/=]+")
WARNING = re.compile(r"\w*Warning: .*")
ABSOLUTE_PATH = re.compile(r"(?<![\w.:/<~-])(?:/[\w.-]+){2,}|\b[A-Z]:\\\w+")


def build(solutions: Path = SOLUTIONS, notebooks: Path = NOTEBOOKS, force: bool = False) -> None:
    """Bring both notebooks of every lesson up to date, and say what was done.

    A student notebook that somebody wrote into is kept beside the new one.

    Raises:
        LessonError: a lesson is malformed or does not run cleanly.
    """
    lessons = read_lessons(solutions)
    for lesson in lessons:
        begun = time.monotonic()
        name = f"{lesson.path.stem}.ipynb"
        done = "up to date"
        if force or not is_current(solutions / name, lesson):
            kept = None if force else with_kept_outputs(solutions / name, lesson)
            write(solutions / name, kept or run_lesson(lesson))
            seconds = time.monotonic() - begun
            done = "prose renewed, outputs kept" if kept else f"run in {seconds:.1f} s"
        if is_touched(notebooks / name):
            done += f"; notebooks/{name} had been edited: kept as {keep(notebooks / name).name}"
        write(notebooks / name, student_notebook(lesson))
        print(f"{lesson.path.stem:<32}{done}", flush=True)
    write_pages(notebooks, lesson_sources(solutions), solutions)
    figures = pictures(lessons[0].path.with_suffix(".ipynb")) if lessons else []
    if figures:
        (solutions.parent / "README.png").write_bytes(figures[-1])


def pictures(path: Path) -> list[bytes]:
    """The figures in a run notebook, PNG, in their order."""
    outputs = [out for cell in nbformat.read(path, 4).cells for out in cell.get("outputs", [])]
    html = [out.data.get("text/html", "") for out in outputs if "data" in out]
    return [b64decode(data) for text in html for data in PNG_DATA.findall(text)]


def is_current(solved: Path, lesson: Lesson) -> bool:
    """Whether a solved notebook is the lesson's, outputs aside."""
    if not solved.exists():
        return False
    notebook, _ = ClearOutput().preprocess(nbformat.read(solved, as_version=4), {})
    return notebook == lesson.notebook


def with_kept_outputs(solved: Path, lesson: Lesson) -> NotebookNode | None:
    """The lesson with a solved notebook's outputs; None unless all code is the same and was run."""
    if not solved.exists():
        return None
    notebook = deepcopy(lesson.notebook)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    old = [c for c in nbformat.read(solved, as_version=4).cells if c.cell_type == "code"]
    if [(c.source, c.metadata) for c in cells] != [(c.source, c.metadata) for c in old]:
        return None
    if not all(cell.execution_count for cell in old):
        return None
    for cell, run in zip(cells, old, strict=True):
        cell.outputs, cell.execution_count = run.outputs, run.execution_count
    return notebook


def run_lesson(lesson: Lesson) -> NotebookNode:
    """The lesson with its outputs, from a new kernel in the lesson's folder.

    Progress is recorded elsewhere: that an author's answers pass says nothing about a learner.

    Raises:
        LessonError: a cell fails, warns or prints a path of this machine; or the kernel is lost.
    """
    notebook = deepcopy(lesson.notebook)
    options = {"allow_errors": True, "record_timing": False, "store_widget_state": False}
    client = NotebookClient(notebook, timeout=CELL_SECONDS, coalesce_streams=True, **options)
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "XDG_DATA_HOME": folder}
        where = {"cwd": str(lesson.path.parent), "env": environment}
        with client.setup_kernel(**where, stderr=subprocess.DEVNULL):
            for index, cell in enumerate(notebook.cells):
                try:
                    client.execute_cell(cell, index)
                    problem = unclean(cell)
                except (CellTimeoutError, DeadKernelError) as error:
                    problem = str(error)
                if problem:
                    first_line = cell.source.strip().partition("\n")[0]
                    raise LessonError(f"{lesson.at(index)}: {first_line}\n{problem}")
                for output in cell.get("outputs", []):
                    output.get("data", {}).pop(WIDGET, None)  # its model lives in this kernel only
    return notebook


def unclean(cell: NotebookNode) -> str:
    """What must not stand in a saved output: an error, a warning or a path of this machine."""
    for output in cell.get("outputs", []):
        if output.output_type == "error":
            return f"{output.ename}: {output.evalue}"
        if output.get("name") == "stderr":
            return f"text on stderr: {output.text.strip()}"
        texts = [output.get("text", "")]
        texts += [str(v) for mime, v in output.get("data", {}).items() if mime != "image/png"]
        for text in texts:
            text = IMAGE_DATA.sub("", text)
            if found := WARNING.search(text) or ABSOLUTE_PATH.search(text):
                return f"warning or path in an output: {found.group()}"
    return ""
