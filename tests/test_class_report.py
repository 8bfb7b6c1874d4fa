"""What a class got wrong: the counting, and the page."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jupyterlab import CHROMIUM, CONTRAST_RATIO, local_page
from test_grade_pages import Reader

from course_lib.classroom.grading.grade import Grade, Result, as_json
from course_lib.classroom.grading.sandbox import BAD_TYPE, STATUSES, TIMEOUT
from course_lib.classroom.reports.class_page import class_page
from course_lib.classroom.reports.class_report import (
    Guessed,
    bare_source,
    guessed,
    read_grades,
    tally,
    worst,
)
from course_lib.classroom.submissions.submission import MALFORMED
from course_lib.cli import main
from course_lib.exercises.engine.catalogue import find
from course_lib.exercises.engine.judge import FAILED, NOT_ATTEMPTED, PASSED

CHAPTER = "05_linear_quantization"
KNOWN = [known.name for known in find("to_uint8").misconceptions]


def result(status=PASSED, misconception="", value="", answer="", exercise="to_uint8") -> Result:
    points = 2 if status == PASSED else 0
    return Result(exercise, points, 2, status, misconception, value=value, answer=answer)


def classroom(*answers: tuple[Result, ...], **more) -> list[Grade]:
    """One student for each tuple of results."""
    fields = {"tier": "bubblewrap", "version": "abc"} | more
    return [Grade(f"Ada{i}", CHAPTER, results, **fields) for i, results in enumerate(answers)]


def small_class() -> list[Grade]:
    """Ten students and one exercise, each way to answer it among them."""
    first = result(FAILED, KNOWN[0], "a · 1", "def to_uint8(x):\n    return x + 1  # long")
    same = result(FAILED, KNOWN[0], "a · 1", "def to_uint8(x):\n    return x+1")
    return classroom(
        *[(result(),)] * 3,
        (first,),
        (same,),
        (result(FAILED, KNOWN[1], "a · 2"),),
        *[(result(FAILED, "", "a · 7", "f = 7"),)] * 2,
        (result(TIMEOUT, "", "TIMEOUT · no answer within 10 s", "while True: pass"),),
        (result(NOT_ATTEMPTED),),
    )


def test_every_student_is_counted_once():
    (one,) = tally(small_class())
    assert (one.students, one.passed, one.blank, one.share) == (10, 3, 1, 0.3)
    assert [(g.name, g.count) for g in one.known] == [(KNOWN[0], 2), (KNOWN[1], 1)]
    assert [(g.name, g.count) for g in one.unknown] == [("a · 7", 2)]
    assert [(g.name, g.status) for g in one.stopped] == [("no answer within 10 s", TIMEOUT)]


RESULTS = st.builds(
    result,
    st.sampled_from([PASSED, FAILED, NOT_ATTEMPTED, *STATUSES]),
    st.sampled_from(["", *KNOWN]),
    st.sampled_from(["", "a", "b"]),
)


@given(st.lists(RESULTS, min_size=1, max_size=30))
def test_the_parts_of_a_bar_are_the_whole_class(results):
    (one,) = tally(classroom(*[(each,) for each in results]))
    wrong = sum(group.count for group in one.known + one.unknown + one.stopped)
    assert one.passed + one.blank + wrong == one.students == len(results)
    for groups in (one.known, one.unknown, one.stopped):
        counts = [group.count for group in groups]
        assert counts == sorted(counts, reverse=True)
    class_page(classroom(*[(each,) for each in results]))


def test_a_misconception_comes_with_the_exercises_own_explanation_and_the_shortest_answer():
    group = tally(small_class())[0].known[0]
    assert group.explanation == find("to_uint8").misconceptions[0].explanation
    assert group.example == "def to_uint8(x):\n    return x + 1"


def test_what_this_version_does_not_know_has_no_explanation():
    old = result(FAILED, "a name of long ago")
    other = result(FAILED, "some name", exercise="an_exercise_of_long_ago")
    groups = [one.known[0] for one in tally(classroom((old, other)))]
    assert [group.explanation for group in groups] == ["", ""]


def test_a_wrong_type_is_a_wrong_answer_and_equal_ones_stand_together():
    (one,) = tally(classroom(*[(result(BAD_TYPE, "", "yours is a Fake"),)] * 2))
    assert [(group.name, group.count) for group in one.unknown] == [("yours is a Fake", 2)]


def test_the_hardest_exercise_comes_first():
    easy, hard = result(exercise="pack_int4"), result(FAILED, KNOWN[0])
    middle = [result(exercise="fit_affine"), result(NOT_ATTEMPTED, exercise="fit_affine")]
    grades = classroom((easy, middle[0], hard), (easy, middle[1], hard))
    assert [one.exercise for one in tally(grades)] == ["to_uint8", "fit_affine", "pack_int4"]
    text = Reader(class_page(grades)).text
    assert text.index("to_uint8") < text.index("fit_affine") < text.index("pack_int4")


def test_what_several_share_is_for_the_lecture_the_most_frequent_first():
    assert [(name, group.name) for name, group in worst(tally(small_class()))] == [
        ("to_uint8", KNOWN[0]),
        ("to_uint8", "a · 7"),
    ]
    several = [(result(FAILED, KNOWN[0]),)] * 2 + [(result(FAILED, KNOWN[1]),)] * 3
    assert [group.name for _, group in worst(tally(classroom(*several)))] == [KNOWN[1], KNOWN[0]]
    text = Reader(class_page(small_class())).text
    assert "A wrong answer without a name · to_uint8 · 2 students" in text


def test_what_could_not_be_read_is_named_and_counts_nowhere_else():
    unread = classroom((result(NOT_ATTEMPTED),), (), status=MALFORMED)
    nothing = Grade("Bob", CHAPTER, ())
    grades = [*small_class(), *unread, nothing]
    assert tally(grades) == tally(small_class())
    text = Reader(class_page(grades)).text
    assert "13submissions" in text
    assert "Not counted below: 1 (no results), 2 (the notebook could not be read)." in text


def test_the_page_says_shares_causes_and_examples():
    text = Reader(class_page(small_class())).text
    explanation = find("to_uint8").misconceptions[0].explanation.replace("`", "")
    assert text.count(explanation[1:]) == 2, "for the lecture, and with the exercise"
    for part in ("3 of 10 passed; 1 did not attempt it.", "2 (20 %)", "x + 1", "f = 7", "a · 7"):
        assert part in text
    assert "Took too long and was stopped: no answer within 10 s" in text
    assert "Points: 3 of 10 have them all" in text and "0 of 2 points" in text, "the median"


def test_nobody_is_named():
    grades = small_class()
    page = class_page(grades)
    assert not re.search(r"Ada\d", page)
    signed = classroom((result(FAILED, "", "1", '"""By Ada0."""\nx = 1  # Ada0'),))
    assert "x = 1" in class_page(signed) and "Ada0" not in class_page(signed)


def test_sources_lose_comments_and_docstrings_and_nothing_else():
    source = '''
# Ada
def f(x):
    """By Ada."""
    def g():
        """Ada"""
    return "# no comment", (lambda: "a lambda")  # Ada
'''
    made = "def f(x):\n\n    def g():\n        ...\n    return ('# no comment', lambda: 'a lambda')"
    assert bare_source(source) == made
    for broken in ("def f(:", "x = " + "(" * 10_000, "x = '\0'"):
        assert bare_source(broken) == broken, "what is no Python is shown as it is"


def test_guesses_are_counted_and_numbers_stand_in_their_order():
    def guess(*pairs, measured="3"):
        return [{"question": q, "guess": g, "measured": measured} for q, g in pairs]

    made = [
        classroom((), guesses=tuple(one))[0]
        for one in (
            guess(("bits?", "10"), ("which?", "b")),
            guess(("bits?", "3"), ("which?", "b")),
            guess(("bits?", "3"), ("which?", "a"), ("Bob is stupid", "yes"), measured="x"),
            guess(("bits?", "4"), ("bits?", "3")),
            [{"question": []}, 3],
        )
    ]
    assert guessed(made) == [
        Guessed("bits?", "3", (("3", 3), ("10", 1))),
        Guessed("which?", "3", (("b", 2), ("a", 1))),
    ], "a student has one guess, the last; what one alone hands in is not shown"
    text = Reader(class_page(made)).text
    assert "4 guesses. Measured: 3" in text


def test_a_class_of_none_is_refused(tmp_path):
    with pytest.raises(ValueError, match="got none"):
        class_page([])
    with pytest.raises(LookupError, match="holds no STUDENT/grade.json"):
        read_grades(tmp_path)


def test_on_the_command_line(tmp_path, capsys):
    for made in small_class():
        (tmp_path / made.student).mkdir()
        (tmp_path / made.student / "grade.json").write_text(as_json(made))
    assert main(["report", str(tmp_path)]) == 0
    file = tmp_path / "class.html"
    assert capsys.readouterr().out.strip() == str(file)
    assert "Linear quantization: what the class got wrong" in file.read_text("utf-8")
    assert main(["report", str(tmp_path / "none")]) == 2
    assert "course grade" in capsys.readouterr().err
    (tmp_path / "Ada0" / "grade.json").write_text("{}")
    assert main(["report", str(tmp_path)]) == 2
    assert "no grade" in capsys.readouterr().err


TEXTS = st.text(st.characters(), max_size=30).map("{}x".format)


@given(st.lists(TEXTS, min_size=6, max_size=6))
def test_no_text_makes_markup(texts):
    def made(chapter, value, answer, question, guess, version):
        wrong = [result(FAILED, "", value, answer), result(TIMEOUT, "", value, answer)]
        entry = {"question": question, "guess": guess, "measured": f"not {guess}"}
        fields = {"tier": "process", "version": version, "guesses": (entry,)}
        return class_page([Grade(f"{i}", chapter, (wrong[i],), **fields) for i in (0, 1)])

    page, plain = Reader(made(*texts)), Reader(made(*["x"] * 6))
    assert page.tags == plain.tags
    made(*texts).encode("utf-8")


@pytest.mark.skipif(not CHROMIUM, reason="no Chromium here: apt-get install chromium")
def test_in_a_browser_it_fits_a_phone_and_every_number_can_be_read(tmp_path):
    file = tmp_path / "class.html"
    long = result(FAILED, "", "x" * 500, "y" * 500)
    file.write_text(class_page([*small_class(), *classroom((long,), (long,))]), "utf-8")
    with local_page(file) as page:
        parts = page.locator(".stack div").all()
        assert parts and all(part.evaluate(CONTRAST_RATIO) >= 4.5 for part in parts)
