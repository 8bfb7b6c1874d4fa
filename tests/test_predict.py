import pytest
from ipywidgets import Button, RadioButtons

from course_lib.plots import predict as module
from course_lib.plots.figure import Picture, new_figure


@pytest.fixture
def shown(monkeypatch):
    """What was displayed, as MIME bundles."""
    bundles = []
    monkeypatch.setattr(module, "display", lambda bundle, raw: bundles.append(bundle))
    return bundles


def widget(**changes):
    arguments = {"question": "a < b?", "labels": ["yes", "no"], "measured": "yes & no"}
    return module._widget(**(arguments | {"picture": "<img>"} | changes))


def test_nothing_is_revealed_before_a_guess_is_committed():
    _, guess, commit, answer = widget().children
    assert guess.value is None and commit.disabled and answer.value == ""
    guess.value = "no"
    assert not commit.disabled and answer.value == ""


def test_guess_and_measurement_stand_side_by_side():
    _, guess, commit, answer = widget().children
    guess.value = "no"
    commit.click()
    assert "You guessed <b>no</b>. Measured: <b>yes &amp; no</b>" in answer.value
    assert answer.value.endswith("<img>")
    assert guess.disabled and commit.disabled, "a guess is committed once"


def test_without_widgets_all_of_it_is_there_as_text(shown):
    figure, _ = new_figure()
    module.predict("How many?", [1, 2], 2.5, Picture(figure, "a bar"))
    (bundle,) = shown
    assert bundle["text/plain"] == "Guess: How many? 1 / 2\nMeasured: 2.5\n[Figure: a bar]"
    assert "Measured: 2.5" in bundle["text/html"] and 'alt="a bar"' in bundle["text/html"]
    assert "application/vnd.jupyter.widget-view+json" in bundle


def test_without_a_picture(shown):
    module.predict("How many?", ["one", "two"], "one")
    assert shown[0]["text/plain"] == "Guess: How many? one / two\nMeasured: one"


def test_every_part_can_be_reached_by_keyboard():
    kinds = [type(child) for child in widget().children]
    assert RadioButtons in kinds and Button in kinds
