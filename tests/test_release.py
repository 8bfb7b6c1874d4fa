"""What is set, and the folder that `course release` writes."""

import ast
import json
import os
import stat
import sys
import zipfile
from pathlib import Path

import nbformat
import pytest
from nbgrader.api import Gradebook
from nbgrader.apps import NbGraderAPI
from nbgrader.preprocessors import Execute
from nbgrader.validator import Validator
from submitted import cell, grade_id_of, notebook, save
from traitlets.config import Config

from course_lib import journal
from course_lib.classroom.files import SOLUTIONS, lesson_sources
from course_lib.classroom.handout import handout, release
from course_lib.classroom.learner import untouched
from course_lib.classroom.release import assignment, assignment_of
from course_lib.classroom.submissions import answers
from course_lib.classroom.submissions.answers import Names, find_answers
from course_lib.classroom.submissions.cells import Cell, parse_notebook
from course_lib.cli import main
from course_lib.exercises import CheckFailed, check
from course_lib.exercises.engine import notebook as engine
from course_lib.exercises.engine.catalogue import all_exercises, by_chapter

NAME = "13_reading_sources"  # the quickest
LESSONS = [path.stem for path in lesson_sources()]


@pytest.mark.parametrize("name", LESSONS)
def test_what_is_set_is_the_lessons_exercises_in_order(name):
    set_ = assignment(name[:2])
    assert set_.chapter == name
    assert list(set_.points) == [exercise.name for exercise in by_chapter()[name]]
    assert all(points >= 1 for points in set_.points.values())
    for statement in set_.given:
        ast.parse(statement)


def test_an_unknown_chapter_is_told_those_there_are():
    with pytest.raises(LookupError, match="there is no lesson 77; there are: 00_start_here"):
        assignment("77")


@pytest.mark.parametrize("name", LESSONS)
def test_the_library_holds_what_model_answers_import_and_no_exercise(name):
    library = assignment(name).library
    assert {"course_lib.device", "course_lib.data", "course_lib.models.llama"} <= set(library)
    for module in library:
        path = SOLUTIONS.parent.joinpath(*module.split("."))
        assert path.with_suffix(".py").is_file() or (path / "__init__.py").is_file()
        assert not module.startswith(("course_lib.exercises", "course_lib.classroom"))


def test_the_library_is_only_what_is_needed():
    rooms = {module.split(".")[1] for module in assignment("05").library}
    assert rooms == {"device", "data", "models"}, "no method: chapter 05's answers are its method"
    assert "course_lib.language_models.gptq" in assignment("11").library


def test_decorators_belong_to_what_is_given_and_loops_do_not():
    source = "@cache\ndef f():\n    pass\nfor i in x:\n    y = i\nz: int = 1\nprint(z)"
    assert assignment_of("x", [Cell("code", source)]).given == (
        "@cache\ndef f():\n    pass", "z: int = 1",
    )  # fmt: skip


def test_points_come_from_checks_alone():
    cells = parse_notebook(json.dumps(notebook()).encode())
    assert assignment_of("00", cells).points == assignment("00").points
    assert assignment_of("00", cells[:5]).points == {}


def test_a_question_that_a_person_grades_is_no_exercise():
    manual = {"grade_id": "why", "solution": True, "grade": True, "points": 3}
    both = {"grade_id": "check_why", "solution": False, "grade": True, "points": 3}
    for kind in ("markdown", "code"):
        cells = [Cell(kind, "x = 1", manual), Cell("code", "check(why)", both)]
        set_ = assignment_of("x", cells)
        assert set_.points == {} and set_.given == ()


def test_without_solutions_the_library_is_what_the_lesson_imports():
    untouched_cells = parse_notebook(json.dumps(notebook(False)).encode())
    set_ = assignment_of("00_start_here", untouched_cells)
    assert set_.points == assignment("00").points
    assert "course_lib.measure.size" in set_.library
    assert not any("exercises" in module for module in set_.library)


@pytest.fixture(scope="module")
def released(tmp_path_factory):
    folder = tmp_path_factory.mktemp("released")
    release(NAME, folder, seed=20261126)
    return folder


