"""check, hint, yours and progress, as a learner calls them outside a notebook."""

import ast
import inspect
import signal

import pytest

from course_lib import journal
from course_lib.classroom.files import lesson_sources
from course_lib.classroom.lesson import grade_id, read_lessons
from course_lib.exercises import CheckFailed, check, hint, yours
from course_lib.exercises import progress as show_progress
from course_lib.exercises.engine import notebook
from course_lib.exercises.engine.catalogue import all_exercises, by_chapter
from course_lib.exercises.start_here import COUNT_PARAMETERS

TOTAL = len(COUNT_PARAMETERS.cases())


@pytest.fixture(autouse=True)
def fresh(tmp_path, monkeypatch):
    monkeypatch.setattr(journal, "journal_file", lambda: tmp_path / "progress.jsonl")
    monkeypatch.setattr(notebook, "_passed", {})
    monkeypatch.setattr(notebook, "_hints_given", {})


def named(function):
    def count_parameters(model):
        return function(model)

    return count_parameters


def test_the_learners_function_is_used_once_it_passes_and_no_longer_when_it_fails(capsys):
    right = named(COUNT_PARAMETERS.reference)
    check(right)
    assert yours("count_parameters") is right
    with pytest.raises(CheckFailed):
        check(named(lambda model: 0))
    assert yours("count_parameters") is COUNT_PARAMETERS.reference
    assert capsys.readouterr().out.splitlines() == [
        f"✔ count_parameters · {TOTAL} of {TOTAL} cases",
        "using yours: count_parameters",
        "using the reference: count_parameters",
    ]


@pytest.mark.parametrize(
    "borrowed",
    [COUNT_PARAMETERS.reference, named(lambda model: yours("count_parameters")(model))],
    ids=["the reference", "what calls it"],
)
def test_the_reference_is_no_answer(borrowed):
    with pytest.raises(CheckFailed):
        check(borrowed)
    assert yours("count_parameters") is COUNT_PARAMETERS.reference  # given again after the check


def test_a_renamed_function_is_told_the_nearest_name():
    def count_parameter(model):
        return 0

    with pytest.raises(LookupError, match="did you mean count_parameters") as caught:
        check(count_parameter)
    rendered = "\n".join(caught.value._render_traceback_())
    assert "give the function its first name again" in rendered and "Traceback" not in rendered


@pytest.mark.parametrize(
    "thing",
    [None, 3, "count_parameters()", lambda model: 0],
    ids=["none", "number", "call", "lambda"],
)
def test_a_check_of_something_else_is_one_sentence(thing):
    with pytest.raises(LookupError, match="no exercise is called"):
        check(thing)


def test_an_interrupted_check_leaves_everything_usable(capsys):
    def interrupt(model):
        raise KeyboardInterrupt

    alarm = signal.getsignal(signal.SIGALRM)
    with pytest.raises(KeyboardInterrupt):
        check(named(interrupt))
    assert signal.getsignal(signal.SIGALRM) is alarm
    assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)
    check(named(COUNT_PARAMETERS.reference))
    assert f"{TOTAL} of {TOTAL}" in capsys.readouterr().out


def test_each_call_gives_one_more_hint_and_the_last_stays(capsys):
    for _ in range(len(COUNT_PARAMETERS.hints) + 1):
        hint("count_parameters")
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("Hint 1 of 3") and lines[1].startswith("Hint 2 of 3")
    assert lines[2] == lines[3] and lines[3].endswith(COUNT_PARAMETERS.hints[-1])


def test_a_hint_and_yours_take_the_function_as_check_does(capsys):
    hint(COUNT_PARAMETERS.reference)
    assert capsys.readouterr().out.startswith("Hint ")
    assert yours(COUNT_PARAMETERS.reference) is COUNT_PARAMETERS.reference


def test_progress_counts_what_was_passed(capsys):
    check(named(COUNT_PARAMETERS.reference))
    show_progress()
    out = capsys.readouterr().out
    assert "✔ count_parameters" in out and out.splitlines()[-1].startswith("1 of ")


def test_progress_has_a_line_and_a_bar_for_each_chapter(capsys):
    show_progress()
    lines = capsys.readouterr().out.splitlines()
    chapters = [line.split()[0] for line in lines if line[:1].isdigit() and "_" in line[:20]]
    assert chapters == sorted(path.stem for path in lesson_sources() if path.stem in by_chapter())
    assert all("░" * 20 in line for line in lines if line.startswith(tuple(chapters)))


def test_exercises_are_listed_in_the_order_of_their_lessons():
    lessons = {lesson.path.stem: map(grade_id, lesson.notebook.cells) for lesson in read_lessons()}
    names = all_exercises()
    met = {chapter: [name for name in ids if name in names] for chapter, ids in lessons.items()}
    listed = {chapter: [one.name for one in many] for chapter, many in by_chapter().items()}
    assert listed == {chapter: names for chapter, names in met.items() if names}


def test_an_exercise_is_described_alike_in_lesson_and_module():
    """A learner reads the lesson's docstring; graders and maintainers the module's."""
    lessons = [ast.parse(path.read_text("utf-8")) for path in lesson_sources()]
    functions = [f for tree in lessons for f in tree.body if isinstance(f, ast.FunctionDef)]
    told = {f.name: ast.get_docstring(f) for f in functions if f.name in all_exercises()}
    assert told == {
        name: inspect.getdoc(one.reference) for name, one in all_exercises().items() if name in told
    }
    assert len(told) == len(all_exercises())


def test_the_error_shows_as_its_text_alone():
    with pytest.raises(CheckFailed) as caught:
        check(named(lambda model: 0))
    rendered = "\n".join(caught.value._render_traceback_())
    assert "Traceback" not in rendered and f"✘ count_parameters · 1 of {TOTAL} cases" in rendered
