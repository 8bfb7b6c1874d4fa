"""What a learner opens, made from a lesson; whether somebody wrote into it."""

import json

import nbformat
import pytest
from toy_lesson import write_lesson

from course_lib.classroom.learner import write
from course_lib.classroom.lesson import read_lesson
from course_lib.classroom.student import is_touched, student_notebook


@pytest.fixture
def files(tmp_path):
    """The source of a lesson and its untouched student notebook."""
    source = write_lesson(tmp_path)
    notebook = tmp_path / "notebooks" / "00_toy.ipynb"
    write(notebook, student_notebook(read_lesson(source)))
    return source, notebook


def edit(path, cell_id, source):
    notebook = nbformat.read(path, as_version=4)
    next(cell for cell in notebook.cells if cell.id.startswith(cell_id)).source = source
    nbformat.write(notebook, path)


def saved_by_jupyterlab(path):
    """What opening, running and saving leaves: outputs, counts, other metadata."""
    notebook = nbformat.read(path, as_version=4)
    notebook.metadata.language_info.version = "3.11.2"
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.execution_count = 1
            cell.outputs = [nbformat.v4.new_output("stream", text="something")]
    nbformat.write(notebook, path)


def test_solutions_are_cleared_and_checks_locked(files):
    text = files[1].read_text("utf-8")
    assert "SOLUTION" not in text and "losses.sum()" not in text
    cells = {cell["id"]: cell for cell in json.loads(text)["cells"]}
    assert cells["bits_per_byte"]["source"][-2:] == [
        "    # YOUR CODE HERE\n",
        "    raise NotImplementedError()",
    ]
    assert cells["bits_per_byte"]["metadata"]["deletable"] is False
    assert cells["check_bits_per_byte"]["metadata"]["editable"] is False
    assert all("editable" not in c["metadata"] for name, c in cells.items() if "check" not in name)


def test_only_what_somebody_wrote_counts_as_touched(files):
    _, notebook = files
    assert not is_touched(notebook)
    saved_by_jupyterlab(notebook)
    assert not is_touched(notebook)
    assert not is_touched(notebook.with_name("missing.ipynb"))


@pytest.mark.parametrize(
    "cell", ["count_parameters", "b407c5db"]
)  # an answer; the first prose cell
def test_an_edit_anywhere_is_noticed(files, cell):
    edit(files[1], cell, "# mine")
    assert is_touched(files[1])


@pytest.mark.parametrize("text", ["", "[]", "{}", "not json"])
def test_a_file_that_is_no_notebook_counts_as_touched(files, text):
    files[1].write_text(text)
    assert is_touched(files[1])
