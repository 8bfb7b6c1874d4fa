"""Even levels without an end: exact levels forward, the identity backward."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from course_lib.formats.aware import exported
from course_lib.formats.even_coded import EvenCoded
from course_lib.formats.model_file import pack_model, unpack_model
from course_lib.quantization.aware import aware_model
from course_lib.quantization.even_steps import EvenSteps


@given(st.floats(1e-6, 1e6), st.integers(0, 99))
def test_levels_are_multiples_and_nearest(step, seed):
    weight = torch.randn(50, generator=torch.Generator().manual_seed(seed)) * step * 20
    rounding = EvenSteps(step)
    levels = rounding(weight)
    assert levels.equal((levels / rounding.step).round() * rounding.step)
    assert (levels - weight).abs().max() <= rounding.step * (0.5 + 1e-5)


def test_the_gradient_is_that_of_the_identity_and_values_are_the_same_with_it():
    weight = torch.tensor([0.2, 0.3, -7.1, 1e6], requires_grad=True)
    levels = EvenSteps(0.5)(weight)
    (levels * torch.tensor([1.0, 2.0, 3.0, 4.0])).sum().backward()
    assert weight.grad.tolist() == [1, 2, 3, 4]
    assert levels.detach().equal(EvenSteps(0.5)(weight.detach()))


@pytest.mark.parametrize("step", [0.0, -1.0, float("inf"), float("nan")])
def test_bad_steps(step):
    with pytest.raises(ValueError, match="step must be above 0"):
        EvenSteps(step)


def test_the_file_gives_back_what_was_trained():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(40, 30), nn.ReLU(), nn.Linear(30, 5)).requires_grad_(False)
    aware = aware_model(model, lambda _: EvenSteps(0.07)).requires_grad_(False)
    plain, schemes = exported(aware)
    assert set(schemes.values()) == {EvenCoded(EvenSteps(0.07).step)}
    back = unpack_model(pack_model(plain, schemes), model)
    x = torch.randn(9, 40)
    torch.testing.assert_close(back(x), aware(x))
