"""Predict, then reveal: a reader commits to a guess before the measurement shows.

Where widgets do not run (a saved notebook, a printed page), question, choices and measurement stand
there as plain text, and the picture with them. A committed guess goes into the reader's journal
and, if the reader says so, into the notebook: beside the text, as an entry of the type GUESS.
"""

from collections.abc import Callable, Sequence
from html import escape

from IPython.display import display
from ipywidgets import HTML, Button, Checkbox, RadioButtons, VBox

from course_lib import journal
from course_lib.plots.figure import Picture

GUESS = "application/vnd.removing-redundancy.guess+json"  # question, choices, guess, measured
KEEP = "keep my guess in this notebook: whoever gets the notebook can read it"


def predict(
    question: str, choices: Sequence[object], measured: object, then: Picture | None = None
) -> None:
    """Ask `question`; once a guess is committed, show it beside what was measured.

    Args:
        question: one sentence.
        choices: what a reader may guess; at least two.
        measured: what came out, in the words or the unit of the choices.
        then: a picture to show with it.

    Raises:
        ValueError: fewer than two choices.

    >>> predict("Heads or tails?", ["heads"], "tails")
    Traceback (most recent call last):
    ValueError: choices must be at least two; got ['heads']
    """
    if len(choices) < 2:
        raise ValueError(f"choices must be at least two; got {list(choices)}")
    picture = then._repr_mimebundle_() if then else {"text/html": "", "text/plain": ""}
    labels = [str(choice) for choice in choices]
    entry = {"question": question, "choices": labels, "measured": str(measured)}
    shown = None

    def commit(guess: str, keep: bool) -> None:
        committed = {**entry, "guess": guess}
        journal.append(committed)
        if keep and shown:
            shown.update({**view, **_as_text(committed, picture), GUESS: committed}, raw=True)

    view = _widget(entry, picture["text/html"], commit)._repr_mimebundle_()
    shown = display({**view, **_as_text(entry, picture)}, raw=True, display_id=True)


def _as_text(entry: dict, picture: dict[str, str]) -> dict[str, str]:
    """What stands where widgets do not run, as HTML and as plain text."""
    question, options = entry["question"], " / ".join(entry["choices"])
    answers = [f"Your guess: {entry['guess']}"] if "guess" in entry else []
    answers.append(f"Measured: {entry['measured']}")
    bold = "".join(f"<br><b>{escape(answer)}</b>" for answer in answers)
    lines = [f"Guess: {question} {options}", *answers, picture["text/plain"]]
    return {
        "text/html": f"<p>{escape(question)} <i>{escape(options)}</i>{bold}</p>"
        + picture["text/html"],
        "text/plain": "\n".join(line for line in lines if line),
    }


def _widget(entry: dict, picture: str, committed: Callable[[str, bool], None]) -> VBox:
    """The question, the choices, a button, and room for the answer."""
    guess = RadioButtons(options=entry["choices"], value=None, layout={"width": "max-content"})
    keep = Checkbox(description=KEEP, value=False, indent=False, layout={"width": "auto"})
    commit = Button(description="Commit my guess", disabled=True, button_style="primary")
    answer = HTML()

    def enable(_change) -> None:
        commit.disabled = False

    def reveal(_button) -> None:
        guess.disabled = keep.disabled = commit.disabled = True
        measured = escape(entry["measured"])
        answer.value = (
            f"<p>You guessed <b>{escape(guess.value)}</b>. Measured: <b>{measured}</b>.</p>"
            + picture
        )
        committed(guess.value, keep.value)

    guess.observe(enable, names="value")
    commit.on_click(reveal)
    title = HTML(f"<b>Your guess first.</b> {escape(entry['question'])}")
    return VBox([title, guess, keep, commit, answer])
