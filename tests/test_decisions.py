import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from course_lib.measure.decisions import agreement, distance, wrong_share

PROBABILITIES = st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=20)


@given(PROBABILITIES)
def test_both_are_counts_and_means(pairs):
    p, q = (torch.tensor(side, dtype=torch.float64) for side in zip(*pairs, strict=True))
    alike = sum((a > 0.5) == (b > 0.5) for a, b in pairs) / len(pairs)
    assert agreement(p, q) == pytest.approx(alike) == agreement(q, p)
    assert agreement(p, p) == 1 and distance(p, p) == 0
    assert distance(p, q) == pytest.approx(sum(abs(a - b) for a, b in pairs) / len(pairs))


@given(st.lists(st.tuples(st.floats(0, 1), st.sampled_from([-1, 0, 1])), min_size=1, max_size=20))
def test_only_labelled_places_count(pairs):
    p, labels = (torch.tensor(side) for side in zip(*pairs, strict=True))
    known = [(float(a), label) for a, (_, label) in zip(p, pairs, strict=True) if label >= 0]
    if not known:
        with pytest.raises(ValueError, match="some of them not below 0"):
            wrong_share(p, labels)
        return
    wrong = sum((a > 0.5) != (label == 1) for a, label in known) / len(known)
    assert wrong_share(p, labels) == pytest.approx(wrong)


@pytest.mark.parametrize("measure", [agreement, distance, wrong_share])
def test_bad_input_is_refused(measure):
    with pytest.raises(ValueError, match="must have the shape"):
        measure(torch.zeros(2), torch.zeros(1))
    with pytest.raises(ValueError, match="must not be empty"):
        measure(torch.zeros(0), torch.zeros(0))
    with pytest.raises(ValueError, match="must be finite"):
        measure(torch.tensor([math.nan]), torch.zeros(1))


def test_a_label_above_one_is_refused():
    with pytest.raises(ValueError, match="labels must be 1, 0 or below 0"):
        wrong_share(torch.zeros(2), torch.tensor([0, 2]))
