"""What few bits cost: measured one layer at a time, and predicted from second derivatives."""

import pytest
import torch
from torch import nn

from course_lib.pruning.curvature import hutchinson_diagonal
from course_lib.quantization.sensitivity import curvature_costs, measured_costs


def network() -> tuple[nn.Sequential, torch.Tensor]:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 1)), torch.randn(20, 4)


def test_measured_costs_are_the_losses_of_one_layer_at_a_time():
    model, x = network()
    weights = {name: model.get_parameter(name).detach() for name in ("0.weight", "2.weight")}
    rounded = {name: [(w * n).round() / n for n in (1, 3)] for name, w in weights.items()}

    def loss(m):
        return m(x).square().mean().item()

    costs = measured_costs(model, rounded, loss)
    assert costs.shape == (2, 2) and costs.dtype == torch.float64
    for l, (name, choices) in enumerate(rounded.items()):  # noqa: E741
        for k, weight in enumerate(choices):
            changed = torch.func.functional_call(model, {name: weight}, (x,))
            expected = changed.square().mean().item() - loss(model)
            assert costs[l, k].item() == pytest.approx(expected, abs=1e-6)


def test_the_model_is_as_before_after_an_error_too():
    model, _ = network()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    rounded = {"0.weight": [torch.zeros(3, 4), torch.ones(3, 4)]}
    asked = []

    def breaks(m):
        asked.append(m[0].weight.sum().item())
        return 1 / (len(asked) < 3)

    with pytest.raises(ZeroDivisionError):
        measured_costs(model, rounded, breaks)
    assert asked[1:] == [0, 12]
    assert all(torch.equal(before[name], now) for name, now in model.state_dict().items())
    assert all(p.requires_grad and p.grad is None for p in model.parameters())
    measured_costs(model, rounded, lambda m: m[0].weight.sum())  # a tensor will do for a loss
    assert all(torch.equal(before[name], now) for name, now in model.state_dict().items())


def test_half_precision_models_keep_their_dtype():
    model = nn.Linear(2, 1).half()
    costs = measured_costs(model, {"weight": [torch.ones(1, 2)]}, lambda m: m.weight.sum().item())
    assert costs.item() == pytest.approx(2 - model.weight.sum().item(), abs=1e-3)
    assert model.weight.dtype == torch.float16


def test_curvature_costs_are_exact_for_a_quadratic_whose_hessian_is_a_multiple_of_one():
    weight = torch.randn(30, dtype=torch.float64)
    change = torch.stack([torch.randn(30, dtype=torch.float64) for _ in range(3)])
    trace = torch.tensor([2.5 * 30], dtype=torch.float64)
    costs = curvature_costs(trace, torch.tensor([30]), change.square().sum(1)[None])

    def loss(w):
        return 2.5 / 2 * (w - weight).square().sum()

    for k in range(3):
        assert costs[0, k].item() == pytest.approx(loss(weight + change[k]).item())


def test_of_any_quadratic_they_are_the_mean_over_errors_that_point_nowhere():
    """½ δᵀHδ over 20,000 δ with independent signs; its mean is ½ Σ H_ii δ_i², here with δ_i² even.
    The mean's standard error is 0.2 %; 2,000 probes add some."""
    generator = torch.Generator().manual_seed(0)
    root = torch.randn(12, 12, generator=generator, dtype=torch.float64)
    hessian = root @ root.T
    signs = torch.randint(2, (20_000, 12), generator=generator).double() * 0.2 - 0.1
    mean = ((signs @ hessian) * signs).sum(1).mean() / 2
    trace = hutchinson_diagonal(
        lambda w: w["w"] @ hessian @ w["w"] / 2,
        {"w": torch.zeros(12).double()}, 2000, generator,
    )["w"].sum()  # fmt: skip
    errors = torch.full((1, 1), 12 * 0.1**2).double()
    cost = curvature_costs(trace[None], torch.tensor([12]), errors)
    assert cost.item() == pytest.approx(mean.item(), rel=0.03)


def test_bad_input_is_refused():
    model, calls = nn.Linear(2, 1), []
    for rounded, says in [
        ({"w": [torch.ones(1, 2)]}, r"rounded must name parameters of the model; got \['w'\]"),
        ({}, "as many choices for each layer"),
        ({"weight": []}, "as many choices for each layer"),
        ({"weight": [torch.ones(1, 2)], "bias": []}, "as many choices for each layer"),
        ({"weight": [torch.ones(1)]}, r"weight must have shape \(1, 2\); got \[\(1,\)\]"),
    ]:
        with pytest.raises(ValueError, match=says):
            measured_costs(model, rounded, calls.append)
    assert not calls
    one = torch.ones(1)
    with pytest.raises(ValueError, match=r"must be \(L,\), \(L,\), \(L, K\)"):
        curvature_costs(torch.ones(2), torch.ones(3), torch.ones(2, 2))
    with pytest.raises(ValueError, match="traces must be finite"):
        curvature_costs(one * torch.nan, one, one[None])
    with pytest.raises(ValueError, match="errors must be finite"):
        curvature_costs(one, one, one[None] * torch.inf)
    for counts, errors in ((0 * one, one), (one, -one)):
        with pytest.raises(ValueError, match="counts must be at least 1 and errors at least 0"):
            curvature_costs(one, counts, errors[None])