def test_students_get_no_solution_no_seed_and_no_hidden_test(released):
    with zipfile.ZipFile(released / f"{NAME}.zip") as archive:
        zipped = {name: archive.read(name) for name in archive.namelist()}
    plain = {
        f"{NAME}/{path.name}": path.read_bytes() for path in (released / "release" / NAME).iterdir()
    }
    assert zipped == plain and len(plain) == 4
    text = b"".join(plain.values()).decode("utf-8")
    for secret in ("20261126", "HIDDEN", "SOLUTION", "check_unseen", "seed="):
        assert secret not in text
    kept = {path.name for path in released.iterdir()}
    assert kept == {"release", "source", f"{NAME}.zip", f"{NAME}.seed.json", "README.txt",
                    "nbgrader_config.py"}  # fmt: skip


def test_the_seed_is_kept_for_the_instructor_alone(released):
    path = released / f"{NAME}.seed.json"
    assert json.loads(path.read_text("utf-8")) == {"chapter": NAME, "seed": 20261126}
    if os.name == "posix":
        secret = [path, released / "source" / NAME / f"{NAME}.ipynb"]
        assert [stat.S_IMODE(one.stat().st_mode) for one in secret] == [0o600, 0o600]


@pytest.mark.parametrize("name", LESSONS)
def test_a_release_is_the_student_notebook_with_checks_that_import_what_they_use(name):
    files = handout(name)
    made = json.loads(files[f"release/{name}/{name}.ipynb"])
    plain = json.loads(nbformat.writes(untouched(SOLUTIONS / f"{name}.py")))
    line = ["from course_lib.exercises import check, hint\n", "\n"]
    for one, other in zip(made["cells"], plain["cells"], strict=True):
        wanted = line * grade_id_of(one).startswith("check_") + other["source"]
        assert one["source"] == wanted
    assert not any(path.endswith("seed.json") for path in files)
    assert b"HIDDEN" not in b"".join(files.values())
    linked = {page for page in ("GLOSSARY.md", "SOURCES.md", "BIBLIOGRAPHY.md")
              if f"]({page}" in files[f"release/{name}/{name}.ipynb"].decode()}  # fmt: skip
    assert {f"release/{name}/{page}" for page in linked} <= set(files)


@pytest.mark.parametrize("name", LESSONS)
def test_a_checks_cell_imports_what_it_uses(name):
    source = json.loads(handout(name, seed=9)[f"source/{name}/{name}.ipynb"])
    for exercise in assignment(name).points:
        assert names(cell(source, f"check_{exercise}")["source"]).free == {exercise}


def names(lines: list[str]) -> Names:
    return answers.names("".join(lines))


def test_equal_releases_are_equal_bytes_and_another_is_refused(released, tmp_path):
    before = {p: p.read_bytes() for p in released.rglob("*") if p.is_file()}
    release(NAME, released, seed=20261126)
    with pytest.raises(FileExistsError, match="other contents; nothing was written"):
        release(NAME, released, seed=3)
    assert {p: p.read_bytes() for p in released.rglob("*") if p.is_file()} == before


@pytest.mark.parametrize("seed", [0, -1, 2**31])
def test_the_notebooks_own_seed_is_no_secret(seed, tmp_path):
    with pytest.raises(ValueError, match=f"from 1 to 2147483647.*{seed}"):
        release(NAME, tmp_path, seed)
    assert list(tmp_path.iterdir()) == []


def test_chapters_lie_side_by_side(released, capsys):
    assert main(["release", "00", "--to", str(released)]) == 0
    assert "12 files" not in capsys.readouterr().out
    assert {path.name for path in (released / "release").iterdir()} == {NAME, "00_start_here"}


def test_the_command_says_what_is_wrong(tmp_path, capsys):
    assert main(["release", "77", "--to", str(tmp_path)]) == 2
    assert main(["release", "00", "--to", str(tmp_path), "--seed", "0"]) == 2
    (tmp_path / "file").touch()
    assert main(["release", "00", "--to", str(tmp_path / "file")]) == 2
    assert "there is no lesson 77" in capsys.readouterr().err


