"""Sliders that change a figure in place.

The figure of the starting state is an ordinary picture of the cell, so it is there in a saved
notebook, in a printed page and wherever widgets do not run; moving a slider replaces it.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from IPython.display import display
from ipywidgets import SelectionSlider, ValueWidget

from course_lib.plots.figure import Picture
from course_lib.plots.states import record_if_asked


def explore(draw: Callable[..., Picture], **choices: tuple[Sequence[Any], Any]) -> None:
    """Show `draw(**state)` and a slider for each item of the state.

    Args:
        draw: makes the picture of one state.
        choices: name=(all values in order, the value to start with).
    """
    sliders = {name: _slider(name, *choice) for name, choice in choices.items()}
    texts = {
        name: f"slider: {slider.description} = {', '.join(label for label, _ in slider.options)}"
        for name, slider in sliders.items()
    }
    show_controls(sliders, texts, draw)


def show_controls(
    controls: Mapping[str, ValueWidget], texts: Mapping[str, str], draw: Callable[..., object]
) -> None:
    """Show each control and `draw(**state)`, which is drawn anew whenever a control moves.

    Args:
        controls: item of the state -> the widget whose value it is.
        texts: item -> one plain line that stands there where widgets do not run.
        draw: makes what a notebook displays for one state.
    """
    for name, control in controls.items():
        display(control._repr_mimebundle_() | {"text/plain": texts[name]}, raw=True)

    def drawn() -> object:
        return draw(**{name: control.value for name, control in controls.items()})

    shown = display(drawn(), display_id=True)
    for control in controls.values():
        control.observe(lambda _change: shown.update(drawn()), names="value")
    record_if_asked(controls, texts, draw)


def _slider(name: str, values: Sequence[Any], start: Any) -> SelectionSlider:
    return SelectionSlider(
        options=[(str(value), value) for value in values],
        value=start,
        description=name.replace("_", " "),
        continuous_update=False,
        style={"description_width": "initial"},
    )
