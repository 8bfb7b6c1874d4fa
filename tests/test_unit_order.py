"""Inputs removed one at a time, against a refit after each removal."""

import pytest
import torch

from course_lib.pruning.group_scores import repair_errors
from course_lib.pruning.inverse_hessian import damped, layer_hessian
from course_lib.pruning.refit import refit_columns
from course_lib.pruning.unit_order import keep_one_by_one


def by_refits(weight: torch.Tensor, hessian: torch.Tensor, K: int) -> torch.Tensor:
    """The same choice by brute force: every input that is left is taken out, and W refitted."""
    keep = torch.ones(len(hessian), dtype=torch.bool)
    for _ in range(len(hessian) - K):
        errors = {}
        for i in keep.nonzero()[:, 0].tolist():
            stay = keep.clone()
            stay[i] = False
            change = -weight.clone()
            change[:, stay] += refit_columns(weight, hessian, stay, damping=0.0)
            errors[i] = ((change @ hessian) * change).sum().item()
        keep[min(errors, key=errors.get)] = False
    return keep


@pytest.mark.parametrize("seed", range(3))
def test_it_is_what_a_refit_after_each_removal_chooses(seed):
    torch.manual_seed(seed)
    x = torch.randn(60, 9).double() @ torch.randn(9, 9).double()
    weight, hessian = torch.randn(4, 9).double(), layer_hessian(x)
    for K in (1, 4, 8, 9):
        kept = keep_one_by_one(weight, hessian, K, damping=0.0)
        assert kept.sum() == K and kept.equal(by_refits(weight, hessian, K))


def test_the_first_to_go_is_the_cheapest_and_of_twins_one_stays():
    torch.manual_seed(0)
    x = torch.randn(50, 6)
    x[:, 5] = 2 * x[:, 1] + 0.01 * torch.randn(50)
    weight, hessian = torch.randn(3, 6), layer_hessian(x)
    cheapest = int(repair_errors(weight, hessian, 6).argmin())
    assert cheapest in (1, 5) and not keep_one_by_one(weight, hessian, 5)[cheapest]
    assert keep_one_by_one(weight, hessian, 3)[[1, 5]].sum() == 1


def test_inputs_stay_as_they_are_and_a_dead_input_goes_first():
    x = torch.randn(50, 4).half()
    x[:, 2] = 0
    weight, hessian = torch.randn(3, 4).half(), layer_hessian(x)
    before = weight.clone(), damped(hessian, 0.0)
    assert keep_one_by_one(weight, hessian, 3).tolist() == [True, True, False, True]
    assert weight.equal(before[0]) and damped(hessian, 0.0).equal(before[1])


@pytest.mark.parametrize(
    ("weight", "hessian", "K", "says"),
    [
        (torch.ones(2, 3), torch.eye(2), 1, "weight must have shape"),
        (torch.ones(2, 3), torch.eye(3), 0, "K must be from 1 to 3; got 0"),
        (torch.ones(2, 3), torch.eye(3), 4, "K must be from 1 to 3; got 4"),
        (torch.full((2, 3), torch.nan), torch.eye(3), 1, "weight must be finite"),
    ],
)
def test_bad_input(weight, hessian, K, says):
    with pytest.raises(ValueError, match=says):
        keep_one_by_one(weight, hessian, K)
