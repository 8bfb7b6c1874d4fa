"""Histograms with levels and error curves: they show the numbers that they are given."""

from course_lib.plots.figure import new_figure
from course_lib.plots.levels import draw_curves, draw_levels


def test_every_level_is_a_line_and_every_number_is_counted():
    _, (axes,) = new_figure()
    draw_levels(axes, [-0.5, 0.0, 0.1, 0.5], [-1.0, 0.0, 1.0], (-1.0, 1.0))
    assert [line.get_xdata()[0] for line in axes.lines] == [-1.0, 0.0, 1.0]
    assert sum(bar.get_height() for bar in axes.patches) == 4
    assert axes.get_xlim() == (-1.0, 1.0)
    assert axes.get_xlabel() and axes.get_ylabel()


def test_a_prediction_has_the_colour_of_its_measurement():
    _, (axes,) = new_figure()
    draw_curves(axes, [1, 2], {"a": [3, 4], "b": [5, 6]}, {"b": [5, 7]})
    a, b, predicted = axes.lines
    assert list(a.get_ydata()) == [3, 4] and list(predicted.get_ydata()) == [5, 7]
    assert b.get_color() == predicted.get_color() != a.get_color()
