"""Work under a machine's roof: what could be reached at each intensity, and what was."""

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes

from course_lib.plots.figure import BLACK, COLOURS


def draw_roofline(
    axes: Axes,
    bandwidth: float,
    peaks: Mapping[str, float],
    points: Mapping[str, tuple[float, float, str]],
) -> None:
    """Roofs min(π, β · intensity), one a peak, and points: hollow on the roof, filled as measured.

    Args:
        bandwidth: β, bytes a second.
        peaks: name -> π, operations a second.
        points: name -> (intensity in operations a byte, measured operations a second, which peak).
    """
    intensities = [x for x, _, _ in points.values()]
    ridges = [peak / bandwidth for peak in peaks.values()]
    low, high = min(intensities + ridges) / 4, max(intensities + ridges) * 4
    for number, (name, peak) in enumerate(peaks.items()):
        x = np.array([low, peak / bandwidth, high])
        style = ("-", "--", ":", "-.")[number % 4]
        roof = np.minimum(peak, bandwidth * x) / 1e9
        axes.plot(x, roof, style, color=BLACK, linewidth=1.2, label=f"roof: {name}")
    for number, (name, (x, measured, peak)) in enumerate(points.items()):
        colour = COLOURS[number % len(COLOURS)]
        predicted = min(peaks[peak], bandwidth * x)
        axes.plot([x, x], [measured / 1e9, predicted / 1e9], color=colour, linewidth=0.8)
        axes.plot(x, predicted / 1e9, "o", markerfacecolor="white", color=colour)
        axes.plot(x, measured / 1e9, "o", color=colour, label=name)
    axes.set(xscale="log", yscale="log", xlim=(low, high))
    axes.set(xlabel="operations a byte", ylabel="10⁹ operations a second")
    axes.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
