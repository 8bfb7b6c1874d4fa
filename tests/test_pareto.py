"""Points that no other beats, against the definition."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from course_lib.measure.pareto import pareto_front

NUMBERS = st.sampled_from([-math.inf, -1.0, 0.0, 1.0, 2.0, 3.0, math.inf])


def beats(a, b):
    return a[0] <= b[0] and a[1] <= b[1] and a != b


@given(st.lists(st.tuples(NUMBERS, NUMBERS), max_size=12))
def test_it_is_the_definition(points):
    found = pareto_front([s for s, _ in points], [q for _, q in points])
    assert found == [not any(beats(other, point) for other in points) for point in points]


def test_ties_and_duplicates():
    assert pareto_front([1, 1, 1, 2], [5, 5, 6, 5]) == [True, True, False, False]
    assert pareto_front([], []) == [] and pareto_front([3], [math.inf]) == [True]


def test_bad_input():
    with pytest.raises(ValueError, match="2 and 1"):
        pareto_front([1, 2], [1])
    with pytest.raises(ValueError, match="NaN"):
        pareto_front([1, math.nan], [1, 2])
