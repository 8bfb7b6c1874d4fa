"""The one loop: what it changes, and that all else is afterwards what it was."""

import pytest
import torch
from torch import nn

from course_lib.models.llama import Llama
from course_lib.models.pretrained import TINY
from course_lib.models.training import fit, follow_rate, make_optimizers, rate_factor, train


def squares(model, batch):
    return (model(batch) - 1).square().mean()


def batches(count, stop=None):
    for step in range(count):
        if step == stop:
            raise KeyboardInterrupt
        yield torch.ones(4, 2)


def mixed_modes():
    model = nn.Sequential(nn.Linear(2, 3), nn.Dropout(0.0), nn.Linear(3, 1)).train()
    model[1].eval()
    return model


@pytest.mark.parametrize("stop", [None, 3])
def test_modes_and_rates_are_what_they_were_even_after_an_interrupt(stop):
    model = mixed_modes()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    schedules = follow_rate([optimizer], lambda step: 1 - step / 10)
    try:
        train(model, batches(6, stop), squares, [optimizer], schedules)
        assert stop is None
    except KeyboardInterrupt:
        assert stop
    assert optimizer.param_groups[0]["lr"] == 0.5
    assert [module.training for module in model.modules()] == [True, True, False, True]


def test_each_step_has_its_own_rate():
    """With a loss that is linear in the weight, each step's length is the rate."""
    weight = nn.Linear(1, 1, bias=False)
    optimizer = torch.optim.SGD(weight.parameters(), lr=1.0)
    seen = []

    def loss(model, _):
        seen.append(model.weight.item())
        return model.weight.sum()

    rates = [1.0, 0.5, 0.25, 0.0]
    train(weight, range(4), loss, [optimizer], follow_rate([optimizer], lambda k: (rates * 2)[k]))
    steps = torch.tensor([*seen, weight.weight.item()]).diff()
    torch.testing.assert_close(steps, -torch.tensor(rates))


def test_the_loop_is_pytorchs_own():
    """Against a loop written out: the same weights, bit by bit."""
    ours, theirs = mixed_modes(), mixed_modes()
    theirs.load_state_dict(ours.state_dict())
    optimizers = [torch.optim.AdamW(m.parameters(), lr=0.1) for m in (ours, theirs)]
    losses = train(ours, batches(5), squares, optimizers[:1], longest=0.01)
    for batch, loss in zip(batches(5), losses, strict=True):
        value = squares(theirs, batch)
        assert value == loss
        optimizers[1].zero_grad()
        value.backward()
        nn.utils.clip_grad_norm_(theirs.parameters(), 0.01)
        optimizers[1].step()
    assert all(a.equal(b) for a, b in zip(ours.parameters(), theirs.parameters(), strict=True))


def test_no_batches_no_steps():
    model = nn.Linear(2, 1)
    before = model.weight.clone()
    assert len(train(model, [], squares, [torch.optim.SGD(model.parameters())])) == 0
    assert model.weight.equal(before)


def test_fit_goes_down():
    model = nn.Linear(2, 1)
    losses = fit(model, lambda m: squares(m, torch.ones(1, 2)), steps=60)
    assert len(losses) == 60 and losses[-1] < 0.1 * losses[0]


def test_every_parameter_has_exactly_one_optimizer():
    model = Llama(TINY)
    groups = [group for optimizer in make_optimizers(model) for group in optimizer.param_groups]
    owned = [id(parameter) for group in groups for parameter in group["params"]]
    assert sorted(owned) == sorted(id(parameter) for parameter in model.parameters())
    assert rate_factor(500, 1000) == 1


def test_a_frozen_part_of_a_model_in_training_stays_frozen():
    model = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3), nn.Linear(3, 1))
    model[1].eval()
    before = model[1].running_mean.clone()
    train(model, batches(3), squares, [torch.optim.SGD(model.parameters())])
    assert model[1].running_mean.equal(before)
