"""Every lesson's notebooks: built from their source, true to their outputs, red at the exercises.

nbval goes over every solved notebook, an untouched one, and one with a wrong answer. While a solved
one runs, the states of its sliders are recorded, and the web book is built of them. Of the other
untouched ones it is enough that they differ from the solved ones in the exercises alone, and that
no other cell uses an answer. `make test ARGS=--every-notebook` runs them, too: in a browser, here
where there is none. Notebooks that a learner ran or added in notebooks/ are let be: see tracked.py.
"""

import ast
import os
import sys
from copy import deepcopy
from itertools import groupby
from pathlib import Path

import nbformat
import pytest
from book_page import book_page, build_book, commit_guesses, move_controls, weight
from jupyterlab import CHROMIUM
from nbgrader.api import Gradebook
from nbgrader.apps import NbGraderAPI
from toy_lesson import answer
from tracked import notebooks_in, to_compare
from traitlets.config import Config

from course_lib.classroom.build import is_current, pictures, unclean
from course_lib.classroom.check import CellResult, run_nbval
from course_lib.classroom.files import NOTEBOOKS, SOLUTIONS, lesson_sources
from course_lib.classroom.lesson import Lesson, grade_id, read_lessons
from course_lib.classroom.student import student_notebook
from course_lib.models import pretrained
from course_lib.plots.states import FOLDER

LESSONS = {path.stem: path for path in lesson_sources()}
FIRST, *_, QUICK = LESSONS  # QUICK takes the least time
CELL_SECONDS = 120  # CI runs other tests beside this one
BUILD = "run `make notebooks` and commit what it writes; nobody edits these by hand"

BOOK_BYTES, PAGE_BYTES = 60_000_000, 3_000_000  # a page before its sliders are touched
SHARED_BYTES = 4_500_000  # what all pages share: MathJax, the theme, the search

pytestmark = pytest.mark.timeout(1800)  # for a whole notebook, beside other tests
every_lesson = pytest.mark.parametrize("name", LESSONS)


@pytest.fixture(scope="module")
def lessons():
    return {lesson.path.stem: lesson for lesson in read_lessons()}


@pytest.fixture(scope="module", autouse=True)
def progress_put_aside(tmp_path_factory):
    """What kernels record here says nothing about the person at this machine."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_DATA_HOME", str(tmp_path_factory.mktemp("data")))
        yield


@pytest.fixture(scope="module")
def states(tmp_path_factory):
    """Where the states of each lesson's sliders go while its solved notebook runs."""
    return tmp_path_factory.mktemp("states")


@pytest.fixture(scope="module")
def book(tmp_path_factory, states):
    """The web book with the states that the tests above have recorded."""
    return build_book(tmp_path_factory.mktemp("site"), states)


def solved(name: str) -> Path:
    return SOLUTIONS / f"{name}.ipynb"


def exercises(notebook) -> list[str]:
    ids = [grade_id(cell) for cell in notebook.cells]
    return [name.removeprefix("check_") for name in ids if name.startswith("check_")]


@every_lesson
def test_both_notebooks_are_what_their_source_makes(lessons, name):
    assert is_current(solved(name), lessons[name]), f"{solved(name).name} in solutions/: {BUILD}"
    made = (nbformat.writes(student_notebook(lessons[name])) + "\n").encode()
    assert to_compare(NOTEBOOKS / f"{name}.ipynb", made) == made, f"{name} in notebooks/: {BUILD}"


def test_every_notebook_has_a_source():
    names = [*notebooks_in(SOLUTIONS), *notebooks_in(NOTEBOOKS)]
    strays = [name for name in names if Path(name).stem not in LESSONS]
    assert not strays, f"{strays} have no source in solutions/; delete them, or {BUILD}"


def test_the_readme_shows_the_last_figure_of_the_first_lesson():
    assert (SOLUTIONS.parent / "README.png").read_bytes() == pictures(solved(FIRST))[-1], BUILD


@every_lesson
def test_the_solved_notebook_was_run_cleanly_to_its_end(name):
    """nbval never compares a cell without a count and outputs, so none may be left."""
    code = [c for c in nbformat.read(solved(name), 4).cells if c.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1)), BUILD
    assert [problem for cell in code if (problem := unclean(cell))] == []


def red_cells(notebook: Path) -> list[CellResult]:
    """The cells that fail or print something else than is stored."""
    results = run_nbval([notebook], compare=True, seconds=CELL_SECONDS)
    return [one for one in results if not one.passed]


def wrongly_answered(lesson: Lesson, folder: Path) -> Path:
    """The lesson with all its solutions but for the first exercise."""
    notebook = deepcopy(lesson.notebook)
    name = exercises(notebook)[0]
    answer(notebook, name, f'def {name}(*_):\n    return "something else"')
    path = folder / f"{lesson.path.stem}.ipynb"
    nbformat.write(notebook, path)
    return path


