"""Folders of students, grades.csv, Gradescope's results.json, JUnit XML."""

import csv
import json
import string
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from course_lib.classroom.grading.grade import Grade, Result, from_json
from course_lib.classroom.grading.grade_files import (
    COLUMNS,
    as_gradescope,
    as_junit,
    folder_name,
    neutral,
    original,
    write_csv,
    write_student,
    write_whole,
)

GRADE = Grade(
    "ada",
    "05_linear_quantization",
    (
        Result("f", 2, 2, "passed", words="✔ f"),
        Result("g", 0, 3, "failed", "too few", words="✘ g\n  \x1b[31m<b>red</b>"),
        Result("h", 0, 1, "not attempted"),
        Result("i", 0, 1, "TIMEOUT"),
    ),
    notes=("two cells with one grade_id",),
)
ODD = [
    "", ".", "..", "../x", "a/b", "a\\b", "/etc", "C:\\x", "con", "CON", "nul.txt", "a.", "a ",
    " a", "-rf", "Ada", "ADA", "é", "e\u0301", "ﬁ", "a\0b", "a\nb", "\ud800", "中" * 90, "x" * 300,
    "grades.csv", "results.json", ".graded", "ada-4e4af216", "=HYPERLINK(1)", "a*", "ß", "ẞ",
]  # fmt: skip


def test_plain_names_stay_as_they_are():
    for name in ("ada", "ada.lovelace", "ada lovelace", "s1234567", "ada@example.org", "é", "中"):
        assert folder_name(name) == name


@pytest.mark.parametrize("name", ODD)
def test_an_odd_name_makes_one_folder_here_and_none_elsewhere(name, tmp_path):
    folder = tmp_path / "out" / folder_name(name)
    folder.mkdir(parents=True)
    assert [path.name for path in (tmp_path / "out").iterdir()] == [folder.name]
    assert len(folder.name.encode()) < 200 and not set(folder.name) & set('/\\:*?"<>|\0\n')
    assert folder.name.strip(". ") == folder.name and not folder.name.endswith((".csv", ".json"))


def seen_by_the_worst_system(name: str) -> str:
    import unicodedata

    return unicodedata.normalize("NFKC", folder_name(name)).casefold()


def test_no_two_of_them_share_a_folder_on_any_system():
    names = [*ODD, "ada", *(folder_name(name) for name in ODD)]
    assert len({seen_by_the_worst_system(name) for name in set(names)}) == len(set(names))


@given(st.sets(st.text(max_size=8), max_size=6))
def test_no_names_share_a_folder(names):
    assert len({seen_by_the_worst_system(name) for name in names}) == len(names)


def read_csv(path):
    with path.open(encoding="utf-8-sig", newline="") as file:
        return list(csv.reader(file))


def test_the_table_has_a_line_for_each_student_and_exercise(tmp_path):
    unread = Grade("bob", GRADE.chapter, GRADE.results[2:3], status="MALFORMED")
    lost = Grade("eve", GRADE.chapter, ())
    write_csv(tmp_path / "grades.csv", iter([GRADE, unread, lost]), ["f", "g"])
    assert read_csv(tmp_path / "grades.csv") == [
        list(COLUMNS),
        ["ada", "f", "2", "passed", ""],
        ["ada", "g", "0", "failed", "too few"],
        ["ada", "h", "0", "not attempted", ""],
        ["ada", "i", "0", "TIMEOUT", ""],
        ["bob", "h", "0", "MALFORMED", ""],
        ["eve", "f", "", "not graded", ""],
        ["eve", "g", "", "not graded", ""],
    ]
    assert [path.name for path in tmp_path.iterdir()] == ["grades.csv"]


@given(st.text(alphabet=[*"=+-@'\t\r", *string.ascii_letters]))
def test_a_neutral_cell_is_no_formula_and_can_be_undone(cell):
    assert neutral(cell)[:1] not in set("=+-@\t\r")
    assert original(neutral(cell)) == cell


def test_a_students_folder_holds_what_was_asked_for(tmp_path):
    folder = write_student(tmp_path, GRADE)
    always = {"grade.json", "report.html"}
    assert {path.name for path in folder.iterdir()} == always
    assert "<bdi>ada</bdi>" in (folder / "report.html").read_text("utf-8")
    write_student(tmp_path, GRADE, gradescope=True, junit=True)
    assert {path.name for path in folder.iterdir()} == always | {"results.json", "junit.xml"}
    assert from_json((folder / "grade.json").read_text("ascii")) == GRADE


def test_gradescope_gets_points_words_and_notes():
    whole = json.loads(as_gradescope(GRADE))
    assert whole["score"] == sum(one["score"] for one in whole["tests"]) == 2
    assert [one["max_score"] for one in whole["tests"]] == [2, 3, 1, 1]
    assert [one["status"] for one in whole["tests"]] == ["passed", "failed", "failed", "failed"]
    assert whole["tests"][1]["output_format"] == "text" and "<b>" in whole["tests"][1]["output"]
    assert whole["output"] == "two cells with one grade_id"


def test_junit_counts_what_failed_and_what_is_blank():
    suite = ElementTree.fromstring(as_junit(GRADE))
    assert (suite.get("tests"), suite.get("failures"), suite.get("skipped")) == ("4", "2", "1")
    assert [len(case) for case in suite] == [0, 1, 1, 1]
    assert suite[1][0].text == "✘ g\n  \ufffd[31m<b>red</b>"
    odd = Grade("\x00\ud800<&", GRADE.chapter, ())
    assert ElementTree.fromstring(as_junit(odd)).get("name") == "\ufffd\ufffd<&"


def test_a_file_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "x.json"
    write_whole(path, "old")

    def crash(*_):
        raise OSError("the power went")

    monkeypatch.setattr("course_lib.classroom.grading.grade_files.os.replace", crash)
    with pytest.raises(OSError):
        write_whole(path, "new")
    assert path.read_text() == "old"
