"""A learner's folder: filled, mended, and nothing that a learner wrote is ever lost."""

import re
from pathlib import Path

import nbformat
import pytest
from test_student import edit, saved_by_jupyterlab
from toy_lesson import write_lesson

from course_lib import places
from course_lib.classroom import files, learner
from course_lib.classroom.learner import keep, reset, start, untouched, write
from course_lib.classroom.student import is_touched
from course_lib.cli import main


@pytest.fixture
def lesson(tmp_path):
    """The untouched notebook of a lesson, and where a learner has it."""
    fresh = untouched(write_lesson(tmp_path))
    notebook = tmp_path / "notebooks" / "00_toy.ipynb"
    write(notebook, fresh)
    return fresh, notebook


def test_reset_restores_and_keeps(lesson):
    fresh, notebook = lesson
    untouched = notebook.read_bytes()
    edit(notebook, "bits_per_byte", "my = 'answer'")
    mine = notebook.read_bytes()
    message = reset(notebook, fresh)
    assert notebook.read_bytes() == untouched
    (kept,) = notebook.parent.glob("*.mine-*")
    assert kept.read_bytes() == mine and kept.name in message
    assert re.fullmatch(r"00_toy\.mine-\d{8}-\d{6}\.ipynb", kept.name)


def test_reset_of_an_untouched_notebook_does_nothing(lesson):
    fresh, notebook = lesson
    before = notebook.stat().st_mtime_ns
    assert "untouched" in reset(notebook, fresh)
    assert notebook.stat().st_mtime_ns == before
    assert list(notebook.parent.iterdir()) == [notebook]


@pytest.mark.parametrize("spoil", [saved_by_jupyterlab, lambda path: path.write_text("{")])
def test_reset_clears_outputs_and_mends_a_broken_file(lesson, spoil):
    fresh, notebook = lesson
    untouched = notebook.read_bytes()
    spoil(notebook)
    reset(notebook, fresh)
    assert notebook.read_bytes() == untouched
    assert len(list(notebook.parent.glob("*.mine-*"))) == 1


def test_reset_of_a_missing_notebook_restores_it(lesson):
    fresh, notebook = lesson
    notebook.unlink()
    assert "was missing" in reset(notebook, fresh)
    assert not is_touched(notebook)


def test_reset_restores_metadata_that_an_editor_dropped(lesson):
    fresh, notebook = lesson
    untouched = notebook.read_bytes()
    without = nbformat.read(notebook, as_version=4)
    for cell in without.cells:
        cell.metadata = {}
    nbformat.write(without, notebook)
    assert "is restored" in reset(notebook, fresh)
    assert notebook.read_bytes() == untouched
    assert len(list(notebook.parent.glob("*.mine-*"))) == 1
    assert "untouched" in reset(notebook, fresh)


def test_nothing_is_overwritten_within_one_second(lesson):
    _, notebook = lesson
    kept = [keep(notebook) for _ in range(3)]
    assert len(set(kept)) == 3 and all(path.exists() for path in kept)


HERE = files.lesson_sources()[0].stem + ".ipynb"


def test_start_fills_a_folder_with_untouched_notebooks(tmp_path):
    assert start(tmp_path / "new" / "course") == []
    made = {path.name for path in (tmp_path / "new" / "course").iterdir()}
    assert made == {*files.PAGES, *(f"{path.stem}.ipynb" for path in files.lesson_sources())}
    assert not is_touched(tmp_path / "new" / "course" / HERE)


def test_start_overwrites_nothing_and_names_what_it_left_alone(tmp_path, capsys):
    for name in (HERE, "GLOSSARY.md"):
        (tmp_path / name).write_text("mine", "utf-8")
    assert main(["start", str(tmp_path)]) == 0
    assert f"left alone: {HERE}, GLOSSARY.md" in capsys.readouterr().out
    assert [(tmp_path / name).read_text("utf-8") for name in (HERE, "GLOSSARY.md")] == ["mine"] * 2
    assert len(list(tmp_path.glob("*.ipynb"))) == len(files.lesson_sources())


def test_start_says_where_it_cannot_write(tmp_path, capsys):
    (tmp_path / "file").write_text("in the way", "utf-8")
    assert main(["start", str(tmp_path / "file")]) == 2
    assert "cannot be read or written" in capsys.readouterr().err


def test_an_installed_package_brings_the_notebooks_that_a_checkout_makes(monkeypatch):
    source = files.lesson_sources()[0]
    made = nbformat.writes(untouched(source))
    monkeypatch.setattr(learner, "is_checkout", lambda: False)
    if is_touched(files.NOTEBOOKS / HERE):
        pytest.skip(f"somebody wrote into notebooks/{HERE}")
    assert nbformat.writes(untouched(source)) == made


def test_the_current_folder_is_the_learners_if_it_holds_notebooks(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert files.learner_folder() == files.NOTEBOOKS
    monkeypatch.setattr(files, "is_checkout", lambda: False)
    assert main(["check", "00"]) == main(["reset", "00"]) == 2
    assert capsys.readouterr().err.count("`course start FOLDER` makes some") == 2
    start(tmp_path)
    edit(tmp_path / HERE, "count_parameters", "# mine")
    assert main(["reset", "00"]) == 0
    assert not is_touched(tmp_path / HERE) and len(list(tmp_path.glob("*.mine-*"))) == 1
    assert files.find_notebook("00") == tmp_path / HERE


def test_a_notebook_is_reset_where_its_path_says(tmp_path):
    start(tmp_path)
    assert files.notebook_to_reset(str(tmp_path / HERE)) == tmp_path / HERE


def test_the_solved_notebooks_are_nobodys_to_reset(monkeypatch):
    monkeypatch.chdir(files.SOLUTIONS)
    assert files.learner_folder() == files.NOTEBOOKS
    assert files.notebook_to_reset(HERE) == files.NOTEBOOKS / HERE


def test_build_is_for_a_checkout(monkeypatch, capsys):
    monkeypatch.setattr(places, "CHECKOUT", Path("elsewhere"))
    assert main(["build"]) == 2
    assert "in a checkout" in capsys.readouterr().err
