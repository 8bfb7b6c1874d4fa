"""The answers in a notebook's cells, and what an answer needs to be run alone.

An answer is the source of the cell whose `grade_id` is the exercise's name. Where there is none, or
it is untouched, it is the last code cell with a function of that name. Two cells of one name
("Split Cell" copies it) are joined in their order, as "Run All" would run them.
"""

import ast
import builtins
import re
import symtable
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import TYPE_CHECKING

from course_lib.classroom.submissions.cells import Cell
from course_lib.classroom.submissions.parsing import parse

if TYPE_CHECKING:
    from course_lib.classroom.release import Assignment

LONGEST = 100_000  # characters of an answer
NO_PYTHON = (SyntaxError, ValueError, RecursionError, MemoryError)
LONGEST_MAGIC = 1_000  # characters of a line with one
MAGIC = re.compile(
    r"(?:[%!]+\w|!).*|\?{1,2}[\w.*%]+|%{0,2}[\w.*]+\?{1,2}"  # %time x, !ls, ?torch, torch?
    r"|(?P<name>[\w, .\[\]]+)=\s*(?:%\w|!).*"  # files = !ls
)
GIVEN = ast.Import | ast.ImportFrom | ast.FunctionDef | ast.ClassDef | ast.Assign | ast.AnnAssign
NOTEBOOKS_OWN = {"get_ipython", "display", "In", "Out"}


@dataclass(frozen=True)
class Names:
    """What a piece of code defines at its top level, and what it takes from elsewhere."""

    bound: frozenset[str]
    free: frozenset[str]


def names(source: str) -> Names | None:
    """The names that a source binds and those that it needs; None where it is no Python.

    >>> found = names("def area(r):\\n    return math.pi * square(r)")
    >>> sorted(found.bound), sorted(found.free)
    (['area'], ['math', 'square'])
    """
    try:
        top = symtable.symtable(source, "a cell", "exec")
    except NO_PYTHON:
        return None
    symbols = top.get_symbols()
    bound = {one.get_name() for one in symbols if one.is_assigned() or one.is_imported()}
    used = {one.get_name() for one in symbols if one.is_referenced()}
    inner = list(top.get_children())
    while inner:
        scope = inner.pop()
        inner += scope.get_children()
        for one in scope.get_symbols():
            if one.is_global():
                (bound if one.is_assigned() else used).add(one.get_name())
    return Names(frozenset(bound), frozenset(used - bound - set(dir(builtins))))


def find_answers(
    assignment: "Assignment", cells: Sequence[Cell]
) -> tuple[dict[str, str], list[str]]:
    """The answers in a notebook.

    Args:
        assignment: what is set.
        cells: the notebook's.

    Returns:
        exercise -> source, in the lesson's order, without those that are missing or untouched; and
        notes on all that is not as the lesson had it.
    """
    found, notes, look = {}, [], cache(_look)
    for exercise in assignment.points:
        source, remarks = _answer(exercise, cells, look)
        if source:
            found[exercise] = source
        notes += [f"{exercise}: {remark}" for remark in remarks]
    return found, notes + borrowed(assignment, cells, found)[1]


@dataclass(frozen=True)
class _Look:
    """A cell as Python, remarks on what was left out, and its functions: name -> still blank."""

    source: str
    remarks: list[str]
    functions: Mapping[str, bool]


def _look(source: str) -> _Look:
    python, remarks = without_magics(source)
    kinds = ast.FunctionDef | ast.AsyncFunctionDef
    nodes = [node for node in _statements(python) or () if isinstance(node, kinds)]
    return _Look(python, remarks, {node.name: _is_stub(node) for node in nodes})


def _answer(
    exercise: str, cells: Sequence[Cell], look: Callable[[str], _Look]
) -> tuple[str, list[str]]:
    """One answer's source, empty where there is none, and remarks."""
    own = [cell for cell in cells if cell.grade_id == exercise]
    source, remarks = _joined(exercise, [cell.source for cell in own if cell.kind == "code"])
    if source and (names(source) is None or _function(exercise, source)):
        return source, remarks
    for cell in reversed(cells):
        if cell.kind != "code" or cell.grade_id == exercise or exercise not in cell.source:
            continue
        other = look(cell.source)
        if other.functions.get(exercise) is False:
            return other.source, [*remarks, "found in another cell than its own", *other.remarks]
    if source:
        found = names(source)
        if found and exercise in found.bound:  # a lambda, or imported
            return source, remarks
        return "", [*remarks, "its cell defines no function of that name"]
    if not own:
        remarks.append("there is no cell of that name")
    elif all(cell.kind != "code" for cell in own):
        remarks.append(f"its cell is {own[0].kind}, not code")
    return "", remarks


