import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from course_lib.measure.retrieval import agreement, top_one


@given(st.integers(1, 6), st.integers(0, 99))
def test_top_one_is_its_definition(n, seed):
    s = torch.randint(0, 3, (n, n), generator=torch.Generator().manual_seed(seed))
    total = 0.0
    for i, row in enumerate(s.tolist()):
        best = [j for j, value in enumerate(row) if value == max(row)]
        total += (i in best) / len(best)
    share = top_one(s.float())
    assert share.value == pytest.approx(total / n)
    assert share.error == pytest.approx(math.sqrt(share.value * (1 - share.value) / n))


def test_extremes():
    assert top_one(torch.eye(5)) == (1.0, 0.0)
    assert top_one(1 - torch.eye(5)).value == 0
    assert top_one(torch.zeros(5, 5)).value == pytest.approx(0.2)  # all alike: chance
    assert top_one(torch.zeros(1, 1)).value == 1


@pytest.mark.parametrize(
    "bad", [torch.zeros(2, 3), torch.zeros(0, 0), torch.zeros(3), torch.tensor([[math.nan]])]
)
def test_what_is_no_matrix_of_similarities_is_refused(bad):
    with pytest.raises(ValueError, match="similarities must"):
        top_one(bad)


def test_agreement_is_pearsons_correlation():
    a, b = torch.randn(2, 7, 7)
    # float32 inputs, float64 sums here and in numpy
    assert agreement(a, b) == pytest.approx(np.corrcoef(a.flatten(), b.flatten())[0, 1], abs=1e-6)
    assert agreement(a, 3 * a - 1) == pytest.approx(1, abs=1e-6)
    assert agreement(a, -a) == pytest.approx(-1, abs=1e-6)


@pytest.mark.parametrize("bad", [torch.zeros(2, 2), torch.full((2, 2), math.inf)])
def test_agreement_with_what_does_not_vary_is_refused(bad):
    with pytest.raises(ValueError, match="not constant"):
        agreement(torch.eye(2), bad)
    with pytest.raises(ValueError, match="one shape"):
        agreement(torch.eye(2), torch.eye(3))
