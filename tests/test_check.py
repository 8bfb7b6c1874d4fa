"""`course check --all`: nbval's results as a table, no waiting for a kernel that is lost."""

import json
import sys
import time
from xml.etree import ElementTree

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook, new_output
from toy_lesson import answer, write_lesson

from course_lib.classroom.check import (
    CELL_SECONDS,
    CellResult,
    NotANotebook,
    as_json,
    missing_checks,
    run_nbval,
    table,
)
from course_lib.classroom.files import SOLUTIONS
from course_lib.classroom.lesson import read_lesson
from course_lib.classroom.nbval_plugin import GRACE_SECONDS
from course_lib.classroom.student import student_notebook
from course_lib.cli import main

NATS = "def bits_per_byte(losses, text):\n    return losses.sum() / len(text.encode())"
RIGHT = "def count_parameters(model):\n    return sum(p.numel() for p in model.parameters())"


@pytest.fixture(scope="module")
def checked(tmp_path_factory):
    """A learner's notebook with a right answer, a wrong one and a broken cell; what came of it."""
    folder = tmp_path_factory.mktemp("checked")
    notebook = student_notebook(read_lesson(write_lesson(folder)))
    answer(notebook, "count_parameters", RIGHT)
    answer(notebook, "bits_per_byte", NATS)
    notebook.cells.append(new_code_cell("# NBVAL_SKIP\nnumbers[3]"))
    notebook.cells.append(new_code_cell("# NBVAL_RAISES_EXCEPTION\n1 / 0"))
    notebook.cells.append(new_code_cell("print(1)", outputs=[new_output("stream", text="old")]))
    path = folder / "00_toy.ipynb"
    nbformat.write(notebook, path)
    before = path.read_bytes(), path.stat().st_mtime_ns
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_DATA_HOME", str(folder / "data"))
        results = run_nbval([path], junit=folder / "junit.xml")
    return folder, results, before == (path.read_bytes(), path.stat().st_mtime_ns)


def test_exactly_what_is_wrong_fails_and_no_comment_excuses_it(checked):
    failed = [one.exercise or one.first_line for one in checked[1] if not one.passed]
    assert failed == ["bits_per_byte", "# NBVAL_SKIP", "# NBVAL_RAISES_EXCEPTION"]


def test_the_notebook_is_never_written(checked):
    folder, _, unchanged = checked
    assert unchanged
    assert {f.name for f in folder.iterdir()} <= {
        "00_toy.ipynb", "solutions", "notebooks", "junit.xml", "data",
    }  # fmt: skip


def test_the_table_gives_verdict_and_diagnosis(checked):
    header, first, second, other, _, count = table(checked[1]).split("\n")
    assert header.split() == ["exercise", "verdict", "diagnosis"]
    assert first.split() == ["count_parameters", "passed"]
    assert second.split(maxsplit=1)[1].startswith("2 of 13 cases  Likely cause: that is nats per")
    assert other.startswith("[10] # NBVAL_SKIP ") and "error" in other
    assert other.endswith("NameError: name 'numbers' is not defined")
    assert count == "1 of 2 exercises passed"


def test_a_deleted_check_cell_is_named(checked):
    path = checked[0] / "copy of my homework.ipynb"
    left = [one for one in checked[1] if one.exercise != "bits_per_byte"]
    missing = {one.exercise: one for one in missing_checks(left, path)}
    assert set(missing) == {"bits_per_byte", "packed_bytes"}, "the chapter's exercises without one"
    assert missing["bits_per_byte"].verdict == "check cell missing"
    assert missing["bits_per_byte"].diagnosis.startswith("Its check cell is gone. `course reset`")


def test_without_any_check_cell_the_notebooks_name_tells_the_chapter(tmp_path):
    missing = missing_checks([], tmp_path / "00_start_here.ipynb")
    assert [one.exercise for one in missing] == [
        "count_parameters",
        "packed_bytes",
        "bits_per_byte",
    ]
    assert missing_checks([], tmp_path / "a notebook of mine.ipynb") == []


def test_json_holds_the_whole_verdict(checked):
    found = json.loads(as_json(checked[1]))
    assert found["passed"] is False
    assert [one["verdict"] for one in found["cells"]] == [
        "passed", "2 of 13 cases", "error", "error",
    ]  # fmt: skip

    assert 'hint("bits_per_byte") says more' in found["cells"][1]["text"]
    assert "\x1b" not in found["cells"][1]["text"]


def test_junit_holds_every_cell(checked):
    folder, results, _ = checked
    suite = ElementTree.parse(folder / "junit.xml").getroot().find("testsuite")
    assert (int(suite.get("tests")), int(suite.get("failures"))) == (len(results), 3)


def write_notebook(folder, *sources):
    path = folder / "00_own.ipynb"
    nbformat.write(new_notebook(cells=[new_code_cell(source) for source in sources]), path)
    return path


