"""A lesson's source, `solutions/NN_topic.py` in Jupytext's percent format, read as a notebook.

An answer cell begins with `# %% exercise="name"` and defines the function `name`, its solution
between `### BEGIN SOLUTION` and `### END SOLUTION`. A later cell `# %% check="name" points=2` calls
`check(name)`. Both become nbgrader's metadata, so its tools can clear, lock and grade them.
So does a question that people grade: prose, `# %% [markdown] question="name" points=2`, its good
answer between `<!-- BEGIN SOLUTION -->` and `<!-- END SOLUTION -->`.
A lesson with checks imports what a verdict names: `check` and `hint`.

A cell with `tags=["collapsed"]` imports, draws or asserts. Its code opens folded, and its first
line is what stands there, so that line says what the cell is for.

A cell with `slide=…` stands in the chapter's deck, too: see book/slides.py. No notebook shows it.

The first mention of each term, paper and source becomes a link to its page beside the lesson.
"""

import ast
import hashlib
import re
from collections import Counter
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import jupytext
from nbformat import NotebookNode

from course_lib.classroom.files import SOLUTIONS, lesson_sources
from course_lib.classroom.pages import link_pages, read_pages
from course_lib.exercises.engine.catalogue import find

COLLAPSED = "collapsed"  # the tag of a cell whose code opens folded
EXERCISES = "course_lib.exercises"
NAMED = ("check", "hint")  # what a check's cell and its verdict name
OPTIONS = {
    "exercise", "check", "question", "points", "tags", "slide", "cell_marker", "lines_to_next_cell",
}  # fmt: skip
PYTHON = {
    "kernelspec": {"name": "python3", "display_name": "Python 3 (ipykernel)", "language": "python"},
    "language_info": {"name": "python"},
}


class LessonError(Exception):
    """What is wrong with a lesson, one `file:line: message` a line."""


@dataclass(frozen=True)
class Lesson:
    """A lesson as a notebook that was not run; `lines[i]` is where cell i begins in the source."""

    path: Path
    notebook: NotebookNode
    lines: tuple[int, ...]

    def at(self, cell: int) -> str:
        """`file:line` of a cell."""
        return f"{_short(self.path)}:{self.lines[cell]}"


def read_lessons(folder: Path = SOLUTIONS) -> list[Lesson]:
    """Every lesson of a folder.

    Raises:
        LessonError: a lesson is malformed, or two exercises have one name.
    """
    lessons = [read_lesson(path) for path in lesson_sources(folder)]
    places: dict[str, str] = {}
    for lesson in lessons:
        for index, cell in enumerate(lesson.notebook.cells):
            name, place = grade_id(cell), lesson.at(index)
            if name and places.setdefault(name, place) != place:
                raise LessonError(f"{place}: {name} stands at {places[name]} already")
    return lessons


def read_lesson(path: Path) -> Lesson:
    """One lesson, with nbgrader's metadata and cell ids that depend on nothing but the source.

    Raises:
        LessonError: markers, exercises or checks are malformed; all problems, with their lines.
    """
    lesson = _read(path, path.read_text("utf-8"), tuple(read_pages(path.parent).items()))
    return replace(lesson, notebook=deepcopy(lesson.notebook))


@lru_cache(maxsize=64)
def _read(path: Path, source: str, pages: tuple[tuple[str, str], ...]) -> Lesson:
    """Of equal texts the same lesson, which nobody may change: its links take seconds to find."""
    text = source.split("\n")
    notebook = jupytext.reads(source, fmt="py:percent")
    starts = [n for n, line in enumerate(text, 1) if line.startswith("# %%")]
    if len(starts) != len(notebook.cells):
        raise LessonError(f"{_short(path)}:1: text before the first `# %%`, or `# %%` in a string")
    ends = [*starts[1:], len(text) + 1]
    blocks = [text[start : end - 1] for start, end in zip(starts, ends, strict=True)]
    problems = list(_problems(notebook.cells, starts, blocks))
    if problems:
        raise LessonError("\n".join(f"{_short(path)}:{n}: {what}" for n, what in problems))
    notebook.metadata = NotebookNode(PYTHON)
    for cell in notebook.cells:
        cell.metadata = _metadata(cell.metadata)
    link_pages(notebook.cells, dict(pages))
    set_ids(notebook.cells)
    return Lesson(path, notebook, tuple(starts))


def grade_id(cell: NotebookNode) -> str:
    """The name under which nbgrader knows an answer cell, a check or a question, else nothing."""
    return cell.metadata.get("nbgrader", {}).get("grade_id", "")


def is_collapsed(cell: NotebookNode) -> bool:
    """Whether a cell's code opens folded."""
    return COLLAPSED in cell.metadata.get("tags", [])


