"""A decoder's parts removed for real: beside zeros in their places, dead parts, plain modules."""

import copy
from dataclasses import replace

import pytest
import torch

from course_lib.data.text import bible_chapters, split
from course_lib.measure.quality import quality
from course_lib.measure.size import count_parameters
from course_lib.models.llama import Llama, LlamaConfig, generate
from course_lib.models.llama_file import load_llama, save_llama
from course_lib.models.selection import highest_masks
from course_lib.pruning.decoder import shrink_heads, shrink_mlps, shrink_width, whole_groups
from course_lib.pruning.group_scores import mlp_scores
from course_lib.redundancy.removal import without_heads, without_units

CONFIG = LlamaConfig(
    vocabulary=17, width=24, layers=3, heads=6, kv_heads=2, mlp_width=10, context=16
)
TOKENS = torch.randint(17, (5, 12), generator=torch.Generator().manual_seed(1))
EXACT = {"rtol": 0, "atol": 1e-13}


@pytest.fixture
def model():
    torch.manual_seed(0)
    return Llama(CONFIG).double().requires_grad_(False)


def masks(count, seed=0):
    """Another number in each layer, in the last one alone."""
    draw = torch.Generator().manual_seed(seed)
    some = [torch.rand(count, generator=draw) < 0.5 for _ in range(2)]
    for mask in some:
        mask[seed % count] = True
    return [*some, torch.arange(count) == count - 1]


SHRINK = {"mlps": (shrink_mlps, without_units, 10), "heads": (shrink_heads, without_heads, 6)}


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("part", SHRINK)
def test_what_is_removed_gives_what_zeros_give(model, part, seed):
    shrink, zero, count = SHRINK[part]
    before, keep = copy.deepcopy(model.state_dict()), masks(count, seed)
    small, zeroed = shrink(model, keep), zero(model, ~torch.stack(keep))
    torch.testing.assert_close(small(TOKENS), zeroed(TOKENS), **EXACT)
    assert count_parameters(small) < count_parameters(model) == count_parameters(zeroed)
    assert all(torch.equal(before[name], weight) for name, weight in model.state_dict().items())
    assert torch.equal(generate(small, TOKENS[:, :4], 5), generate(small, TOKENS[:, :4], 5, False))


@pytest.mark.parametrize("part", SHRINK)
def test_where_nothing_goes_nothing_changes(model, part):
    shrink, _, count = SHRINK[part]
    everything = [torch.ones(count, dtype=torch.bool)] * 3
    for tokens in (None, TOKENS):
        same = shrink(model, everything, tokens)
        assert same.config == CONFIG
        torch.testing.assert_close(same(TOKENS), model(TOKENS), **EXACT)
    assert shrink_width(model, torch.ones(24).bool()).config == CONFIG


@pytest.mark.parametrize("tokens", [None, TOKENS])
def test_dead_parts_go_without_a_trace(model, tokens):
    units, heads = masks(10), masks(6)
    for block, unit, head in zip(model.blocks, units, heads, strict=True):
        block.mlp.up.weight[~unit] = 0
        rows = head.repeat_interleave(4)
        block.attention.output.weight[:, ~rows] = 0
    for small in (shrink_mlps(model, units, tokens), shrink_heads(model, heads)):
        torch.testing.assert_close(small(TOKENS), model(TOKENS), **EXACT)
    small = shrink_heads(model, heads, tokens)
    torch.testing.assert_close(small(TOKENS), model(TOKENS), rtol=0, atol=1e-12)


@pytest.mark.parametrize("tied", [True, False])
def test_residual_width_that_is_dead_goes_without_a_trace(tied):
    torch.manual_seed(0)
    config = replace(CONFIG, tied=tied, norm_epsilon=0.1)  # so that a wrong ε would be seen
    model, keep = Llama(config).double().requires_grad_(False), torch.rand(24) < 0.6
    model.embedding.weight[:, ~keep] = 0
    for block in model.blocks:
        block.attention.output.weight[~keep] = 0
        block.mlp.down.weight[~keep] = 0
    small = shrink_width(model, keep)
    torch.testing.assert_close(small(TOKENS), model(TOKENS), rtol=0, atol=1e-5)  # norms: float32
    K, V = int(keep.sum()), 17
    each = K * (24 + 8 + 8 + 24 + 3 * 10) + 2 * K
    assert count_parameters(small) == (2 - tied) * V * K + 3 * each + K
    again = shrink_heads(shrink_mlps(small, masks(10)), masks(6))
    assert again.config.head_width == 4 and again(TOKENS).isfinite().all()


def test_parameters_counted_by_hand(model):
    units, heads = masks(10), masks(6)
    small = shrink_heads(shrink_mlps(model, units), heads)
    count = 17 * 24 + 24
    for block, unit, head in zip(small.blocks, units, heads, strict=True):
        F, H, G = int(unit.sum()), int(head.sum()), int(head.view(2, 3).any(dim=1).sum())
        count += 3 * 24 * F + 2 * 4 * H * 24 + 2 * 4 * G * 24 + 2 * 24
        assert (block.attention.heads, block.attention.kv_heads) == (H, G)
    assert count_parameters(small) == count


