"""Every lesson's notebooks: built from their source, true to their outputs, red at the exercises.

nbval goes over an untouched notebook and one with a wrong answer; over the solved ones it goes in
test_book.py. Of the other untouched ones it is enough that they differ from the solved ones in the
exercises alone, and that no other cell uses an answer. `make test ARGS=--every-notebook` runs them,
too: in a browser, here where there is none. Notebooks that a learner ran or added in notebooks/ are
let be: see tracked.py.
"""

import ast
import os
import sys
from copy import deepcopy
from pathlib import Path

import nbformat
import pytest
from jupyterlab import CHROMIUM
from nbgrader.api import Gradebook
from nbgrader.apps import NbGraderAPI
from red_cells import CELL_SECONDS, red_cells
from toy_lesson import answer
from tracked import notebooks_in, to_compare
from traitlets.config import Config

from course_lib.classroom.build import is_current, pictures, unclean
from course_lib.classroom.files import NOTEBOOKS, SOLUTIONS, lesson_sources
from course_lib.classroom.lesson import Lesson, grade_id, read_lessons
from course_lib.classroom.student import student_notebook

LESSONS = {path.stem: path for path in lesson_sources()}
FIRST, *_, QUICK = LESSONS  # QUICK takes the least time
BUILD = "run `make notebooks` and commit what it writes; nobody edits these by hand"

pytestmark = pytest.mark.timeout(1800)  # for a whole notebook, beside other tests
every_lesson = pytest.mark.parametrize("name", LESSONS)


@pytest.fixture(scope="module")
def lessons():
    return {lesson.path.stem: lesson for lesson in read_lessons()}


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


def wrongly_answered(lesson: Lesson, folder: Path) -> Path:
    """The lesson with all its solutions but for the first exercise."""
    notebook = deepcopy(lesson.notebook)
    name = exercises(notebook)[0]
    answer(notebook, name, f'def {name}(*_):\n    return "something else"')
    path = folder / f"{lesson.path.stem}.ipynb"
    nbformat.write(notebook, path)
    return path


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
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "progress"))
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
