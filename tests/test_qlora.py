"""A packed base beside its twin of floats: logits, gradients, steps; and what stays in memory."""

import copy

import pytest
import torch
from on_accelerator import run_on_accelerator
from safetensors.torch import load, save
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from course_lib.formats.codebook import NF4, Codebook, FixedLevels
from course_lib.formats.even_coded import EvenCoded
from course_lib.formats.floats import MX, NVFP4, FewBits
from course_lib.formats.linear import Format, Scheme, nearest_codes
from course_lib.formats.model_file import every_linear, pack_model, quantize_model
from course_lib.formats.sparse import Sparse
from course_lib.formats.two_of_four import TwoOfFour
from course_lib.language_models.qlora import PackedLinear, packed_linears, qlora
from course_lib.low_rank.adapters import (
    adapter_tensors,
    add_adapters,
    load_adapters,
    merged,
    trainable,
)
from course_lib.low_rank.lora import LoRALinear
from course_lib.models.llama import Llama, LlamaConfig, initialize
from course_lib.models.parts import linear_weights
from course_lib.models.training import next_token_loss, train
from course_lib.quantization.floats import E4M3

EVEN = Scheme(Format(4), 32)
SCHEMES = {
    "nf4": NF4,
    "nf4, scales in float16": FixedLevels(NF4.levels, 64),
    "even levels": EVEN,
    "symmetric, a scale a row": Scheme(Format(8, symmetric=True), "channel"),
    "codebook": Codebook(bits=3),
    "few bits": FewBits(E4M3),
    "mx": MX(),
    "nvfp4": NVFP4(),
    "sparse": Sparse(),
    "two of four": TwoOfFour(EVEN),
    "bfloat16": torch.bfloat16,
    "float32": torch.float32,
    "even, coded by entropy": EvenCoded(0.02),
}
CONFIG = LlamaConfig(
    vocabulary=50, width=64, layers=2, heads=4, kv_heads=2, mlp_width=64, context=32
)


def decoder(scheme: object = None) -> Llama:
    """For 2 of 4, the first two of each four weights of its blocks are 0."""
    torch.manual_seed(0)
    model = Llama(CONFIG)
    initialize(model)
    if isinstance(scheme, TwoOfFour):
        for weight in linear_weights(model).values():
            weight.data.unflatten(1, (-1, 4))[..., :2] = 0
    return model


def windows(count: int = 1) -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(1)
    tokens = torch.randint(50, (count, 3, 10), generator=generator)
    return [(one[:, :-1], one[:, 1:]) for one in tokens]


def twin_of(model: nn.Module, scheme, rank: int = 4, alpha: float = 8.0) -> nn.Module:
    """The same adapters on floats that lie on the same levels."""
    floats = quantize_model(model, every_linear(model, scheme))
    return add_adapters(floats, rank, alpha, torch.Generator().manual_seed(5))


def packed(model: nn.Module, scheme, rank: int = 4, alpha: float = 8.0) -> nn.Module:
    return qlora(model, scheme, rank, alpha, torch.Generator().manual_seed(5))


# ---------------------------------------------------------------- beside the twin


@pytest.mark.parametrize("name", SCHEMES)
def test_logits_and_gradients_are_the_twins_in_every_form(name):
    scheme, tokens = SCHEMES[name], windows()[0][0]
    model = decoder(scheme)
    small, twin = packed(model, scheme), twin_of(model, scheme)
    plain = quantize_model(model, every_linear(model, scheme))
    assert torch.equal(small(tokens), plain(tokens))
    for both in (small, twin):
        for parameter in trainable(both).values():
            parameter.data.copy_(torch.linspace(-0.1, 0.1, parameter.numel()).view_as(parameter))
        next_token_loss(both, windows()[0]).backward()
    assert torch.equal(small(tokens), twin(tokens))
    assert trainable(small).keys() == trainable(twin).keys()
    for p, q in zip(trainable(small).values(), trainable(twin).values(), strict=True):
        torch.testing.assert_close(p.grad, q.grad, rtol=1e-4, atol=1e-7)  # another product's order


