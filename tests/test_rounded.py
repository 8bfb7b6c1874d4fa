"""Rounded copies: the levels, what is rounded, and what stays."""

import pytest
import torch
from torch import nn

from course_lib.models.parts import linear_weights
from course_lib.quantization.rounded import rounded


@pytest.mark.parametrize("bits", [2, 3, 8])
def test_each_weight_goes_to_its_rows_nearest_level(bits):
    model = nn.Linear(40, 5)
    found = rounded(model, bits)
    step = model.weight.abs().amax(1, keepdim=True) / (2 ** (bits - 1) - 1)
    assert ((found.weight - model.weight).abs() <= 0.501 * step).all()
    codes = found.weight / step
    torch.testing.assert_close(codes, codes.round(), rtol=0, atol=1e-4)
    assert found.bias.equal(model.bias)


def test_rows_of_zeros_and_chosen_weights():
    model = nn.Sequential(nn.Embedding(4, 3), nn.Linear(3, 2))
    nn.init.zeros_(model[1].weight)
    found = rounded(model, 2, linear_weights)
    assert found[0].weight.equal(model[0].weight) and found[1].weight.equal(model[1].weight)
    assert not rounded(model, 2)[0].weight.equal(model[0].weight)
    with pytest.raises(ValueError, match="bits must be at least 2; got 1"):
        rounded(model, 1)
