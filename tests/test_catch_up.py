"""What a layer makes up for: beside least squares on the inputs, and the best factors of a rank."""

import pytest
import torch

from course_lib.low_rank.catch_up import caught_up, drift_of
from course_lib.low_rank.output_aware import output_factors
from tests.on_accelerator import run_on_accelerator


def inputs(seed=0, count=200, width=8):
    """Inputs before, and now: turned a little, two lost, and some noise."""
    draw = torch.Generator().manual_seed(seed)
    x = torch.randn(count, width, dtype=torch.float64, generator=draw) + 1
    mixed = x @ (torch.eye(width) + 0.3 * torch.randn(width, width, generator=draw)).double()
    now = mixed + 0.2 * torch.randn(count, width, dtype=torch.float64, generator=draw)
    now[:, :2] = 0
    weight = torch.randn(5, width, dtype=torch.float64, generator=draw)
    return weight, x, now


def moments(x, now):
    return now.T @ now / len(now), drift_of(x, now)


@pytest.mark.parametrize("damping", [1e-3, 0.1, 3.0])
def test_it_is_least_squares_with_the_weight_held_near(damping):
    weight, x, now = inputs()
    gram, drift = moments(x, now)
    held = (damping * gram.diagonal().mean() * len(x)) ** 0.5 * torch.eye(8, dtype=torch.float64)
    rows, asked = torch.cat([now, held]), torch.cat([x @ weight.T, held @ weight.T])
    expected = torch.linalg.lstsq(rows, asked).solution.T
    torch.testing.assert_close(caught_up(weight, gram, drift, damping), expected)


@pytest.mark.parametrize("rank", [1, 2, 4])
@pytest.mark.parametrize("seed", range(3))
def test_its_factors_are_the_best_of_their_rank_for_what_was_asked(rank, seed):
    """Beside reduced-rank regression: least squares, then the first directions of its answers."""
    weight, x, now = inputs(seed)
    gram, drift = moments(x, now)
    ours = output_factors(caught_up(weight, gram, drift, 1e-9), gram, rank).product
    answers = now @ torch.linalg.lstsq(now, x @ weight.T, driver="gelsd").solution
    V = torch.linalg.svd(answers).Vh[:rank]
    best = (x @ weight.T - answers @ V.T @ V).square().sum().item()

    def error(other):
        return (x @ weight.T - now @ other.T).square().sum().item()

    assert error(ours) == pytest.approx(best, rel=1e-6)
    assert error(ours) < error(output_factors(weight, gram, rank).product)


def test_where_nothing_was_lost_nothing_moves():
    weight, x, _ = inputs()
    gram, drift = moments(x, x)
    assert torch.equal(caught_up(weight, gram, drift), weight)
    nothing = torch.zeros(8, 8)
    assert torch.equal(caught_up(weight, nothing, nothing), weight)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("scale", [1e-12, 1.0, 1e12])
def test_other_dtypes_and_scales(dtype, scale):
    weight, x, now = inputs()
    gram, drift = moments(x, now)
    expected = caught_up(weight.to(dtype).double(), gram, drift)
    found = caught_up(weight.to(dtype), (gram * scale).float(), (drift * scale).float())
    assert found.dtype == dtype
    torch.testing.assert_close(found, expected.to(dtype), rtol=1e-2, atol=1e-3)


def test_drift_of_half_precision_is_summed_in_float32():
    x, now = torch.full((4096, 1), 1.001), torch.ones(4096, 1)
    assert drift_of(x.half(), now.half()).dtype == torch.float32
    torch.testing.assert_close(drift_of(x.half(), now.half()), x.half().float()[:1] - 1)


def test_bad_input_is_refused():
    weight, gram = torch.ones(2, 3), torch.eye(3)
    for wrong in ((weight[0], gram, gram), (weight, gram[:2], gram), (weight, gram, gram[:2])):
        with pytest.raises(ValueError, match=r"weight must have shape \(O, I\), gram and drift"):
            caught_up(*wrong)
    for place, name in enumerate(("weight", "gram", "drift")):
        for bad in (torch.nan, torch.inf):
            arguments = [weight, gram, gram]
            arguments[place] = arguments[place] * bad
            with pytest.raises(ValueError, match=f"{name} must be finite"):
                caught_up(*arguments)
    for damping in (0.0, -1.0, torch.inf, torch.nan):
        with pytest.raises(ValueError, match="damping must be above 0 and finite"):
            caught_up(weight, gram, gram, damping)


def test_it_runs_where_its_inputs_are():
    run_on_accelerator(
        """
import torch
from fake_accelerator import accelerator
from course_lib.low_rank.catch_up import caught_up, drift_of
with accelerator() as put:
    x = put(torch.ones(4, 3))
    found = caught_up(put(torch.ones(2, 3)), x.T @ x, drift_of(x, x))
    assert found.device.type == "toygpu"
"""
    )
