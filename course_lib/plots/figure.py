"""Figures in the course's one style, and how a notebook shows them.

Colours: Okabe and Ito, 2008, "Color Universal Design", which readers with any colour vision can
tell apart. A figure is 8 inches wide at 100 dots an inch: 800 pixels.
"""

from base64 import b64encode
from html import escape
from io import BytesIO

from matplotlib.axes import Axes
from matplotlib.figure import Figure

BLUE, ORANGE, GREEN = "#0072B2", "#E69F00", "#009E73"
RED, PURPLE, SKY, YELLOW, BLACK = "#D55E00", "#CC79A7", "#56B4E9", "#F0E442", "#000000"
COLOURS = (BLUE, ORANGE, GREEN, RED, PURPLE, SKY, YELLOW, BLACK)


def new_figure(rows: int = 1, columns: int = 1, height: float = 3.6) -> tuple[Figure, list[Axes]]:
    """An empty figure and its axes, row by row.

    >>> figure, axes = new_figure(columns=2)
    >>> len(axes)
    2
    """
    figure = Figure(figsize=(8, height), dpi=100, layout="constrained", facecolor="white")
    axes = list(figure.subplots(rows, columns, squeeze=False).flat)
    for one in axes:
        one.spines[["top", "right"]].set_visible(False)
        one.set_axisbelow(True)
        one.grid(alpha=0.25)
    return figure, axes


class Picture:
    """A figure as a cell's output: a PNG with alternative text, or that text alone."""

    def __init__(self, figure: Figure, alt: str):
        buffer = BytesIO()
        figure.savefig(buffer, format="png")
        self.png, self.alt = buffer.getvalue(), alt

    def _repr_mimebundle_(self, **_) -> dict[str, str]:
        source = f"data:image/png;base64,{b64encode(self.png).decode()}"
        return {
            "text/html": f'<img alt="{escape(self.alt)}" src="{source}">',
            "text/plain": f"[Figure: {self.alt}]",
        }