def test_a_plain_model_loads_what_was_saved(model, tmp_path):
    small = shrink_heads(
        shrink_mlps(shrink_width(model, torch.arange(24) < 20), masks(10)), masks(6)
    )
    save_llama(small, tmp_path / "small.safetensors")
    loaded = load_llama(tmp_path / "small.safetensors")
    assert loaded.config == small.config and len(set(loaded.config.blocks)) == 3
    assert torch.equal(loaded(TOKENS), small(TOKENS))
    assert str(loaded) == str(small)


def test_a_key_value_head_goes_with_the_heads_that_it_serves(model):
    keep = [whole_groups(torch.tensor([False, True]), CONFIG.shapes[0].groups)] * 3
    assert keep[0].tolist() == [False] * 3 + [True] * 3
    small = shrink_heads(model, keep)
    assert (small.config.heads, small.config.kv_heads, small.config.blocks) == (3, 1, ())
    assert small.blocks[0].attention.key.weight.shape == (4, 24)
    assert torch.equal(
        small.blocks[0].attention.key.weight, model.blocks[0].attention.key.weight[4:]
    )


def test_the_order_of_units_is_nothing(model):
    order, keep = torch.randperm(10), masks(10)
    turned = copy.deepcopy(model)
    for block in turned.blocks:
        block.mlp.gate.weight.copy_(block.mlp.gate.weight[order])
        block.mlp.up.weight.copy_(block.mlp.up.weight[order])
        block.mlp.down.weight.copy_(block.mlp.down.weight[:, order])
    for tokens in (None, TOKENS):
        one = shrink_mlps(model, keep, tokens)
        two = shrink_mlps(turned, [mask[order] for mask in keep], tokens)
        torch.testing.assert_close(one(TOKENS), two(TOKENS), rtol=0, atol=1e-9)


@pytest.mark.parametrize("part", SHRINK)
def test_repair_brings_the_output_nearer(model, part):
    shrink, _, count = SHRINK[part]
    keep = masks(count)
    wrong = [
        (shrink(model, keep, t)(TOKENS) - model(TOKENS)).square().mean() for t in (None, TOKENS)
    ]
    assert wrong[1] < 0.95 * wrong[0]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision(model, dtype):
    wide = shrink_mlps(model, masks(10), TOKENS)
    half = shrink_mlps(copy.deepcopy(model).to(dtype), masks(10), TOKENS)
    assert all(weight.dtype == dtype for weight in half.parameters())
    torch.testing.assert_close(half(TOKENS).double(), wide(TOKENS), rtol=0.1, atol=0.2)
    narrow = shrink_width(copy.deepcopy(model).to(dtype), torch.arange(24) < 20)
    assert narrow(TOKENS).dtype == dtype and narrow(TOKENS).isfinite().all()


NONE, ALL = torch.zeros(10).bool(), torch.ones(10).bool()
BAD = [
    (lambda m: shrink_mlps(m, [ALL, NONE, ALL]), "keep must keep at least 1 of 10; it keeps none"),
    (lambda m: shrink_mlps(m, [ALL, ALL]), "keep must hold 3 masks, one a layer; got 2"),
    (lambda m: shrink_mlps(m, [ALL[:9]] * 3), r"keep must be bool of shape \(10,\)"),
    (lambda m: shrink_heads(m, [NONE[:6]] * 3), "keep must keep at least 1 of 6"),
    (lambda m: shrink_width(m, torch.zeros(24).bool()), "keep must keep at least 1 of 24"),
    (lambda m: whole_groups(NONE[:2], (3, 3)), "keep must keep at least 1 of 2"),
]


@pytest.mark.parametrize(("call", "says"), BAD)
def test_bad_input_is_refused(model, call, says):
    with pytest.raises(ValueError, match=says):
        call(model)


def test_a_model_that_is_broken_is_refused(model):
    model.blocks[1].mlp.up.weight[3, 3] = torch.nan
    with pytest.raises(ValueError, match="must be finite"):
        shrink_mlps(model, [torch.arange(10) != 3] * 3, TOKENS)


@pytest.mark.slow
def test_tiny_lm_without_two_fifths_of_its_units(tiny):
    """What the chapter counts on: half of the loss comes back, and the better score does better."""
    model, tokenizer = tiny
    train, held_out = split(bible_chapters("kjv"))
    tokens = torch.tensor(tokenizer.encode(train[:300_000]).ids)
    windows = tokens[: 32 * 257].view(32, 257)
    scores = mlp_scores(model, windows[:, :-1], windows[:, 1:])

    def bits(network):
        return quality(network, tokenizer, held_out[:20_000]).bits_per_byte

    dense, found = bits(model), {}
    for name in ("norm", "repair error"):
        keep = [highest_masks({"units": score}, 307)["units"] for score in scores[name]]
        for how, given in (("bare", None), ("repaired", windows[:, :-1])):
            found[name, how] = bits(shrink_mlps(model, keep, given)) - dense
    assert found["norm", "repaired"] < 0.5 * found["norm", "bare"]
    assert found["repair error", "repaired"] < 0.6 * found["repair error", "bare"]
    assert found["repair error", "repaired"] < 0.9 * found["norm", "repaired"]
