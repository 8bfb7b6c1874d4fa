"""The part of course_lib that a graded answer may import, as a folder that holds nothing else.

A child's own modules (the stage that calls functions, and this sandbox's half of it) lie in it,
too. They are no secret. Exercises, references, lessons, solutions and tests are not in the folder.
"""

import ast
import shutil
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

from course_lib.classroom.submissions.parsing import parse

COURSE = Path(__file__).resolve().parents[3]
CHILD = ("course_lib.exercises.engine.run", "course_lib.classroom.grading.sandbox.warm")
INPUTS = tuple(f"course_lib.models.{name}" for name in ("awkward", "digits_mlp", "llama", "steps"))
FILES = {
    "course_lib.data.text": "data/texts",
    "course_lib.models.pretrained": "models/checkpoints",
}
PACKAGE = '"""The part of the course that graded answers may use."""\n'
NOTEBOOKS = "course_lib/exercises/__init__.py"
STAND_INS = '''"""What a notebook's cells call beside the answers: here it says and does nothing."""


def check(function): ...


def hint(name): ...


def progress(): ...


def yours(name):
    """Your own function, once it is called: a graded answer stands on nobody else's."""
    import __main__

    return lambda *inputs: getattr(__main__, name)(*inputs)
'''
WITHHELD = 'raise NotImplementedError("{name} is an exercise of this chapter: write it yourself")'


def build_library(folder: Path, library: Sequence[str], withheld: Collection[str] = ()) -> None:
    """Write the modules, whatever they import, and the child's own, into `folder`/course_lib.

    Args:
        folder: an empty one.
        library: modules such as "course_lib.data.images"; a folder's name means all in it.
        withheld: functions that raise when called, unless another function there needs them.

    Raises:
        ValueError: there is no such module.
    """
    wanted = closure([*_modules(library), *INPUTS])
    trees = {name: parse(_file(name).read_text("utf-8")) for name in wanted}
    free = set(withheld) - {name for tree in trees.values() for name in _used(tree, withheld)}
    for name in closure(CHILD) | wanted:
        text = _file(name).read_text("utf-8")
        if name in wanted:
            text = _without(text, free)
        path = Path(folder, *name.split(".")).with_suffix(".py")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")
    for path in [folder / "course_lib", *(folder / "course_lib").rglob("*")]:
        if path.is_dir():
            (path / "__init__.py").write_text(PACKAGE, "utf-8")
    (folder / NOTEBOOKS).write_text(STAND_INS, "utf-8")
    for name in wanted & FILES.keys():
        shutil.copytree(COURSE / FILES[name], folder / "course_lib" / FILES[name])


def closure(modules: Iterable[str]) -> set[str]:
    """The modules of course_lib and all those that they import, anywhere in their text.

    >>> sorted(closure(["course_lib.data.batches"]))
    ['course_lib.data.batches']
    """
    found, open_ones = set(), list(modules)
    while open_ones:
        name = open_ones.pop()
        if name not in found:
            found.add(name)
            open_ones += _imports(parse(_file(name).read_text("utf-8")))
    return found


def _modules(library: Sequence[str]) -> list[str]:
    """The modules named, and those in the folders named."""
    found = []
    for name in library:
        folder = COURSE.joinpath(*name.split(".")[1:])
        if name.startswith("course_lib.") and folder.is_dir():
            parts = sorted(folder.rglob("*.py"))
            parts = [p.relative_to(COURSE.parent).with_suffix("").parts for p in parts]
            found += [".".join(p) for p in parts if p[-1] != "__init__"]
        elif name.startswith("course_lib.") and _file(name).is_file():
            found.append(name)
        else:
            raise ValueError(f"library must name modules of course_lib; there is no {name!r}")
    return found


def _file(name: str) -> Path:
    return COURSE.joinpath(*name.split(".")[1:]).with_suffix(".py")


def _imports(tree: ast.Module) -> list[str]:
    """The modules of course_lib that a text imports."""
    names = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    return [n for n in names if n and n.startswith("course_lib.") and _file(n).is_file()]


def _used(tree: ast.Module, names: Collection[str]) -> set[str]:
    """Which of the names a text uses elsewhere than in the function of that name."""
    return {
        word
        for part in tree.body
        for node in ast.walk(part)
        if (word := getattr(node, "id", getattr(node, "attr", None))) in names
        and getattr(part, "name", None) != word
    }


def _without(text: str, names: Collection[str]) -> str:
    """The text, its top functions of these names raising."""
    lines = text.split("\n")
    for node in reversed(parse(text).body):
        if isinstance(node, ast.FunctionDef) and node.name in names:
            body = "    " + WITHHELD.format(name=node.name)
            lines[node.body[0].lineno - 1 : node.end_lineno] = [body]
    return "\n".join(lines)
