"""With a clock that the timed functions turn themselves, so that every figure is exact."""

import time

import pytest
import torch

from course_lib.measure.latency import Latency, latency, seconds


class Clock:
    """Stands still until a timed function moves it."""

    def __init__(self):
        self.now, self.calls = 0.0, []

    def takes(self, name, *durations):
        """A function that takes these seconds, one after the other, the last one for ever."""
        left = list(durations)

        def function():
            self.calls.append(name)
            self.now += left.pop(0) if len(left) > 1 else left[0]

        return function


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr("course_lib.measure.latency.time.perf_counter", lambda: clock.now)
    return clock


def test_the_median_without_warm_up(clock):
    assert seconds(clock.takes("f", 90, 80, 3, 1, 2), repeats=3) == 2


def test_two_functions_take_turns(clock):
    found = latency(clock.takes("a", 6), clock.takes("b", 2), repeats=3)
    assert found == Latency(seconds=6, baseline_seconds=2) and found.ratio == 3
    assert clock.calls == ["a", "b"] * 5  # two rounds of warm-up, three that count


def test_one_slow_call_does_not_count(clock):
    assert latency(clock.takes("a", 1, 1, 1, 1, 500, 1), clock.takes("b", 1), 5).ratio == 1


def test_an_accelerator_is_waited_for_before_and_after(clock, monkeypatch):
    """Work that is handed in takes no time; waiting for it does."""
    waiting = []

    def synchronize():
        clock.now += sum(waiting)
        waiting.clear()

    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    monkeypatch.setattr(torch.accelerator, "synchronize", synchronize)
    waiting.append(1000)  # left over from whatever ran before
    assert seconds(lambda: waiting.append(7)) == 7


def test_on_the_real_clock_equals_are_equal_and_slow_is_slow():
    def short():
        time.sleep(0.005)

    def long():
        time.sleep(0.05)

    assert 0.3 < latency(short, short).ratio < 3
    assert latency(long, short).ratio > 3
    assert latency(short, long).ratio < 1 / 3
    assert seconds(long, repeats=1) >= 0.05


def test_what_cannot_be_timed_is_refused():
    with pytest.raises(TypeError, match="callable; got Tensor"):
        latency(torch.zeros(1), list)
    with pytest.raises(ValueError, match="repeats must be at least 1; got 0"):
        seconds(list, repeats=0)
