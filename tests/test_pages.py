"""The pages beside the lessons: complete, derived, linked, in our own words."""

import re

import nbformat
import pytest
from nbformat.v4 import new_markdown_cell
from tracked import to_compare

from course_lib.classroom.files import NOTEBOOKS, PAGES, lesson_sources
from course_lib.classroom.glossary import PAGE as GLOSSARY
from course_lib.classroom.pages import SOURCES, link_pages, read_pages, reader_page, write_pages
from course_lib.sources.claims import all_claims

TEXTS = read_pages()
FIVE = ["S0", "S1", "S2", "S3", "S4"]


@pytest.mark.parametrize("name", PAGES)
def test_the_learners_page_is_derived(name):
    page = reader_page(TEXTS[name], lesson_sources()).encode()
    assert to_compare(NOTEBOOKS / name, page) == page


@pytest.mark.parametrize("name", PAGES)
def test_links_of_a_page_lead_to_what_lies_beside_it(name):
    page = (NOTEBOOKS / name).read_text("utf-8")
    for target in re.findall(r"\]\(([^)#:]+)\)", page):
        assert (NOTEBOOKS / target).exists(), target


def test_a_page_for_readers_hides_what_is_not_for_them(tmp_path):
    text = "**零点** · chapter 05 · also: offset · as: **shift**\n\nchapter 07, `chapter 3`\n"
    assert reader_page(text, [tmp_path / "05_grids.py"]) == (
        "**零点** · [chapter 05](05_grids.ipynb) · also: offset\n\nchapter 07, `chapter 3`\n"
    )


def test_pages_are_written_with_the_bytes_of_every_system(tmp_path):
    (tmp_path / SOURCES).write_text("## S0\n", "utf-8")
    (tmp_path / "notebooks").mkdir()
    write_pages(tmp_path / "notebooks", [], tmp_path)
    assert [path.name for path in (tmp_path / "notebooks").iterdir()] == [SOURCES]
    assert (tmp_path / "notebooks" / SOURCES).read_bytes() == b"## S0\n"


def test_every_source_says_how_it_begins_who_wrote_it_and_what_is_in_it():
    parts = re.split(r"^## ", TEXTS[SOURCES], flags=re.MULTILINE)[1:]
    assert [part.partition("\n")[0] for part in parts] == FIVE
    for part in parts:
        assert "**begins** " in part and re.search(r"\*\*author\*\*\s", part)
        rows = [int(number) for number in re.findall(r"^\| (\d) \|", part, flags=re.MULTILINE)]
        assert rows == list(range(1, len(rows) + 1)) and len(rows) >= 5
        # Of the articles' own words only how they begin: no run of Chinese is a sentence.
        assert max(map(len, re.findall(r"[\u4e00-\u9fff]+", part))) <= 14


def test_a_source_is_taken_up_where_the_page_says_and_nowhere_else():
    """Chapter 00 names the sources and takes up none of them."""
    prose = {path.stem[:2]: path.read_text("utf-8") for path in lesson_sources()[1:]}
    for part in re.split(r"^## ", TEXTS[SOURCES], flags=re.MULTILINE)[1:]:
        said = re.findall(r"chapter (\d\d)", part.partition("Taken up in")[2])
        found = [chapter for chapter, text in prose.items() if re.search(rf"\b{part[:2]}\b", text)]
        assert said == found, part[:2]


def test_as_many_claims_as_the_page_says_are_judged():
    assert f"{len(all_claims())} of their claims" in TEXTS[SOURCES]


def test_every_lesson_links_its_sources_once_and_says_no_more_than_there_is():
    for path in lesson_sources():
        cells = nbformat.read(path.with_suffix(".ipynb"), 4).cells
        text = "\n\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
        found = re.findall(r"\[(S\d)\]\(SOURCES\.md#(S\d)\)", text)
        named = set(
            re.findall(r"\bS[0-9]\b", re.sub(r"^#.*|`[^`]+`", "", text, flags=re.MULTILINE))
        )
        assert {one for one, _ in found} == named <= set(FIVE), path.name
        assert all(one == anchor for one, anchor in found) and len(found) == len(set(found))


def test_sources_papers_and_terms_are_linked_side_by_side():
    cell = new_markdown_cell("# S1\n\nS1 and S2's `S3` on pruning (Shannon, 1948); S1, X-S4, S41.")
    link_pages([cell], TEXTS)
    assert cell.source == (
        "# S1\n\n[S1](SOURCES.md#S1) and [S2](SOURCES.md#S2)'s `S3` on [pruning]"
        f"({GLOSSARY}#pruning) ([Shannon, 1948](BIBLIOGRAPHY.md#Shannon-1948)); S1, X-S4, S41."
    )


def test_a_folder_without_pages_links_nothing():
    cell = new_markdown_cell("S1 on pruning (Shannon, 1948)")
    link_pages([cell], {})
    assert cell.source == "S1 on pruning (Shannon, 1948)"