DEAF_AND_LOUD = """
import time
while True:
    try:
        while True:
            print(1)
            time.sleep(0.1)
    except KeyboardInterrupt:
        pass
"""
LOST = {
    "dead": ("import os\nos._exit(1)", "the kernel died"),
    "hanging": ("while True:\n    pass", "Timeout of 2 seconds"),
    "deaf and loud": (DEAF_AND_LOUD, "the kernel was given up"),
}


@pytest.mark.parametrize("source, reason", LOST.values(), ids=LOST)
def test_a_lost_kernel_fails_within_a_minute(tmp_path, source, reason):
    path = write_notebook(tmp_path, "print(1)", source)
    start = time.monotonic()
    before, lost = run_nbval([path], seconds=2)
    assert before.passed and not lost.passed and reason in lost.text
    assert time.monotonic() - start < 60


def test_a_figures_words_are_compared_and_its_pixels_are_not(tmp_path):
    shows = (
        'from IPython.display import HTML\nHTML(\'<img alt="{}" src="data:image/png;base64,{}">\')'
    )
    path = write_notebook(tmp_path, shows.format("a line", "AA=="), shows.format("a line", "AA=="))
    notebook = nbformat.read(path, 4)
    for cell, alt in zip(notebook.cells, ("a line", "a bar"), strict=True):
        html = f'<img alt="{alt}" src="data:image/png;base64,BB==">'
        data = {"text/html": html, "text/plain": "<IPython.core.display.HTML object>"}
        cell.outputs = [new_output("execute_result", data, execution_count=1)]
        cell.execution_count = 1
    nbformat.write(notebook, path)
    assert [one.passed for one in run_nbval([path], compare=True)] == [True, False]


def test_the_limits_that_are_used_leave_a_minute():
    assert CELL_SECONDS + GRACE_SECONDS < 60


@pytest.mark.parametrize("text", ["not json", None])
def test_a_file_that_is_no_notebook_is_said_to_be_none(tmp_path, text):
    path = write_notebook(tmp_path)
    if text is not None:
        path.write_text(text)
    with pytest.raises(NotANotebook):
        run_nbval([path])


@pytest.mark.parametrize(
    ("text", "verdict", "diagnosis"),
    [
        ("○ f · not attempted\n  Write it above.", "not attempted", "Write it above."),
        ("✘ f · 4 of 6 cases\n  a case\n    yours  1", "4 of 6 cases", "a case"),
        ("✘ f · 4 of 6 cases\n  a case\n  Likely cause: x", "4 of 6 cases", "Likely cause: x"),
        ("Traceback\nNameError: name 'f'", "error", "NameError: name 'f'"),
        ("", "error", ""),
    ],
)
def test_verdict_and_diagnosis(text, verdict, diagnosis):
    result = CellResult("a.ipynb", 0, "f", "check(f)", False, text)
    assert (result.verdict, result.diagnosis) == (verdict, diagnosis)


PATHS = {  # the options of `course check` -> what does it
    (): "course_lib.classroom.grading.quick_check.check_answers",
    ("--all",): "course_lib.classroom.check.run_nbval",
}
either_path = pytest.mark.parametrize(("options", "does_it"), PATHS.items())


@pytest.mark.parametrize("command", [["reset", "00"], ["build"]])
def test_what_needs_the_classroom_extra_says_so(command, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "jupytext", None)  # as if it were not installed
    for module in ("lesson", "student", "build"):
        monkeypatch.delitem(sys.modules, f"course_lib.classroom.{module}", raising=False)
    assert main(command) == 2
    assert "make lab" in capsys.readouterr().err


@either_path
def test_the_exit_status_is_0_only_if_all_pass(options, does_it, tmp_path, monkeypatch, capsys):
    path = write_notebook(tmp_path, "print(1)")
    for passed, status in ((True, 0), (False, 1)):
        one = CellResult(str(path), 0, "f", "check(f)", passed, "✘ f · 4 of 6 cases")
        monkeypatch.setattr(does_it, lambda *_, **__: [one])  # noqa: B023
        assert main(["check", str(path), *options]) == status
        assert main(["check", str(path), "--json", *options]) == status
    assert main(["check", "99", *options]) == 2
    assert "there is no lesson 99" in capsys.readouterr().err


@either_path
def test_the_model_answers_are_nobodys_progress(options, does_it, tmp_path, monkeypatch):
    seen = {}

    def run(notebook, **options):
        seen.update(options)
        return [CellResult("a.ipynb", 0, "f", "check(f)", True, "")]

    monkeypatch.setattr(does_it, run)
    main(["check", str(SOLUTIONS / "00_start_here.ipynb"), *options])
    assert seen["record"] is False
    main(["check", str(write_notebook(tmp_path, "1")), *options])
    assert seen["record"] is True


@pytest.mark.parametrize("record", [True, False])
def test_what_is_not_to_be_recorded_goes_elsewhere(tmp_path, monkeypatch, record):
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "mine"))
    says = "import os\nassert os.environ['XDG_DATA_HOME'].endswith('mine')"
    (one,) = run_nbval([write_notebook(tmp_path, says)], record=record)
    assert one.passed is record
