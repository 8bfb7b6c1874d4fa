"""What of a lesson's code stands open when its notebook is opened, and how much of it teaches."""

import ast
from collections.abc import Iterator
from itertools import chain

import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from course_lib.classroom.files import lesson_sources
from course_lib.classroom.lesson import grade_id, is_collapsed, read_lesson

LESSONS = {path.stem: path for path in lesson_sources()}
CELLS = 75  # the most that stand open in a notebook; a folded one is a line
SIDE_WORK = 1 / 3  # the most of the open lines that may import, assert or draw
DRAWING = {"Picture", "new_figure"}
METHODS = {name for kind in (Axes, Figure) for name in dir(kind) if not name.startswith("_")}

every_lesson = pytest.mark.parametrize("name", LESSONS)


def open_code(cells) -> list[str]:
    """The sources of the code cells that are neither exercise nor check nor collapsed."""
    code = [cell for cell in cells if cell.cell_type == "code"]
    return [cell.source for cell in code if not grade_id(cell) and not is_collapsed(cell)]


def side_work(source: str) -> tuple[int, int]:
    """(lines that import, assert or draw, all lines of code), comments and blank lines aside."""
    tree, lines = ast.parse(source), source.split("\n")
    used = {n for n, line in enumerate(lines, 1) if line.strip() and line.lstrip()[0] != "#"}
    drawn = _drawn_on(tree)
    aside = set(chain.from_iterable(_side_lines(tree.body, drawn)))
    return len(aside & used), len(used)


def _drawn_on(tree: ast.Module) -> set[str]:
    """The names of figures and axes: what new_figure gives, and what loops over it."""
    names = {"axes", "figure"}
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign) and "new_figure" in _names(node.value):
            names |= set().union(*map(_names, node.targets))
        if isinstance(node, ast.For) and names & _names(node.iter):
            names |= _names(node.target)
    return names


def _side_lines(body: list[ast.stmt], drawn: set[str]) -> Iterator[range]:
    """The lines of every statement that is side work; all of a loop if all in it is."""
    for statement in body:
        inner = [getattr(statement, part, []) for part in ("body", "orelse")]
        parts = [child for part in inner for child in part]
        found = list(_side_lines(parts, drawn)) if parts else []
        whole = range(statement.lineno, statement.end_lineno + 1)
        if not parts:
            yield from [whole] if _is_side_work(statement, drawn) else []
        elif sum(map(len, found)) == sum(p.end_lineno - p.lineno + 1 for p in parts):
            yield whole
        else:
            yield from found


def _is_side_work(statement: ast.stmt, drawn: set[str]) -> bool:
    if isinstance(statement, ast.Import | ast.ImportFrom | ast.Assert):
        return True
    calls = [node.func for node in ast.walk(statement) if isinstance(node, ast.Call)]
    return any(
        isinstance(call, ast.Name)
        and (call.id in DRAWING or call.id.startswith("draw_"))
        or isinstance(call, ast.Attribute)
        and call.attr in METHODS
        and drawn & _names(call.value)
        for call in calls
    )


def _names(node: ast.AST) -> set[str]:
    return {part.id for part in ast.walk(node) if isinstance(part, ast.Name)}


@every_lesson
def test_at_most_a_third_of_the_open_code_is_side_work(name):
    """Readers scroll past it: it belongs into a cell with `tags=["collapsed"]`."""
    counts = [side_work(source) for source in open_code(read_lesson(LESSONS[name]).notebook.cells)]
    aside, lines = map(sum, zip(*counts, strict=True))
    assert aside <= SIDE_WORK * lines, f"{aside} of {lines} open lines import, assert or draw"


@every_lesson
def test_a_notebook_has_no_more_cells_than_can_be_read(name):
    cells = read_lesson(LESSONS[name]).notebook.cells
    assert sum(not is_collapsed(cell) for cell in cells) <= CELLS


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("import math\nfrom x import (\n    y,\n)\n\n# a comment\nz = y(math.pi)", (4, 5)),
        ("assert all(\n    x > 0\n    for x in xs\n)\nprint(xs)", (4, 5)),
        ("figure, (one,) = new_figure()\none.plot(x, y)\ny = x.sum()", (2, 3)),
        ("figure, axes = new_figure()\nfor left, x in zip(axes, xs):\n    left.bar(x)", (3, 3)),
        ("for x in xs:\n    y = f(x)\n    axes.plot(y)", (1, 3)),
        ("def draw(n):\n    y = f(n)\n    return Picture(\n        figure, y\n    )", (3, 5)),
        ("x = text.split()\ny = plot.sum()", (0, 2)),
        ("draw_heat_map(x, y)\nPicture(figure, 'alt')", (2, 2)),
    ],
)
def test_what_counts_as_side_work(source, expected):
    assert side_work(source) == expected
