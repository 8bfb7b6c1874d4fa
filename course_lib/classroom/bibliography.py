"""Papers that the course names, and links to them from where a lesson first cites one.

solutions/BIBLIOGRAPHY.md holds them, a heading for each: the first author's surname and the year,
or both authors' surnames where that would be another paper's heading.

    ## Roy 2007

    Olivier Roy, Martin Vetterli: *The Effective Rank*. EUSIPCO 2007.

A lesson or a docstring cites by all surnames or, for three authors and more, by the first one and
"et al.": "Roy and Vetterli, 2007", "Roy and Vetterli (2007)", "Romero et al., 2015".
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from nbformat import NotebookNode

from course_lib.classroom.links import flexible, heading_anchor, link_first

PAGE = "BIBLIOGRAPHY.md"
ENTRY = re.compile(
    r"^## (?P<heading>(?P<first>.+) (?P<year>\d{4}))\n\n"
    r"(?P<authors>[^:]+?):\s+\*(?P<title>[^*]+)\*\.\s+(?P<place>(?:.+\n?)+)",
    re.MULTILINE,
)
PARTICLES = {"van", "von", "de", "De"}
# What looks like a citation, whoever is cited: a name and a year of the last hundred years.
LOOKS_CITED = re.compile(
    r"\b[A-ZÀ-ÖØ-Þ][\w'’-]+(?:\s+et\s+al\.)?(?:,\s+|\s+\()(?:19[3-9]\d|20[0-2]\d)\b(?![\d-])"
)


@dataclass(frozen=True)
class Paper:
    """One entry; `surnames` are its authors', of whom there are more if `more`."""

    heading: str
    year: str
    surnames: tuple[str, ...]
    more: bool

    @property
    def anchor(self) -> str:
        """The part of a link to it behind the #."""
        return heading_anchor(self.heading)

    @property
    def citation(self) -> str:
        """A regular expression of the ways to cite it."""
        names = (
            []
            if self.more
            else [r"(?:,\s+(?:and\s+)?|\s+and\s+)".join(map(flexible, self.surnames))]
        )
        if self.more or len(self.surnames) > 2:
            names.append(rf"{flexible(self.surnames[0])}\s+et\s+al\.")
        year = self.year
        return rf"(?:{'|'.join(names)})(?:,\s+{year}|\s+\({year}\)|(?=\s+\({year}\b))"


def read_bibliography(text: str) -> list[Paper]:
    """The papers of a bibliography's text, in its order.

    Raises:
        ValueError: a heading is not followed by authors, title and place, or names another author.

    >>> page = "## Roy 2007\\n\\nOlivier Roy, Martin Vetterli: *The Effective Rank*. EUSIPCO.\\n"
    >>> read_bibliography(page)[0].surnames
    ('Roy', 'Vetterli')
    """
    papers, right = [], set()
    for found in ENTRY.finditer(text):
        names = " ".join(found["authors"].split())
        authors = names.removesuffix(" et al.")
        surnames = tuple(surname(name) for name in authors.split(","))
        if found["first"] in (surnames[0], " and ".join(surnames)):
            right.add(found["heading"])
        papers.append(Paper(found["heading"], found["year"], surnames, more=authors != names))
    wrong = set(re.findall(r"^## (.+)$", text, flags=re.MULTILINE)) - right
    if wrong:
        raise ValueError(
            f"not as the other entries of the bibliography: {', '.join(sorted(wrong))}"
        )
    return papers


def surname(name: str) -> str:
    """The last word of a name, and a particle before it.

    >>> surname("Mart van Baalen"), surname("Yann LeCun")
    ('van Baalen', 'LeCun')
    """
    words = name.split()
    return " ".join(words[-2:] if words[-2:-1] and words[-2] in PARTICLES else words[-1:])


def link_papers(cells: Iterable[NotebookNode], papers: Sequence[Paper]) -> set[str]:
    """In place: link each paper where these cells first cite it; returns the anchors linked to."""
    return link_first(cells, PAGE, [(paper.anchor, paper.citation) for paper in papers])


def cited(text: str, papers: Iterable[Paper]) -> tuple[set[str], list[str]]:
    """The anchors of the papers that a text cites, and what looks cited and is not among them.

    >>> cited("Roy, 2007, but also Doe (1999)", [Paper("Roy 2007", "2007", ("Roy",), False)])
    ({'Roy-2007'}, ['Doe (1999'])
    """
    anchors = set()
    for paper in papers:
        text, times = re.subn(rf"(?<![\w-]){paper.citation}(?![\w-])", "", text)
        anchors |= {paper.anchor} if times else set()
    return anchors, LOOKS_CITED.findall(text)
