"""What came back: every layout, every odd name, one submission a student."""

import json
import os
import shutil
import zipfile

import pytest
from submitted import CHAPTER, NAMES, cell, code, notebook, save

from course_lib.classroom.release import assignment
from course_lib.classroom.submissions.cells import GUESS
from course_lib.classroom.submissions.submission import (
    MALFORMED,
    MISSING,
    REJECTED,
    Submission,
    read_submissions,
    student_of,
)

SET = assignment("00")
FILE = f"{CHAPTER}.ipynb"


def read(folder) -> dict[str, Submission]:
    found = list(read_submissions(folder, SET))
    assert [one.student for one in found] == sorted({one.student for one in found})
    return {one.student: one for one in found}


def only(folder) -> Submission:
    (found,) = read(folder).values()
    return found


def zipped(path, **files):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in files.items():
            file.writestr(name, json.dumps(content))
    return path


def test_every_layout_gives_the_same_answers(tmp_path):
    save(notebook(), tmp_path / "folder" / FILE)
    save(notebook(), tmp_path / "nbgrader" / CHAPTER / FILE)
    (tmp_path / "nbgrader" / CHAPTER / "timestamp.txt").write_text("2026-11-26", "utf-8")
    zipped(tmp_path / "zip.zip", **{FILE: notebook()})
    zipped(tmp_path / "deep.zip", **{f"home/work/{FILE}": notebook()})
    save(notebook(), tmp_path / "single.ipynb")
    save(notebook(), tmp_path / "Ada Lovelace_31_assignsubmission_file_" / FILE)
    save(notebook(), tmp_path / "Ada Lovelace_32_assignsubmission_file" / FILE)
    save(notebook(), tmp_path / f"Ada Lovelace_33_assignsubmission_file_{FILE}")
    zipped(tmp_path / "lovelaceada_41_5001_my-work.zip", **{FILE: notebook()})
    save(notebook(), tmp_path / f"lovelaceada_LATE_42_5002_{CHAPTER}-2.ipynb")
    found = read(tmp_path)
    assert list(found) == [
        "Ada Lovelace_31", "Ada Lovelace_32", "Ada Lovelace_33", "deep", "folder",
        "lovelaceada_41", "lovelaceada_42", "nbgrader", "single", "zip",
    ]  # fmt: skip
    for one in found.values():
        assert tuple(one.answers) == NAMES and one.status == ""
        assert one.answers == found["folder"].answers
        assert one.notes == (() if one.student != "single" else ("read from single.ipynb",))


def test_one_zip_or_notebook_may_be_given_itself(tmp_path):
    path = zipped(tmp_path / "ada.zip", **{FILE: notebook()})
    assert only(path) == only(tmp_path)
    assert only(path).student == "ada"


def test_a_folder_that_is_not_there_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        list(read_submissions(tmp_path / "nowhere", SET))


def test_what_nobody_handed_in_is_no_student(tmp_path):
    for name in ("grades.csv", "README.md", ".hidden.ipynb", "__MACOSX"):
        (tmp_path / name).touch()
    (tmp_path / ".git").mkdir()
    assert read(tmp_path) == {}


@pytest.mark.parametrize("name", ["bob.7z", "bob.tar.gz", "bob_1_2_essay.docx", "bob.rar"])
def test_what_cannot_be_opened_is_somebodys_all_the_same(tmp_path, name):
    (tmp_path / name).write_bytes(b"?")
    assert only(tmp_path).status == MISSING
    assert only(tmp_path).notes == (f"no notebook of {CHAPTER} is there; there is: {name}",)


@pytest.mark.parametrize(
    "name, student",
    [
        ("ada", "ada"),
        ("ada.zip", "ada"),
        ("ada.lovelace", "ada.lovelace"),
        ("ada.b.ipynb", "ada.b"),
        ("Zoë Müller_7_assignsubmission_onlinetext", "Zoë Müller_7"),
        ("=HYPERLINK(1),x.zip", "=HYPERLINK(1),x"),
        ("王小明.ipynb", "王小明"),
        ("Zoe\u0308.zip", "Zoë"),
        ("a_b_c", "a_b_c"),
        ("x_1_2_3_4.ipynb", "x_1"),
        (".zip", ".zip"),
    ],
)
def test_a_students_name_is_read_from_a_files(name, student):
    assert student_of(name) == student


