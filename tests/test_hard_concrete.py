"""Gates against Monte Carlo and against the paper's formulas; layers against plain ones."""

import copy
import math

import pytest
import torch
from torch import nn

from course_lib.pruning.hard_concrete import (
    L0Linear,
    add_gates,
    expected_l0,
    fixed_gates,
    open_probability,
    remove_gates,
    sample_gates,
)

LOG_ALPHA = torch.linspace(-4, 4, 9)


def paper_gate(u, log_alpha, beta=2 / 3, gamma=-0.1, zeta=1.1):
    """One gate, in the numbers of the paper, without PyTorch."""
    s = 1 / (1 + math.exp(-(math.log(u) - math.log(1 - u) + log_alpha) / beta))
    return min(1.0, max(0.0, s * (zeta - gamma) + gamma))


def test_a_sample_is_the_papers():
    for u in (0.001, 0.2, 0.5, 0.77, 0.999):
        expected = torch.tensor([paper_gate(u, a) for a in LOG_ALPHA.tolist()])
        found = sample_gates(LOG_ALPHA, torch.full_like(LOG_ALPHA, u))
        torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)


def test_open_probability_by_monte_carlo():
    """100,000 draws: the standard error is at most 0.0016, the tolerance is four of it."""
    draws = sample_gates(LOG_ALPHA, torch.rand(100_000, 9))
    assert (draws == 0).any()
    assert (draws == 1).any()
    found = (draws != 0).float().mean(dim=0)
    torch.testing.assert_close(found, open_probability(LOG_ALPHA), atol=0.0064, rtol=0)


def test_the_noise_may_be_zero():
    log_alpha = torch.zeros(1, requires_grad=True)
    gate = sample_gates(log_alpha, torch.zeros(1))
    gate.backward()
    assert gate.item() == 0
    assert log_alpha.grad.tolist() == [0]


def test_the_gradient_goes_through_the_sample():
    """By finite differences in float64, where the gate is neither 0 nor 1, and 0 where it is."""
    log_alpha = torch.tensor([-0.5, 0.0, 0.5, 9.0], dtype=torch.float64, requires_grad=True)
    uniform = torch.tensor([0.4, 0.5, 0.6, 0.5], dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda a: sample_gates(a, uniform), log_alpha)
    sample_gates(log_alpha, uniform).sum().backward()
    assert (log_alpha.grad[:3] > 0).all()
    assert log_alpha.grad[3] == 0


def test_fixed_gates_are_the_papers():
    expected = [min(1, max(0, 1.2 / (1 + math.exp(-a)) - 0.1)) for a in LOG_ALPHA.tolist()]
    torch.testing.assert_close(fixed_gates(LOG_ALPHA), torch.tensor(expected))
    edge = math.log(1 / 11)  # where sigmoid(log α) · 1.2 = 0.1
    gates = fixed_gates(torch.tensor([edge - 0.01, edge + 0.01]))
    assert gates[0] == 0
    assert gates[1] > 0


@pytest.mark.parametrize("gate", ["weight", "input"])
def test_the_layer_multiplies_weights_by_gates(gate):
    layer = L0Linear(nn.Linear(5, 4), gate)
    nn.init.normal_(layer.log_alpha, std=3)
    x = torch.randn(7, 5)
    torch.manual_seed(3)
    z = layer.gates().expand(4, 5)
    torch.manual_seed(3)  # the same noise again
    expected = x @ (layer.weight * z).T + layer.bias
    torch.testing.assert_close(layer(x), expected)


def test_evaluation_has_no_noise_and_equals_the_plain_layer():
    torch.manual_seed(0)
    model = add_gates(nn.Sequential(nn.Linear(5, 30), nn.ReLU(), nn.Linear(30, 2, bias=False)))
    x = torch.randn(3, 5)
    assert not model(x).equal(model(x))
    for layer in (model[0], model[2]):
        nn.init.normal_(layer.log_alpha, std=3)
    model.eval()
    plain = remove_gates(model)
    assert type(plain[0]) is nn.Linear
    assert plain[2].bias is None
    assert (plain[0].weight == 0).equal(fixed_gates(model[0].log_alpha) == 0)
    torch.testing.assert_close(model(x), plain(x))


def test_expected_l0_counts_weights():
    model = nn.Sequential(nn.Linear(5, 4), nn.Linear(4, 3))
    for gate in ("weight", "input"):
        gated = add_gates(model, gate)
        for layer in gated:
            nn.init.zeros_(layer.log_alpha)
        count = 32 / (1 + math.exp(2 / 3 * math.log(1 / 11)))
        assert expected_l0(gated).item() == pytest.approx(count)


def test_expected_l0_by_monte_carlo():
    """400 draws of 20 gates, four weights each: the standard error of the mean is below 0.45."""
    layer = L0Linear(nn.Linear(20, 4), gate="input")
    nn.init.normal_(layer.log_alpha)
    counts = [float((layer.gates() != 0).expand(4, 20).sum()) for _ in range(400)]
    assert sum(counts) / 400 == pytest.approx(layer.expected_l0().item(), abs=1.8)


def test_gates_are_added_to_a_copy_and_start_where_asked():
    model = nn.Sequential(nn.Linear(50, 40), nn.Sequential(nn.ReLU(), nn.Linear(40, 2)))
    before = copy.deepcopy(model)
    gated = add_gates(model, start=0.9).eval()
    assert not gated[1][1].training
    assert gated[1][1].weight.equal(before[1][1].weight)
    assert gated[0].log_alpha.mean().item() == pytest.approx(math.log(9), abs=0.01)
    nn.init.zeros_(gated[0].weight)
    assert model[0].weight.equal(before[0].weight)
    assert isinstance(add_gates(nn.Linear(2, 2)), L0Linear)


def test_a_useless_input_is_closed_and_a_useful_one_stays():
    torch.manual_seed(0)
    layer = L0Linear(nn.Linear(4, 1), gate="input")
    optimizer = torch.optim.Adam(layer.parameters(), lr=0.05)
    for _ in range(400):
        x = torch.randn(64, 4)
        loss = (layer(x).squeeze(1) - 2 * x[:, 0]).square().mean() + 0.1 * expected_l0(layer)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert (fixed_gates(layer.log_alpha) > 0).tolist() == [True, False, False, False]


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: L0Linear(nn.Linear(2, 2), gate="row"), "gate must be"),
        (lambda: L0Linear(nn.Linear(2, 2), start=1.0), "start must be between 0 and 1; got 1"),
        (lambda: expected_l0(nn.Linear(2, 2)), "model must have gates"),
    ],
)
def test_bad_input_is_refused(call, says):
    with pytest.raises(ValueError, match=says):
        call()
