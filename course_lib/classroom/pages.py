"""The pages beside the lessons' notebooks: the glossary, the sources, the bibliography.

They are written by hand in solutions/. Beside the learner's notebooks and in the web book lie
copies whose chapters are links. In a lesson the first mention of a term, paper or source
links there.
"""

import re
from collections.abc import Iterable
from pathlib import Path

from nbformat import NotebookNode

from course_lib.classroom import bibliography, glossary
from course_lib.classroom.bibliography import link_papers, read_bibliography
from course_lib.classroom.files import PAGES, SOLUTIONS
from course_lib.classroom.glossary import link_terms, read_glossary
from course_lib.classroom.links import link_first

SOURCES = "SOURCES.md"


def read_pages(folder: Path = SOLUTIONS) -> dict[str, str]:
    """The text of each page that a folder holds, by its name."""
    return {name: (folder / name).read_text("utf-8") for name in PAGES if (folder / name).exists()}


def reader_page(text: str, lessons: Iterable[Path]) -> str:
    """A page as it lies beside the lessons' notebooks, linked to the chapters that exist.

    >>> reader_page("See chapter 05 and chapter 06.", [Path("05_grids.py")])
    'See [chapter 05](05_grids.ipynb) and chapter 06.'
    """
    notebooks = {path.stem[:2]: f"{path.stem}.ipynb" for path in lessons}

    def link(found: re.Match) -> str:
        return f"[{found[0]}]({notebooks[found[1]]})" if found[1] in notebooks else found[0]

    return re.sub(r"\bchapter (\d\d)\b", link, re.sub(r" · as: .*", "", text))


def write_pages(target: Path, lessons: Iterable[Path], folder: Path = SOLUTIONS) -> None:
    """Every page of a folder, for readers, into another one."""
    lessons = list(lessons)
    for name, text in read_pages(folder).items():
        (target / name).write_text(reader_page(text, lessons), "utf-8", newline="\n")


def link_pages(cells: list[NotebookNode], pages: dict[str, str]) -> None:
    """In place: link the first mention of each paper, source and term to its page."""
    if bibliography.PAGE in pages:
        link_papers(cells, read_bibliography(pages[bibliography.PAGE]))
    if SOURCES in pages:
        headings = re.findall(r"^## (\w+)$", pages[SOURCES], flags=re.MULTILINE)
        link_first(cells, SOURCES, [(heading, heading) for heading in headings])
    if glossary.PAGE in pages:
        link_terms(cells, read_glossary(pages[glossary.PAGE]))