def _joined(exercise: str, sources: list[str]) -> tuple[str, list[str]]:
    """The cells of one name as one source, empty where they are untouched."""
    if any(len(source) > LONGEST for source in sources):
        return "", [f"its cell is longer than {LONGEST:,} characters; not read"]
    clean = without_magics if len(sources) == 1 else _without_magic_lines  # a half is indented
    cleaned = [clean(source) for source in sources]
    remarks = [remark for _, some in cleaned for remark in some]
    sources = [source for source, _ in cleaned]
    kept = parts(exercise, sources)
    whole = "\n".join(sources[i] for i in kept)
    if len(sources) > 1:
        does = "joined in their order" if len(kept) > 1 else "the one with an answer counts"
        remarks.append(f"{len(sources)} cells have its name; {does}")
    return ("" if is_blank(exercise, whole) else whole), remarks


def parts(exercise: str, sources: Sequence[str]) -> list[int]:
    """Which cells of one name make up the answer: all that are written into.

    Where these together are no Python, it is the last that defines the function by itself.

    >>> parts("f", ["import math", "def f(x):\\n    return math.pi", "# nothing"])
    [0, 1]
    """
    written = [i for i, source in enumerate(sources) if not is_blank(exercise, source)]
    if len(written) > 1 and names("\n".join(sources[i] for i in written)) is None:
        written = [i for i in written if _function(exercise, sources[i])][-1:] or written
    return written


def _function(name: str, source: str) -> ast.FunctionDef | ast.AsyncFunctionDef | None:
    """The last top-level function of that name."""
    body = _statements(source)
    kinds = ast.FunctionDef | ast.AsyncFunctionDef
    found = [node for node in body or () if isinstance(node, kinds) and node.name == name]
    return found[-1] if found else None


def _statements(source: str) -> list[ast.stmt] | None:
    if len(source) > LONGEST:
        return None
    try:
        return parse(source).body
    except NO_PYTHON:
        return None


def is_blank(exercise: str, source: str) -> bool:
    """Whether an answer's cell holds nothing, or still the line that says it is to be written.

    >>> is_blank("f", "def f(x):\\n    'A text.'\\n    raise NotImplementedError()")
    True
    >>> is_blank("f", "def f(x):\\n    return None")
    False
    """
    statements = _statements(source)
    if not statements:
        return statements is not None
    function = _function(exercise, source)
    return bool(function) and _is_stub(function)


