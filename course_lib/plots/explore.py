"""Sliders that change a figure in place.

The figure of the starting state is an ordinary picture of the cell, so it is there in a saved
notebook, in a printed page and wherever widgets do not run; moving a slider replaces it.
"""

from collections.abc import Callable, Sequence
from typing import Any

from IPython.display import display
from ipywidgets import SelectionSlider

from course_lib.plots.figure import Picture


def explore(draw: Callable[..., Picture], **choices: tuple[Sequence[Any], Any]) -> None:
    """Show `draw(**state)` and a slider for each item of the state.

    Args:
        draw: makes the picture of one state.
        choices: name=(all values in order, the value to start with).
    """
    sliders = {name: _slider(name, *choice) for name, choice in choices.items()}
    for name, slider in sliders.items():
        _display_slider(name, slider)
    state = {name: slider.value for name, slider in sliders.items()}
    shown = display(draw(**state), display_id=True)

    def redraw(_change) -> None:
        shown.update(draw(**{name: slider.value for name, slider in sliders.items()}))

    for slider in sliders.values():
        slider.observe(redraw, names="value")


def _slider(name: str, values: Sequence[Any], start: Any) -> SelectionSlider:
    return SelectionSlider(
        options=[(str(value), value) for value in values],
        value=start,
        description=name.replace("_", " "),
        continuous_update=False,
        style={"description_width": "initial"},
    )


def _display_slider(name: str, slider: SelectionSlider) -> None:
    """The widget, and one plain line in its place where widgets do not run."""
    bundle = slider._repr_mimebundle_()
    labels = [label for label, _ in slider.options]
    bundle["text/plain"] = f"slider: {name.replace('_', ' ')} = {', '.join(labels)}"
    display(bundle, raw=True)
