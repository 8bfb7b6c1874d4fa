"""What a change reaches."""

import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest
from quick import ROOT, arguments, changed_chapters, changed_files, exercises_of, is_wanted


def test_a_lesson_its_answers_and_its_exercises_are_of_one_chapter():
    for one in (
        "solutions/09_low_rank.py",
        "notebooks/09_low_rank.ipynb",
        "tests/answers/09_low_rank.txt",
        "course_lib/exercises/low_rank/inventing.py",
    ):
        assert changed_chapters([one]) == {"09"}, one
    assert changed_chapters(["course_lib/low_rank/budgets.py", "README.md"]) == set()
    assert "factor_tiny" in exercises_of({"09"}) and exercises_of(()) == set()


def test_a_module_brings_its_doctests_and_whoever_imports_it():
    found = arguments(["course_lib/measure/pareto.py"])
    assert "course_lib/measure/pareto.py" in found and "tests/test_pareto.py" in found
    assert "tests/test_huffman.py" not in found
    assert "tests/test_exercises.py" in arguments(["tests/judging.py"])
    assert "tests/test_wheel.py" in arguments(["tests/test_wheel.py"])
    assert not any("gone" in one for one in arguments(["course_lib/gone.py"]))


def test_nothing_changed_leaves_the_rules():
    found = arguments([])
    assert {"tests/test_architecture.py", "tests/test_lesson.py"} <= set(found)
    assert len(found) == 6 and all((ROOT / one).exists() for one in found)


@pytest.mark.parametrize(
    ("file", "values", "slow", "wanted"),
    [
        ("test_notebooks.py", {"name": "09_low_rank"}, True, True),
        ("test_book.py", {"name": "09_low_rank"}, True, True),
        ("test_book.py", {"name": "09_low_rank", "book": None}, True, False),
        ("test_notebooks.py", {"name": "05_linear_quantization"}, True, False),
        ("test_notebooks.py", {}, True, False),
        ("test_exercises.py", {"exercise": SimpleNamespace(name="nmf")}, False, True),
        ("test_exercises.py", {"exercise": SimpleNamespace(name="gptq")}, False, False),
        ("test_answers.py", {"kind": "right", "name": "nmf", "code": ""}, False, True),
        ("test_pareto.py", {"name": "anything"}, False, True),
        ("test_pareto.py", {}, True, False),
    ],
)
def test_which_tests_of_a_file_are_run(file, values, slow, wanted):
    item = SimpleNamespace(
        path=Path(file),
        callspec=SimpleNamespace(params=values),
        fixturenames=list(values),
        get_closest_marker=lambda name: object() if slow else None,
    )
    assert is_wanted(item, {"09"}, {"nmf"}) == wanted


def test_what_is_not_committed_has_changed(tmp_path):
    def git(*words):
        who = ["-c", "user.name=Ada", "-c", "user.email=ada@example.org"]
        subprocess.run(["git", *who, *words], cwd=tmp_path, check=True, capture_output=True)

    git("init", "-b", "main")
    (tmp_path / "old.py").write_text("a = 1\n")
    (tmp_path / "same.py").write_text("a = 1\n")
    git("add", ".")
    git("commit", "-m", "first")
    git("checkout", "-b", "mine")
    (tmp_path / "old.py").write_text("a = 2\n")
    git("commit", "-am", "second")
    (tmp_path / "new.py").write_text("a = 3\n")
    assert changed_files(tmp_path) == ["new.py", "old.py"]