def _is_stub(function: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    body = [node for node in function.body if not _is_text(node)]
    return len(body) == 1 and _is_to_be_written(body[0])


def _is_text(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def _is_to_be_written(node: ast.stmt) -> bool:
    """`raise NotImplementedError` or `raise NotImplementedError()`."""
    raised = node.exc if isinstance(node, ast.Raise) else None
    if isinstance(raised, ast.Call) and not raised.args:
        raised = raised.func
    return isinstance(raised, ast.Name) and raised.id == "NotImplementedError"


def without_magics(source: str) -> tuple[str, list[str]]:
    """A cell's source without what only a notebook understands, and a remark on each such line.

    That are IPython's `%`, `!` and `?`; an indentation of the whole cell and the prompts of a
    console go without a remark. Lines keep their numbers. A cell that is Python as it stands is
    left as it is.

    >>> without_magics("%time x = 1\\ny = 2")
    ('\\ny = 2', ['left out: %time x = 1'])
    """
    if _statements(source) is not None or len(source) > LONGEST:
        return source, []
    return _without_magic_lines(_without_prompts(source))


def _without_magic_lines(source: str) -> tuple[str, list[str]]:
    if _statements(source) is not None:
        return source, []
    lines, remarks = source.split("\n"), []
    for number, line in enumerate(lines):
        text = line.strip()
        if len(text) <= LONGEST_MAGIC and (found := MAGIC.fullmatch(text)):
            indent = line[: len(line) - len(line.lstrip())]
            kept = f"{found['name']}= None" if found["name"] else "pass" if indent else ""
            lines[number] = indent + kept if kept else ""
            remarks.append(f"left out: {text[:60]}")
    return "\n".join(lines), remarks


def _without_prompts(source: str) -> str:
    """Without the indentation of the first line, and without `>>>`, `...` and `In [1]:`."""
    from IPython.core import inputtransformer2 as ipython  # half a second, for few cells

    lines = source.splitlines(keepends=True)
    for clean in (ipython.leading_indent, ipython.classic_prompt, ipython.ipython_prompt):
        lines = clean(lines)
    return "".join(lines)


def borrowed(
    assignment: "Assignment", cells: Sequence[Cell], answers: Mapping[str, str]
) -> tuple[tuple[str, ...], list[str]]:
    """What answers need of the learner's own cells: imports, functions, classes and constants.

    A name that neither the lesson nor an answer binds is taken from the last such statement that
    binds it, with what that one needs; in the notebook's order.

    Args:
        assignment: what is set.
        cells: the notebook's.
        answers: exercise -> source, as `find_answers` finds them.

    Returns:
        the statements, and a note for each name that an answer takes from there, or would have to.
    """
    found = {exercise: names(text) or Names(frozenset(), frozenset())
             for exercise, text in answers.items()}  # fmt: skip
    known = NOTEBOOKS_OWN.union(
        assignment.points, *(one.bound for one in (*found.values(), *_given(assignment.given)))
    )
    wanted = {name for one in found.values() for name in one.free - known}
    if not wanted:
        return (), []
    others = {cell.source for cell in cells if cell.kind == "code"} - set(answers.values())
    sources = [c.source for c in cells if c.kind == "code" and c.source in others]
    sources = [without_magics(source)[0] for source in sources if len(source) <= LONGEST]
    statements = [one for source in sources for one in given_by(source)]
    last = {name: i for i, (bound, _) in enumerate(statements) for name in bound}
    bound = set().union(*(one.bound for source in sources if (one := names(source))))
    needed, open_ones = set(), [last[name] for name in wanted & last.keys()]
    while open_ones:
        if (number := open_ones.pop()) not in needed:
            needed.add(number)
            text = names(statements[number][1])
            open_ones += [last[n] for n in (text.free - known if text else ()) if n in last]
    notes = [
        f"{exercise}: uses `{name}`, which is defined outside the answer's cell; "
        f"{'taken along' if name in last else 'move it in'}"
        for exercise, one in found.items()
        for name in sorted(one.free & wanted & bound)
    ]
    return tuple(statements[number][1] for number in sorted(needed)), notes


def given_by(source: str) -> Iterator[tuple[set[str], str]]:
    """The statements of a cell that an answer may stand on: what each binds, and its source.

    >>> list(given_by("two = 2"))
    [({'two'}, 'two = 2')]
    """
    lines = source.split("\n")
    for node in _statements(source) or ():
        if isinstance(node, GIVEN):
            first = min([node.lineno, *(d.lineno for d in getattr(node, "decorator_list", ()))])
            yield _bound_by(node), "\n".join(lines[first - 1 : node.end_lineno])


def _bound_by(node: ast.stmt) -> set[str]:
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        return {node.name}
    if isinstance(node, ast.Import | ast.ImportFrom):
        return {(alias.asname or alias.name).partition(".")[0] for alias in node.names}
    targets = node.targets if isinstance(node, ast.Assign) else [node.target]
    parts = (part for target in targets for part in ast.walk(target))
    return {p.id for p in parts if isinstance(p, ast.Name) and isinstance(p.ctx, ast.Store)}


@lru_cache(maxsize=16)
def _given(statements: tuple[str, ...]) -> tuple[Names, ...]:
    return tuple(names(statement) or Names(frozenset(), frozenset()) for statement in statements)


def blocks(assignment: "Assignment", answers: Mapping[str, str], exercise: str) -> tuple[str, ...]:
    """Sources to be run one after the other in an empty namespace, so that `exercise` is there.

    They are those statements of the lesson that the answer needs, and those that these need; then
    the other answers that it calls, and itself. What an answer does not need is left out, so that
    one answer's endless loop costs no other its points. A name is taken from the answer so called,
    else from the first statement of the lesson that binds it, else from any answer's cell.

    Args:
        assignment: what is set.
        answers: exercise -> source, of one submission.
        exercise: the one to be run; without an answer to it there are no blocks.

    >>> from course_lib.classroom.release import Assignment
    >>> given = ("import math", "import torch", "def half(x):\\n    return x / two", "two = 2")
    >>> set_ = Assignment("00_a", {"f": 1}, given, ())
    >>> for source in blocks(set_, {"f": "def f(x):\\n    return half(math.pi)"}, "f"):
    ...     print(source.partition("\\n")[0])
    import math
    def half(x):
    two = 2
    def f(x):
    """
    if exercise not in answers:
        return ()
    given, found = _given(assignment.given), {name: names(text) for name, text in answers.items()}
    needed_given, needed_answers, seen, wanted = set(), set(), set(), [exercise]
    while wanted:
        name = wanted.pop()
        if name in seen:
            continue
        seen.add(name)
        line = next((i for i, one in enumerate(given) if name in one.bound), None)
        cell = next((a for a, one in found.items() if one and name in one.bound), None)
        if name in answers or (line is None and cell):
            cell = name if name in answers else cell
            needed_answers.add(cell)
            wanted += found[cell].free if found[cell] else ()
        elif line is not None:
            needed_given.add(line)
            wanted += given[line].free
    lesson = (assignment.given[i] for i in sorted(needed_given))
    own = (answers[name] for name in assignment.points if name in needed_answers)
    return (*lesson, *own)
