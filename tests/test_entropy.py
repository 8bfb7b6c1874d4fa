"""Bits that codes need at least: against SciPy, and beyond what float32 can count."""

import numpy as np
import pytest
import scipy.stats
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from course_lib.formats.entropy import code_entropy


@given(st.lists(st.integers(0, 15), min_size=1, max_size=50))
@settings(deadline=None)
def test_code_entropy_against_scipy(codes):
    expected = scipy.stats.entropy(np.bincount(codes), base=2)
    found = float(code_entropy(torch.tensor(codes), levels=16))
    assert found == pytest.approx(expected, abs=1e-5)
    assert found <= 4 + 1e-5


def test_code_entropy_of_even_and_of_constant_codes():
    codes = torch.arange(256, dtype=torch.uint8).view(16, 16)
    assert float(code_entropy(codes, levels=256)) == pytest.approx(8)
    assert float(code_entropy(torch.full((9,), 3), levels=16)) == 0


def test_more_equal_codes_than_float32_can_count():
    codes = torch.zeros(2**25, dtype=torch.uint8)
    codes[: 2**24] = 1
    assert float(code_entropy(codes, levels=2)) == pytest.approx(1, abs=1e-6)


def test_what_are_no_codes():
    with pytest.raises(ValueError, match="codes must be integers"):
        code_entropy(torch.tensor([0.5]), levels=4)
    with pytest.raises(ValueError, match="codes must be from 0 to 3; got 0 to 4"):
        code_entropy(torch.tensor([0, 4]), levels=4)
    with pytest.raises(ValueError, match="codes must be from 0 to 3; got -1 to 2"):
        code_entropy(torch.tensor([-1, 2]), levels=4)