def test_an_answer_made_for_the_notebooks_inputs_fails_the_unseen(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(journal, "journal_file", lambda: tmp_path / "progress.jsonl")
    exercise = all_exercises()["count_parameters"]
    known = [exercise.reference(case.inputs["model"]) for case in exercise.cases(0)]

    def count_parameters(model):
        return next(values)

    values = iter(known)
    check(count_parameters)
    values = iter(known)
    recorded = (tmp_path / "progress.jsonl").read_bytes()
    with pytest.raises(CheckFailed, match="✘ count_parameters"):
        engine.check_unseen(count_parameters, seed=11)
    assert (tmp_path / "progress.jsonl").read_bytes() == recorded
    capsys.readouterr()
    assert engine.check_unseen(named(exercise.reference), seed=11) is None
    assert capsys.readouterr().out == ""


def named(reference):
    def count_parameters(model):
        return reference(model)

    return count_parameters


WRONG = "def {0}(*_):\n    return 'something else'"


@pytest.mark.filterwarnings("ignore:.*not in session")  # SQLAlchemy, about nbgrader
@pytest.mark.timeout(1800)
def test_nbgrader_releases_and_grades_it_with_its_default_limits(released, monkeypatch):
    """Right: all points; wrong, blank, and right for the notebook's inputs alone: none."""
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent), prepend=os.pathsep)  # alembic
    monkeypatch.setenv("XDG_DATA_HOME", str(released / "progress"))
    ours = {p.name: p.read_bytes() for p in (released / "release" / NAME).iterdir()}
    config = Config()
    config.CourseDirectory.root = str(released)
    nbgrader = NbGraderAPI(config=config)
    assert Execute().timeout == 30
    assert nbgrader.generate_assignment(NAME, force=True)["success"]
    theirs = {p.name: p.read_bytes() for p in (released / "release" / NAME).iterdir()}
    assert theirs == ours
    exercises = assignment(NAME).points
    solved = parse_notebook((SOLUTIONS / f"{NAME}.ipynb").read_bytes())
    right_answers, _ = find_answers(assignment(NAME), solved)
    right, wrong = json.loads(ours[f"{NAME}.ipynb"]), json.loads(ours[f"{NAME}.ipynb"])
    for exercise in exercises:
        cell(right, exercise)["source"] = right_answers[exercise]
        cell(wrong, exercise)["source"] = WRONG.format(exercise)
    for one in right["cells"]:  # the questions that people grade
        if one["cell_type"] == "markdown":
            one["source"] = [*one["source"], "\n\nBecause."]
    first = next(iter(exercises))
    learned = json.loads(json.dumps(right))
    cell(learned, first)["source"] = LEARNED.format(first)
    handed_in = {"right": right, "wrong": wrong, "learned": learned,
                 "blank": json.loads(ours[f"{NAME}.ipynb"])}  # fmt: skip
    for student, content in handed_in.items():
        save(content, released / "submitted" / student / NAME / f"{NAME}.ipynb")
        assert nbgrader.autograde(NAME, student)["success"]
    with Gradebook(f"sqlite:///{released / 'gradebook.db'}") as book:
        scores = {who: book.find_submission(NAME, who).code_score for who in handed_in}
    most = sum(exercises.values())
    assert scores == {"right": most, "wrong": 0, "learned": most - exercises[first], "blank": 0}
    for student, is_valid in (("right", True), ("blank", False)):
        path = released / "submitted" / student / NAME / f"{NAME}.ipynb"
        assert (Validator().validate(str(path)) == {}) is is_valid


LEARNED = """
from course_lib.exercises.engine.catalogue import all_exercises

exercise = all_exercises()["{0}"]
values = [exercise.reference(*case.inputs.values()) for case in exercise.cases(0)]
places = [0]


def {0}(*_):
    places[0] += 1
    return values[(places[0] - 1) % len(values)]
"""
