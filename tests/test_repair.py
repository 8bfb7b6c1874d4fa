"""Repair in closed form: least squares by another solver, and where nothing is to be done."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from course_lib.pruning import refit as module
from course_lib.pruning.inverse_hessian import layer_hessian
from course_lib.pruning.refit import refit_columns, refit_rows
from course_lib.pruning.repair import cut, fold_mean, refit

float64 = torch.float64


def problem(seed, N=60, I=7, O=3):  # noqa: E741
    """Inputs that foretell each other in part, with means that are not 0."""
    draw = torch.Generator().manual_seed(seed)
    x = torch.randn(N, I, dtype=float64, generator=draw)
    x = x @ torch.randn(I, I, dtype=float64, generator=draw) + 2
    keep = torch.zeros(I, dtype=torch.bool)
    keep[torch.randperm(I, generator=draw)[: 1 + seed % I]] = True
    weight, bias = torch.randn(O, I + 1, dtype=float64, generator=draw).tensor_split([I], dim=1)
    return weight, bias.flatten(), x, keep


@given(st.integers(0, 999))
def test_without_damping_it_is_least_squares(seed):
    weight, bias, x, keep = problem(seed)
    best = torch.linalg.lstsq(x[:, keep], x @ weight.T).solution.T
    torch.testing.assert_close(refit_columns(weight, layer_hessian(x), keep, 0.0), best)


@given(st.integers(0, 999))
def test_with_a_bias_it_is_least_squares_with_a_column_of_ones(seed):
    weight, bias, x, keep = problem(seed)
    ones = torch.cat([x[:, keep], torch.ones(len(x), 1, dtype=float64)], dim=1)
    best = torch.linalg.lstsq(ones, x @ weight.T + bias).solution.T
    centred = layer_hessian(x - x.mean(dim=0))
    torch.testing.assert_close(refit_columns(weight, centred, keep, 0.0), best[:, :-1])
    new, new_bias = refit(weight, bias, x, keep)  # damped
    torch.testing.assert_close(new, refit_columns(weight, centred, keep))
    means = (x[:, keep] @ new.T + new_bias).mean(0), (x @ weight.T + bias).mean(0)
    torch.testing.assert_close(*means)


@given(st.integers(0, 999), st.sampled_from([1e-4, 0.1, 10.0]))
def test_with_damping_it_is_least_squares_with_more_rows(seed, damping):
    """√λ 1 below the inputs, which asks the change to be 0."""
    weight, _, x, keep = problem(seed)
    gram = x.T @ x / len(x)
    level = (damping * gram.diagonal()[keep].mean()).sqrt()
    rows = torch.cat(
        [x[:, keep] / len(x) ** 0.5, level * torch.eye(int(keep.sum()), dtype=float64)]
    )
    asked = torch.zeros(len(rows), len(weight), dtype=float64)
    asked[: len(x)] = x[:, ~keep] @ weight[:, ~keep].T / len(x) ** 0.5
    change = torch.linalg.lstsq(rows, asked).solution.T
    found = refit_columns(weight, gram, keep, damping)
    torch.testing.assert_close(found, weight[:, keep] + change)
    torch.testing.assert_close(refit_columns(weight, 2 * gram, keep, damping), found)


@given(st.integers(0, 999))
def test_each_row_by_itself(seed):
    weight, _, x, _ = problem(seed, I=8)
    hessian = layer_hessian(x)
    K = 1 + seed % 8
    places = torch.rand(3, 8, generator=torch.Generator().manual_seed(seed)).argsort(dim=1)
    mask = places < K
    found = refit_rows(weight, hessian, mask)
    assert not found[~mask].any()
    for row in range(3):
        alone = refit_columns(weight[row : row + 1], hessian, mask[row])
        torch.testing.assert_close(found[row, mask[row]], alone[0])


def test_rows_a_few_at_a_time(monkeypatch):
    weight, _, x, _ = problem(1, I=8, O=9)
    mask = torch.rand(9, 8).argsort(dim=1) < 4
    whole = refit_rows(weight, layer_hessian(x), mask)
    monkeypatch.setattr(module, "AT_ONCE", 2 * 4**2)
    torch.testing.assert_close(refit_rows(weight, layer_hessian(x), mask), whole)


@pytest.mark.parametrize("mend", [cut, fold_mean, refit])
@pytest.mark.parametrize("biased", [False, True])
def test_where_nothing_goes_nothing_changes(mend, biased):
    weight, bias, x, _ = problem(3)
    new, new_bias = mend(weight, bias if biased else None, x, torch.ones(7, dtype=torch.bool))
    assert torch.equal(new, weight)
    assert new_bias is None if not biased else torch.allclose(new_bias, bias, rtol=0, atol=1e-12)


@pytest.mark.parametrize("mend", [fold_mean, refit])
def test_what_is_constant_goes_without_a_trace(mend):
    weight, bias, x, _ = problem(4)
    x[:, 2], x[:, 5] = 0, 3.5
    keep = torch.tensor([True, True, False, True, True, False, True])
    new, new_bias = mend(weight, bias, x, keep)
    torch.testing.assert_close(x[:, keep] @ new.T + new_bias, x @ weight.T + bias)
    torch.testing.assert_close(new, weight[:, keep])


def test_zeros_that_stay_and_zeros_that_go_move_nothing():
    weight, _, x, _ = problem(5)
    x[:, :3] = 0
    keep = torch.tensor([True, False, True, True, True, False, False])
    new, _ = refit(weight, None, x, keep)
    torch.testing.assert_close(new[:, :2], weight[:, [0, 2]])
    assert not torch.allclose(new[:, 2:], weight[:, [3, 4]])
    new, _ = refit(weight, None, torch.zeros_like(x), keep)
    assert torch.equal(new, weight[:, keep])


@pytest.mark.parametrize("biased", [False, True])
def test_each_repair_errs_no_more_than_the_one_before(biased):
    for seed in range(20):
        weight, bias, x, keep = problem(seed)
        bias = bias if biased else None
        target = x @ weight.T + (bias if biased else 0)
        errors = []
        for mend in (cut, fold_mean, refit):
            new, new_bias = mend(weight, bias, x, keep)
            output = x[:, keep] @ new.T + (new_bias if biased else 0)
            errors.append((output - target).square().mean().item())
        assert errors[1] <= errors[0] + 1e-9 and errors[2] <= errors[1] + 1e-9


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_narrow_types_are_solved_in_float64(dtype):
    weight, bias, x, keep = (t.to(dtype) if t.is_floating_point() else t for t in problem(6, N=400))
    wide, wide_bias = refit(weight.double(), bias.double(), x.double(), keep)
    new, new_bias = refit(weight, bias, x, keep)
    assert new.dtype == new_bias.dtype == dtype
    torch.testing.assert_close(new, wide.to(dtype))
    torch.testing.assert_close(new_bias.double(), wide_bias, rtol=0.02, atol=0.05)


def test_a_half_that_overflows_is_refused():
    x = torch.tensor([[1e-3, 1e3]] * 4, dtype=torch.float16)
    weight = torch.tensor([[1.0, 1.0]], dtype=torch.float16)
    with pytest.raises(ValueError, match="the refitted weight, in torch.float16, must be finite"):
        refit(weight, None, x, torch.tensor([True, False]))


WEIGHT, INPUTS, KEEP = torch.ones(2, 3), torch.randn(9, 3), torch.tensor([True, False, True])
BAD = [
    (lambda: refit(WEIGHT, None, INPUTS * torch.nan, KEEP), "inputs must be finite"),
    (lambda: fold_mean(WEIGHT, None, INPUTS / 0, KEEP), "inputs must be finite"),
    (lambda: refit(WEIGHT * torch.nan, None, INPUTS, KEEP), "weight must be finite"),
    (lambda: refit(WEIGHT, None, INPUTS[:, :2], KEEP), r"got \(2, 3\) and \(9, 2\)"),
    (lambda: refit(WEIGHT, None, INPUTS, ~KEEP & KEEP), "keep must keep at least 1 of 3"),
    (lambda: cut(WEIGHT, None, None, ~KEEP & KEEP), "keep must keep at least 1 of 3"),
    (lambda: cut(WEIGHT, None, None, KEEP.int()), "keep must be bool of shape"),
    (lambda: cut(WEIGHT, None, None, KEEP[:2]), "keep must be bool of shape"),
    (lambda: refit_columns(WEIGHT, torch.ones(3, 2), KEEP), r"hessian \(I, I\)"),
    (lambda: refit_columns(WEIGHT, torch.eye(3), KEEP, -1.0), "damping must be at least 0"),
    (lambda: refit_columns(WEIGHT, torch.ones(3, 3), KEEP, 0.0), "damping must be larger; got 0.0"),
    (lambda: refit_columns(WEIGHT, torch.eye(3).half(), KEEP), "float32 or float64"),
    (lambda: refit_rows(WEIGHT, torch.eye(3), torch.zeros(2, 3).bool()), "got 0 to 0"),
    (lambda: refit_rows(WEIGHT, torch.eye(3), torch.eye(2, 3).bool() | KEEP), "got 2 to 3"),
]  # fmt: skip


@pytest.mark.parametrize(("call", "says"), BAD)
def test_bad_input_is_refused(call, says):
    with pytest.raises(ValueError, match=says):
        call()
