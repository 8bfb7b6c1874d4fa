"""`course build`: notebooks that come out the same, and a build that stops at the first dirt."""

import json
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_output
from toy_lesson import SOURCE, write_lesson

from course_lib.classroom.build import (
    build,
    is_current,
    run_lesson,
    unclean,
    with_kept_outputs,
)
from course_lib.classroom.lesson import LessonError, read_lesson


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """A folder with the toy lesson, built once; and a home for what kernels write."""
    folder = tmp_path_factory.mktemp("built")
    write_lesson(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_DATA_HOME", str(folder / "data"))
        build(folder / "solutions", folder / "notebooks")
        yield folder


def cells(path: Path) -> list[dict]:
    return json.loads(path.read_text("utf-8"))["cells"]


def test_the_solved_notebook_keeps_its_outputs(built):
    code = [c for c in cells(built / "solutions/00_toy.ipynb") if c["cell_type"] == "code"]
    assert [c["execution_count"] for c in code] == list(range(1, len(code) + 1))
    assert code[1]["outputs"][0]["text"] == ["two lines\n", "of text\n"]
    assert code[2]["outputs"][0]["data"]["image/png"]
    assert code[3]["outputs"][0]["data"] == {
        "text/plain": ["IntSlider(value=3, description='a slider')"]
    }
    assert code[5]["outputs"][0]["text"][0].startswith("✔ count_parameters")


def test_nothing_of_this_machine_stands_in_either(built):
    for name in ("solutions/00_toy.ipynb", "notebooks/00_toy.ipynb"):
        notebook = json.loads((built / name).read_text("utf-8"))
        assert notebook["metadata"]["language_info"] == {"name": "python"}
        assert set(notebook["metadata"]) == {"kernelspec", "language_info"}
        assert {key for c in notebook["cells"] for key in c["metadata"]} <= {
            "nbgrader", "deletable", "editable",
        }  # fmt: skip
        assert str(built) not in json.dumps(notebook)


def test_the_student_notebook_has_no_outputs(built):
    for cell in cells(built / "notebooks/00_toy.ipynb"):
        assert not cell.get("outputs") and cell.get("execution_count") is None


def test_both_notebooks_have_the_same_ids(built):
    solved, student = (cells(built / part / "00_toy.ipynb") for part in ("solutions", "notebooks"))
    assert [c["id"] for c in solved] == [c["id"] for c in student]


def test_an_unchanged_lesson_is_not_run_again(built, capsys):
    files = [built / part / "00_toy.ipynb" for part in ("solutions", "notebooks")]
    before = [(f.read_bytes(), f.stat().st_mtime_ns) for f in files]
    build(built / "solutions", built / "notebooks")
    assert [(f.read_bytes(), f.stat().st_mtime_ns) for f in files] == before
    assert "up to date" in capsys.readouterr().out


def test_new_prose_keeps_the_outputs_and_new_code_does_not(built, tmp_path):
    solved = built / "solutions/00_toy.ipynb"
    prose = read_lesson(write_lesson(tmp_path, SOURCE.replace("Text with", "Words with")))
    kept = with_kept_outputs(solved, prose)
    assert "Words with" in kept.cells[0].source
    before = nbformat.read(solved, as_version=4).cells
    assert [c.get("outputs") for c in kept.cells] == [c.get("outputs") for c in before]
    assert [c.get("execution_count") for c in kept.cells[:3]] == [None, 1, 2]
    code = read_lesson(write_lesson(tmp_path, SOURCE.replace("two lines", "2 lines")))
    assert with_kept_outputs(solved, code) is None
    assert with_kept_outputs(built / "notebooks/00_toy.ipynb", prose) is None
    assert with_kept_outputs(tmp_path / "missing.ipynb", prose) is None


def test_terms_of_the_glossary_are_linked_in_both_notebooks(tmp_path):
    path = write_lesson(tmp_path, SOURCE.replace("Text with", "A zero-point, a zero-point, and"))
    entry = "## zero-point\n\n**零点** · chapter 00\n\nThe code of 0.\n"
    (path.parent / "GLOSSARY.md").write_text(entry, "utf-8")
    first = read_lesson(path).notebook.cells[0]
    assert "A [zero-point](GLOSSARY.md#zero-point), a zero-point" in first.source


def test_what_makes_a_solved_notebook_out_of_date(built, tmp_path):
    lesson, solved = read_lesson(built / "solutions/00_toy.py"), built / "solutions/00_toy.ipynb"
    assert is_current(solved, lesson)
    edited = read_lesson(write_lesson(tmp_path, SOURCE.replace("the end", "the very end")))
    assert not is_current(solved, edited)
    notebook = nbformat.read(solved, as_version=4)
    notebook.cells[-1].source = 'print("edited by hand")'
    nbformat.write(notebook, tmp_path / "by_hand.ipynb")
    assert not is_current(tmp_path / "by_hand.ipynb", lesson)
    assert not is_current(tmp_path / "missing.ipynb", lesson)


def test_a_build_keeps_what_a_learner_wrote(built, capsys):
    student = built / "notebooks/00_toy.ipynb"
    untouched = student.read_bytes()
    mine = untouched.replace(b"raise NotImplementedError()", b"return 42")
    student.write_bytes(mine)
    build(built / "solutions", built / "notebooks")
    (kept,) = student.parent.glob("*.mine-*")
    assert student.read_bytes() == untouched and kept.read_bytes() == mine
    assert kept.name in capsys.readouterr().out


def test_a_build_says_nothing_about_the_learners_progress(built):
    assert not (built / "data").exists()


def test_a_check_that_fails_stops_the_build_though_its_cell_goes_on(tmp_path):
    start, wrong = SOURCE.index("# %% exercise="), SOURCE.replace("return sum(", "return 1 + sum(")
    source = "# %%\nfrom course_lib.exercises import check, hint\n\n" + wrong[start:]
    with pytest.raises(LessonError) as caught:
        run_lesson(read_lesson(write_lesson(tmp_path, source)))
    line = source[: source.index("# %% check")].count("\n") + 1
    assert str(caught.value).startswith(
        f"solutions/00_toy.py:{line}: check(count_parameters)\nCheckFailed: ✘ count_parameters · "
    )


def test_a_kernel_that_dies_stops_the_build(tmp_path):
    lesson = read_lesson(write_lesson(tmp_path, "# %%\nimport os\nos._exit(1)\n"))
    with pytest.raises(LessonError, match="solutions/00_toy.py:1: import os\nKernel died"):
        run_lesson(lesson)


@pytest.mark.parametrize(
    ("output", "message"),
    [
        (new_output("error", ename="ValueError", evalue="no", traceback=[]), "ValueError: no"),
        (new_output("stream", name="stderr", text="hm\n"), "text on stderr: hm"),
        (new_output("stream", text="a FutureWarning: soon"), "FutureWarning: soon"),
        (new_output("stream", text="in /home/me/x.py"), "/home/me/x.py"),
        (new_output("stream", text="C:\\Users\\me"), "C:\\Users"),
        (new_output("execute_result", {"text/plain": "PosixPath('/tmp/a')"}), "/tmp/a"),
        (new_output("display_data", {"text/html": '<a href="/opt/x">'}), "/opt/x"),
    ],
)
def test_what_must_not_stand_in_an_output(output, message):
    assert message in unclean(new_code_cell(outputs=[output]))


@pytest.mark.parametrize(
    "output",
    [
        new_output("stream", text="17 tokens/s, 1/2, and/or, https://a.org/b, ~/x/y, bits / byte"),
        new_output("display_data", {"text/html": '<b>1</b><br/><img src="x;base64,+/a/b/d=">'}),
        new_output("display_data", {"image/png": "iVBO/ab/cd", "text/plain": "<Figure>"}),
    ],
)
def test_what_may_stand_in_an_output(output):
    assert unclean(new_code_cell(outputs=[output])) == ""
