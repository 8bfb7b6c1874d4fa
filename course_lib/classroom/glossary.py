"""The course's words in English and Chinese, and links to them from where a lesson first uses them.

solutions/GLOSSARY.md holds them, a heading for each:

    ## zero-point

    **零点** · chapter 05 · also: offset · as: **shift**, code of 0

    The integer code that stands for the number 0.

"also" lists other names; "as" lists further words on which a link may stand, and no reader sees it.
A word that lessons use with other meanings, too, is listed as it stands where they define it: in
bold.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from nbformat import NotebookNode

PAGE = "GLOSSARY.md"
LINK = re.compile(r"\]\(GLOSSARY\.md#([^)]+)\)")
ENTRY = re.compile(
    r"^## (?P<name>.+)\n\n\*\*(?P<chinese>.+?)\*\* · chapter (?P<chapter>\d\d)"
    r"(?: · also: (?P<also>.+?))?(?: · as: (?P<forms>.+))?\n\n(?P<definition>(?:.+\n?)+)",
    re.MULTILINE,
)
# Where no link may stand: code, mathematics, headings, links, titles of papers.
UNTOUCHED = (
    r"```.*?```|`[^`]+`|\$\$.*?\$\$|\$(?:[^$\n]|\n(?!\n))+\$|^#[^\n]*"
    r"|!?\[[^\]]*\]\([^)]*\)|\"(?:[^\"\n]|\n(?!\n))*\"|<[^>\n]+>"
)


@dataclass(frozen=True)
class Term:
    """One word of the glossary; `chapter` explains it, `forms` are the words to link."""

    name: str
    chinese: str
    chapter: str
    forms: tuple[str, ...]
    definition: str

    @property
    def anchor(self) -> str:
        """The part of a link to it behind the #."""
        return heading_anchor(self.name)


def heading_anchor(heading: str) -> str:
    """The anchor of a heading as JupyterLab names it; the web book does so, too.

    >>> heading_anchor("L0 pseudo-norm")
    'L0-pseudo-norm'
    """
    return heading.replace(" ", "-")


def read_glossary(text: str) -> list[Term]:
    """The terms of a glossary's text, in its order.

    Raises:
        ValueError: a heading is not followed by Chinese, chapter and definition.

    >>> read_glossary("## zero-point\\n\\n**零点** · chapter 05\\n\\nThe code of 0.\\n")[0].chinese
    '零点'
    """
    terms = [
        Term(
            found["name"],
            found["chinese"],
            found["chapter"],
            tuple(_listed(found["name"], found["also"], found["forms"])),
            " ".join(found["definition"].split()),
        )
        for found in ENTRY.finditer(text)
    ]
    headings = re.findall(r"^## (.+)$", text, flags=re.MULTILINE)
    wrong = sorted(set(headings) - {term.name for term in terms})
    if wrong:
        raise ValueError(f"not as the other entries of the glossary: {', '.join(wrong)}")
    return terms


def glossary_page(text: str, lessons: Iterable[Path]) -> str:
    """The glossary as a page beside the lessons' notebooks, linked to the chapters that exist."""
    notebooks = {path.stem[:2]: f"{path.stem}.ipynb" for path in lessons}

    def link(found: re.Match) -> str:
        notebook, also = notebooks.get(found[1]), found[2].partition(" · as: ")[0]
        chapter = f"[chapter {found[1]}]({notebook})" if notebook else f"chapter {found[1]}"
        return f"· {chapter}{also}"

    return re.sub(r"· chapter (\d\d)(.*)", link, text)


def link_terms(cells: Iterable[NotebookNode], terms: Iterable[Term]) -> set[str]:
    """In place: link each term where these cells first use it; returns the anchors linked to."""
    anchors = {form.lower(): term.anchor for term in terms for form in term.forms}
    forms = "|".join(_flexible(form) for form in sorted(anchors, key=len, reverse=True))
    pattern = re.compile(
        rf"{UNTOUCHED}|(?<![\w-])(?P<form>{forms})(?:s|es)?(?![\w-])",
        re.IGNORECASE | re.DOTALL | re.MULTILINE,
    )
    cells = [cell for cell in cells if cell.cell_type == "markdown"]
    linked = {found for cell in cells for found in LINK.findall(cell.source)}

    def link(found: re.Match) -> str:
        anchor = found["form"] and anchors[" ".join(found["form"].lower().split())]
        if not anchor or anchor in linked:
            return found[0]
        linked.add(anchor)
        return f"[{found[0]}]({PAGE}#{anchor})"

    for cell in cells:
        cell.source = pattern.sub(link, cell.source)
    return linked


def _listed(name: str, *lists: str | None) -> list[str]:
    return [name, *(form.strip() for some in lists if some for form in some.split(","))]


def _flexible(form: str) -> str:
    """A form as a pattern that may be broken into two lines."""
    return re.escape(form).replace(r"\ ", r"\s+")
