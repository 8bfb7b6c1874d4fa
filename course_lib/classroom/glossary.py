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

from nbformat import NotebookNode

from course_lib.classroom.links import flexible, heading_anchor, link_first

PAGE = "GLOSSARY.md"
ENTRY = re.compile(
    r"^## (?P<name>.+)\n\n\*\*(?P<chinese>.+?)\*\* · chapter (?P<chapter>\d\d)"
    r"(?: · also: (?P<also>.+?))?(?: · as: (?P<forms>.+))?\n\n(?P<definition>(?:.+\n?)+)",
    re.MULTILINE,
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


def link_terms(cells: Iterable[NotebookNode], terms: Iterable[Term]) -> set[str]:
    """In place: link each term where these cells first use it; returns the anchors linked to."""
    forms = [(form, term.anchor) for term in terms for form in term.forms]
    forms.sort(key=lambda pair: len(pair[0]), reverse=True)  # the longer one wins
    return link_first(
        cells, PAGE, [(anchor, rf"(?i:{flexible(form)})(?:s|es)?") for form, anchor in forms]
    )


def _listed(name: str, *lists: str | None) -> list[str]:
    return [name, *(form.strip() for some in lists if some for form in some.split(","))]