def _problems(cells, starts, blocks) -> Iterator[tuple[int, str]]:
    """(line, message) for everything that is wrong with one lesson's cells."""
    open_at: dict[str, int] = {}  # exercise -> line, until its check stands
    for cell, start, block in zip(cells, starts, blocks, strict=True):
        unknown = set(cell.metadata) - OPTIONS
        if unknown:
            yield start, f"unknown cell option {', '.join(sorted(unknown))}"
        name, checked = cell.metadata.get("exercise"), cell.metadata.get("check")
        if is_collapsed(cell) and (name or checked or cell.cell_type != "code"):
            yield start, "only code that is neither exercise nor check can be collapsed"
        question = cell.metadata.get("question")
        yield from _marker_problems(start, block, bool(name or question))
        if question:
            yield from _question_problems(question, start, cell)
        if name:
            yield from _answer_problems(name, start, cell.source)
            open_at[name] = start
        if checked:
            if open_at.pop(checked, None) is None:
                yield start, f"a check without an exercise {checked} above it"
            yield from _check_problems(checked, start, cell)
    yield from ((line, f"exercise {name} has no check") for name, line in open_at.items())
    yield from _import_problems(cells, starts)


def _import_problems(cells, starts) -> Iterator[tuple[int, str]]:
    """Of a lesson with checks: a verdict says `hint(…)`, and that must not be a NameError."""
    first = next((n for c, n in zip(cells, starts, strict=True) if c.metadata.get("check")), None)
    code = "\n".join(cell.source for cell in cells if cell.cell_type == "code")
    lines = re.findall(rf"(?m)^from {EXERCISES} import (.*)$", code)
    imported = {name.strip() for line in lines for name in line.split(",")}
    if first and not imported >= set(NAMED):
        wanted = f"from {EXERCISES} import {', '.join(NAMED)}"
        yield first, f"a lesson with checks needs `{wanted}`, on one line; a verdict names both"


def _marker_problems(start: int, block: list[str], is_answer: bool) -> Iterator[tuple[int, str]]:
    begun = 0
    for number, line in enumerate(block, start + 1):
        if "BEGIN SOLUTION" in line:
            if begun:
                yield number, f"BEGIN SOLUTION within the one of line {begun}"
            elif not is_answer:
                yield number, 'BEGIN SOLUTION in a cell without exercise="..." or question="..."'
            begun = number
        elif "END SOLUTION" in line:
            if not begun:
                yield number, "END SOLUTION without BEGIN SOLUTION"
            begun = 0
    if begun:
        yield begun, "BEGIN SOLUTION without END SOLUTION"


def _answer_problems(name: str, start: int, source: str) -> Iterator[tuple[int, str]]:
    try:
        find(name)
    except LookupError as error:
        yield start, str(error)
    if "BEGIN SOLUTION" not in source:
        yield start, f"exercise {name} has no BEGIN SOLUTION"
    try:
        defined = [getattr(node, "name", None) for node in ast.parse(source).body]
    except SyntaxError as error:
        yield start + (error.lineno or 0), f"exercise {name} is not Python: {error.msg}"
    else:
        if name not in defined:
            yield start, f"exercise {name} defines no function of that name"


def _question_problems(name: str, start: int, cell: NotebookNode) -> Iterator[tuple[int, str]]:
    if cell.cell_type != "markdown":
        yield start, f"question {name} is no [markdown] cell"
    if "<!-- BEGIN SOLUTION -->" not in cell.source:
        yield start, f"question {name} has no <!-- BEGIN SOLUTION -->"
    yield from _points_problems(f"question {name}", start, cell)


def _points_problems(what: str, start: int, cell: NotebookNode) -> Iterator[tuple[int, str]]:
    points = cell.metadata.get("points")
    if not (isinstance(points, int) and points > 0):
        yield start, f"{what} needs points=1 or more"


def _check_problems(name: str, start: int, cell: NotebookNode) -> Iterator[tuple[int, str]]:
    yield from _points_problems(f"the check of {name}", start, cell)
    if f"check({name})" not in cell.source:
        yield start, f"the check of {name} does not call check({name})"


def _metadata(options: NotebookNode) -> NotebookNode:
    """A cell's metadata from what its `# %%` line says."""
    metadata = {"tags": options["tags"]} if "tags" in options else {}
    if COLLAPSED in options.get("tags", []):
        metadata["jupyter"] = {"source_hidden": True}
    answer = {"schema_version": 3, "solution": True, "grade": False, "locked": False, "task": False}
    check = {**answer, "solution": False, "grade": True, "locked": True}
    if "exercise" in options:
        metadata["nbgrader"] = {**answer, "grade_id": options["exercise"]}
    elif "check" in options:
        name, points = f"check_{options['check']}", options["points"]
        metadata["nbgrader"] = {**check, "grade_id": name, "points": points}
    elif "question" in options:
        by_hand = {"grade_id": options["question"], "points": options["points"]}
        metadata["nbgrader"] = {**answer, "grade": True, **by_hand}
    return NotebookNode(metadata)


def set_ids(cells: list[NotebookNode]) -> None:
    """In place: the grade_id, else a hash of the cell's type and source, numbered where it recurs.

    Jupytext's own ids are random: every build would change every notebook.
    """
    seen: Counter[str] = Counter()
    for cell in cells:
        digest = hashlib.sha256(f"{cell.cell_type}\n{cell.source}".encode()).hexdigest()[:8]
        name = grade_id(cell) or digest
        cell.id = f"{name}-{seen[name]}" if seen[name] else name
        seen[name] += 1


def _short(path: Path) -> str:
    return f"{path.parent.name}/{path.name}"
