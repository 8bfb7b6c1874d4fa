"""One student's page: what stands in it, and that texts of others are nothing but text."""

from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jupyterlab import CHROMIUM, local_page

from course_lib.classroom.grading.grade import Grade, Result
from course_lib.classroom.grading.sandbox import STATUSES, WEAK
from course_lib.classroom.reports.grade_pages import IN_WORDS, TIERS, guesses, student_page
from course_lib.classroom.reports.report_html import LONGEST, likely_cause, shown
from course_lib.classroom.submissions.submission import MALFORMED, MISSING, REJECTED
from course_lib.exercises.engine.catalogue import find
from course_lib.exercises.engine.judge import FAILED, NOT_ATTEMPTED, PASSED, judge
from course_lib.exercises.engine.run import run
from course_lib.exercises.engine.show import words

CHAPTER = "05_linear_quantization"
ANSWER = "def to_uint8(x):\n    return x < 3  # <b>"


def wrong_result() -> Result:
    """What the judge says of a real wrong answer, one with a name."""
    exercise = find("to_uint8")
    known = exercise.misconceptions[0]
    cases = exercise.cases(5)
    verdict = judge(exercise, cases, run(known.function, cases))
    assert (verdict.status, verdict.misconception) == (FAILED, known.name)
    told = words(verdict)
    counts = {"passed": verdict.passed, "cases": verdict.total}
    return Result("to_uint8", 0, 2, FAILED, known.name, told, **counts, answer=ANSWER)


def grade(*results: Result, **more) -> Grade:
    fields = {"tier": "bubblewrap", "version": "abc123"} | more
    return Grade("Ada Lovelace", CHAPTER, results, **fields)


class Reader(HTMLParser):
    """The tags of a page, and its text."""

    def __init__(self, page: str):
        super().__init__()
        self.tags, self.text = [], ""
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, [name for name, _ in attributes]))

    def handle_data(self, data):
        self.text += data


def test_points_verdict_cause_and_answer_stand_there():
    wrong = wrong_result()
    right = Result("fit_affine", 3, 3, PASSED, passed=6, cases=6, answer="def fit_affine(): ...")
    blank = Result("pack_int4", 0, 1, NOT_ATTEMPTED, words="○ pack_int4\n  Write it above.")
    text = Reader(student_page(grade(wrong, right, blank))).text
    for sentence in (
        "05 · Linear quantization",
        "Ada Lovelace",
        "3 of 6 points",
        f"✘ not right yet: {wrong.passed} of {wrong.cases} cases",
        "✔ passed",
        "○ not attempted",
        ANSWER,
        "Course version abc123",
        "in a bubblewrap sandbox, without network",
    ):
        assert sentence in text
    explanation = find("to_uint8").misconceptions[0].explanation.replace("`", "")
    assert explanation[1:] in text, "the whole likely cause, on one line"
    assert "expected" in text and "yours" in text
    assert "Write it above" not in text, "there is nothing above"
    assert "seed" not in text.casefold()


def test_the_answer_is_folded_and_shown_as_it_was_written():
    page = student_page(grade(wrong_result()))
    assert (
        "<details><summary>Your answer</summary><pre>def to_uint8(x):\n    return x &lt; 3" in page
    )


def test_every_status_and_every_tier_has_words_of_its_own():
    assert {*STATUSES, PASSED, FAILED, NOT_ATTEMPTED, MALFORMED, REJECTED, MISSING} == {*IN_WORDS}
    for status in STATUSES:
        page = student_page(grade(Result("f", 0, 2, status, words=f"✘ f · {status}\n  at once")))
        assert IN_WORDS[status] in page and "at once" in page
    assert all("weak" in TIERS[tier] for tier in WEAK)
    assert "weak sandbox" in student_page(grade(tier=WEAK[0]))


@pytest.mark.parametrize("status", [MALFORMED, REJECTED, MISSING])
def test_a_submission_that_could_not_be_read_gets_the_reason_and_no_verdicts(status):
    blank = Result("to_uint8", 0, 2, NOT_ATTEMPTED)
    page = student_page(grade(blank, status=status, notes=("line 3 is no JSON",)))
    assert IN_WORDS[status][1:] in page and "line 3 is no JSON" in page
    assert "0 of 2 points" in page and "not attempted" not in page


def test_guesses_stand_beside_what_was_measured():
    entry = {"question": "At how many bits?", "guess": "3", "measured": "2"}
    made = grade(guesses=(entry, {"question": "no guess"}, "text", None))
    assert guesses(made) == [("At how many bits?", "3", "2")]
    text = Reader(student_page(made)).text
    assert "At how many bits?You guessed 3; measured: 2" in text


def test_the_page_asks_for_nothing_and_forbids_scripts():
    page = student_page(grade(wrong_result()))
    assert "default-src 'none'" in page
    for part in ("<script", "http:", "https:", "src=", "<link", "@import", "url("):
        assert part not in page


def test_a_long_text_is_cut_and_says_so():
    assert shown("x" * (LONGEST + 1500)).endswith("\n… (1,500 characters more)")
    assert len(student_page(grade(Result("f", 0, 2, FAILED, answer="<" * 10**6)))) < 10 * LONGEST


def test_words_without_a_cause_stay_whole():
    assert likely_cause("✘ f · 1 of 2 cases\n  yours 3") == ("✘ f · 1 of 2 cases\n  yours 3", "")


ANYTHING = st.text(st.characters(), max_size=30).map("{}x".format)


@given(st.lists(ANYTHING, min_size=11, max_size=11))
def test_no_text_makes_markup(texts):
    def made(name, chapter, exercise, told, printed, answer, note, tier, version, *guess):
        told = f"✘\n  {told}\n  Likely cause: {told}\n  hint({printed})"
        result = Result(exercise, 0, 2, FAILED, "", told, answer=answer)
        guess = {"question": guess[0], "guess": guess[1], "measured": told}
        more = {"notes": (note,), "guesses": (guess,), "tier": tier, "version": version}
        return student_page(Grade(name, chapter, (result,), **more))

    page = Reader(made(*texts))
    plain = Reader(made(*["x"] * 11))
    code = [tag for tag in page.tags if tag[0] != "code"]  # what stands in backticks becomes code
    assert code == [tag for tag in plain.tags if tag[0] != "code"]
    made(*texts).encode("utf-8")


@given(st.text(st.characters()))
def test_what_is_shown_has_no_control_and_no_turning_of_the_direction(text):
    made = shown(text)
    assert all(c.isprintable() or c in "\n\t\u200c\u200d" or c.isspace() for c in made)
    assert not {*"\x1b\r\b\0"} & {*made} and not {*"<>\"'"} & {*made}
    made.encode("utf-8")


@pytest.mark.skipif(not CHROMIUM, reason="no Chromium here: apt-get install chromium")
def test_in_a_browser_it_fits_a_phone_and_runs_no_script(tmp_path):
    evil = "<img src=x onerror=\"document.title='run'\"><script>document.title='run'</script>"
    long = "x" * 300
    made = grade(
        wrong_result(),
        Result("fit_affine", 0, 2, FAILED, words=f"✘ {long}\n  {evil}{long}", answer=evil + long),
        notes=(evil,),
    )
    file = tmp_path / "report.html"
    file.write_text(student_page(made), "utf-8")
    with local_page(file) as page:
        assert page.title() == "05 · Linear quantization: Ada Lovelace"
        folded = page.locator("details").last
        assert folded.locator("pre").is_hidden()
        folded.locator("summary").click()
        assert evil in folded.locator("pre").inner_text()
