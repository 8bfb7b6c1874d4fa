import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from on_accelerator import run_on_accelerator

from course_lib.acceleration.cache import (
    PreallocatedCache,
    SlidingCache,
    ThroughCache,
    cache_bytes,
)
from course_lib.acceleration.quantized_cache import QuantizedCache, decode_rows, encode_rows
from course_lib.measure.quality import quality, token_losses
from course_lib.measure.yardstick import held_out_sample, tiny_quality, wikipedia_sample
from course_lib.models.kv_cache import next_place, remember
from course_lib.models.llama import Llama, LlamaConfig
from course_lib.models.llama_config import BlockShape
from course_lib.models.pretrained import TINY
from course_lib.pruning.early_exit import exit_step

SMALL = LlamaConfig(
    vocabulary=50, width=48, layers=2, heads=6, kv_heads=2, mlp_width=40, context=32
)
UNEVEN = replace(SMALL, tied=False).with_shapes([BlockShape((3, 1), 40), BlockShape((2,), 7)])


def small(config: LlamaConfig = SMALL) -> Llama:
    """With weights large enough for every part to matter."""
    torch.manual_seed(0)
    model = Llama(config).eval().requires_grad_(False)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model


def random_tokens(*shape: int) -> torch.Tensor:
    return torch.randint(50, shape, generator=torch.Generator().manual_seed(1))


def in_pieces(model, tokens, cache, sizes) -> torch.Tensor:
    return torch.cat([model(piece, cache) for piece in tokens.split(sizes, dim=1)], dim=1)


