"""check, hint, yours and progress, as a learner calls them outside a notebook."""

import pytest

from course_lib.exercises import CheckFailed, check, hint, yours
from course_lib.exercises import progress as show_progress
from course_lib.exercises.engine import notebook, progress
from course_lib.exercises.start_here import COUNT_PARAMETERS


@pytest.fixture(autouse=True)
def fresh(tmp_path, monkeypatch):
    monkeypatch.setattr(progress, "progress_file", lambda: tmp_path / "progress.jsonl")
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
        "✔ count_parameters · 6 of 6 cases",
        "using yours: count_parameters",
        "using the reference: count_parameters",
    ]


def test_a_renamed_function_is_told_the_nearest_name():
    def count_parameter(model):
        return 0

    with pytest.raises(LookupError, match="did you mean count_parameters"):
        check(count_parameter)


def test_each_call_gives_one_more_hint_and_the_last_stays(capsys):
    for _ in range(len(COUNT_PARAMETERS.hints) + 1):
        hint("count_parameters")
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("Hint 1 of 3") and lines[1].startswith("Hint 2 of 3")
    assert lines[2] == lines[3] and lines[3].endswith(COUNT_PARAMETERS.hints[-1])


def test_progress_counts_what_was_passed(capsys):
    check(named(COUNT_PARAMETERS.reference))
    show_progress()
    out = capsys.readouterr().out
    assert "✔ count_parameters" in out and out.splitlines()[-1].startswith("1 of ")


def test_the_error_shows_as_its_text_alone():
    with pytest.raises(CheckFailed) as caught:
        check(named(lambda model: 0))
    rendered = "\n".join(caught.value._render_traceback_())
    assert "Traceback" not in rendered and "✘ count_parameters · 1 of 6 cases" in rendered
