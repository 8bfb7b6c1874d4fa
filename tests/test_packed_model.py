"""A decoder on packed weights beside its twin, which has the same weights as ordinary floats."""

import copy
import time

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from course_lib.acceleration.kernels import (
    Int4WeightLinear,
    Int8HeadLinear,
    Int8Linear,
    Int8WeightLinear,
)
from course_lib.acceleration.packed_model import (
    fast_model,
    fast_schemes,
    packed_bytes,
    packed_model,
)
from course_lib.formats.linear import Format, Scheme, nearest_codes
from course_lib.formats.model_file import every_linear, quantize_model
from course_lib.models.llama import Llama, LlamaConfig, generate, initialize
from course_lib.models.pretrained import has_smollm2, smollm2, tiny

FOUR, EIGHT = Scheme(Format(4), 64), Scheme(Format(8, symmetric=True), "channel")
TEXT = "In the beginning God created the heaven and the earth. And the earth was without form,"


@pytest.fixture(scope="module")
def case():
    model, tokenizer = tiny()
    return model, torch.tensor([tokenizer.encode(TEXT).ids])


def schemes_of(model: Llama, scheme: Scheme) -> dict:
    return every_linear(model, scheme) | {"embedding.weight": EIGHT}


@torch.no_grad()
def apart(model: Llama, twin: Llama, tokens: torch.Tensor) -> float:
    """Root mean square of the logits' differences, over that of the logits."""
    found, wanted = model(tokens), twin(tokens)
    return ((found - wanted).square().mean().sqrt() / wanted.square().mean().sqrt()).item()


@pytest.mark.parametrize("scheme", [FOUR, EIGHT, Scheme(Format(3, symmetric=True), 32)])
@pytest.mark.parametrize("native", [True, False])
def test_the_logits_are_the_twins_but_for_bfloat16(case, scheme, native):
    """Each of 29 matrices rounds what goes in and out by up to 2⁻⁸, a third of that on average."""
    model, tokens = case
    schemes = schemes_of(model, scheme)
    twin = quantize_model(model, schemes)
    small = packed_model(model, schemes, native=native)
    assert apart(small, twin, tokens) < 0.02
    assert apart(small, model, tokens) > apart(small, twin, tokens)


def test_the_kernels_and_their_stand_ins_are_one_model(case):
    """Only the order of sums differs, and what that tips over in bfloat16."""
    model, tokens = case
    for scheme, both_sides in ((FOUR, False), (EIGHT, False), (EIGHT, True)):
        schemes = schemes_of(model, scheme)
        kernel, floats = (packed_model(model, schemes, both_sides, n) for n in (True, False))
        assert apart(kernel, floats, tokens) < 0.005


def test_each_layer_is_of_the_kind_that_its_scheme_asks_for(case):
    model, _ = case
    schemes = {"blocks.0.mlp.up.weight": FOUR, "blocks.1.mlp.up.weight": EIGHT}
    weights = packed_model(model, schemes)
    both = packed_model(model, schemes, both_sides=True)
    for found, eight in ((weights, Int8WeightLinear), (both, Int8Linear)):
        ups = [type(found.blocks[i].mlp.up) for i in (0, 1, 2)]
        assert ups == [Int4WeightLinear, eight, nn.Linear]
    assert weights.config == model.config


def test_codes_that_a_method_chose_are_kept(case):
    model, tokens = case
    name = "blocks.2.mlp.down.weight"
    codes = nearest_codes(dict(model.named_parameters())[name], FOUR)
    by_codes, by_scheme = packed_model(model, {name: codes}), packed_model(model, {name: FOUR})
    assert torch.equal(by_codes(tokens), by_scheme(tokens))


def test_a_tied_embedding_has_one_set_of_codes_for_both_uses(case):
    model, tokens = case
    small = packed_model(model, {"embedding.weight": EIGHT})
    assert small.embedding.head is small.head and model.config.tied
    level = nearest_codes(model.embedding.weight, EIGHT).weight
    assert torch.equal(small.embedding(tokens), F.embedding(tokens, level))
    assert packed_bytes(small.head) == 2048 * (192 + 4)
    assert apart(small, quantize_model(model, {"embedding.weight": EIGHT}), tokens) < 1e-4


def test_an_untied_head_gives_float32_logits_too():
    torch.manual_seed(0)
    config = LlamaConfig(64, 32, 1, 4, 2, 64, 32, tied=False)
    model = Llama(config).requires_grad_(False)
    initialize(model)
    schemes = every_linear(model, EIGHT)
    small, twin = packed_model(model, schemes), quantize_model(model, schemes)
    assert type(small.head) is Int8HeadLinear
    assert apart(small, twin, torch.arange(9)[None]) < 0.02
    with pytest.raises(ValueError, match="or a tied embedding; got embedding.weight"):
        packed_model(model, {"embedding.weight": EIGHT})


