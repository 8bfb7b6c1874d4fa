"""The course's words in English and Chinese, and links to them from where a lesson first uses them.

solutions/GLOSSARY.md holds them, a heading for each:

    ## zero-point

    **零点** · chapter 05 · also: zero-point correction

    The integer code that stands for the number 0.

"also" lists other forms that mean the same; a link may stand on any of them.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from nbformat import NotebookNode

PAGE = "GLOSSARY.md"
ENTRY = re.compile(
    r"^## (?P<name>.+)\n\n\*\*(?P<chinese>.+?)\*\* · chapter (?P<chapter>\d\d)"
    r"(?: · also: (?P<also>.+))?\n\n(?P<definition>(?:.+\n?)+)",
    re.MULTILINE,
)
# Where no link may stand: code, mathematics, headings, links, titles of papers.
UNTOUCHED = (
    r"```.*?```|`[^`]+`|\$\$.*?\$\$|\$(?:[^$\n]|\n(?!\n))+\$|^#[^\n]*"
    r"|!?\[[^\]]*\]\([^)]*\)|\"(?:[^\"\n]|\n(?!\n))*\"|<[^>\n]+>"
)


@dataclass(frozen=True)
class Term:
    """One word of the glossary; `chapter` explains it, `also` are its other forms."""

    name: str
    chinese: str
    chapter: str
    also: tuple[str, ...]
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
            tuple(re.split(r", *", found["also"])) if found["also"] else (),
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
    """The glossary as a page beside the lessons' notebooks, its chapters linked where they exist."""
    notebooks = {path.stem[:2]: f"{path.stem}.ipynb" for path in lessons}

    def link(found: re.Match) -> str:
        notebook = notebooks.get(found[1])
        return f"[{found[0]}]({notebook})" if notebook else found[0]

    return re.sub(r"(?<=· )chapter (\d\d)", link, text)


def link_terms(cells: Iterable[NotebookNode], terms: Iterable[Term]) -> set[str]:
    """In place: link each term where these cells first use it; returns the anchors linked to."""
    anchors = {form.lower(): term.anchor for term in terms for form in (term.name, *term.also)}
    forms = "|".join(_flexible(form) for form in sorted(anchors, key=len, reverse=True))
    pattern = re.compile(
        rf"{UNTOUCHED}|(?<![\w-])(?P<form>{forms})(?:s|es)?(?![\w-])",
        re.IGNORECASE | re.DOTALL | re.MULTILINE,
    )
    linked: set[str] = set()

    def link(found: re.Match) -> str:
        anchor = found["form"] and anchors[" ".join(found["form"].lower().split())]
        if not anchor or anchor in linked:
            return found[0]
        linked.add(anchor)
        return f"[{found[0]}]({PAGE}#{anchor})"

    for cell in cells:
        if cell.cell_type == "markdown":
            cell.source = pattern.sub(link, cell.source)
    return linked


def _flexible(form: str) -> str:
    """A form as a pattern that may be broken into two lines."""
    return re.escape(form).replace(r"\ ", r"\s+")
