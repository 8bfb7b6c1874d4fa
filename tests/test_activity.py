"""Scores of units: against the whole data at once, whatever the batches; ReLU's zeros."""

import pytest
import torch

from course_lib.pruning.activity import UnitActivity, average_zeros, mean_activation


def activations(rows=50, units=7, dtype=torch.float32):
    x = torch.randn(rows, units, generator=torch.Generator().manual_seed(0))
    return x.relu().to(dtype)


def test_means_and_zeros_by_hand():
    a = torch.tensor([[0.0, -0.0, 2.0], [1.0, -3.0, 0.0]])
    assert mean_activation(a).tolist() == [0.5, 1.5, 1.0]
    assert average_zeros(a).tolist() == [0.5, 0.5, 0.5]


@pytest.mark.parametrize("size", [1, 8, 49, 50])
def test_batches_of_any_size_give_what_all_rows_give(size):
    """50 rows in batches of 8 leave 2: a mean of means would count those four times."""
    a, activity = activations(), UnitActivity()
    for batch in a.split(size):
        activity.add(batch)
    torch.testing.assert_close(activity.mean(), a.abs().double().mean(0).float())
    assert activity.average_zeros().equal((a == 0).double().mean(0).float())
    assert activity.count == 50


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_sums_that_a_half_could_not_hold(dtype):
    """3000 times 1000 is beyond float16, and bfloat16 would stop counting at 256."""
    a = torch.full((3000, 2), 1000.0, dtype=dtype)
    a[:1500, 1] = 0
    assert mean_activation(a).tolist() == [1000, 500]
    assert average_zeros(a).tolist() == [0, 0.5]
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    assert mean_activation(a).dtype == average_zeros(a).dtype == wide


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: average_zeros(torch.ones(3)), r"shape \(N, I\); got \(3,\)"),
        (lambda: mean_activation(torch.ones(0, 3)), "activations must not be empty"),
        (lambda: average_zeros(torch.tensor([[torch.nan]])), "activations must be finite"),
        (lambda: mean_activation(torch.tensor([[torch.inf]])), "activations must be finite"),
        (lambda: UnitActivity().mean(), "must have been added; there are none"),
        (lambda: UnitActivity().average_zeros(), "must have been added"),
    ],
)
def test_bad_input_is_refused(call, says):
    with pytest.raises(ValueError, match=says):
        call()


def test_batches_of_another_layer_are_refused_and_leave_the_totals():
    activity = UnitActivity()
    activity.add(torch.ones(2, 3))
    with pytest.raises(ValueError, match=r"shape \(N, 3\); got \(2, 4\)"):
        activity.add(torch.ones(2, 4))
    assert activity.count == 2 and activity.mean().tolist() == [1, 1, 1]
