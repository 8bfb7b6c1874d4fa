"""A Sphinx extension: docstrings of course_lib, as they are written, to reStructuredText.

The house style is plain text: `code` between single backticks, formulas as indented blocks, `Args`,
`Returns` and `Raises` as headings with indented lines, examples as doctests.
"""

import re
from collections.abc import Iterator

SECTION = re.compile(r"(Args|Returns|Yields|Raises):$")
ITEM = re.compile(r"([\w*, .]+): (.*)")
CODE = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")
NAME = re.compile(r"[A-Za-z_][\w.]*")


def setup(app) -> dict[str, bool]:
    """Called by Sphinx."""
    app.connect("autodoc-process-docstring", _process)
    return {"parallel_read_safe": True}


def _process(_app, _what, _name, _object, _options, lines: list[str]) -> None:
    lines[:] = to_rst(lines)


def to_rst(lines: list[str]) -> list[str]:
    """A docstring's lines as reStructuredText.

    >>> to_rst(["Twice.", "", "    y = 2 · x"])
    ['Twice.', '', '.. code-block:: none', '', '    y = 2 · x', '']
    >>> to_rst(["Args:", "    x: a number."])
    [':Args:', '    - ``x``: a number.', '']
    """
    return [line for block in _blocks(lines) for line in (*block, "")]


def _blocks(lines: list[str]) -> Iterator[list[str]]:
    """Blocks of reStructuredText, one for each paragraph, formula, section or example."""
    rest = list(lines)
    while rest:
        if not rest[0].strip():
            rest.pop(0)
        elif rest[0].startswith(">>>"):
            yield _take(rest, lambda line: line.strip())
        elif rest[0].startswith(" "):
            yield [".. code-block:: none", "", *_take(rest, _is_inside)]
        elif SECTION.match(rest[0]):
            yield _section(rest.pop(0)[:-1], _take(rest, _is_inside))
        else:
            yield [prose(line) for line in _take(rest, _is_prose)]


def _is_inside(line: str) -> bool:
    return not line.strip() or line.startswith(" ")


def _is_prose(line: str) -> bool:
    return bool(line.strip()) and not line.startswith((" ", ">>>")) and not SECTION.match(line)


def _take(rest: list[str], belongs) -> list[str]:
    """Remove the first lines that belong together, without blank lines at their end."""
    taken = []
    while rest and belongs(rest[0]):
        taken.append(rest.pop(0))
    while taken and not taken[-1].strip():
        taken.pop()
    return taken


def _section(title: str, lines: list[str]) -> list[str]:
    """A field: what an argument or an error means, item by item, or one paragraph."""
    indent = min((len(line) - len(line.lstrip()) for line in lines if line.strip()), default=0)
    items: list[str] = []
    for line in (line[indent:] for line in lines if line.strip()):
        match = ITEM.match(line) if title in ("Args", "Raises") else None
        if match:
            items.append(f"- ``{match[1]}``: {prose(match[2])}")
        elif items:
            items[-1] += f" {prose(line.strip())}"
        else:
            items.append(prose(line))
    return [f":{title}:", *(f"    {item}" for item in items)]


def prose(text: str) -> str:
    """One line with its code marked as code and everything else literal.

    >>> prose("a * b, `f` and `x + 1`s")
    'a \\\\* b, :py:obj:`f` and ``x + 1``\\\\ s'
    """
    parts = CODE.split(text)
    out = [re.sub(r"([\\*_|`])", r"\\\1", part) for part in parts]
    for i in range(1, len(parts), 2):
        code = parts[i]
        out[i] = f":py:obj:`{code}`" if NAME.fullmatch(code) else f"``{code}``"
        before, after = parts[i - 1][-1:], parts[i + 1][:1]
        out[i] = ("\\ " if before.isalnum() else "") + out[i] + ("\\ " if after.isalnum() else "")
    return "".join(out)