def test_steps_are_the_twins_and_codes_stay_byte_for_byte():
    model, learned = decoder(), []
    small, twin = packed(model, NF4), twin_of(model, NF4)
    before = {n: b.clone() for n, b in small.named_buffers()}
    kept = {n: p.clone() for n, p in small.named_parameters() if not p.requires_grad}
    for both in (small, twin):
        optimizer = torch.optim.AdamW(trainable(both).values(), lr=0.01)
        learned.append(train(both, windows(6), next_token_loss, [optimizer]))
    torch.testing.assert_close(*learned, rtol=1e-4, atol=1e-4)
    assert learned[0][-1] != learned[0][0]
    after = dict(small.named_buffers())
    assert before.keys() == after.keys() and len(before) == 14 * 5
    assert all(torch.equal(t, after[n]) for n, t in before.items())
    known = dict(small.named_parameters())
    assert all(torch.equal(t, known[n]) and known[n].grad is None for n, t in kept.items())
    assert kept.keys() == {n for n in known if "norm" in n or n == "embedding.weight"}


@pytest.mark.parametrize("shape", [(64,), (3, 64), (2, 3, 64), (0, 64)])
def test_gradients_reach_the_input_in_any_shape(shape):
    weight, bias = torch.randn(8, 64), torch.randn(8)
    layer = PackedLinear(weight, EVEN, bias)
    x = torch.randn(shape, requires_grad=True)
    twin = x.detach().clone().requires_grad_()
    y, wanted = layer(x), nn.functional.linear(twin, layer.weight, bias)
    assert torch.equal(y, wanted)
    for value in (y, wanted):
        value.square().sum().backward()
    torch.testing.assert_close(x.grad, twin.grad)
    assert not layer(x.detach()).requires_grad and not list(layer.parameters())


