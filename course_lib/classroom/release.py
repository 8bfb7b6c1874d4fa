"""What is set: a chapter's exercises with their points, and what its lesson gives an answer.

All of it comes from the course that is installed here, never from what somebody hands in.
"""

import ast
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import course_lib
from course_lib.classroom.files import SOLUTIONS, UNTOUCHED, find_source
from course_lib.classroom.submissions.answers import blocks, given_by, is_blank
from course_lib.classroom.submissions.cells import Cell, parse_notebook
from course_lib.classroom.submissions.parsing import parse

LIBRARY = Path(course_lib.__file__).parent
ALWAYS = ("device", "models", "data")  # rooms of course_lib that any answer may import
CHECK = "check_"  # what a check's grade_id begins with
SEEDS = range(1, 2**31)  # of a grader; 0 is the notebooks' own


@dataclass(frozen=True)
class Assignment:
    """What is set: a chapter's exercises with their points, and what an answer may stand on.

    `given` holds the imports, definitions and assignments of the lesson's other code cells, in
    their order; `library` the modules of course_lib that a graded answer may import (and, through
    them, what they import).
    """

    chapter: str
    points: Mapping[str, int]  # exercise -> points, in the lesson's order
    given: tuple[str, ...]
    library: tuple[str, ...]


def assignment(chapter: str) -> Assignment:
    """What a chapter of the course that is installed here sets.

    Args:
        chapter: "5", "05" or "05_linear_quantization".

    Raises:
        LookupError: there is no such chapter; the message lists those there are.

    >>> dict(assignment("00").points)
    {'count_parameters': 1, 'packed_bytes': 1, 'bits_per_byte': 1}
    """
    name = f"{find_source(chapter).stem}.ipynb"
    path = SOLUTIONS / name if (SOLUTIONS / name).is_file() else UNTOUCHED / name
    return assignment_of(path.stem, parse_notebook(path.read_bytes()))


def assignment_of(chapter: str, cells: Sequence[Cell]) -> Assignment:
    """What a notebook sets that this course made; with the answers in it, if it can be.

    Without them the library is all that the lesson itself imports.
    """
    answers = {c.grade_id: c.source for c in cells if c.kind == "code" and _is_answer(c)}
    checks = [c for c in cells if c.nbgrader.get("grade") and c.grade_id.startswith(CHECK)]
    names = {c.grade_id.removeprefix(CHECK): c.nbgrader["points"] for c in checks}
    points = {name: some for name, some in names.items() if name in answers}
    others = [c.source for c in cells if c.kind == "code" and not c.nbgrader]
    given = tuple(some for text in others for _, some in given_by(text))
    bare = Assignment(chapter, points, given, ())
    written = {name: answers[name] for name in points if not is_blank(name, answers[name])}
    used = {source for name in written for source in blocks(bare, written, name)} or given
    return replace(bare, library=tuple(sorted({*_always(), *_imported(used)})))


def check_seed(seed: int) -> None:
    """Raise a ValueError unless it is a grader's seed."""
    if seed not in SEEDS:
        raise ValueError(
            f"a seed is from 1 to {SEEDS[-1]}; 0 is the notebooks' own. This is {seed}"
        )


def _is_answer(cell: Cell) -> bool:
    """Whether a check decides on it; a question that a person grades is solution and grade."""
    return bool(cell.nbgrader.get("solution")) and not cell.nbgrader.get("grade")


def withheld(what: Assignment) -> tuple[str, ...]:
    """The exercises whose functions a graded answer does not find in the library.

    They are all of the chapter's but those that one of its model answers imports. In an edition
    without model answers nobody knows these, and nothing is withheld.

    >>> withheld(assignment("00"))
    ('count_parameters', 'packed_bytes', 'bits_per_byte')
    """
    path = SOLUTIONS / f"{what.chapter}.ipynb"
    cells = parse_notebook(path.read_bytes()) if path.is_file() else []
    answers = {c.grade_id: c.source for c in cells if c.grade_id in what.points}
    used = {source for name in answers for source in blocks(what, answers, name)}
    nodes = (node for source in used for node in ast.walk(parse(source)))
    imports = [node for node in nodes if isinstance(node, ast.ImportFrom)]
    free = {one.name for node in imports if "course_lib" in node.module for one in node.names}
    return tuple(name for name in what.points if answers and name not in free)


def _imported(sources: Iterable[str]) -> Iterator[str]:
    """The modules of course_lib that some sources import, but for the exercises."""
    for node in (node for source in sources for node in ast.walk(parse(source))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            inside = [f"{node.module}.{alias.name}" for alias in node.names]
            names = [name if _is_module(name) else node.module for name in inside]
        else:
            continue
        for name in names:
            if name.startswith("course_lib.") and not name.startswith("course_lib.exercises"):
                yield name


def _is_module(name: str) -> bool:
    path = LIBRARY.parent.joinpath(*name.split("."))
    return path.is_dir() or path.with_suffix(".py").is_file()


def _always() -> Iterator[str]:
    for room in ALWAYS:
        for path in [LIBRARY / f"{room}.py", *(LIBRARY / room).rglob("*.py")]:
            if path.is_file():
                parts = path.relative_to(LIBRARY.parent).with_suffix("").parts
                yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
