"""Bytes and operations, counted beside PyTorch's own counter and beside a model's own tensors."""

from dataclasses import replace

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from course_lib.acceleration.work import Work, attention_work, decoder_work, linear_work
from course_lib.models.llama import Llama, LlamaConfig
from course_lib.models.llama_config import BlockShape

SMALL = LlamaConfig(
    vocabulary=40, width=24, layers=2, heads=6, kv_heads=2, mlp_width=20, context=64
)


def total(parts: dict[str, Work]) -> Work:
    return sum(parts.values(), Work(0, 0))


def test_a_linear_layer_moves_its_tensors_and_does_what_pytorch_counts():
    x, weight = torch.ones(3, 40), torch.ones(10, 40)
    with FlopCounterMode(display=False) as counter:
        y = x @ weight.T
    work = linear_work(3, 40, 10)
    assert work.operations == counter.get_total_flops()
    assert work.bytes == x.nbytes + weight.nbytes + y.nbytes


def test_bits_and_density_scale_the_weights_alone():
    dense, half = linear_work(2, 64, 32), linear_work(2, 64, 32, weight_bits=64, density=0.25)
    activations = 2 * (64 + 32) * 4
    assert half.bytes - activations == (dense.bytes - activations) / 2
    assert half.operations == dense.operations / 4
    assert linear_work(1, 64, 32, 4.5, 16).bytes == 64 * 32 * 4.5 / 8 + (64 + 32) * 2


@pytest.mark.parametrize("tokens, cached", [(1, 0), (1, 7), (5, 0), (4, 9)])
def test_attention_counts_the_pairs_that_a_causal_mask_leaves(tokens, cached):
    work = attention_work(2, tokens, cached, heads=6, kv_heads=2, head_width=4)
    seen = torch.ones(tokens, cached + tokens).tril(diagonal=cached)
    assert work.operations == 2 * 6 * seen.sum().item() * (2 * 4 + 2 * 4)
    keys = torch.ones(2, 2, cached + tokens, 4)
    queries = torch.ones(2, 6, tokens, 4)
    assert work.bytes == 2 * keys.nbytes + 2 * queries.nbytes


def test_the_cache_may_have_bits_of_its_own():
    wide, narrow = (attention_work(1, 1, 99, 6, 2, 4, cache_bits=bits) for bits in (32, 4))
    assert wide.bytes - narrow.bytes == 2 * 2 * 4 * 100 * 28 / 8
    assert wide.operations == narrow.operations


@pytest.mark.parametrize("batch, tokens", [(1, 1), (3, 1), (2, 5)])
def test_a_decoders_linear_layers_do_what_pytorch_counts(batch, tokens):
    model = Llama(SMALL)
    with FlopCounterMode(display=False) as counter:
        model(torch.zeros(batch, tokens, dtype=torch.long))
    counts = counter.get_flop_counts()["Global"]
    products = sum(n for op, n in counts.items() if op in (torch.ops.aten.mm, torch.ops.aten.addmm))
    work = decoder_work(SMALL, batch, tokens, 0)
    assert work["linear"].operations + work["head"].operations == products


def test_a_decoders_weights_are_read_once_at_any_batch():
    one, many = (total(decoder_work(SMALL, batch, 1, 0)).bytes for batch in (1, 101))
    each = (many - one) / 100  # of one more row
    weights = sum(p.nbytes for p in Llama(SMALL).parameters() if p.dim() == 2)
    assert one - each == weights


def test_blocks_that_differ_are_counted_one_by_one():
    shapes = (BlockShape((3, 1), 8), BlockShape((2,), 20))
    cut = replace(SMALL, each_head=4, blocks=shapes)
    model, work = Llama(cut), decoder_work(cut, 1, 1, 0)
    assert work["linear"].operations == 2 * sum(
        p.numel() for p in model.blocks.parameters() if p.dim() == 2
    )
    assert work["head"] == linear_work(1, 24, 40)
    assert decoder_work(cut, 1, 1, 0, 4, head_bits=8)["head"] == linear_work(1, 24, 40, 8)


@pytest.mark.parametrize(
    "wrong, message",
    [
        (lambda: linear_work(0, 1, 1), "batch must be above 0; got 0"),
        (lambda: linear_work(1, 1, 1, weight_bits=float("nan")), "weight_bits must be above 0"),
        (lambda: linear_work(1, 1, 1, density=1.5), "density must be from 0 to 1; got 1.5"),
        (lambda: attention_work(1, 1, -1, 1, 1, 1), "cached must be 0 or more; got -1"),
    ],
)
def test_what_cannot_be_is_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        wrong()
