"""Tables of numbers as heat maps: which layer, which part of it, how much."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes


def draw_heat_map(
    axes: Axes,
    values: np.ndarray,
    rows: Sequence[str],
    columns: Sequence[str],
    label: str,
    form: str | None = None,
) -> None:
    """A cell for each number, darker where it is larger; written into the cells if `form` is given.

    Args:
        values: (rows, columns).
        label: what the numbers are, with their unit.
        form: of the numbers, such as ".0f".
    """
    axes.grid(False)
    image = axes.imshow(values, cmap="cividis_r", aspect="auto")
    axes.set_xticks(range(len(columns)), columns)
    axes.set_yticks(range(len(rows)), rows)
    axes.figure.colorbar(image, ax=axes, label=label)
    if form is None:
        return
    middle = (values.min() + values.max()) / 2
    for (row, column), value in np.ndenumerate(values):
        colour = "white" if value > middle else "black"
        axes.text(column, row, format(value, form), ha="center", va="center", color=colour)
