"""The edition without solutions: notebooks, checks, `course reset` and the book work."""

import os
import subprocess
import sys
from zipfile import ZipFile

import nbformat
import pytest
from student_edition import TOP, student_edition

from course_lib.classroom.files import lesson_sources

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
FIRST = lesson_sources()[0].stem


@pytest.fixture(scope="module")
def edition(tmp_path_factory):
    """The edition of what is committed here, unpacked."""
    folder = tmp_path_factory.mktemp("edition")
    try:
        student_edition(folder / "edition.zip")
    except (subprocess.CalledProcessError, FileNotFoundError):
        pytest.skip("this is no git checkout")
    ZipFile(folder / "edition.zip").extractall(folder)
    return folder / TOP


def run(edition, *words):
    environment = {**os.environ, "PYTHONPATH": str(edition), "PYTHONUTF8": "1"}
    environment["XDG_DATA_HOME"] = str(edition.parent / "home")
    command = [sys.executable, *words]
    return subprocess.run(
        command, cwd=edition, env=environment, capture_output=True, encoding="utf-8"
    )


def test_no_model_answer_is_in_it(edition):
    assert not (edition / "solutions").exists() and not (edition / "tests").exists()
    texts = [path.read_text("utf-8") for path in edition.rglob("*.ipynb")]
    assert texts and not [text for text in texts if "BEGIN SOLUTION" in text]


def test_reset_restores_what_a_learner_changed(edition):
    notebook = edition / "notebooks" / f"{FIRST}.ipynb"
    before = notebook.read_bytes()
    changed = nbformat.read(notebook, 4)
    changed.cells[0].source = "mine"
    nbformat.write(changed, notebook)
    done = run(edition, "-m", "course_lib.cli", "reset", "00")
    assert "is restored" in done.stdout, done.stderr
    assert notebook.read_bytes() == before
    (kept,) = notebook.parent.glob("*.mine-*.ipynb")
    assert nbformat.read(kept, 4).cells[0].source == "mine"


def test_every_lesson_is_named_and_start_fills_a_folder(edition, tmp_path):
    done = run(edition, "-m", "course_lib.cli", "start", str(tmp_path / "mine"))
    assert done.returncode == 0, done.stderr
    made = sorted(path.name for path in (tmp_path / "mine").glob("*.ipynb"))
    assert made == [f"{source.stem}.ipynb" for source in lesson_sources()]
    done = run(edition, "-m", "course_lib.cli", "reset", "99")
    assert FIRST in done.stderr


def test_the_book_is_made_of_the_untouched_notebooks(edition):
    done = run(edition, "book/build.py")
    assert done.returncode == 0, done.stderr
    page = (edition / "build/site/html" / f"{FIRST}.html").read_text("utf-8")
    assert "NotImplementedError" in page
