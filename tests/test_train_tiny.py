import pytest
import torch

from course_lib.models import train_tiny
from course_lib.models.llama import Llama, LlamaConfig, initialize
from course_lib.models.muon import Muon, orthogonalize

SMALL = LlamaConfig(vocabulary=30, width=8, layers=1, heads=2, kv_heads=1, mlp_width=8, context=8)
TOKENS = torch.arange(600) % 30


def quietly(steps, **_):
    return steps


def trained(state_file, monkeypatch, stop_after=None, steps=9) -> Llama:
    """A model after training, possibly killed on the way and started again."""
    monkeypatch.setattr(train_tiny, "SAVE_EVERY", 3)
    for kill in (stop_after, None) if stop_after else (None,):
        torch.manual_seed(1)
        model = Llama(SMALL)
        initialize(model)

        def track(planned, kill=kill, **_):
            for step in planned:
                if step == kill:
                    raise KeyboardInterrupt
                yield step

        try:
            train_tiny.train(model, TOKENS, steps, state_file, track=track)
        except KeyboardInterrupt:
            continue
    return model


def test_a_killed_training_goes_on_and_ends_with_the_same_weights(tmp_path, monkeypatch):
    straight = trained(tmp_path / "one.pt", monkeypatch)
    killed = trained(tmp_path / "two.pt", monkeypatch, stop_after=5)
    for one, other in zip(straight.parameters(), killed.parameters(), strict=True):
        assert torch.equal(one, other)


def test_training_lowers_the_loss(tmp_path):
    model = Llama(SMALL)
    initialize(model)
    before = train_tiny.held_out_loss(model, TOKENS)
    train_tiny.train(model, TOKENS, 60, tmp_path / "state.pt", track=quietly)
    assert train_tiny.held_out_loss(model, TOKENS) < before - 0.3


@pytest.mark.parametrize("shape", [(8, 8), (5, 20), (20, 5)])
def test_orthogonalize_brings_singular_values_near_one(shape):
    values = torch.linalg.svdvals(orthogonalize(torch.randn(shape)))
    assert values.min() > 0.6 and values.max() < 1.25


def test_muon_agrees_with_pytorchs():
    """PyTorch's computes in bfloat16, so steps of 0.02 agree to a few thousandths of it."""
    ours = torch.nn.Parameter(torch.randn(12, 20))
    theirs = torch.nn.Parameter(ours.detach().clone())
    optimizers = Muon([ours], lr=0.02), torch.optim.Muon([theirs], lr=0.02, weight_decay=0.01)
    for _ in range(4):
        ours.grad = torch.randn(12, 20)
        theirs.grad = ours.grad.clone()
        for optimizer in optimizers:
            optimizer.step()
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-3)
