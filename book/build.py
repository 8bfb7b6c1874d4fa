"""`make site`: a web book of the solved notebooks, the pages beside them, the library's reference.

Notebooks are shown with the outputs that are stored in them, and each slider with all its states:
`recorded.py` runs a lesson for them, once. In a student edition, which has no solved notebooks,
they are a learner's, as untouched as they came. The pages are laid out in build/site/pages, the
book is written to build/site/html. Open index.html there: no server and no network is needed.

The instructor's book has the solutions, folded. `make site BOOK=student` builds the student's book
in build/site-student: no solutions, no model answers, no code of the library.
"""

import shutil
import sys
from collections.abc import Iterator
from copy import deepcopy
from importlib.util import find_spec
from pathlib import Path

import nbformat
from lighter import file_pictures, lighten_pages
from live import make_live
from nbformat import NotebookNode
from nbgrader.preprocessors import ClearSolutions
from recorded import MADE_OF, recorded_states
from sphinx.cmd.build import build_main

from course_lib.classroom.files import LESSON, ROOT, SOLUTIONS, UNTOUCHED, lesson_sources
from course_lib.classroom.lesson import is_collapsed
from course_lib.classroom.pages import write_pages

BOOK, LIBRARY = ROOT / "book", ROOT / "course_lib"
ANSWER_BEGINS = "<!-- BEGIN SOLUTION -->", "<details><summary>A good answer</summary>\n"
ANSWER_ENDS = "<!-- END SOLUTION -->", "\n</details>"
INSTRUCTOR, STUDENT = "instructor", "student"
NO_SOLUTIONS = (
    "Here the solutions are\nfolded away. Try before you look.",
    "This book has no\nsolutions.",
)
LEFT_OUT = {"exercises"}  # of the reference: every answer is in it
MATHJAX = shutil.ignore_patterns(
    *("*svg*", "mml*", "tex-mml*", "*full*", "asciimath.js", "node-main.js", "liteDOM.js"),
    *("[!e][!n].json", "nemeth.json"),  # formulas spoken in other languages
)


def main(book: str = INSTRUCTOR, folder: Path | None = None, states: Path | None = None) -> int:
    """Build a book; 0 if there was no error and no warning.

    Args:
        book: "instructor" or "student".
        folder: below which it is built, if not below build.
        states: a folder of states for each lesson, if not those that are recorded here.
    """
    if book not in (INSTRUCTOR, STUDENT):
        raise ValueError(f"book must be {INSTRUCTOR} or {STUDENT}; got {book}")
    states = states or recorded_states()
    folder = folder or ROOT / "build" / ("site-student" if book == STUDENT else "site")
    pages, html = folder / "pages", folder / "html"
    doctrees = folder / "doctrees"
    for old in (pages, html, doctrees):
        shutil.rmtree(old, ignore_errors=True)
    lay_out(pages, states, book == STUDENT)
    options = ["-q", "-W", "--keep-going", "-b", "html", "-d", str(doctrees), "-t", book]
    status = build_main([*options, str(pages), str(html)])
    if status == 0:
        lighten_pages(html)
        print(f"the book: {html / 'index.html'}")
    return status


def lay_out(pages: Path, states: Path, for_students: bool = False) -> None:
    """Write every page, the states and MathJax where Sphinx will find them."""
    shutil.copytree(BOOK, pages, ignore=shutil.ignore_patterns("__pycache__", "deck"))
    shutil.copy(ROOT / "README.png", pages)
    lessons = sorted(SOLUTIONS.glob(f"{LESSON}.ipynb")) or lesson_sources()
    write_pages(pages, lessons, SOLUTIONS if SOLUTIONS.exists() else UNTOUCHED)
    if for_students:
        index = pages / "index.md"
        index.write_text(index.read_text("utf-8").replace(*NO_SOLUTIONS), "utf-8")
    for path in lessons:
        notebook = nbformat.read(path, as_version=4)
        notebook = for_students_to_read(notebook) if for_students else for_reading(notebook)
        _lay_out_lesson(notebook, pages / path.name, states / path.stem)
    (pages / "library").mkdir()
    for room, text in reference_pages():
        (pages / "library" / f"{room}.md").write_text(text, "utf-8")
    spec = find_spec("sphinx-mathjax-offline")
    source = Path(spec.origin).parent / "static" / "mathjax"
    shutil.copytree(source, pages / "_static" / "mathjax", ignore=MATHJAX)


