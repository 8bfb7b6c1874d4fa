"""Hostile and odd submissions, what their grades must be: rows 35, 40 and 43 of the table."""

import json

import pytest
from in_process import NOTEBOOK, OUTPUT, RIGHT, WRONG, write_submission

from course_lib.classroom.grading import gradebook
from course_lib.classroom.grading.gradebook import Terms, grade_all, graded
from course_lib.classroom.grading.sandbox import best_tier
from course_lib.classroom.release import assignment
from course_lib.classroom.submissions.submission import Submission, read_submissions

CHAPTER = "05_linear_quantization"
WARNS = """import sys
import warnings

warnings.warn("at import")


def to_uint8(weight):
    warnings.warn("to_uint8 is deprecated", DeprecationWarning, stacklevel=2)
    warnings.warn("a RuntimeWarning", RuntimeWarning)
    print("a line")
    print("Traceback (most recent call last):", file=sys.stderr)
    return (weight * 255).round().to(torch.uint8)
"""

pytestmark = pytest.mark.skipif(
    best_tier() != "bubblewrap", reason="bubblewrap is missing, or not allowed here"
)


@pytest.fixture(scope="module")
def terms():
    return Terms(assignment(CHAPTER), 7, "bubblewrap")


def results(grade):
    return {one.exercise: one for one in grade.results}


def test_hostile_35_edited_points_grade_ids_and_locked_cells_change_nothing(tmp_path, terms):
    def cell(source, **nbgrader):
        return {"cell_type": "code", "source": source, "metadata": {"nbgrader": nbgrader}} | OUTPUT

    forged = [
        cell(WRONG, grade_id="to_uint8", solution=True, grade=True, points=1000, locked=False),
        cell("pass", grade_id="check_to_uint8", grade=True, points=1000, locked=False),
        cell("pass", grade_id="check_fit_affine", grade=True, points=-1e9),
        cell("pass", grade_id="check_bonus", grade=True, points=99),
        cell(RIGHT.replace("to_uint8", "bonus"), grade_id="bonus", solution=True, points=99),
        # A right answer under another exercise's name is that exercise's answer, and wrong.
        cell(RIGHT, grade_id="fit_symmetric", solution=True, points=50),
    ]
    path = write_submission(tmp_path / "eve" / f"{CHAPTER}.ipynb")
    path.write_text(json.dumps(NOTEBOOK | {"cells": forged}), "utf-8")
    (submission,) = read_submissions(tmp_path, terms.assignment)
    made = graded(submission, terms)
    assert [one.exercise for one in made.results] == list(terms.assignment.points)
    assert {one.exercise: one.possible for one in made.results} == terms.assignment.points
    assert (made.possible, results(made)["fit_symmetric"].points) == (24, 0)
    assert made.points == results(made)["to_uint8"].points <= 1


def test_hostile_40_a_right_answer_that_warns_and_prints_gets_full_credit(terms):
    made = graded(Submission("ada", {"to_uint8": WARNS}), terms)
    said = results(made)["to_uint8"]
    assert (said.status, said.points, said.possible) == ("passed", 1, 1)
    strict = "import warnings\n\nwarnings.simplefilter('error')\n\n" + WARNS
    strict = strict.replace('warnings.warn("at import")', "")
    made = graded(Submission("ada", {"to_uint8": strict}), terms)
    assert results(made)["to_uint8"].points == 1


def test_hostile_43_the_same_submission_twice_is_one_grade_recorded_once(tmp_path, terms):
    random = "import os\n\ndef to_uint8(weight):\n    assert os.urandom(1)[0] % 2\n"
    random += "    return (weight * 255).round().to(torch.uint8)"
    given = [
        Submission(f"s{number:02}", {"to_uint8": random if number % 2 else RIGHT})
        for number in range(20)
    ]
    first = dict(grade_all(given, terms, tmp_path, 2))
    assert {grade.points for name, grade in first.items() if int(name[1:]) % 2 == 0} == {1}
    assert len({grade.points for name, grade in first.items() if int(name[1:]) % 2}) == 1
    assert len(list((tmp_path / gradebook.STORE).iterdir())) == 2
    assert dict(grade_all(given, terms, tmp_path, 2)) == first
    assert len(first) == 20


def test_hostile_43_graded_elsewhere_it_gets_the_same_grade(tmp_path, terms):
    given = [Submission("ada", {"to_uint8": RIGHT, "fit_affine": "def fit_affine(w, b): return w"})]
    one, other = (dict(grade_all(given, terms, tmp_path / name, 1)) for name in "ab")
    assert one == other
