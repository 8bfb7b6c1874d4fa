"""A learner's work in notebooks/ makes no test fail; a build that was forgotten does."""

import shutil
import subprocess

import pytest
from tracked import notebooks_in, to_compare


@pytest.fixture
def notebook(tmp_path, monkeypatch):
    """A notebook in a git repository of its own, tracked as "made"."""
    if not shutil.which("git"):
        pytest.skip("git is not installed")
    for name in ("GIT_DIR", "GIT_INDEX_FILE", "GIT_WORK_TREE"):  # set within a git hook
        monkeypatch.delenv(name, raising=False)
    path = tmp_path / "00_toy.ipynb"
    path.write_bytes(b"made")
    for words in (["init", "-q"], ["add", path.name]):
        subprocess.run(["git", *words], cwd=tmp_path, check=True)
    return path


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("made", [b"made", b"made anew"])
def test_what_nobody_changed_is_tested_as_it_lies_there(notebook, made):
    assert to_compare(notebook, made) == b"made"


@pytest.mark.filterwarnings("error")
def test_a_build_that_is_not_committed_is_tested_as_it_lies_there(notebook):
    notebook.write_bytes(b"made anew")
    assert to_compare(notebook, b"made anew") == b"made anew"


@pytest.mark.parametrize("made", [b"made", b"made anew"])
def test_of_what_a_learner_changed_git_knows_the_right_one(notebook, made):
    notebook.write_bytes(b"made, solved and run")
    with pytest.warns(UserWarning, match="00_toy.ipynb was changed by hand; tested is what git tr"):
        assert to_compare(notebook, made) == b"made"


def test_what_a_learner_deleted_is_not_missed(notebook):
    notebook.unlink()
    with pytest.warns(UserWarning, match="changed by hand"):
        assert to_compare(notebook, b"made") == b"made"


def test_what_git_does_not_know_is_tested_as_it_lies_there(notebook):
    new = notebook.with_name("01_new.ipynb")
    assert to_compare(new, b"new") == b""
    new.write_bytes(b"new")
    assert to_compare(new, b"newer") == b"new"


def test_notebooks_that_a_learner_added_are_not_listed(notebook):
    for name in ("Untitled.ipynb", "my copy.ipynb", "00_toy-Copy1.ipynb", "00_toy.mine-1.ipynb"):
        notebook.with_name(name).touch()
    assert notebooks_in(notebook.parent) == ["00_toy.ipynb"]
    subprocess.run(["git", "add", "my copy.ipynb"], cwd=notebook.parent, check=True)
    assert notebooks_in(notebook.parent) == ["00_toy.ipynb", "my copy.ipynb"]
    shutil.rmtree(notebook.parent / ".git")
    assert notebooks_in(notebook.parent) == ["00_toy.ipynb"]


def test_without_git_there_is_only_what_lies_there(notebook, monkeypatch):
    monkeypatch.setenv("PATH", "")
    notebook.write_bytes(b"something else")
    assert to_compare(notebook, b"made") == b"something else"
    assert notebooks_in(notebook.parent) == ["00_toy.ipynb"]
