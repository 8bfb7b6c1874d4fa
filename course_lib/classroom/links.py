"""Links in a lesson's text, each from where the lesson first names a thing to the page about it."""

import re
from collections.abc import Iterable

from nbformat import NotebookNode

# Where no link may stand: code, mathematics, headings, links, titles of papers.
UNTOUCHED = (
    r"```.*?```|`[^`]+`|\$\$.*?\$\$|\$(?:[^$\n]|\n(?!\n))+\$|^#[^\n]*"
    r"|!?\[[^\]]*\]\([^)]*\)|\"(?:[^\"\n]|\n(?!\n))*\"|<[^>\n]+>"
)


def heading_anchor(heading: str) -> str:
    """The anchor of a heading as JupyterLab names it; the web book does so, too.

    >>> heading_anchor("L0 pseudo-norm")
    'L0-pseudo-norm'
    """
    return heading.replace(" ", "-")


def link_first(
    cells: Iterable[NotebookNode], page: str, patterns: Iterable[tuple[str, str]]
) -> set[str]:
    """In place: link each anchor of a page where these cells first name it.

    Args:
        cells: a notebook's; only Markdown is touched.
        page: file beside the notebook.
        patterns: (anchor, regular expression of whole words, no groups in it) each; where several
            fit, the first of them does.

    Returns:
        the anchors linked to, now or before.
    """
    anchors, ways = zip(*patterns, strict=True)
    numbered = "|".join(f"(?P<_{number}>{way})" for number, way in enumerate(ways))
    finder = re.compile(rf"{UNTOUCHED}|(?<![\w-])(?:{numbered})(?![\w-])", re.DOTALL | re.MULTILINE)
    cells = [cell for cell in cells if cell.cell_type == "markdown"]
    old = re.compile(rf"\]\({re.escape(page)}#([^)]+)\)")
    linked = {anchor for cell in cells for anchor in old.findall(cell.source)}

    def link(found: re.Match) -> str:
        anchor = found.lastgroup and anchors[int(found.lastgroup[1:])]
        if not anchor or anchor in linked:
            return found[0]
        linked.add(anchor)
        return f"[{found[0]}]({page}#{anchor})"

    for cell in cells:
        cell.source = finder.sub(link, cell.source)
    return linked


def flexible(words: str) -> str:
    """Words as a pattern: they may be broken into two lines.

    >>> flexible("rank one")
    'rank\\\\s+one'
    """
    return re.escape(words).replace(r"\ ", r"\s+")
