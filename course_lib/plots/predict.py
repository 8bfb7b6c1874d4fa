"""Predict, then reveal: a reader commits to a guess before the measurement shows.

Where widgets do not run (a saved notebook, a printed page), question, choices and measurement stand
there as plain text, and the picture with them.
"""

from collections.abc import Sequence
from html import escape

from IPython.display import display
from ipywidgets import HTML, Button, RadioButtons, VBox

from course_lib.plots.figure import Picture


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
    bundle = _widget(question, labels, str(measured), picture["text/html"])._repr_mimebundle_()
    options, answer = " / ".join(labels), f"Measured: {measured}"
    bundle["text/html"] = (
        f"<p>{escape(question)} <i>{escape(options)}</i><br><b>{escape(answer)}</b></p>"
        + picture["text/html"]
    )
    lines = [f"Guess: {question} {options}", answer, picture["text/plain"]]
    bundle["text/plain"] = "\n".join(line for line in lines if line)
    display(bundle, raw=True)


def _widget(question: str, labels: list[str], measured: str, picture: str) -> VBox:
    """The question, the choices, a button, and room for the answer."""
    guess = RadioButtons(options=labels, value=None, layout={"width": "max-content"})
    commit = Button(description="Commit my guess", disabled=True, button_style="primary")
    answer = HTML()

    def enable(_change) -> None:
        commit.disabled = False

    def reveal(_button) -> None:
        guess.disabled = commit.disabled = True
        answer.value = (
            f"<p>You guessed <b>{escape(guess.value)}</b>. Measured: <b>{escape(measured)}</b>.</p>"
            + picture
        )

    guess.observe(enable, names="value")
    commit.on_click(reveal)
    return VBox([HTML(f"<b>Your guess first.</b> {escape(question)}"), guess, commit, answer])
