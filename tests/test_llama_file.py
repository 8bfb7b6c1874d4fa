"""A decoder that says its own shape: written, read back, and refused where it does not fit."""

import pytest
import torch
from safetensors.torch import save_file

from course_lib.models.llama import Llama
from course_lib.models.llama_config import BlockShape, LlamaConfig
from course_lib.models.llama_file import config_from_json, load_llama, save_llama

CONFIG = LlamaConfig(
    vocabulary=17, width=12, layers=3, heads=6, kv_heads=2, mlp_width=24, context=8
)
SHAPES = [BlockShape((3, 1), 5), BlockShape((2,), 7), BlockShape((3, 3), 24)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("config", [CONFIG, CONFIG.with_shapes(SHAPES)])
def test_what_is_saved_comes_back(tmp_path, config, dtype):
    model, tokens = Llama(config).to(dtype), torch.randint(17, (2, 8))
    save_llama(model, tmp_path / "model.safetensors")
    back = load_llama(tmp_path / "model.safetensors")
    assert back.config == config
    assert not any(p.requires_grad or p.dtype != dtype for p in back.parameters())
    assert torch.equal(back(tokens), model(tokens))


def test_a_config_is_plain_again_where_its_blocks_are_alike():
    shapes = [BlockShape((2, 2), 9)] * 2
    smaller = CONFIG.with_shapes(SHAPES).with_shapes(shapes)
    assert (smaller.layers, smaller.heads, smaller.kv_heads, smaller.mlp_width) == (2, 4, 2, 9)
    assert smaller.head_width == 2 and smaller.blocks == () and list(smaller.shapes) == shapes
    assert CONFIG.with_shapes(SHAPES).with_shapes(CONFIG.shapes) == CONFIG


def test_uneven_groups_are_those_of_an_even_model_with_heads_that_share():
    """Three query heads of one key-value head and one of another: as if each had its own."""
    uneven = Llama(CONFIG.with_shapes([BlockShape((3, 1), 5)]))
    own = Llama(CONFIG.with_shapes([BlockShape((1, 1, 1, 1), 5)]))
    weights = uneven.state_dict()
    for name in ("key", "value"):
        first, second = weights[f"blocks.0.attention.{name}.weight"].split(2)
        weights[f"blocks.0.attention.{name}.weight"] = torch.cat([first, first, first, second])
    own.load_state_dict(weights)
    tokens = torch.randint(17, (2, 8))
    torch.testing.assert_close(uneven(tokens), own(tokens))
    cache = uneven.empty_cache()
    steps = torch.cat([uneven(tokens[:, t : t + 1], cache) for t in range(8)], dim=1)
    torch.testing.assert_close(steps, uneven(tokens))


def test_what_is_no_model_is_refused(tmp_path):
    save_file(Llama(CONFIG).state_dict(), tmp_path / "bare")
    with pytest.raises(ValueError, match="must hold a config, as save_llama writes it"):
        load_llama(tmp_path / "bare")
    for text in ("[]", '{"width": 3}', "no JSON", '{"width": 3, "blocks": []}'):
        with pytest.raises(ValueError):
            config_from_json(text)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: BlockShape((), 4), "a head and a hidden unit at least"),
        (lambda: BlockShape((2, 0), 4), "a head and a hidden unit at least"),
        (lambda: LlamaConfig(9, 8, 2, 2, 1, 4, 4, blocks=(BlockShape((1,), 4),)), "got 1"),
        (lambda: LlamaConfig(9, 8, 2, 2, 1, 4, 4, each_head=3), "each_head must be even"),
    ],
)
def test_impossible_shapes_are_refused(make, says):
    with pytest.raises(ValueError, match=says):
        make()
