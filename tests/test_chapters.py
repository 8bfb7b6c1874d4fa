"""All that a chapter must have, each in a sentence; CONTRIBUTING sends its reader here.

How many cells may stand open, and what in them, stands in test_open_code.py.
"""

import re
from pathlib import Path

import nbformat
import pytest

from course_lib.classroom.build import pictures
from course_lib.classroom.files import ROOT, SOLUTIONS, lesson_sources
from course_lib.exercises.engine.catalogue import by_chapter

LESSONS = {path.stem: path for path in lesson_sources()}
each_chapter = pytest.mark.parametrize("name", LESSONS)


def text_of(name: str) -> str:
    return LESSONS[name].read_text("utf-8")


def cells_of(name: str) -> list:
    return nbformat.read(SOLUTIONS / f"{name}.ipynb", 4).cells


@each_chapter
def test_it_opens_with_its_title_and_a_question(name):
    first = cells_of(name)[0].source
    assert re.match(rf"# ({name[:2]} · )?\S", first) and "?" in first


@each_chapter
def test_it_closes_with_what_was_found_in_numbers(name):
    assert "in numbers" in text_of(name).lower()


@each_chapter
def test_it_asks_for_a_guess_before_it_shows(name):
    assert "predict(" in text_of(name)


@each_chapter
def test_it_has_a_figure_that_says_in_words_what_it_shows(name):
    assert pictures(SOLUTIONS / f"{name}.ipynb")
    assert text_of(name).count("Picture(") >= 1


@each_chapter
def test_it_has_exercises_and_a_hint_for_each(name):
    assert by_chapter()[name] and all(one.hints for one in by_chapter()[name])


@each_chapter
def test_the_readme_has_a_row_for_it(name):
    assert re.search(rf"^\| {name[:2]} \| ", (ROOT / "README.md").read_text("utf-8"), flags=re.M)


@each_chapter
def test_the_first_page_shows_it_in_the_plan(name):
    assert re.search(rf"\b{name[:2]}\b", text_of("00_start_here"))


@each_chapter
def test_its_method_has_tests_and_a_benchmark_of_its_room(name):
    rooms = set(re.findall(r"from course_lib\.(\w+)\.", text_of(name))) & {
        "redundancy", "pruning", "quantization", "distillation", "low_rank", "acceleration",
        "language_models",
    }  # fmt: skip
    benchmarks = {path.stem for path in Path(ROOT, "benchmarks").glob("*.py")}
    assert rooms <= benchmarks
