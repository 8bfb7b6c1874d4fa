"""Rows 41 and 42 of the table of hostile submissions: what a report makes of hostile text."""

import csv
import io

import pytest
from test_grade_pages import Reader

from course_lib.classroom.grading.grade import Grade, Result, as_json, from_json
from course_lib.classroom.reports.class_page import class_page
from course_lib.classroom.reports.export import fill
from course_lib.classroom.reports.grade_pages import student_page
from course_lib.exercises.engine.judge import FAILED

CHAPTER = "05_linear_quantization"
OUTPUTS = {
    "ANSI codes": "\x1b[2J\x1b[31mALL PASSED\x1b[0m\x07\x9b31m",
    "HTML": "</pre></details><h1>14 of 14 points</h1>",
    "script": "<script>alert(1)</script><img src=x onerror=alert(1)><svg onload=alert(1)>",
    "an attribute": '" onmouseover="alert(1)" x=\'',
    "a style": "</style><style>* { display: none }",
    "a comment": "<!-- --><![CDATA[ ]]>",
    "a turned direction": "\u202e14 fo 41\u2066",
    "half a character": "\ud800",
    "zeros": "\0\0",
}
NAMES = [
    '=HYPERLINK("http://x.example","click")',
    "+1+1",
    "-2",
    "@SUM(A1)",
    "\t=1",
    "Lee, Ann; Bob",
    'Ægir "Æ" 王 \U0001f9ea',
    "e\u0301",
    "<b>bold</b>",
]


@pytest.mark.parametrize("output", OUTPUTS.values(), ids=[*OUTPUTS])
def test_hostile_41_markup_and_codes_in_output_are_text(output):
    told = f"✘ f · 0 of 1 cases\n  It printed: {output}"
    wrong = Result("f", 0, 2, FAILED, words=told, value=output, answer=output)
    plain = Result("f", 0, 2, FAILED, words="✘ f\n  x", value="x", answer="x")
    for page_of in (student_page, lambda grade: class_page([grade])):
        grades = [
            from_json(as_json(Grade("ada", CHAPTER, (one,), notes=(one.value,))))
            for one in (wrong, plain)
        ]
        page, harmless = map(page_of, grades)
        assert Reader(page).tags == Reader(harmless).tags, "no tag and no attribute came from it"
        assert not {*"\x1b\x07\x9b\u202e\u2066\0\ud800"} & {*page}
        page.encode("utf-8")
    for word in ("ALL PASSED", "alert(1)", "14 of 14 points", "display: none"):
        assert (word in output) == (word in Reader(student_page(grades[0])).text)


@pytest.mark.parametrize("name", NAMES)
def test_hostile_42_a_name_for_a_spreadsheet_stays_the_lecturers_own_bytes(name):
    file = io.StringIO(newline="")
    csv.writer(file).writerows(
        [["Username", "Full name", "Grade"], ["u1", name, ""], ["u2", "x", ""]]
    )
    data = file.getvalue().encode()
    grade = Grade("u1", CHAPTER, (Result("f", 2, 2, "passed"),))
    filled = fill(data, [grade], "moodle").data
    assert len(filled) == len(data) + 1 and filled.replace(b",2\r", b",\r") == data
    assert list(csv.reader(io.StringIO(filled.decode(), newline="")))[1] == ["u1", name, "2"]


@pytest.mark.parametrize("name", NAMES)
def test_hostile_42_a_student_of_that_name_is_found_and_shown(name):
    file = io.StringIO(newline="")
    csv.writer(file).writerows([["Username", "Grade"], [name, ""]])
    grade = from_json(as_json(Grade(name, CHAPTER, (Result("f", 2, 2, "passed"),))))
    filled = fill(file.getvalue().encode(), [grade], "moodle")
    assert filled.written == 1 and filled.data.endswith(b",2\r\n")
    assert name.strip() in Reader(student_page(grade)).text


def test_hostile_42_only_numbers_are_ever_written():
    evil = Result("f", "=1+1", 2, "passed")  # type: ignore
    with pytest.raises((TypeError, ValueError)):
        fill(b"Username,Grade\nada,\n", [Grade("ada", CHAPTER, (evil,))], "moodle")
