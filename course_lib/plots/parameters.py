"""Where a model's parameters sit."""

from collections.abc import Mapping

from matplotlib.axes import Axes

from course_lib.plots.figure import COLOURS


def draw_shares(axes: Axes, counts: Mapping[str, Mapping[str, int]]) -> None:
    """One bar a model, cut into the shares of its parts.

    Args:
        counts: model's name -> part's name -> number of parameters.
    """
    parts = list(next(iter(counts.values())))
    left = dict.fromkeys(counts, 0.0)
    for part, colour in zip(parts, COLOURS, strict=False):
        shares = {model: 100 * of[part] / sum(of.values()) for model, of in counts.items()}
        axes.barh(list(counts), shares.values(), left=list(left.values()), color=colour, label=part)
        for row, (model, share) in enumerate(shares.items()):
            if share > 4:
                axes.text(left[model] + share / 2, row, f"{share:.0f} %", ha="center", va="center")
            left[model] += share
    axes.set_xlim(0, 100)
    axes.set_xlabel("share of the parameters (%)")
    axes.grid(False)
    axes.figure.legend(loc="outside lower center", ncols=len(parts), frameon=False)
