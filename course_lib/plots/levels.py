"""What rounding does to numbers: a histogram with the levels of a grid over it; error curves."""

from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes

from course_lib.plots.figure import BLUE, COLOURS, RED


def draw_levels(
    axes: Axes, values: Sequence[float], levels: Sequence[float], limits: tuple[float, float]
) -> None:
    """A histogram of numbers, and one vertical line for each level that they may move to.

    Args:
        values: the numbers, before rounding.
        levels: where they may go.
        limits: the ends of the horizontal axis.
    """
    axes.hist(values, bins=80, range=limits, color=BLUE, alpha=0.75)
    thin = min(1, 40 / len(levels))  # so that many lines do not hide the histogram
    for level in levels:
        axes.axvline(level, color=RED, linewidth=thin, alpha=0.8)
    axes.set(xlim=limits, xlabel="weight", ylabel="weights in a bin")
    axes.grid(False)


def draw_curves(
    axes: Axes,
    x: Sequence[float],
    measured: Mapping[str, Sequence[float]],
    predicted: Mapping[str, Sequence[float]],
) -> None:
    """Measured points, and a line of the same colour where there is a prediction of the same name.

    Args:
        x: where was measured.
        measured, predicted: name -> one number for each x.
    """
    for (name, points), colour in zip(measured.items(), COLOURS, strict=False):
        axes.plot(x, points, "o", markersize=4, color=colour, label=name)
        if name in predicted:
            axes.plot(x, predicted[name], color=colour, label=f"{name}, predicted")
    axes.legend(frameon=False)