def test_the_gradient_beside_differences():
    """float64 inputs are multiplied in float64."""
    layer = PackedLinear(torch.randn(3, 8), Scheme(Format(4), 8))
    x = torch.randn(2, 8, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(layer, x) and torch.autograd.gradgradcheck(layer, x)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_a_model_in_another_dtype(dtype):
    model, tokens = decoder().to(dtype), windows()[0][0]
    small, twin = packed(model, EVEN), twin_of(model, EVEN)
    assert small(tokens).dtype == dtype
    torch.testing.assert_close(small(tokens), twin(tokens))


def test_under_autocast():
    model, tokens = decoder(), windows()[0][0]
    small, twin = packed(model, NF4), twin_of(model, NF4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(small(tokens), twin(tokens))
        for both in (small, twin):
            next_token_loss(both, windows()[0]).backward()
    for p, q in zip(trainable(small).values(), trainable(twin).values(), strict=True):
        torch.testing.assert_close(p.grad, q.grad, rtol=0.05, atol=1e-4)  # bfloat16


# ---------------------------------------------------------------- what it weighs


@pytest.mark.parametrize("name", SCHEMES)
def test_a_model_holds_what_its_file_holds(name):
    scheme = SCHEMES[name]
    model = decoder(scheme)
    file = pack_model(model, every_linear(model, scheme))
    small = packed_linears(model, scheme)
    held = sum(t.nbytes for t in small.state_dict().values())
    assert held == sum(t.nbytes for t in file.values())
    assert sum(t.nbytes for t in (*small.buffers(), *small.parameters())) == held


def test_nf4_takes_4_bits_and_an_eighth_a_weight():
    layer = PackedLinear(torch.randn(1024, 1024), NF4)
    bits = 8 * sum(t.nbytes for t in layer.buffers()) / 2**20
    assert 4.126 < bits < 4.129  # 4 + 8/64 + 32/(64 · 256) and 16 levels


@pytest.mark.parametrize("scheme", [NF4, EVEN])
def test_nothing_as_large_as_the_weight_is_kept_for_the_gradient(scheme):
    """What autograd keeps, with the layer alone and with its adapter; the twin keeps Ŵ."""

    def kept(layer: nn.Module) -> list[int]:
        sizes: list[int] = []
        with saved_tensors_hooks(lambda t: sizes.append(t.numel()) or t, lambda t: t):
            layer(torch.randn(3, 256, requires_grad=True))
        return sizes

    weight = torch.randn(256, 256)
    layer = PackedLinear(weight, scheme)
    assert kept(layer) == []
    assert max(kept(LoRALinear(layer, 2, 4.0))) <= 3 * 256
    linear = nn.Linear(256, 256).requires_grad_(False)
    assert max(kept(linear)) == 256 * 256
    assert all(t.numel() < 256 * 256 for t in layer.__dict__["_buffers"].values() if t is not None)


def test_decoding_again_gives_a_new_tensor_each_time():
    layer = PackedLinear(torch.randn(8, 64), NF4)
    layer.weight.zero_()
    assert layer.weight.any()


# ---------------------------------------------------------------- a whole model


def test_the_model_is_left_alone_and_its_modes_are_kept():
    model = decoder().eval()
    before = copy.deepcopy(model.state_dict())
    small = packed(model, NF4)
    assert all(torch.equal(before[n], t) for n, t in model.state_dict().items())
    assert all(p.requires_grad for p in model.parameters()) and not small.training
    assert not {p.data_ptr() for p in small.parameters()} & {
        p.data_ptr() for p in model.parameters()
    }
    kinds = {type(part.base) for part in small.modules() if isinstance(part, LoRALinear)}
    assert kinds == {PackedLinear}


def test_copies_files_and_state_dicts():
    model, tokens = decoder(), windows()[0][0]
    small = packed(model, NF4)
    optimizer = torch.optim.AdamW(trainable(small).values(), lr=0.01)
    train(small, windows(3), next_token_loss, [optimizer])
    assert torch.equal(copy.deepcopy(small)(tokens), small(tokens))
    fresh = packed(model, NF4)
    fresh.load_state_dict(load(save(small.state_dict())))
    assert torch.equal(fresh(tokens), small(tokens))
    again = load_adapters(packed_linears(model, NF4), adapter_tensors(small))
    assert torch.equal(again(tokens), small(tokens))


def test_merged_it_is_floats_and_quantized_again_another_model():
    model, tokens = decoder(), windows()[0][0]
    small = packed(model, EVEN)
    optimizer = torch.optim.AdamW(trainable(small).values(), lr=0.02)
    train(small, windows(4), next_token_loss, [optimizer])
    one = merged(small)
    assert {type(p) for p in one.modules() if hasattr(p, "in_features")} == {nn.Linear}
    torch.testing.assert_close(one(tokens), small(tokens), rtol=1e-4, atol=1e-5)
    again = quantize_model(one, every_linear(one, EVEN))
    assert (again(tokens) - one(tokens)).abs().max() > 0.01


def test_biases_stay():
    model = nn.Sequential(nn.Linear(64, 8), nn.ReLU(), nn.Linear(8, 3, bias=False))
    small = qlora(model, Scheme(Format(8), "channel"), 2, 4.0)
    x = torch.randn(5, 64)
    wanted = quantize_model(model, every_linear(model, Scheme(Format(8), "channel")))(x)
    assert torch.equal(small(x), wanted) and torch.equal(merged(small)[0].bias, model[0].bias)


def test_codes_that_a_method_chose():
    weight = torch.randn(8, 64)
    codes = nearest_codes(weight, EVEN)
    assert torch.equal(PackedLinear(weight, codes).weight, codes.weight)


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match=r"weight must have shape \(O, I\); got \(4, 4, 4\)"):
        PackedLinear(torch.randn(4, 4, 4), NF4)
    with pytest.raises(TypeError, match="the scheme of packed must be Scheme, Codes"):
        PackedLinear(torch.randn(4, 64), "nf4")
    with pytest.raises(ValueError, match="must be finite"):
        PackedLinear(torch.full((4, 64), torch.nan), NF4)
    with pytest.raises(ValueError, match="rank must be from 1 to 32"):
        qlora(decoder(), NF4, 33, 8.0)
    tied = nn.Sequential(nn.Embedding(9, 64), nn.Linear(64, 9, bias=False))
    tied[1].weight = tied[0].weight
    with pytest.raises(ValueError, match="1 must not get an adapter: it is tied"):
        qlora(tied, NF4, 2, 4.0)


ON_AN_ACCELERATOR = """
import torch
from fake_accelerator import accelerator
from torch import nn
from course_lib.formats.codebook import NF4
from course_lib.formats.linear import Format, Scheme
from course_lib.language_models.qlora import qlora
from course_lib.low_rank.adapters import merged, trainable
with accelerator() as put:
    model = put({"model": nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 3))})["model"]
    x = put({"x": torch.randn(5, 64)})["x"]
    for scheme in (NF4, Scheme(Format(4), 64)):
        tuned = qlora(model, scheme, 2, 4.0, torch.Generator().manual_seed(0))
        y = tuned(x)
        y.sum().backward()
        learns = trainable(tuned).values()
        found = [y, *tuned.buffers(), *learns, *(p.grad for p in learns), merged(tuned)(x)]
        assert all(t.device.type == "toygpu" for t in found), found
"""


def test_on_an_accelerator():
    run_on_accelerator(ON_AN_ACCELERATOR)
