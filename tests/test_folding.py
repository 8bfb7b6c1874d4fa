import copy
import math

import pytest
import torch

from course_lib.language_models.folding import BEFORE, fold_scale, shared_by_heads
from course_lib.models.llama import Llama, LlamaConfig, initialize
from course_lib.models.llama_config import BlockShape
from course_lib.models.parts import DOWN, OUTPUT, QKV, STAGES
from course_lib.models.pretrained import tiny

CONFIG = LlamaConfig(
    vocabulary=50, width=24, layers=2, heads=6, kv_heads=2, mlp_width=40, context=32
)
TOKENS = torch.randint(50, (2, 20), generator=torch.Generator().manual_seed(0))


def small(**changed) -> Llama:
    torch.manual_seed(0)
    model = Llama(LlamaConfig(**{**vars(CONFIG), **changed})).requires_grad_(False)
    initialize(model)
    for block in model.blocks:
        block.attention_norm.weight.uniform_(0.5, 2)
        block.mlp_norm.weight.uniform_(0.5, 2)
    return model


def some_scale(block, names, dtype=torch.float32) -> torch.Tensor:
    """Between 1/100 and 100."""
    inputs = block.get_submodule(names[0]).in_features
    scale = 10 ** torch.empty(inputs).uniform_(-2, 2, generator=torch.Generator().manual_seed(3))
    return shared_by_heads(scale, block, names, torch.mean).to(dtype)


def folded(model, stages=STAGES):
    model = copy.deepcopy(model)
    for block in model.blocks:
        for names in stages:
            fold_scale(block, names, some_scale(block, names))
    return model


def relative(found, exact) -> float:
    return ((found - exact).abs().max() / exact.abs().max()).item()


@pytest.mark.parametrize("names", STAGES, ids=lambda names: names[0])
@pytest.mark.parametrize("kv_heads", [1, 2, 6])
def test_every_fold_keeps_the_function(names, kv_heads):
    model = small(kv_heads=kv_heads)
    changed = folded(model, [names])
    assert relative(changed(TOKENS), model(TOKENS)) < 1e-5
    for module in (*names, BEFORE[names]):
        weights = [m.blocks[0].get_submodule(module).weight for m in (changed, model)]
        assert not torch.allclose(*weights)


def test_all_folds_together_keep_tinylm():
    model, _ = tiny()
    tokens = torch.randint(2048, (1, 100), generator=torch.Generator().manual_seed(0))
    assert relative(folded(model)(tokens), model(tokens)) < 1e-5


@pytest.mark.parametrize("names", STAGES, ids=lambda names: names[0])
def test_the_layers_are_given_x_over_s(names):
    model = small()
    changed = folded(model, [names])
    seen = {}
    for m in (model, changed):
        layer = m.blocks[0].get_submodule(names[0])
        hook = layer.register_forward_pre_hook(lambda _, x, m=m: seen.update({m: x[0]}))
        m(TOKENS)
        hook.remove()
    scale = some_scale(model.blocks[0], names)
    torch.testing.assert_close(seen[changed] * scale, seen[model], rtol=1e-4, atol=1e-5)


def test_a_model_in_half_precision_stays_what_it_was():
    model = small().half()
    changed = folded(model)
    assert {p.dtype for p in changed.parameters()} == {torch.float16}
    assert relative(changed(TOKENS).float(), small()(TOKENS)) < 0.02


def test_query_heads_with_different_scales_cannot_share_a_value_head():
    block = small().blocks[0]
    before = copy.deepcopy(block.state_dict())
    with pytest.raises(ValueError, match="query heads that share a value head; it differs by up"):
        fold_scale(block, OUTPUT, torch.linspace(1, 2, 24))
    assert all(before[name].equal(weight) for name, weight in block.state_dict().items())
    uneven = Llama(CONFIG.with_shapes([BlockShape((3, 1), 40)])).blocks[0]
    with pytest.raises(ValueError, match="equally many query heads; here they serve 3, 1"):
        fold_scale(uneven, OUTPUT, torch.ones(16))
    every_head_its_own = small(kv_heads=6).blocks[0]
    fold_scale(every_head_its_own, OUTPUT, torch.linspace(1, 2, 24))


def test_pooling_knows_which_heads_share():
    """As attention repeats them: value head 0 feeds query heads 0, 1, 2."""
    values = torch.arange(24.0)
    block = small().blocks[0]
    pooled = shared_by_heads(values, block, OUTPUT, torch.amax).view(6, 4)
    for head in range(6):
        shared = [h for h in range(6) if h // 3 == head // 3]
        assert pooled[head].equal(values.view(6, 4)[shared].amax(0))
    assert shared_by_heads(values, block, QKV, torch.amax) is values


@pytest.mark.parametrize(
    ("scale", "says"),
    [
        (torch.ones(39), r"shape \(40,\); got \(39,\)"),
        (torch.zeros(40), "positive; got 0"),
        (-torch.ones(40), "positive; got -1"),
        (torch.full((40,), math.nan), "scale must be finite"),
        (torch.full((40,), math.inf), "scale must be finite"),
        (torch.full((40,), 1e-45), "scaled, must be finite"),
    ],
)
def test_scales_that_cannot_be_folded_are_refused_and_nothing_is_changed(scale, says):
    block = small().blocks[0]
    before = copy.deepcopy(block.state_dict())
    with pytest.raises(ValueError, match=says):
        fold_scale(block, DOWN, scale)
    assert all(before[name].equal(weight) for name, weight in block.state_dict().items())


def test_unknown_stages_are_refused():
    with pytest.raises(ValueError, match="names must be one of"):
        fold_scale(small().blocks[0], ("mlp.up",), torch.ones(24))
