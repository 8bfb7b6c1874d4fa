"""The roof: two bounds and the ridge between them; the measured machine; the picture."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from course_lib.acceleration import roofline
from course_lib.acceleration.roofline import Machine, bound, intensity, measure_machine
from course_lib.acceleration.work import Work, linear_work
from course_lib.plots.figure import new_figure
from course_lib.plots.roofline import draw_roofline

sizes = st.floats(1e-3, 1e15)


@given(sizes, sizes, sizes, sizes)
def test_memory_decides_below_the_ridge_and_arithmetic_above(moved, operations, bandwidth, peak):
    work, machine = Work(moved, operations), Machine(bandwidth, peak)
    memory, arithmetic = moved / bandwidth, operations / peak
    assert bound(work, machine) == max(memory, arithmetic)
    if intensity(work) < machine.ridge * (1 - 1e-9):
        assert bound(work, machine) == memory
    if intensity(work) > machine.ridge * (1 + 1e-9):
        assert bound(work, machine) == arithmetic


def test_two_pieces_together_are_bound_by_no_more_than_one_after_the_other():
    machine = Machine(10, 100)
    reads, counts = Work(1000, 1), Work(1, 10_000)
    assert bound(reads + counts, machine) <= bound(reads, machine) + bound(counts, machine)


def test_a_layers_intensity_at_batch_1_is_a_half_and_grows_with_the_batch():
    """Two operations for each 32-bit weight; at 4 bits four for each byte."""
    assert intensity(linear_work(1, 4096, 4096)) == pytest.approx(0.5, rel=1e-3)
    assert intensity(linear_work(1, 4096, 4096, 4)) == pytest.approx(4, rel=1e-2)
    assert intensity(linear_work(64, 4096, 4096)) == pytest.approx(32, rel=0.05)


def test_the_machine_is_the_fastest_try_on_the_clock(monkeypatch):
    """A clock that the tries turn themselves: 3 and 2 seconds, then the slow ones."""
    times = iter([5.0, 3.0, 4.0, 9.0, 2.0, 2.5])
    now, started = [0.0], [False]

    def clock():
        if started[0]:
            now[0] += next(times)
        started[0] = not started[0]
        return now[0]

    monkeypatch.setattr(roofline, "READ", 2**14)
    machine = measure_machine(seconds=1.0, clock=clock)
    assert machine == Machine(4 * 2**14 / 3, 2 * 1024**3 / 2)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int8])
def test_a_machine_is_measured_in_each_kind_of_number(dtype, monkeypatch):
    monkeypatch.setattr(roofline, "READ", 2**20)
    machine = measure_machine(dtype, seconds=1e-3)
    assert machine.bandwidth > 1e6 and machine.peak > 1e6


def test_what_cannot_be_is_refused():
    with pytest.raises(ValueError, match="bandwidth and peak must be above 0"):
        Machine(0, 1)
    with pytest.raises(ValueError, match="seconds must be above 0; got 0"):
        measure_machine(seconds=0)


def test_the_picture_has_each_roof_and_each_point_twice():
    _, (axes,) = new_figure()
    points = {"a": (1.0, 5e9, "slow"), "b": (1000.0, 60e9, "fast")}
    draw_roofline(axes, 10e9, {"slow": 50e9, "fast": 100e9}, points)
    roofs, marks = axes.lines[:2], axes.lines[2:]
    assert [max(line.get_ydata()) for line in roofs] == [50, 100]
    assert [line.get_xdata()[1] for line in roofs] == [5, 10]  # the ridges
    dots = [line.get_ydata()[0] for line in marks if line.get_marker() == "o"]
    assert dots == [10, 5, 100, 60]  # what could be reached, and what was
    assert axes.get_xscale() == axes.get_yscale() == "log"
