import multiprocessing
import os

import pytest

from course_lib import journal
from course_lib.cli import main
from course_lib.exercises.engine import progress
from course_lib.exercises.engine.judge import FAILED, PASSED, Verdict


@pytest.fixture
def file(tmp_path, monkeypatch):
    path = tmp_path / "folder" / "progress.jsonl"
    monkeypatch.setattr(journal, "journal_file", lambda: path)
    return path


def record(name, status):
    progress.record(Verdict(name, status, 0, 1))


def test_once_passed_stays_passed(file):
    for status in (FAILED, PASSED, FAILED):
        record("a", status)
    record("b", FAILED)
    assert progress.latest() == {"a": PASSED, "b": FAILED}


def test_no_file_means_no_progress(file):
    assert progress.latest() == {}


def test_a_spoiled_line_costs_only_itself(file):
    record("a", PASSED)
    with file.open("a") as handle:
        handle.write('{"exercise": "b", "sta\n[]\n')
    record("c", PASSED)
    assert progress.latest() == {"a": PASSED, "c": PASSED}


@pytest.mark.parametrize(
    "spoil",
    [
        lambda good: b"\xef\xbb\xbf" + good,
        lambda good: good.replace(b"\n", b"\r\n"),
        lambda good: good.decode().encode("utf-16"),
        lambda good: good + good.decode().encode("utf-16-le"),
        lambda good: good + b'{"exercise": "\xe6\x87\n',
        lambda good: good + b'{"exercise": ["x"], "status": "passed"}\nnull\n[]\n3\n\n',
        lambda good: good + good[:-20],
        lambda good: good[:-1],
    ],
    ids=["BOM", "CRLF", "UTF-16", "joined UTF-16", "cut character", "odd lines", "torn", "no end"],
)
def test_other_tools_spoil_nothing(file, spoil):
    for name in "ab":
        record(name, PASSED)
    file.write_bytes(spoil(file.read_bytes()))
    assert progress.latest() == {"a": PASSED, "b": PASSED}
    if b"\0" not in file.read_bytes():
        record("c", PASSED)  # a line of its own, even behind a torn one
        assert progress.latest()["c"] == PASSED


def test_a_folder_that_cannot_be_written_is_no_reason_to_stop(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setattr(journal, "journal_file", lambda: tmp_path / "file" / "progress.jsonl")
    record("a", PASSED)
    assert progress.latest() == {}


def _many(path, name):
    journal.journal_file = lambda: path
    for _ in range(200):
        record(name, PASSED)


def test_two_kernels_at_once_lose_nothing(file):
    file.parent.mkdir()
    context = multiprocessing.get_context("fork" if os.name == "posix" else "spawn")
    workers = [context.Process(target=_many, args=(file, name)) for name in "ab"]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    lines = file.read_text().splitlines()
    assert len(lines) == 400 and set(progress.latest()) == {"a", "b"}


def test_the_command_says_where_it_is_kept(file, capsys):
    assert main(["progress"]) == 0
    assert f"kept in {file}\n" in capsys.readouterr().out


def test_inside_nbgrader_nothing_is_read_or_written(file, monkeypatch):
    record("a", PASSED)
    kept = file.read_bytes()
    monkeypatch.setenv("NBGRADER_EXECUTION", "autograde")
    record("b", PASSED)
    assert progress.latest() == {} and file.read_bytes() == kept
