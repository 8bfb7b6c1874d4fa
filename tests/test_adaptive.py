"""Widths by layer: each measurement beside a removal, the split beside every choice, TinyLM."""

from itertools import product

import pytest
import torch

from course_lib.data.text import bible_chapters, split
from course_lib.measure.yardstick import spread_windows, tiny_quality
from course_lib.models.llama import Llama, LlamaConfig
from course_lib.models.training import next_token_loss
from course_lib.pruning.adaptive import adaptive_units, highest_units, width_sensitivity
from course_lib.pruning.decoder import shrink_mlps
from course_lib.pruning.group_scores import mlp_scores

CONFIG = LlamaConfig(
    vocabulary=17, width=16, layers=3, heads=4, kv_heads=2, mlp_width=12, context=12
)
TOKENS = torch.randint(17, (9, 12), generator=torch.Generator().manual_seed(1))
DENSITIES = [0.25, 0.5, 1.0]


@pytest.fixture
def model():
    return Llama(CONFIG).double().requires_grad_(False)


def loss_like(model):
    target = model(TOKENS)
    return lambda other: (other(TOKENS) - target).square().mean().item()


@pytest.mark.parametrize("mended", [False, True])
def test_a_measurement_is_that_of_the_one_layer_cut_for_real(model, mended):
    scores, loss = [torch.rand(12) for _ in range(3)], loss_like(model)
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    tokens = TOKENS if mended else None
    found = width_sensitivity(model, scores, DENSITIES, loss, tokens)
    assert found.dense == 0 and found.sizes == (12,) * 3 and found.losses.shape == (3, 3)
    for layer, (s, density) in product(range(3), enumerate(DENSITIES)):
        densities = [density if n == layer else 1.0 for n in range(3)]
        small = shrink_mlps(model, highest_units(scores, densities), tokens)
        assert loss(small) == pytest.approx(found.losses[layer, s].item(), rel=1e-6, abs=1e-9)
    assert found.losses[:, 2].max() < 1e-9
    assert all(torch.equal(before[name], weight) for name, weight in model.state_dict().items())


@pytest.mark.parametrize("density", [0.25, 0.4, 0.7, 1.0])
def test_the_split_is_the_best_of_all(model, density):
    scores = [torch.rand(12) for _ in range(3)]
    found = width_sensitivity(model, scores, DENSITIES, loss_like(model))
    keep = adaptive_units(scores, found, density)
    fits = {
        choice: sum(found.losses[n, DENSITIES.index(d)].item() for n, d in enumerate(choice))
        for choice in product(DENSITIES, repeat=3)
        if sum(round(12 * d) for d in choice) <= round(density * 36)
    }
    chosen = tuple(int(mask.sum()) / 12 for mask in keep)
    assert fits[chosen] == pytest.approx(min(fits.values()))
    for mask, score in zip(keep, scores, strict=True):
        assert mask.all() or score[mask].min() >= score[~mask].max()


def test_a_layer_that_matters_keeps_its_width(model):
    for number in (0, 2):
        torch.nn.init.zeros_(model.blocks[number].mlp.down.weight)
    scores = [torch.rand(12) for _ in range(3)]
    found = width_sensitivity(model, scores, DENSITIES, loss_like(model))
    keep = adaptive_units(scores, found, 0.5)
    assert [int(mask.sum()) for mask in keep] == [3, 12, 3]
    small = shrink_mlps(model, keep)
    torch.testing.assert_close(small(TOKENS), model(TOKENS), rtol=0, atol=1e-12)
    assert [shape.mlp_width for shape in small.config.shapes] == [3, 12, 3]


def test_bad_input_is_refused(model):
    scores, loss = [torch.rand(12) for _ in range(3)], loss_like(model)
    with pytest.raises(ValueError, match="scores must be 3, one a layer; got 2"):
        width_sensitivity(model, scores[:2], DENSITIES, loss)
    for density in (-0.1, 0.01, 1.5):
        with pytest.raises(ValueError, match=f"keep one of 12 units; got {density}"):
            width_sensitivity(model, scores, [density], loss)
    with pytest.raises(ValueError, match="densities must be 3, one a layer; got 1"):
        highest_units(scores, [1.0])
    with pytest.raises(ValueError, match="the losses that measure gives must be finite"):
        width_sensitivity(model, scores, [1.0], lambda _: float("nan"))
    found = width_sensitivity(model, scores, DENSITIES, loss)
    with pytest.raises(ValueError, match="density must let 9 weights stay"):
        adaptive_units(scores, found, 0.1)


def test_tinylm_wants_its_last_and_first_layers_wide(tiny):
    """5/8 of the units: the same share of each layer loses more than shares that were measured."""
    model, tokenizer = tiny
    windows = spread_windows(tokenizer, split(bible_chapters("kjv"))[0], 4, 257)
    text = windows[:, :-1], windows[:, 1:]
    scores = mlp_scores(model, *text)["contribution"]
    found = width_sensitivity(
        model, scores, [0.3125, 0.625, 0.9375], lambda small: next_token_loss(small, text).item()
    )
    keep = adaptive_units(scores, found, 0.625)
    even = highest_units(scores, [0.625] * 4)
    assert sum(int(mask.sum()) for mask in keep) <= sum(int(mask.sum()) for mask in even)
    measured, alike = (
        tiny_quality(shrink_mlps(model, masks), tokenizer).bits_per_byte for masks in (keep, even)
    )
    assert measured < alike - 0.02