@every_lesson
def test_the_solved_notebook_prints_what_it_printed(states, monkeypatch, name):
    monkeypatch.setenv(FOLDER, str(states / name))
    if "smollm2" in LESSONS[name].read_text("utf-8") and not pretrained.has_smollm2():
        pytest.skip("SmolLM2 is not installed: course data")
    assert [(one.first_line, one.text) for one in red_cells(solved(name))] == []


def displays(name: str) -> list[int]:
    """Controls of each display in a solved notebook."""
    outputs = [o for c in nbformat.read(solved(name), 4).cells for o in c.get("outputs", [])]
    starts = [o.get("data", {}).get("text/plain", "")[:8] for o in outputs]
    groups = groupby(starts, lambda start: start in ("slider: ", "choose: "))
    return [len(list(group)) for is_control, group in groups if is_control]


@every_lesson
def test_every_control_of_the_web_book_moves_and_every_guess_reveals(book, states, name):
    """Opened as a file, with no kernel and no other host."""
    if not (states / name).exists():
        pytest.skip("its states are recorded while its solved notebook runs, above")
    counts = displays(name)
    assert sorted(int(one.name) for one in (states / name).iterdir()) == list(range(len(counts)))
    if not CHROMIUM:
        pytest.skip("no Chromium here: apt-get install chromium")
    with book_page(book / f"{name}.html", width=390) as page:
        assert page.evaluate("document.documentElement.scrollWidth") == 390
        own = (book / f"{name}.html").stat().st_size
        own += sum(f.stat().st_size for f in page.files() if "states" in f.parts)
        assert own <= PAGE_BYTES and weight(page) <= PAGE_BYTES + SHARED_BYTES
        assert len(move_controls(page)) == sum(counts) >= 1
        assert commit_guesses(page) >= 1


def test_the_web_book_is_small_enough(book):
    assert sum(f.stat().st_size for f in book.rglob("*") if f.is_file()) <= BOOK_BYTES


@every_lesson
def test_an_untouched_notebook_is_the_solved_one_but_for_its_exercises_and_needs_no_answer(
    lessons, name
):
    solved_cells = lessons[name].notebook.cells
    asked = exercises(lessons[name].notebook)
    for cell, untouched in zip(solved_cells, student_notebook(lessons[name]).cells, strict=True):
        if grade_id(cell) in asked or cell.cell_type != "code":
            continue
        assert cell.source == untouched.source
        if grade_id(cell) not in {f"check_{one}" for one in asked}:
            used = {one.id for one in ast.walk(ast.parse(cell.source)) if isinstance(one, ast.Name)}
            assert used & set(asked) == set(), cell.source


@every_lesson
def test_the_untouched_notebook_fails_at_exactly_its_checks(
    lab_folder, lessons, name, pytestconfig
):
    if name != QUICK and (CHROMIUM or not pytestconfig.getoption("every_notebook")):
        pytest.skip("--every-notebook runs it: in test_browser.py where there is a browser")
    red = red_cells(lab_folder / f"{name}.ipynb")
    assert [one.exercise or one.first_line for one in red] == exercises(lessons[name].notebook)
    assert {one.verdict for one in red} <= {"not attempted"}


def test_a_wrong_answer_fails_exactly_its_own_check(lessons, tmp_path):
    red = red_cells(wrongly_answered(lessons[QUICK], tmp_path))
    expected = exercises(lessons[QUICK].notebook)[:1]
    assert [one.exercise or one.first_line for one in red] == expected


@pytest.mark.filterwarnings("ignore:.*not in session")  # SQLAlchemy, about nbgrader
def test_nbgrader_gives_full_points_to_the_solved_and_none_to_the_untouched(
    lab_folder, tmp_path, monkeypatch
):
    untouched = lab_folder / f"{QUICK}.ipynb"
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent), prepend=os.pathsep)  # alembic
    places = {
        "source": solved(QUICK),
        "submitted/ada": solved(QUICK),
        "submitted/bob": untouched,
    }
    for place, notebook in places.items():
        (tmp_path / place / "one").mkdir(parents=True)
        (tmp_path / place / "one" / notebook.name).write_bytes(notebook.read_bytes())
    config = Config()
    config.CourseDirectory.root = str(tmp_path)
    config.Execute.timeout = CELL_SECONDS
    nbgrader = NbGraderAPI(config=config)
    assert nbgrader.generate_assignment("one")["success"]
    released = nbformat.read(tmp_path / "release" / "one" / f"{QUICK}.ipynb", 4)
    assert released == nbformat.read(untouched, 4)
    assert nbgrader.autograde("one", "ada")["success"]
    assert nbgrader.autograde("one", "bob")["success"]
    with Gradebook(f"sqlite:///{tmp_path / 'gradebook.db'}") as book:
        ada, bob = (book.find_submission("one", name) for name in ("ada", "bob"))
        assert ada.score == ada.max_code_score > 0 and bob.score == 0
        assert ada.max_written_score > 0 and ada.needs_manual_grade, "questions wait for people"