def test_it_is_as_small_as_its_codes_and_leaves_the_model_alone(case):
    model, tokens = case
    before = copy.deepcopy(model.state_dict())
    small = packed_model(model, schemes_of(model, FOUR))
    linear = sum(p.numel() for p in model.blocks.parameters() if p.dim() == 2)
    norms = sum(p.nbytes for p in model.parameters() if p.dim() == 1)
    assert packed_bytes(small) == linear * 4.5 / 8 + 2048 * (192 + 4) + norms
    assert all(torch.equal(before[name], t) for name, t in model.state_dict().items())
    assert not {t.data_ptr() for t in small.parameters()} & {
        t.data_ptr() for t in model.parameters()
    }


def test_with_the_cache_and_without_it_the_text_is_the_same(case):
    model, tokens = case
    small = packed_model(model, schemes_of(model, FOUR), both_sides=False)
    twin = quantize_model(model, schemes_of(model, FOUR))
    text = generate(small, tokens[:, :8], 16)
    assert text.shape == (1, 24)
    chosen_as_the_twin(twin, text, 8, slack=0.5)
    chosen_as_the_twin(twin, generate(small, tokens[:, :8], 16, cached=False), 8, slack=0.5)


@torch.no_grad()
def chosen_as_the_twin(twin: Llama, text: torch.Tensor, start: int, slack: float) -> None:
    """Each token of a greedy text is the twin's best, or as good to it but for `slack`."""
    logits = twin(text[:, :-1])[0, start - 1 :]  # (T, V)
    behind = logits.amax(1) - logits.gather(1, text[0, start:, None])[:, 0]
    assert behind.max() <= slack
    assert (behind == 0).float().mean() >= 0.75


def test_what_is_no_linear_weight_is_refused(case):
    model, _ = case
    with pytest.raises(ValueError, match="must name linear weights or a tied embedding; got norm"):
        packed_model(model, {"norm.weight": EIGHT})
    with pytest.raises(ValueError, match="tied embedding must be symmetric, with a scale a token"):
        packed_model(model, {"embedding.weight": FOUR})


@pytest.mark.parametrize("tied", [True, False])
def test_a_fast_model_is_its_matrices_joined_and_packed(case, tied):
    """A joined matrix has the codes of its parts, so the twin is that of `packed_model`."""
    torch.manual_seed(0)
    tokens = torch.arange(9)[None]
    model = Llama(LlamaConfig(64, 64, 2, 4, 2, 64, 32, tied=tied)).requires_grad_(False)
    initialize(model)
    schemes = fast_schemes(model, FOUR)
    fast, packed = fast_model(model, FOUR), packed_model(model, schemes)
    assert packed_bytes(fast) == packed_bytes(packed)
    assert apart(fast, packed, tokens) < 0.005
    assert apart(fast, quantize_model(model, schemes), tokens) < 0.02
    assert type(fast.head) is Int8HeadLinear and not hasattr(fast.blocks[0].mlp, "up")
    assert type(fast.blocks[1].attention.joined) is Int4WeightLinear


PROMPTS = (
    "Once upon a time there was a king who",
    "The capital of France is",
    "Water boils at",
    "In the beginning God created the heaven and the earth.",
)


@pytest.mark.slow
@pytest.mark.skipif(not has_smollm2(), reason="SmolLM2 is not installed")
@torch.no_grad()
def test_smollm2_writes_the_twins_text_wherever_the_twin_is_sure():
    """Their logits, less their mean, are 0.05 apart (root mean square): a lead of 0.5 must hold."""
    model, tokenizer = smollm2()
    fast = fast_model(model, Scheme(Format(4), 32))
    twin = quantize_model(model, fast_schemes(model, Scheme(Format(4), 32)))
    assert 5.6 < packed_bytes(model) / packed_bytes(fast) < 5.8
    same, sure = [], []
    for prompt in PROMPTS:
        tokens = torch.tensor([tokenizer.encode(prompt).ids])
        text = generate(fast, tokens, 48)
        logits = twin(text[:, :-1])[0, tokens.shape[1] - 1 :]  # (T, V)
        best, second = logits.topk(2, dim=1).values.unbind(1)
        same.append(logits.argmax(1) == text[0, tokens.shape[1] :])
        sure.append(best - second > 0.5)
    same, sure = torch.cat(same), torch.cat(sure)
    assert same[sure].all() and sure.float().mean() > 0.7
    assert same.float().mean() > 0.95  # all 192 where it was measured


@pytest.mark.slow
@pytest.mark.skipif(not has_smollm2(), reason="SmolLM2 is not installed")
def test_smollm2_writes_in_a_part_of_the_time():
    if torch.backends.cpu.get_cpu_capability() != "AVX512":
        pytest.skip("the kernels are slow without AVX-512")
    model, tokenizer = smollm2()
    fast = fast_model(model, Scheme(Format(4), 32))
    prompt = torch.tensor([tokenizer.encode(PROMPTS[0]).ids])
    seconds = {id(m): [] for m in (fast, model)}
    for _ in range(3):
        for m in (fast, model):
            start = time.process_time()
            generate(m, prompt, 8)
            seconds[id(m)].append(time.process_time() - start)
    assert min(seconds[id(fast)]) < 0.8 * min(seconds[id(model)])  # 0.39 when measured
