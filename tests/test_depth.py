"""Which layers go: every choice tried where there are few, layers that do nothing, twins."""

from itertools import combinations

import pytest
import torch

from course_lib.models.layers import layer_influence, view_without_layers, without_layers
from course_lib.models.llama import Llama
from course_lib.models.llama_config import BlockShape, LlamaConfig
from course_lib.pruning.depth import greedy_order, influence_order, layers_off, run_losses

CONFIG = LlamaConfig(
    vocabulary=17, width=16, layers=5, heads=4, kv_heads=2, mlp_width=24, context=8
)
TOKENS = torch.randint(17, (3, 8), generator=torch.Generator().manual_seed(1))


@pytest.fixture
def model():
    torch.manual_seed(0)
    return Llama(CONFIG).requires_grad_(False)


def loss_like(model):
    """How far a model's answers are from those of `model`."""
    target = model(TOKENS)
    return lambda other: (other(TOKENS) - target).square().mean().item()


def silence(block):
    torch.nn.init.zeros_(block.attention.output.weight)
    torch.nn.init.zeros_(block.mlp.down.weight)


def test_layers_that_do_nothing_go_first(model):
    silence(model.blocks[1])
    silence(model.blocks[3])
    loss = loss_like(model)
    assert set(influence_order(model, TOKENS)[:2]) == {1, 3}
    order, losses = greedy_order(model, 2, loss)
    assert order == [1, 3] and losses.tolist() == [0, 0]
    assert run_losses(model, 1, loss).argmin() == 1


def test_influence_order_is_that_of_the_influences(model):
    influence = layer_influence(model, TOKENS)
    assert influence[influence_order(model, TOKENS)].diff().min() >= 0


def test_greedy_is_the_best_first_step_and_then_the_best_second(model):
    loss, off = loss_like(model), layers_off
    order, losses = greedy_order(model, 2, loss)
    ones = {n: loss(without_layers(model, off([n], 5))) for n in range(5)}
    assert order[0] == min(ones, key=ones.get) and losses[0] == pytest.approx(min(ones.values()))
    twos = {
        n: loss(without_layers(model, off([order[0], n], 5))) for n in range(5) if n != order[0]
    }
    assert order[1] == min(twos, key=twos.get) and losses[1] == pytest.approx(min(twos.values()))
    every = [loss(without_layers(model, off(pair, 5))) for pair in combinations(range(5), 2)]
    assert losses[1] >= min(every) - 1e-9
    runs = [loss(without_layers(model, off([s, s + 1], 5))) for s in range(4)]
    torch.testing.assert_close(run_losses(model, 2, loss), torch.tensor(runs, dtype=torch.float64))


def test_a_view_shares_its_weights_and_leaves_the_model_alone(model):
    off = torch.tensor([False, True, False, False, True])
    view, copied = view_without_layers(model, off), without_layers(model, off)
    assert torch.equal(view(TOKENS), copied(TOKENS))
    assert view.blocks[1].mlp.up.weight is model.blocks[2].mlp.up.weight
    assert copied.blocks[1].mlp.up.weight is not model.blocks[2].mlp.up.weight
    assert len(model.blocks) == model.config.layers == 5 and view.config.layers == 3


def test_the_shapes_of_those_that_stay_stay():
    shapes = [BlockShape((2, 2), 6), BlockShape((1, 2), 9), BlockShape((2, 2), 6)]
    model = Llama(CONFIG.with_shapes(shapes))
    small = without_layers(model, torch.tensor([False, True, False]))
    assert small.config.shapes == (shapes[0], shapes[2]) and small.config.blocks == ()
    small = without_layers(model, torch.tensor([True, False, False]))
    assert small.config.shapes == (shapes[1], shapes[2])
    assert Llama(small.config).state_dict().keys() == small.state_dict().keys()


def test_bad_input_is_refused(model):
    loss = loss_like(model)
    assert greedy_order(model, 0, loss)[0] == []
    for call in (greedy_order, run_losses):
        with pytest.raises(ValueError, match="to 4, so that a layer stays; got 5"):
            call(model, 5, loss)
        with pytest.raises(ValueError, match="the losses must be finite"):
            call(model, 1, lambda _: float("nan"))
    with pytest.raises(ValueError, match="count must be from 1"):
        run_losses(model, 0, loss)
    model.blocks[0].mlp.up.weight[0, 0] = torch.nan
    with pytest.raises(ValueError, match="the influence of the layers must be finite"):
        influence_order(model, TOKENS)
