"""Shared-out models: sums of parts against the whole, logits of processes against one process."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from course_lib.acceleration.parallel import (
    bubble,
    pipeline_parallel,
    schedule,
    split_pair,
    stage_shares,
    tensor_parallel,
    tensor_shares,
)
from course_lib.acceleration.parallel_worker import Traffic
from course_lib.acceleration.workers import Workers
from course_lib.models.llama import Llama, LlamaConfig, initialize
from course_lib.models.llama_config import BlockShape
from course_lib.models.parts import embed, read_logits
from course_lib.models.pretrained import tiny

CONFIG = LlamaConfig(
    vocabulary=17, width=16, layers=3, heads=6, kv_heads=3, mlp_width=25, context=12, each_head=4
)
UNEVEN = [BlockShape((2, 2, 1), 25), BlockShape((1, 3), 2), BlockShape((3, 1), 9)]
TOKENS = torch.randint(17, (5, 10), generator=torch.Generator().manual_seed(1))
EXACT = {"rtol": 0, "atol": 1e-12}


def model(kind="alike") -> Llama:
    torch.manual_seed(0)
    config = CONFIG if kind == "alike" else CONFIG.with_shapes(UNEVEN)
    if kind == "untied":
        config = LlamaConfig(**{**vars(CONFIG), "tied": False})
    made = Llama(config).double().requires_grad_(False)
    initialize(made)
    made.embedding.weight.mul_(30)
    return made


@given(st.integers(1, 9), st.data())
def test_the_parts_of_a_pair_add_up_to_it(hidden, data):
    workers = data.draw(st.integers(1, hidden))
    generator = torch.Generator().manual_seed(hidden)
    first, second, x = (
        torch.randn(shape, generator=generator, dtype=torch.float64)
        for shape in ((hidden, 4), (3, hidden), (5, 4))
    )
    parts = split_pair(first, second, workers)
    total = sum(F.silu(x @ a.T) @ b.T for a, b in parts)
    torch.testing.assert_close(total, F.silu(x @ first.T) @ second.T, **EXACT)
    sizes = [len(a) for a, _ in parts]
    assert sum(sizes) == hidden and max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize("kind, workers", [("alike", 1), ("alike", 2), ("alike", 3), ("uneven", 2)])
def test_the_shares_of_each_sublayer_add_up_to_it(kind, workers):
    whole = model(kind)
    shares = tensor_shares(whole, workers)
    x, cos, sin = embed(whole, TOKENS)
    for number, block in enumerate(whole.blocks):
        blocks = [share.blocks[number] for share in shares]
        given = block.attention_norm(x)
        total = sum(b.attention(b.attention_norm(x), cos, sin) for b in blocks)
        torch.testing.assert_close(total, block.attention(given, cos, sin), **EXACT)
        total = sum(b.mlp(b.mlp_norm(x)) for b in blocks)
        torch.testing.assert_close(total, block.mlp(block.mlp_norm(x)), **EXACT)
        x = block(x, cos, sin)
    in_blocks = [sum(p.numel() for b in share.blocks for p in b.parameters()) for share in shares]
    norms = 2 * len(whole.blocks) * CONFIG.width
    own = sum(p.numel() for p in whole.blocks.parameters()) - norms
    assert sum(in_blocks) == own + workers * norms  # every matrix stands once, the norms in all


@pytest.mark.parametrize("stages", [1, 2, 3])
def test_the_stages_one_behind_the_other_are_the_model(stages):
    whole = model("untied")
    x, cos, sin = embed(whole, TOKENS)
    parts = stage_shares(whole, stages)
    for part in parts:
        for block in part.blocks:
            x = block(x, cos, sin)
    assert torch.equal(read_logits(parts[-1], x), whole(TOKENS))
    assert sum(len(part.blocks) for part in parts) == 3


@given(st.integers(1, 6), st.integers(1, 9))
def test_the_bubble_is_the_idle_share_of_the_schedule(stages, micro_batches):
    ticks = schedule(stages, micro_batches)
    for stage, column in enumerate(zip(*ticks, strict=True)):
        work = [number for number in column if number is not None]
        assert work == list(range(micro_batches))
        assert column.count(None) / len(ticks) == pytest.approx(bubble(stages, micro_batches))
        assert column.index(0) == stage
    if stages > 1:  # no micro-batch before the stage in front has let go of it
        for before, now in zip(ticks, ticks[1:], strict=False):
            assert all(n is None or n == b for n, b in zip(now[1:], before, strict=False))


def test_four_stages_and_sixteen_micro_batches_take_nineteen_ticks():
    assert len(schedule(4, 16)) == 19 and bubble(4, 16) == pytest.approx(3 / 19)
    assert bubble(1, 1) == 0.0 and bubble(4, 1) == 0.75


@pytest.fixture(scope="module")
def two():
    with Workers(2) as workers:
        yield workers


@pytest.mark.parametrize("kind", ["alike", "uneven", "untied"])
def test_two_processes_give_the_logits_of_one(two, kind):
    whole = model(kind)
    found = tensor_parallel(two, whole, TOKENS)
    torch.testing.assert_close(found.logits, whole(TOKENS), **EXACT)
    size = 5 * 10 * 16 * 8  # B T D of float64
    assert found.traffic == [Traffic(2 * 3, 2 * 3 * size)] * 2
    for micro_batches in (1, 2, 5):
        found = pipeline_parallel(two, whole, TOKENS, micro_batches)
        torch.testing.assert_close(found.logits, whole(TOKENS), **EXACT)
        assert found.traffic == [Traffic(micro_batches, size), Traffic(0, 0)]


def test_a_stage_takes_micro_batches_in_order_and_after_the_one_before(two):
    spans = pipeline_parallel(two, model(), TOKENS, 4).spans
    first, second = ([s for s in spans if s.stage == stage] for stage in (0, 1))
    for own in (first, second):
        assert [s.micro_batch for s in own] == [0, 1, 2, 3]
        assert all(a.stop <= b.start for a, b in zip(own, own[1:], strict=False))
    assert min(s.start for s in spans) == 0.0
    assert all(a.start <= b.start for a, b in zip(first, second, strict=True))


def test_tinylm_in_float32(two):
    """Sums in another order: float32 rounds logits of about 10 to 1e-6, ten layers on to 1e-4."""
    whole, _ = tiny()
    tokens = torch.randint(2048, (2, 32), generator=torch.Generator().manual_seed(0))
    found = tensor_parallel(two, whole, tokens)
    torch.testing.assert_close(found.logits, whole(tokens), rtol=0, atol=1e-3)
    once = 2048 * 192 + 9 * 192  # the embedding and the norms are in both
    total = sum(p.numel() for p in whole.parameters())
    assert found.parameters == [(total - once) // 2 + once] * 2
    found = pipeline_parallel(two, whole, tokens, 2)
    torch.testing.assert_close(found.logits, whole(tokens), rtol=0, atol=1e-3)


def test_bad_input_is_refused(two):
    whole = model()
    with pytest.raises(
        ValueError, match="stages and micro_batches must be at least 1; got 0 and 3"
    ):
        bubble(0, 3)
    with pytest.raises(ValueError, match="got 2 and 0"):
        schedule(2, 0)
    with pytest.raises(ValueError, match=r"must fit; got \(5, 3\) and \(2, 4\)"):
        split_pair(torch.ones(5, 3), torch.ones(2, 4), 2)
    with pytest.raises(ValueError, match="workers must be from 1 to 5; got 6"):
        split_pair(torch.ones(5, 3), torch.ones(2, 5), 6)
    with pytest.raises(ValueError, match="workers must be from 1 to 3; got 4"):
        tensor_shares(whole, 4)
    with pytest.raises(ValueError, match="stages must be from 1 to 3; got 4"):
        stage_shares(whole, 4)
    with pytest.raises(ValueError, match="micro_batches must be from 1 to 5; got 6"):
        pipeline_parallel(two, whole, TOKENS, 6)
    with pytest.raises(ValueError, match=r"tokens must be \(B, T\) with B, T ≥ 1; got \(4,\)"):
        tensor_parallel(two, whole, torch.ones(4).long())
    with pytest.raises(ValueError, match="must be on the CPU"):
        tensor_parallel(two, whole, TOKENS.to("meta"))
