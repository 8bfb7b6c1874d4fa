"""Steps of an exercise: what they do to weights, and to the tensor that they are given."""

import pytest
import torch

from course_lib.models import steps

NEW = (steps.half_dropped, steps.rounded, steps.clipped, steps.doubled, steps.halved)
IN_PLACE = (steps.first_column_turned_, steps.half_dropped_, steps.rounded_)


def weights() -> torch.Tensor:
    return torch.randn(5, 8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("step", NEW, ids=lambda step: step.__name__)
def test_what_is_given_stays_as_it_is(step):
    weight = weights()
    assert not step(weight).equal(weight)
    assert weight.equal(weights())


@pytest.mark.parametrize("step", IN_PLACE, ids=lambda step: step.__name__)
def test_an_underscore_says_in_place(step):
    weight = weights()
    assert step(weight) is weight
    assert not weight.equal(weights())


@pytest.mark.parametrize("step", [*NEW, *IN_PLACE], ids=lambda step: step.__name__)
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_dtype_and_shape_stay_and_zeros_remain_zeros(step, dtype):
    found = step(weights().to(dtype))
    assert (found.dtype, found.shape) == (dtype, (5, 8))
    assert step(torch.zeros(3, 4)).eq(0).all()


def test_half_of_the_numbers_are_dropped_and_no_larger_one():
    weight = weights()
    found = steps.half_dropped(weight)
    kept = found != 0
    assert kept.sum() == weight.numel() // 2
    assert weight.abs()[kept].min() >= weight.abs()[~kept].max()


def test_rounding_leaves_seven_levels_a_row_and_is_near():
    weight = weights()
    found = steps.rounded(weight)
    assert all(len(row.unique()) <= 7 for row in found)
    step = weight.abs().amax(dim=1, keepdim=True) / 3
    assert ((found - weight).abs() <= step / 2 * (1 + 1e-6)).all()  # float32 rounds both
