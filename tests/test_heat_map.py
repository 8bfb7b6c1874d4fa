"""Heat maps: what stands in the cells."""

import numpy as np

from course_lib.plots.figure import new_figure
from course_lib.plots.redundancy import draw_heat_map


def test_a_heat_map_writes_every_number_in_a_colour_that_can_be_read():
    _, (axes,) = new_figure()
    draw_heat_map(axes, np.array([[1.0, 9.0]]), ["a"], ["b", "c"], "share (%)", form=".0f")
    assert [(t.get_text(), t.get_color()) for t in axes.texts] == [("1", "black"), ("9", "white")]
    assert [t.get_text() for t in axes.get_xticklabels()] == ["b", "c"]


def test_a_large_heat_map_has_no_text():
    figure, (axes,) = new_figure()
    draw_heat_map(axes, np.eye(3), list("abc"), list("def"), "share (%)")
    assert not axes.texts and figure.axes[1].get_ylabel() == "share (%)"
