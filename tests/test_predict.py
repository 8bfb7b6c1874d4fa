import pytest
from ipywidgets import Button, RadioButtons

from course_lib import journal
from course_lib.plots import predict as module
from course_lib.plots.figure import Picture, new_figure


@pytest.fixture
def shown(monkeypatch):
    """What was displayed, as MIME bundles; an update counts as one."""
    bundles = []

    class Handle:
        def update(self, bundle, raw):
            bundles.append(bundle)

    def display(bundle, raw, display_id):
        bundles.append(bundle)
        return Handle()

    monkeypatch.setattr(module, "display", display)
    return bundles


def widget(committed=lambda guess, keep: None):
    entry = {"question": "a < b?", "choices": ["yes", "no"], "measured": "yes & no"}
    return module._widget(entry, "<img>", committed)


@pytest.fixture
def asked(monkeypatch):
    """The widgets that were made."""
    widgets, make = [], module._widget
    monkeypatch.setattr(
        module, "_widget", lambda *given: widgets.append(make(*given)) or widgets[-1]
    )
    return widgets


def answer_it(view, choice, keep):
    """Do what a reader does."""
    _, guess, box, commit, _ = view.children
    guess.value, box.value = choice, keep
    commit.click()


def test_nothing_is_revealed_before_a_guess_is_committed():
    _, guess, _, commit, answer = widget().children
    assert guess.value is None and commit.disabled and answer.value == ""
    guess.value = "no"
    assert not commit.disabled and answer.value == ""


def test_guess_and_measurement_stand_side_by_side():
    _, guess, _, commit, answer = widget().children
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


@pytest.mark.parametrize("keep", [False, True])
def test_a_guess_goes_into_the_journal_and_only_if_wanted_into_the_notebook(shown, asked, keep):
    module.predict("How many?", [1, 2], 2.5)
    assert module.GUESS not in shown[0] and journal.entries() == []
    answer_it(asked[0], "1", keep)
    guess = {"question": "How many?", "choices": ["1", "2"], "measured": "2.5", "guess": "1"}
    (entry,) = journal.entries()
    assert {name: entry[name] for name in guess} == guess
    assert [bundle.get(module.GUESS) for bundle in shown] == [None, guess][: 1 + keep]
    if keep:
        assert shown[1]["text/plain"] == "Guess: How many? 1 / 2\nYour guess: 1\nMeasured: 2.5"
        assert "Your guess: 1" in shown[1]["text/html"]
        assert "application/vnd.jupyter.widget-view+json" in shown[1], "the widget stays"