def _lay_out_lesson(notebook: NotebookNode, page: Path, states: Path) -> None:
    """Write a page, and beside it its pictures and those of its sliders; tables stand in it."""
    place = f"_static/states/{states.name}"
    make_live(notebook, states, place)
    pictures = f"_static/pictures/{page.stem}"
    file_pictures(notebook, page.parent / pictures, pictures)
    nbformat.write(notebook, page)
    if states.exists():
        others = shutil.ignore_patterns("*.html", "*.json", MADE_OF)
        shutil.copytree(states, page.parent / place, ignore=others)


def for_reading(notebook: NotebookNode) -> NotebookNode:
    """A solved notebook as a page: tasks as learners see them; answers and side work folded."""
    notebook = deepcopy(notebook)
    cells = []
    for cell, task in _with_tasks(notebook):
        grading = cell.metadata.get("nbgrader", {})
        if cell.cell_type == "markdown":
            cell.source = cell.source.replace(*ANSWER_BEGINS).replace(*ANSWER_ENDS)
        elif grading.get("solution"):
            cells.append(_task(task))
            _fold(cell, "a solution", "the solution")
            lines = cell.source.split("\n")
            cell.source = "\n".join(line for line in lines if not line.strip().startswith("### "))
        elif grading.get("grade"):
            _tag(cell, "remove-input")
        elif is_collapsed(cell):
            _fold(cell, "the code", "the code")
        cells.append(cell)
    notebook.cells = cells
    return notebook


def for_students_to_read(notebook: NotebookNode) -> NotebookNode:
    """A solved notebook as a page without solutions: tasks and checks are still to be solved."""
    notebook = deepcopy(notebook)
    cells = []
    for cell, task in _with_tasks(notebook):
        if cell.cell_type == "code" and cell.metadata.get("nbgrader"):
            cell = _task(task)
        elif cell.cell_type == "markdown":
            cell = task
        elif is_collapsed(cell):
            _fold(cell, "the code", "the code")
        cells.append(cell)
    notebook.cells = cells
    return notebook


def _with_tasks(notebook: NotebookNode) -> Iterator[tuple[NotebookNode, NotebookNode]]:
    """Each cell, and beside it the same one without its solution."""
    tasks, _ = ClearSolutions().preprocess(deepcopy(notebook), {})
    return zip(notebook.cells, tasks.cells, strict=True)


def _tag(cell: NotebookNode, tag: str) -> None:
    cell.metadata["tags"] = [*cell.metadata.get("tags", []), tag]


def _fold(cell: NotebookNode, closed: str, opened: str) -> None:
    """In place: the cell's code folds behind "Show …" and "Hide …"."""
    _tag(cell, "hide-input")
    prompts = {"code_prompt_show": f"Show {closed}", "code_prompt_hide": f"Hide {opened}"}
    cell.metadata["mystnb"] = prompts


def _task(cell: NotebookNode) -> NotebookNode:
    cell.id, cell.outputs, cell.metadata = f"task_{cell.id}", [], NotebookNode()
    return cell


def reference_pages() -> list[tuple[str, str]]:
    """(room, page) for every room of the library, its modules in the order of their names."""
    pages = []
    for room in sorted({path.relative_to(LIBRARY).parts[0] for path in LIBRARY.rglob("*.py")}):
        place = LIBRARY / room
        if room == "__init__.py" or room in LEFT_OUT:
            continue
        modules = sorted(place.glob("*.py")) if place.is_dir() else [place]
        names = [".".join(path.relative_to(ROOT).with_suffix("").parts) for path in modules]
        stem = room.removesuffix(".py")
        pages.append((stem, _reference_page(stem, names)))
    engine = "exercises.engine"
    pages.append(("exercises", _reference_page("exercises", [f"course_lib.{engine}.notebook"])))
    return sorted(pages)


def _reference_page(room: str, modules: list[str]) -> str:
    lines = [f"# {room}", ""]
    for module in modules:
        name = module.removesuffix(".__init__")
        if name == module:
            lines += [f"## {name.rpartition('.')[2]}", ""] if len(modules) > 1 else []
        members = ["   :members:"] if name == module else ["   :no-index:"]
        lines += ["```{eval-rst}", f".. automodule:: {name}", *members, "```", ""]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:2]))