@pytest.mark.skipif(os.name != "posix" or os.uname().sysname == "Darwin", reason="any bytes: Linux")
def test_a_name_that_is_no_text_is_kept_apart(tmp_path):
    for name in (b"ad\xff.ipynb", b"ad\xfe.ipynb"):
        with open(os.path.join(os.fsencode(tmp_path), name), "wb") as file:
            file.write(json.dumps(notebook()).encode())
    found = read(tmp_path)
    assert list(found) == ["ad\\udcfe", "ad\\udcff"]
    assert found["ad\\udcff"].notes == ("read from ad\\udcff.ipynb",)
    assert all(one.answers for one in found.values())


def test_folder_and_zip_of_one_student_are_one_submission(tmp_path):
    save(notebook(False), tmp_path / "ada" / FILE)
    zipped(tmp_path / "ada.zip", **{FILE: notebook()})
    assert tuple(only(tmp_path).answers) == NAMES


def test_the_notebook_with_answers_counts_and_its_name_is_told(tmp_path):
    save(notebook(False), tmp_path / "ada" / FILE)
    save(notebook(), tmp_path / "ada" / f"{CHAPTER}-Copy1.ipynb")
    found = only(tmp_path)
    assert tuple(found.answers) == NAMES and found.notes == (f"read from {CHAPTER}-Copy1.ipynb",)


def test_the_chapters_own_name_counts_before_another(tmp_path):
    other = notebook()
    cell(other, NAMES[0])["source"] = "def count_parameters(model):\n    return 'other'"
    save(other, tmp_path / "ada" / "00.ipynb")
    save(notebook(), tmp_path / "ada" / "deep" / FILE)
    assert "other" not in only(tmp_path).answers[NAMES[0]]


def test_a_broken_notebook_beside_a_whole_one_is_told(tmp_path):
    (tmp_path / "ada").mkdir()
    (tmp_path / "ada" / FILE).write_text("{", "utf-8")
    save(notebook(), tmp_path / "ada" / f"{CHAPTER}(1).ipynb")
    found = only(tmp_path)
    assert tuple(found.answers) == NAMES and "not JSON" in found.notes[0]


def test_another_chapters_notebook_is_missing(tmp_path):
    other = {"nbformat": 4, "cells": [code("def quantize_linear(w): return w")]}
    save(other, tmp_path / "ada" / "05_linear_quantization.ipynb")
    assert only(tmp_path) == Submission(
        "ada", {}, MISSING,
        (f"no notebook of {CHAPTER} is there; there is: 05_linear_quantization.ipynb",),
    )  # fmt: skip
    (tmp_path / "ada" / "05_linear_quantization.ipynb").unlink()
    assert only(tmp_path).notes == (f"no notebook of {CHAPTER} is there",)


def test_an_untouched_notebook_has_no_answers_and_no_status(tmp_path):
    save(notebook(False), tmp_path / "ada" / FILE)
    assert only(tmp_path) == Submission("ada", {})


def test_guesses_that_were_handed_in_are_read_and_others_are_not(tmp_path):
    content = notebook()
    entry = {"question": "How many?", "guess": "4", "measured": "3", "choices": ["3", "4"]}
    odd = [None, {"question": 1, "guess": "4", "measured": "3"}, [], {"guess": "x"}]
    content["cells"] += [
        code(str(number)) | {"outputs": [{"output_type": "display_data", "data": {GUESS: one}}]}
        for number, one in enumerate([*odd, entry, entry | {"guess": "x" * 5000}])
    ]
    save(content, tmp_path / "ada" / FILE)
    first, second = only(tmp_path).guesses
    assert first == {"question": "How many?", "guess": "4", "measured": "3"}
    assert second["guess"] == "x" * 1000


def test_one_bad_submission_stops_nobody(tmp_path):
    for number in range(5):
        save(notebook(), tmp_path / f"good{number}" / FILE)
    (tmp_path / "bad1.zip").write_bytes(b"PK")
    (tmp_path / "bad2.ipynb").write_bytes(b"")
    found = read(tmp_path)
    assert [one.status for one in found.values()] == [REJECTED, MALFORMED] + [""] * 5


def test_reading_is_lazy(tmp_path):
    for number in range(3):
        save(notebook(), tmp_path / f"s{number}" / FILE)
    submissions = read_submissions(tmp_path, SET)
    assert next(submissions).student == "s0"
    shutil.rmtree(tmp_path / "s1")
    assert next(submissions).status == REJECTED, "s1 was not read before it was asked for"
