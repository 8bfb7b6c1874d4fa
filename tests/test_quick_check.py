"""`course check`: answers and checks alone, in seconds, with the words of the notebook."""

import json
from xml.etree import ElementTree

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook
from toy_lesson import answer, write_lesson

from course_lib.classroom.check import NotANotebook, as_json, run_nbval, table
from course_lib.classroom.files import SOLUTIONS, lesson_sources
from course_lib.classroom.grading.quick_check import check_answers
from course_lib.classroom.lesson import read_lesson
from course_lib.classroom.student import student_notebook
from course_lib.cli import main
from course_lib.exercises.engine.progress import latest

RIGHT = "def count_parameters(model):\n    return sum(p.numel() for p in model.parameters())"
NATS = "def bits_per_byte(losses, text):\n    return losses.sum() / len(text.encode())"


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    """A right answer, a wrong one, one that is not attempted, and a cell that never ends."""
    folder = tmp_path_factory.mktemp("quick")
    notebook = student_notebook(read_lesson(write_lesson(folder)))
    answer(notebook, "count_parameters", RIGHT)
    answer(notebook, "bits_per_byte", NATS)
    notebook.cells.insert(1, new_code_cell("import no_such_module\nwhile True:\n    pass"))
    nbformat.write(notebook, folder / "00_toy.ipynb")
    return folder / "00_toy.ipynb"


@pytest.fixture(scope="module")
def checked(path):
    before = path.read_bytes(), path.stat().st_mtime_ns
    results = check_answers(path, junit=path.with_name("junit.xml"), record=False)
    assert before == (path.read_bytes(), path.stat().st_mtime_ns), "the notebook is only read"
    return results


def test_each_exercise_of_the_chapter_is_judged_and_no_other_cell_is_run(checked):
    assert [(one.exercise, one.verdict) for one in checked] == [
        ("count_parameters", "passed"),
        ("packed_bytes", "not attempted"),
        ("bits_per_byte", "2 of 13 cases"),
    ]
    first, second, third = table(checked).split("\n")[1:4]
    assert first.split() == ["count_parameters", "passed"] and "not attempted" in second
    assert third.split(maxsplit=1)[1].startswith("2 of 13 cases  Likely cause: that is nats per")


def test_the_words_are_those_of_the_whole_notebook(path, checked, tmp_path):
    notebook = nbformat.read(path, 4)
    del notebook.cells[1]
    nbformat.write(notebook, tmp_path / "00_toy.ipynb")
    whole = {one.exercise: one for one in run_nbval([tmp_path / "00_toy.ipynb"], record=False)}
    for one in checked:
        if one.exercise in whole:
            same = whole[one.exercise]
            assert (one.passed, one.text, one.first_line) == (
                same.passed, same.text, same.first_line,
            )  # fmt: skip


def test_json_and_junit_hold_every_exercise(path, checked):
    found = json.loads(as_json(checked))
    assert found["passed"] is False and len(found["cells"]) == 3
    assert 'hint("bits_per_byte") says more' in found["cells"][2]["text"]
    suite = ElementTree.parse(path.with_name("junit.xml")).getroot()
    assert {name: suite.get(name) for name in ("tests", "failures", "skipped")} == {
        "tests": "3",
        "failures": "1",
        "skipped": "1",
    }


def test_progress_is_recorded_only_if_it_is_the_learners(path):
    check_answers(path, record=False)
    assert latest() == {}
    check_answers(path)
    assert latest() == {
        "count_parameters": "passed",
        "packed_bytes": "not attempted",
        "bits_per_byte": "failed",
    }


def test_a_cell_whose_check_is_gone_is_judged_all_the_same(path, tmp_path):
    notebook = nbformat.read(path, 4)
    notebook.cells = [cell for cell in notebook.cells if cell.id != "check_count_parameters"]
    nbformat.write(notebook, tmp_path / "mine.ipynb")
    one = check_answers(tmp_path / "mine.ipynb", record=False)[0]
    assert (one.exercise, one.passed, one.cell) == ("count_parameters", True, -1)


def test_an_endless_loop_costs_its_exercise_only(path, tmp_path):
    notebook = nbformat.read(path, 4)
    answer(
        notebook, "bits_per_byte", "def bits_per_byte(losses, text):\n    while True:\n        1"
    )
    nbformat.write(notebook, tmp_path / "00_toy.ipynb")
    results = check_answers(tmp_path / "00_toy.ipynb", record=False)
    assert [one.passed for one in results] == [True, False, False]
    assert results[2].verdict == "TIMEOUT" or "no answer within" in results[2].text


@pytest.mark.parametrize(
    ("helper", "taken"),
    [
        ("def total(numbers):\n    return sum(numbers)", True),
        ("for total in [sum]:\n    pass", False),
    ],
)
def test_a_helper_in_another_cell_is_taken_along_or_named_before_all_else(
    helper, taken, path, tmp_path
):
    notebook = nbformat.read(path, 4)
    answer(notebook, "count_parameters", RIGHT.replace("sum(", "total("))
    notebook.cells[1] = new_code_cell(helper)
    nbformat.write(notebook, tmp_path / "00_toy.ipynb")
    whole = run_nbval([tmp_path / "00_toy.ipynb"], record=False)
    assert {one.exercise: one.passed for one in whole}["count_parameters"]
    first, *_ = check_answers(tmp_path / "00_toy.ipynb", record=False)
    assert first.passed == taken
    advice = "uses `total`, which is defined outside the answer's cell; move it in"
    assert taken or first.diagnosis == advice


def test_a_file_that_cannot_be_written_is_named(path, capsys):
    junit = path.with_name("nowhere") / "junit.xml"
    assert main(["check", str(path), "--junit", str(junit)]) == 2
    assert "cannot be read or written" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["not json", "{}", None])
def test_a_file_that_is_no_notebook_is_said_to_be_none(text, tmp_path):
    path = tmp_path / "x.ipynb"
    if text is not None:
        path.write_text(text)
    with pytest.raises(NotANotebook):
        check_answers(path)


def test_a_notebook_without_an_exercise_is_told_of_the_whole_check(tmp_path, capsys):
    nbformat.write(new_notebook(cells=[new_code_cell("1")]), tmp_path / "own.ipynb")
    assert main(["check", str(tmp_path / "own.ipynb")]) == 2
    assert "--all" in capsys.readouterr().err


CHAPTERS = [path.stem for path in lesson_sources()]


@pytest.mark.parametrize("name", CHAPTERS[::6])
def test_a_solved_chapter_passes(name):
    """Three of them: in test_wholly_graded.py all go through the same functions."""
    solved = check_answers(SOLUTIONS / f"{name}.ipynb", record=False)
    assert [(one.exercise, one.text) for one in solved if not one.passed] == []


def test_an_untouched_chapter_is_not_attempted(lab_folder):
    untouched = check_answers(lab_folder / "05_linear_quantization.ipynb", record=False)
    assert {one.verdict for one in untouched} == {"not attempted"} and len(untouched) == 13
