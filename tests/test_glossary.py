"""The glossary: two languages for every word, and links that lead somewhere."""

import re

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell

from course_lib.classroom.files import SOLUTIONS
from course_lib.classroom.glossary import PAGE, link_terms, read_glossary

TEXT = (SOLUTIONS / PAGE).read_text("utf-8")
TERMS = read_glossary(TEXT)
LESSONS = sorted(SOLUTIONS.glob("[0-9][0-9]_*.ipynb"))
ENTRY = "## zero-point\n\n**零点** · chapter 05 · also: offset · as: **shift**\n\nThe code of 0.\n"


def linked(*sources: str, text: str = ENTRY) -> list[str]:
    cells = [new_markdown_cell(source) for source in sources]
    link_terms(cells, read_glossary(text))
    return [cell.source for cell in cells]


@pytest.mark.parametrize("term", TERMS, ids=lambda term: term.name)
def test_every_term_has_both_languages_a_chapter_and_one_definition(term):
    assert re.search(r"[\u4e00-\u9fff]", term.chinese)
    assert re.fullmatch(r"[\x20-\x7e]+", term.name)
    assert 0 <= int(term.chapter) <= 13
    assert 20 < len(term.definition) < 250 and term.definition[-1] in ".?)"


def test_terms_are_sorted_and_no_two_share_a_form():
    names = [term.name.lower() for term in TERMS]
    assert names == sorted(names)
    forms = [form.lower() for term in TERMS for form in term.forms]
    assert len(forms) == len(set(forms))


def test_every_lesson_links_its_terms_and_every_link_leads_somewhere():
    anchors, found = {term.anchor for term in TERMS}, set()
    for path in LESSONS:
        cells = nbformat.read(path, 4).cells
        here = link_terms(cells, TERMS)
        text = "\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
        links = re.findall(r"\]\(GLOSSARY\.md#([^)]+)\)", text)
        assert len(links) == len(set(links)) >= 10 and set(links) == here <= anchors
        found |= here
    written = {path.stem[:2] for path in LESSONS}
    missed = {t.name for t in TERMS if t.chapter in written and t.anchor not in found}
    assert missed <= {"MinHash", "recurrent network", "sparsity"}  # lessons say it in other words


def test_only_the_first_use_is_linked():
    first, second = linked("The zero-point. A zero-point.", "The **shift** is a zero-point.")
    assert first == f"The [zero-point]({PAGE}#zero-point). A zero-point."
    assert second == "The **shift** is a zero-point."


def test_linking_again_changes_nothing():
    once = linked("A zero-point and a zero-point.")
    assert linked(*once) == once


@pytest.mark.parametrize(
    "source",
    [
        "# zero-point",
        "`zero-point` and $zero-point$",
        "$$\nzero-point\n$$",
        "```\nzero-point\n```",
        "[a zero-point](elsewhere.md)",
        '"On the zero-point of\nall grids"',
        "zero-pointed, non-zero-point",
        "a shift",
    ],
)
def test_no_link_where_none_may_stand(source):
    assert linked(source) == [source]


@pytest.mark.parametrize("form", ["Zero-points", "offset", "Offsets", "**shift**"])
def test_other_forms_are_linked_too(form):
    assert linked(f"The {form}.") == [f"The [{form}]({PAGE}#zero-point)."]


def test_a_term_may_be_broken_into_two_lines_and_the_longer_one_wins():
    text = (
        ENTRY.replace("zero-point", "rank") + "\n" + ENTRY.replace("zero-point", "effective rank")
    )
    text = text.replace(" · also: offset · as: **shift**", "")
    assert linked("its effective\nrank", text=text) == [
        f"its [effective\nrank]({PAGE}#effective-rank)"
    ]


def test_code_cells_stay_as_they_are():
    cell = new_code_cell("zero-point")
    assert link_terms([cell], read_glossary(ENTRY)) == set() and cell.source == "zero-point"


def test_an_entry_without_chinese_is_refused():
    with pytest.raises(ValueError, match="zero-point"):
        read_glossary("## zero-point\n\nchapter 05\n\nThe code of 0.\n")