# --------------------------------------------------------------------------------- bytes by hand


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"tokens": 0}, 0),
        ({"tokens": 1}, 4 * 2 * 2 * 32 * 2),  # layers, key and value, heads, width, float16
        ({"tokens": 256, "batch": 3, "bits": 32}, 256 * 3 * 512 * 4),
        ({"tokens": 256, "bits": 4, "group": 32}, 256 * (512 // 2 + 512 // 32 * 4)),
        ({"tokens": 256, "bits": 2, "group": 32}, 256 * (512 // 4 + 512 // 32 * 4)),
        ({"tokens": 1, "bits": 3}, 192),
    ],
)
def test_bytes_of_tinylms_cache_counted_by_hand(settings, expected):
    assert cache_bytes(TINY, **settings) == expected


def test_bytes_where_blocks_differ_are_those_of_the_heads_that_are_left():
    assert cache_bytes(UNEVEN, tokens=5, bits=32) == 5 * (2 + 1) * 2 * 8 * 4
    model, cache = small(UNEVEN), small(UNEVEN).empty_cache()
    model(random_tokens(3, 5), cache)
    held = sum(x.nbytes for layer in cache for x in layer.values())
    assert held == cache_bytes(UNEVEN, tokens=5, batch=3, bits=32)


@pytest.mark.parametrize("by_channel", [False, True])
@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_what_a_quantized_cache_holds_is_what_the_formula_says(bits, by_channel):
    model = small()
    cache = [QuantizedCache(bits, 8, 3, keys_by_channel=by_channel) for _ in model.blocks]
    in_pieces(model, random_tokens(2, 30), cache, [13, 1, 16])
    assert {layer.rounded for layer in cache} == {24} and cache[0].place(1) == 30
    held = sum(part.nbytes for layer in cache for part in layer.parts().values())
    rounded = cache_bytes(SMALL, 24, batch=2, bits=bits, group=8)
    assert held == rounded + cache_bytes(SMALL, 6, batch=2, bits=32)


def test_parts_have_names_of_their_own():
    cache = QuantizedCache(2, group=2, residual=0)
    cache.append(torch.randn(1, 1, 3, 2), torch.randn(1, 1, 3, 2))
    assert list(cache.parts()) == [
        "key:floats", "value:floats",
        "0.key:codes", "0.key:scale", "0.key:low", "0.value:codes", "0.value:scale", "0.value:low",
    ]  # fmt: skip


# ------------------------------------------------------------------------------------ the rounding


@given(st.integers(2, 8), st.integers(0, 10**6), st.sampled_from([1e-3, 1.0, 1e3]))
def test_every_number_gets_its_nearest_level(bits, seed, size):
    """Against all 2ⁿ levels, one by one."""
    generator = torch.Generator().manual_seed(seed)
    rows = size * (torch.randn(3, 5, generator=generator) + torch.randn(3, 1, generator=generator))
    parts = encode_rows(rows, bits)
    scale, low = parts["scale"].float()[:, None, None], parts["low"].float()[:, None, None]
    levels = scale * torch.arange(2**bits) + low  # (R, 1, 2ⁿ)
    least = (rows[:, :, None] - levels).abs().amin(dim=2)
    decoded = decode_rows(parts, bits, rows.numel())
    torch.testing.assert_close((rows - decoded).abs(), least, rtol=0, atol=1e-6 * size)
    outside = 2**-11 * (low.abs() + (2**bits - 1) * scale)[:, :, 0]
    outside += 2**bits * 2**-25  # float16 has no finer steps than 2⁻²⁴
    assert ((rows - decoded).abs() <= 1.001 * (scale[:, :, 0] / 2 + outside)).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("rows", [[[0.0, 0.0]], [[5.0]], [[-3.0, -3.0]], [[1e-9, 1e-9]], [[-0.0]]])
def test_rows_that_do_not_spread_come_back(rows, dtype):
    rows = torch.tensor(rows, dtype=dtype)
    decoded = decode_rows(encode_rows(rows, 2), 2, rows.numel())
    torch.testing.assert_close(decoded, rows.float(), rtol=0, atol=2**-25)


def test_a_row_far_from_zero_uses_all_its_codes():
    rows = 100 + torch.tensor([[0.0, 1.0, 2.0, 3.0]])
    assert decode_rows(encode_rows(rows, 2), 2, 4).equal(rows)


@pytest.mark.parametrize(
    ("rows", "bits", "error", "says"),
    [
        (torch.tensor([[1.0, math.nan]]), 4, ValueError, "rows must be finite"),
        (torch.tensor([[1.0, -1e6]]), 4, ValueError, "least number of a row, in float16"),
        (torch.tensor([[0.0, 1e6]]), 2, ValueError, "scale, in float16"),
        (torch.ones(3), 4, ValueError, r"\(R, C\); got \(3,\)"),
        (torch.ones(1, 3).long(), 4, TypeError, "floats"),
        (torch.ones(1, 3), 9, ValueError, "bits must be from 2 to 8"),
    ],
)
def test_rows_that_cannot_be_rounded_are_refused(rows, bits, error, says):
    with pytest.raises(error, match=says):
        encode_rows(rows, bits)


# ------------------------------------------------------------------------------ the quantized cache


def nearest(row: torch.Tensor, bits: int) -> torch.Tensor:
    """One row rounded by a loop; its scale and least number in float16."""
    low = row.min().half().float()
    scale = ((row.max() - low) / (2**bits - 1)).half().float()
    levels = [low + scale * code for code in range(2**bits)]
    return torch.stack([min(levels, key=lambda level: abs(level - x)) for x in row])


@pytest.mark.parametrize("by_channel", [False, True])
def test_keys_are_rounded_along_channels_and_values_along_tokens(by_channel):
    key, value = torch.randn(2, 1, 2, 7, 4)  # key and value: (B, G, S, E)
    cache = QuantizedCache(2, group=4, residual=2, keys_by_channel=by_channel)
    first = cache.append(key, value)
    assert first[0].equal(key) and first[1].equal(value)  # a pass sees its own tokens as they are
    keys, values = cache.append(key[:, :, :1], value[:, :, :1])
    assert keys.shape == values.shape == (1, 2, 8, 4) and cache.rounded == 4
    assert keys[:, :, 4:].equal(torch.cat([key[:, :, 4:], key[:, :, :1]], dim=2))
    for head in range(2):
        for i in range(4):
            place = (0, head, slice(4), i) if by_channel else (0, head, i)
            torch.testing.assert_close(keys[place], nearest(key[place], 2))
            torch.testing.assert_close(values[0, head, i], nearest(value[0, head, i], 2))


def test_one_large_channel_spoils_the_naive_keys_only():
    key = torch.randn(1, 2, 64, 32)
    key[..., 5] *= 50
    errors = []
    for by_channel in (False, True):
        cache = QuantizedCache(4, residual=0, keys_by_channel=by_channel)
        cache.append(key, key)
        rounded, _ = cache.append(key[:, :, :1], key[:, :, :1])
        difference = (rounded[:, :, :64] - key).square()
        errors.append(torch.cat([difference[..., :5], difference[..., 6:]], dim=-1).mean().item())
    assert errors[1] < errors[0] / 20


def test_a_quantized_cache_with_nothing_old_enough_is_the_plain_one():
    model, tokens = small(), random_tokens(2, 20)
    cache = [QuantizedCache(2, group=8, residual=13) for _ in model.blocks]
    ours = in_pieces(model, tokens, cache, [7, 1, 12])
    torch.testing.assert_close(ours, model(tokens), rtol=1e-4, atol=1e-5)
    assert cache[0].rounded == 0


def test_keys_of_tinylm_are_better_rounded_by_channel(tiny):
    """Measured with no residual: 1.173 plain, 1.201 naive, 1.184 by channel."""
    model, tokenizer = tiny
    plain = tiny_quality(model, tokenizer).bits_per_byte

    def cost(bits: int, by_channel: bool) -> float:
        slowly = ThroughCache(model, lambda: QuantizedCache(bits, 32, 0, by_channel))
        return tiny_quality(slowly, tokenizer).bits_per_byte - plain

    naive, by_channel = cost(2, False), cost(2, True)
    assert 0.002 < by_channel < 0.6 * naive and naive < 0.1
    assert abs(cost(8, True)) < 1e-3


@pytest.mark.parametrize(
    "settings",
    [{"bits": 1}, {"bits": 9}, {"bits": 4, "group": 0}, {"bits": 4, "residual": -1}],
)
def test_impossible_quantized_caches_are_refused(settings):
    with pytest.raises(ValueError, match="bits must be from 2 to 8, group"):
        QuantizedCache(**settings)


def test_groups_that_do_not_divide_a_head_are_refused():
    with pytest.raises(ValueError, match="head width 4; got 3"):
        QuantizedCache(4, group=3).append(torch.ones(1, 1, 1, 4), torch.ones(1, 1, 1, 4))


# ------------------------------------------------------------------------------- the sliding cache


@pytest.mark.parametrize("sinks", [0, 4])
@pytest.mark.parametrize("config", [SMALL, UNEVEN])
@pytest.mark.parametrize("sizes", [[20], [7, 1, 12], [1] * 20])
def test_a_sliding_cache_with_room_for_everything_is_the_plain_one(config, sizes, sinks):
    model, tokens = small(config), random_tokens(2, 20)
    cache = [SlidingCache(config, 20, sinks) for _ in model.blocks]
    ours = in_pieces(model, tokens, cache, sizes)
    torch.testing.assert_close(ours, model(tokens), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("sinks", [0, 1, 3])
def test_a_sliding_cache_sees_the_first_tokens_and_the_last_as_if_nothing_were_between(sinks):
    """In a model of one layer a key knows its own token only: so read just the tokens that stay."""
    config = replace(SMALL, layers=1)
    model, tokens, limit = small(config), random_tokens(2, 40), 9
    ours = ThroughCache(model, lambda: SlidingCache(config, limit, sinks))(tokens)
    for t in range(40):
        gone = max(t + 1 - limit, 0)
        stay = torch.cat([tokens[:, :sinks], tokens[:, sinks + gone : t + 1]], dim=1)
        stay = tokens[:, : t + 1] if not gone else stay
        torch.testing.assert_close(ours[:, t], model(stay)[:, -1], rtol=1e-4, atol=1e-4)


def test_tokens_that_come_together_leave_room_for_all():
    model = small(replace(SMALL, layers=1))
    cache = [SlidingCache(model.config, 10, sinks=2)]
    tokens = random_tokens(1, 15)
    in_pieces(model, tokens[:, :13], cache, [9, 4])
    assert cache[0].place(1) == 9 and cache[0].place(8) == 2
    last = model(tokens[:, 13:], cache)[:, -1]  # 0, 1, and 7 … 14
    stay = torch.cat([tokens[:, :2], tokens[:, 7:]], dim=1)
    torch.testing.assert_close(last, model(stay)[:, -1], rtol=1e-4, atol=1e-4)
    with pytest.raises(ValueError, match="room for 8 new tokens at once; got 9"):
        cache[0].place(9)


def test_turning_back_and_forth_does_not_drift():
    """Keys are turned back once, and kept so: after 2,000 tokens the first is as exact as ever."""
    cache, first = SlidingCache(TINY, 8, sinks=1), torch.randn(1, 1, 1, 32)
    keys, _ = cache.append(first, first)
    for _ in range(2000):
        keys, _ = cache.append(torch.ones(1, 1, 1, 32), torch.ones(1, 1, 1, 32))
    assert keys[:, :, :1].equal(first)


def test_tinylm_reads_on_beyond_its_context_with_a_sliding_cache_alone(tiny):
    """Measured over 3,657 tokens: 1.16 bits per byte, 2.45 with places that it was not trained for.

    TinyLM has no sink: without the first tokens it does as well. Models that have one do not.
    """
    model, tokenizer = tiny
    text = held_out_sample()[:3000]
    tokens = torch.tensor([tokenizer.encode(text).ids])
    length = tokens.shape[1] - 1
    assert length > 3 * model.config.context
    with pytest.raises(ValueError, match="256 tokens; got 257"):
        ThroughCache(model, lambda: PreallocatedCache(length))(tokens[:, :300])

    def streamed(sinks: int) -> float:
        slowly = ThroughCache(model, lambda: SlidingCache(TINY, 256, sinks))
        return quality(slowly, tokenizer, text, length).bits_per_byte

    without, with_sinks = streamed(0), streamed(4)
    assert abs(without - with_sinks) < 0.02
    longer = Llama(replace(model.config, context=length))
    longer.load_state_dict(model.state_dict())
    beyond = quality(longer, tokenizer, text, length).bits_per_byte
    assert beyond > with_sinks + 0.3


@pytest.mark.slow
def test_smollm2_loses_its_way_once_the_first_tokens_are_gone(smollm2):
    """Measured over 512 tokens, 128 kept: 0.99 bits per byte with 4 sinks, 1.35 without."""
    model, tokenizer = smollm2
    tokens = torch.tensor(tokenizer.encode(wikipedia_sample()).ids[:129])

    def lost(sinks: int) -> float:
        slowly = ThroughCache(model, lambda: SlidingCache(model.config, 32, sinks))
        return token_losses(slowly, tokens, 128)[32:].mean().item()

    assert lost(0) > lost(4) + 0.4


@pytest.mark.parametrize(("limit", "sinks"), [(4, 4), (4, -1), (0, 0)])
def test_impossible_windows_are_refused(limit, sinks):
    with pytest.raises(ValueError, match="sinks must be from 0 to limit − 1"):
        SlidingCache(SMALL, limit, sinks)


# --------------------------------------------------------------------------- the preallocated cache


@pytest.mark.parametrize("sizes", [[20], [7, 1, 12], [1] * 20])
@pytest.mark.parametrize("config", [SMALL, UNEVEN])
def test_a_preallocated_cache_is_the_plain_one(config, sizes):
    model, tokens = small(config), random_tokens(2, 20)
    cache = [PreallocatedCache(20) for _ in model.blocks]
    plain = in_pieces(model, tokens, model.empty_cache(), sizes)
    torch.testing.assert_close(in_pieces(model, tokens, cache, sizes), plain, rtol=1e-5, atol=1e-5)
    assert cache[0].place(0) == 20
    with pytest.raises(ValueError, match="room for 20 tokens; got 21"):
        model(tokens[:, :1], cache)


def test_a_trimmed_cache_forgets():
    model, tokens = small(), random_tokens(1, 20)
    cache = [PreallocatedCache(20) for _ in model.blocks]
    model(tokens.flip(1), cache)
    for layer in cache:
        layer.trim(0)
    model(tokens[:, :9], cache)
    for layer in cache:
        layer.trim(5)
    ours = model(tokens[:, 5:], cache)
    torch.testing.assert_close(ours, model(tokens)[:, 5:], rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match="length must be from 0 to 20; got 21"):
        cache[0].trim(21)


def test_nothing_is_copied_when_a_token_comes():
    cache = PreallocatedCache(5)
    keys, _ = cache.append(torch.ones(1, 2, 1, 4), torch.ones(1, 2, 1, 4))
    more, _ = cache.append(torch.ones(1, 2, 1, 4), torch.ones(1, 2, 1, 4))
    assert keys.data_ptr() == more.data_ptr() and more.shape == (1, 2, 2, 4)


# ------------------------------------------------------------------------------------ all of them

KINDS = {
    "dictionary": dict,
    "quantized": lambda: QuantizedCache(8, group=8, residual=30),
    "sliding": lambda: SlidingCache(SMALL, 30),
    "preallocated": lambda: PreallocatedCache(30),
}


@pytest.mark.parametrize("kind", KINDS)
def test_early_exit_takes_every_cache(kind):
    model, tokens = small(), random_tokens(1, 6)
    ours, plain = [KINDS[kind]() for _ in model.blocks], model.empty_cache()
    for token in tokens.split(1, dim=1):
        logits, layers = exit_step(model, token, ours, threshold=0.2)
        expected, used = exit_step(model, token, plain, threshold=0.2)
        assert layers == used
        torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-4)
    assert {next_place(layer, 1) for layer in ours} == {6}


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("kind", KINDS)
def test_a_cache_keeps_the_dtype_and_about_the_numbers(kind, dtype):
    x = torch.randn(1, 2, 12, 8).to(dtype)
    cache, first = KINDS[kind](), x[:, :, :11]
    remember(cache, first, first)
    keys, values = remember(cache, x[:, :, 11:], x[:, :, 11:])
    assert keys.dtype == values.dtype == dtype and values.equal(x)
    torch.testing.assert_close(keys, x, rtol=0, atol=0.05)


def test_a_quantized_cache_gives_back_the_dtype_that_it_took():
    x = torch.randn(1, 2, 12, 8).to(torch.bfloat16)
    cache = QuantizedCache(4, group=4, residual=0)
    cache.append(x, x)
    assert [y.dtype for y in cache.append(x, x)] == [torch.bfloat16] * 2


ON_AN_ACCELERATOR = """
import torch
from fake_accelerator import accelerator
from course_lib.acceleration.cache import PreallocatedCache, SlidingCache
from course_lib.acceleration.fusion import fuse_model
from course_lib.acceleration.quantized_cache import QuantizedCache
from course_lib.models.llama import Llama, LlamaConfig

config = LlamaConfig(20, 16, 2, 4, 2, 24, 32)
with accelerator() as put, torch.no_grad():
    model = fuse_model(put(Llama(config)))
    kinds = (lambda: QuantizedCache(4, 4, 0), lambda: SlidingCache(config, 6),
             lambda: PreallocatedCache(9))
    for make in kinds:
        cache = [make() for _ in model.blocks]
        for size in (5, 1, 1):
            logits = model(put(torch.zeros(2, size).long()), cache)
        assert logits.device.type == "toygpu"
"""


@pytest.mark.slow
def test_caches_live_on_their_models_device():
    run_on_accelerator(ON_AN_ACCELERATOR)
