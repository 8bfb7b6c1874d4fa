"""The bibliography: every paper that is cited has an entry, and every entry is cited."""

import ast
import re
import tomllib
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell

from course_lib.classroom import bibliography
from course_lib.classroom.bibliography import PAGE, cited, link_papers, read_bibliography
from course_lib.classroom.files import ROOT, SOLUTIONS, lesson_sources
from course_lib.classroom.lesson import read_lesson

TEXT = (SOLUTIONS / PAGE).read_text("utf-8")
PAPERS = read_bibliography(TEXT)
CLAIMS = ROOT / "course_lib" / "sources" / "claims.toml"
SAMPLE = """## Han 2015

Song Han, Jeff Pool, John Tran,
William J. Dally: *Learning both Weights
and Connections*. NIPS 2015.

## De Mol 2004

Christine De Mol: *On thresholds*. 2004.

## Roy 2007

Olivier Roy, Martin Vetterli:
*The Effective Rank*. EUSIPCO.

## Allal 2025

Loubna Ben Allal et al.: *SmolLM2*. 2025.
"""
KNOWN = read_bibliography(SAMPLE)


def docstrings() -> dict[str, str]:
    found = {}
    for path in (ROOT / "course_lib").rglob("*.py"):
        if path == Path(bibliography.__file__):
            continue  # its examples cite papers that do not exist
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
                name = getattr(node, "name", "module")
                found[f"{path.relative_to(ROOT)}:{name}"] = ast.get_docstring(node) or ""
    return found


def everything() -> dict[str, str]:
    """Every text that may cite, by its place."""
    texts = docstrings()
    for path in lesson_sources():
        cells = read_lesson(path).notebook.cells
        prose = [cell.source for cell in cells if cell.cell_type == "markdown"]
        texts[path.name] = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", "\n\n".join(prose))
    texts["claims"] = CLAIMS.read_text("utf-8")
    pages = [*SOLUTIONS.glob("*.md"), *(ROOT / "book").glob("*.md")]
    return texts | {path.name: path.read_text("utf-8") for path in pages if path.name != PAGE}


def test_every_citation_has_an_entry_and_every_entry_is_cited():
    found = {place: cited(text, PAPERS) for place, text in everything().items()}
    assert {place: missing for place, (_, missing) in found.items() if missing} == {}
    assert {paper.anchor for paper in PAPERS} == set().union(*(some for some, _ in found.values()))


def test_every_paper_of_the_claims_has_an_entry_whatever_its_year_and_spelling():
    claims = tomllib.loads(CLAIMS.read_text("utf-8")).values()
    for part in (part for claim in claims for part in claim["literature"].split(";") if part):
        assert cited(part, PAPERS)[0] or "LiteRT guide" in part, part


def test_entries_are_sorted_unique_and_have_well_formed_arxiv_numbers():
    names = [paper.heading.lower() for paper in PAPERS]
    assert names == sorted(set(names))
    links = re.findall(r"\[arXiv[^\]]*\]\([^)]*\)", TEXT)
    for link in links:
        number = re.match(r"\[arXiv (\d{4}\.\d{4,5}|math/\d{7})\]", link)[1]
        assert link.endswith(f"(https://arxiv.org/abs/{number})")
    assert len(links) == TEXT.count("arxiv.org") > 50
    assert len(set(links)) == len(links)


@pytest.mark.parametrize("paper", PAPERS, ids=lambda paper: paper.heading)
def test_no_arxiv_number_is_younger_than_its_paper(paper):
    entry = TEXT.partition(f"## {paper.heading}\n")[2].partition("\n## ")[0]
    found = re.search(r"arXiv (\d\d)(\d\d)\.", entry)
    if found:  # The Pile is of the last day of 2020
        assert -1 <= int(paper.year) - (2000 + int(found[1])) <= 2
        assert 1 <= int(found[2]) <= 12


def linked(*texts: str) -> list[str]:
    cells = [new_markdown_cell(text) for text in texts]
    link_papers(cells, KNOWN)
    return [cell.source for cell in cells]


@pytest.mark.parametrize(
    ("words", "anchor"),
    [
        ("Han, Pool, Tran, Dally, 2015", "Han-2015"),
        ("Han, Pool,\nTran and Dally (2015)", "Han-2015"),
        ("Han et\nal., 2015", "Han-2015"),
        ("De\nMol (2004)", "De-Mol-2004"),
        ("Roy and Vetterli, 2007", "Roy-2007"),
        ("Roy and Vetterli (2007)", "Roy-2007"),
        ("Allal et al. (2025)", "Allal-2025"),
    ],
)
def test_a_citation_becomes_a_link(words, anchor):
    assert linked(f"See {words}.") == [f"See [{words}]({PAGE}#{anchor})."]
    assert cited(words, KNOWN) == ({anchor}, [])


def test_only_the_first_citation_is_linked_and_linking_again_changes_nothing():
    once = linked("(Roy and Vetterli, 2007)", "Roy and Vetterli (2007)")
    assert once == [f"([Roy and Vetterli, 2007]({PAGE}#Roy-2007))", "Roy and Vetterli (2007)"]
    assert linked(*once) == once


def test_a_parenthesis_that_says_more_stays_outside():
    assert linked("Han et al. (2015, a title) say") == [
        f"[Han et al.]({PAGE}#Han-2015) (2015, a title) say"
    ]


@pytest.mark.parametrize(
    "text",
    [
        "# Roy and Vetterli, 2007",
        "`Roy and Vetterli, 2007` and $Roy and Vetterli, 2007$",
        "```\nRoy and Vetterli, 2007\n```",
        "[Roy and Vetterli, 2007](elsewhere.md)",
        '"Roy and Vetterli, 2007"',
        "Leroy and Vetterli, 2007",
        "Roy and Vetterli, 20071 or 2007-11-25; Roy and Vetterli; Roy et al., 2007",
    ],
)
def test_no_link_where_none_may_stand(text):
    assert linked(text) == [text]


def test_code_cells_stay_as_they_are():
    cell = new_code_cell("Roy and Vetterli, 2007")
    assert link_papers([cell], KNOWN) == set() and cell.source == "Roy and Vetterli, 2007"


@pytest.mark.parametrize(
    "text",
    ["Doe, 1999", "Doe et al. (2015)", "Han, Pool, Dally, 2015", "Han, Pool, Tran, Dally, 2016"],
)
def test_a_citation_without_an_entry_is_found(text):
    assert cited(text, KNOWN)[1]


@pytest.mark.parametrize(
    "text", ["on 2026-11-25", "stored, 2026-11-25", "Version (1901)", "of 2048"]
)
def test_a_number_is_no_citation(text):
    assert cited(text, KNOWN) == (set(), [])


@pytest.mark.parametrize(
    "entry",
    ["## Roy 2007\n\nOlivier Roy. The Effective Rank.\n", "## Roy 2007\n\nMartin Ray: *A*. B.\n"],
)
def test_an_entry_that_is_not_as_the_others_is_refused(entry):
    with pytest.raises(ValueError, match="Roy 2007"):
        read_bibliography(entry)


def test_lessons_link_to_papers_that_exist():
    anchors = {paper.anchor for paper in PAPERS}
    for path in lesson_sources():
        cells = nbformat.read(path.with_suffix(".ipynb"), 4).cells
        text = "\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
        found = re.findall(r"\]\(BIBLIOGRAPHY\.md#([^)]+)\)", text)
        assert found and set(found) <= anchors and len(found) == len(set(found)), path.name
