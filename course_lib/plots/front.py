"""Loss against bytes: the course's methods with the front that they make, and files beside it."""

from collections.abc import Sequence

from matplotlib.axes import Axes

from course_lib.measure.pareto import pareto_front
from course_lib.plots.figure import BLACK, BLUE, RED, SKY

Point = tuple[str, float, float]  # name, bytes, loss
MARKS = "osD^vPX*"  # of files, so that shape tells what colour does not
MOST_NAMED = 24  # more names would cover each other


def draw_front(axes: Axes, course: Sequence[Point], files: Sequence[Point] = ()) -> None:
    """Points of the course in blue, their Pareto front as a line, files as large red marks.

    Args:
        course: name, bytes and bits per byte of each method; at least one of `course` or `files`.
        files: the same of files; they are named in the legend, up to 24 of them.
    """
    if not course and not files:
        raise ValueError("course or files must hold a point; both are empty")
    if course:
        megabytes, losses = [b / 1e6 for _, b, _ in course], [loss for _, _, loss in course]
        axes.plot(megabytes, losses, "o", color=SKY, markersize=4, label="the course")
        on_front = pareto_front(megabytes, losses)
        best = sorted(
            {p for p, on in zip(zip(megabytes, losses, strict=True), on_front, strict=True) if on}
        )
        xs, ys = zip(*best, strict=True)
        axes.step(xs, ys, where="post", color=BLUE, linewidth=1.2, label="its front")
    for number, (name, size, loss) in enumerate(files):
        label = name if number < MOST_NAMED else None
        mark = MARKS[number % len(MARKS)]
        axes.plot(size / 1e6, loss, mark, color=RED, markeredgecolor=BLACK, ms=8, label=label)
    axes.set(xscale="log", xlabel="size of the file (MB)", ylabel="bits per byte, shown chapters")
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter("{x:g}")
    legend = axes.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    for text in legend.get_texts():
        text.set_parse_math(False)  # a name with dollar signs is a name
