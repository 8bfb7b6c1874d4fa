"""`course grade`: from a folder of submissions to a folder of grades, and what it refuses."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
import zipfile
from dataclasses import replace

import pytest
from in_process import RIGHT, SEED, WRONG, run_here, write_submission

from course_lib.classroom.files import ROOT
from course_lib.classroom.grading import command, executor, gradebook
from course_lib.classroom.grading.command import Wishes, chapter_of, grade_folder
from course_lib.classroom.grading.grade import from_json
from course_lib.cli import main

CHAPTER = "05_linear_quantization"
STRONG = Wishes(seed=SEED, jobs=2)


@pytest.fixture
def folder(tmp_path):
    """Three students: a folder, a notebook and a zip; the last is no notebook."""
    here = tmp_path / "submissions"
    write_submission(here / "ada" / f"{CHAPTER}.ipynb", to_uint8=RIGHT)
    write_submission(here / "=bob.ipynb", to_uint8=WRONG)
    with zipfile.ZipFile(here / "eve.zip", "w") as archive:
        archive.writestr(f"{CHAPTER}.ipynb", "not json")
    return here


@pytest.fixture
def without_sandbox(monkeypatch):
    """Nobody's code but the tests' own is graded, so that they need no sandbox."""

    class Here:
        def __init__(self, *_):
            pass

        def run(self, job):
            return run_here(job)

        def close(self):
            pass

    monkeypatch.setattr(gradebook, "Sandbox", Here)
    monkeypatch.setattr(executor, "best_tier", lambda: "bubblewrap")
    gradebook._free.cache_clear()
    yield
    gradebook._free.cache_clear()


def read_grades(out):
    return {path.parent.name: from_json(path.read_text()) for path in out.glob("*/grade.json")}


def test_a_folder_of_submissions_becomes_a_folder_of_grades(folder, tmp_path, without_sandbox):
    out = tmp_path / "grades"
    summary = grade_folder(folder, out, STRONG)
    assert (summary.graded, summary.lost, summary.unread) == (3, {}, {"MALFORMED": 1})
    grades = {grade.student: grade for grade in read_grades(out).values()}
    assert {name: grade.points for name, grade in grades.items()} == {"ada": 1, "=bob": 0, "eve": 0}
    assert {(one.chapter, one.possible, one.tier) for one in grades.values()} == {
        (CHAPTER, 24, "bubblewrap")
    }
    with (out / "grades.csv").open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 3 * 13 and [row["student"] for row in rows[::13]] == ["'=bob", "ada", "eve"]
    assert rows[2] == {
        "student": "'=bob",
        "exercise": "to_uint8",
        "points": "0",
        "verdict": "failed",
        "misconception": "cut off",
    }
    assert {row["verdict"] for row in rows[26:]} == {"MALFORMED"}


def test_a_second_run_needs_neither_seed_nor_sandbox_and_says_the_same(
    folder, tmp_path, without_sandbox, monkeypatch
):
    out = tmp_path / "grades"
    grade_folder(folder, out, STRONG)
    first = {p.relative_to(out): p.read_bytes() for p in out.rglob("*") if p.is_file()}
    assert json.loads(first[(out / "settings.json").relative_to(out)])["seed"] == SEED

    def none(*_):
        raise AssertionError("graded again")

    monkeypatch.setattr(gradebook, "Sandbox", none)
    gradebook._free.cache_clear()
    assert grade_folder(folder, out, Wishes()).lost == {}
    assert {p.relative_to(out): p.read_bytes() for p in out.rglob("*") if p.is_file()} == first


def test_who_could_not_be_graded_is_named_and_has_no_old_grade(
    folder, tmp_path, without_sandbox, monkeypatch, capsys
):
    out = tmp_path / "grades"
    grade_folder(folder, out, STRONG)
    write_submission(folder / "ada" / f"{CHAPTER}.ipynb", to_uint8=f"{RIGHT}  # changed")

    class Broken:
        def __init__(self, *_):
            raise OSError("no more processes")

    monkeypatch.setattr(gradebook, "Sandbox", Broken)
    gradebook._free.cache_clear()
    assert main(["grade", str(folder), "--out", str(out)]) == 1
    assert "not graded: ada: OSError: no more processes" in capsys.readouterr().out
    assert not (out / "ada" / "grade.json").exists()
    assert "ada,to_uint8,,not graded," in (out / "grades.csv").read_text("utf-8-sig")


def test_what_other_systems_read_is_written_on_request(folder, tmp_path, without_sandbox):
    out = tmp_path / "grades"
    grade_folder(folder, out, replace(STRONG, gradescope=True, junit=True))
    files = {path.name for path in (out / "ada").iterdir()}
    assert files >= {"grade.json", "results.json", "junit.xml"}


def test_a_seed_is_asked_for_kept_found_or_drawn(folder, tmp_path):
    def seed(out, wishes):
        return command._settings(folder, tmp_path / out, wishes)["seed"]

    drawn = {seed("new", Wishes()) for _ in range(3)}
    assert len(drawn) == 3 and all(1 <= one < 2**31 for one in drawn)
    released = {"chapter": CHAPTER, "seed": 5}
    (tmp_path / f"{CHAPTER}.seed.json").write_text(json.dumps(released))
    assert seed("new", Wishes()) == 5
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "settings.json").write_text(json.dumps(released | {"seed": 6}))
    assert (seed("old", Wishes()), seed("old", Wishes(seed=7))) == (6, 7)
    for wrong in (0, -1, 2**31):
        with pytest.raises(ValueError, match="a seed is from 1 to"):
            seed("new", Wishes(seed=wrong))


def test_the_chapter_is_that_of_most_notebooks(folder, tmp_path):
    assert chapter_of(folder) == CHAPTER
    for name in ("x", "y"):
        write_submission(folder / name / "sub" / "03_pruning.ipynb")
    write_submission(folder / "x" / "mine.ipynb")
    with pytest.raises(LookupError, match="--chapter 05"):
        chapter_of(folder)
    write_submission(folder / "z" / "03_pruning.ipynb")
    assert chapter_of(folder) == "03_pruning"
    (tmp_path / "empty").mkdir()
    with pytest.raises(LookupError, match="no notebook of the course"):
        chapter_of(tmp_path / "empty")


REFUSED = {
    "no folder": (["nowhere", "--out", "out"], "there is no nowhere"),
    "the grades among the submissions": (["submissions", "--out", "submissions/out"], "lies among"),
    "no such chapter": (["submissions", "--out", "out", "--chapter", "99"], "no lesson 99"),
    "another chapter's grades": (["submissions", "--out", "old"], "holds grades of 03_pruning"),
    "no scheduler": (
        ["submissions", "--out", "out", "--scheduler", "tcp://127.0.0.1:1"],
        "no Dask scheduler answers",
    ),
}


@pytest.mark.parametrize(("words", "told"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_done_is_said(words, told, folder, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "settings.json").write_text('{"chapter": "03_pruning", "seed": 1}')
    if "old" in words:
        words = [*words, "--chapter", "05"]
    assert main(["grade", *words]) == 2
    assert told in capsys.readouterr().err


def test_a_weak_sandbox_is_refused(folder, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(executor, "best_tier", lambda: "process")
    assert main(["grade", str(folder), "--out", str(tmp_path / "out")]) == 2
    assert "--allow-weak-sandbox" in capsys.readouterr().err and not (tmp_path / "out").exists()


needs_bubblewrap = pytest.mark.skipif(
    executor.best_tier() != "bubblewrap", reason="bubblewrap is missing, or not allowed here"
)


@needs_bubblewrap
def test_a_killed_run_resumes_and_loses_nothing(tmp_path):
    folder, out = tmp_path / "submissions", tmp_path / "out"
    for number in range(12):
        kind = (RIGHT, WRONG)[number % 2]
        answer = f"{kind}  # {number}"
        write_submission(folder / f"s{number:02}" / f"{CHAPTER}.ipynb", to_uint8=answer)
    command = [sys.executable, "-m", "course_lib.cli", "grade", folder, "--out", out]
    command += ["--seed", "7", "--jobs", "1"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    run = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
    store = out / gradebook.STORE
    while run.poll() is None and len(list(store.glob("*.json"))) < 4:
        time.sleep(0.05)
    run.send_signal(signal.SIGKILL)
    assert run.wait() == -signal.SIGKILL, "it was not killed midway"
    kept = {path: path.stat().st_mtime_ns for path in store.glob("*.json")}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0 and "12 submissions graded" in done.stdout
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    assert len(list(store.glob("*.json"))) == 12
    grades = read_grades(out)
    assert {name: grade.points for name, grade in grades.items()} == {
        f"s{number:02}": 1 - number % 2 for number in range(12)
    }


def test_the_table_holds_all_grades_of_the_folder(folder, tmp_path, without_sandbox):
    out = tmp_path / "grades"
    grade_folder(folder, out, STRONG)
    write_submission(tmp_path / "late" / "zoe.ipynb", to_uint8=RIGHT)
    assert grade_folder(tmp_path / "late", out, Wishes(chapter="05")).graded == 1
    with (out / "grades.csv").open(encoding="utf-8-sig", newline="") as file:
        assert {row["student"] for row in csv.DictReader(file)} == {"'=bob", "ada", "eve", "zoe"}
