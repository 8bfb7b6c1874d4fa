"""Adapters beside peft, number for number; beside a dense change; what stays, what is refused."""

import copy
from unittest.mock import patch

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from on_accelerator import run_on_accelerator
from peft import LoraConfig, get_peft_model
from safetensors.torch import load, save
from torch import nn

from course_lib.low_rank.adapters import (
    adapter_tensors,
    add_adapters,
    load_adapters,
    merged,
    trainable,
    unmerged,
)
from course_lib.low_rank.lora import LoRALinear, merge
from course_lib.models.llama import Llama, LlamaConfig, initialize
from course_lib.models.training import next_token_loss, train

CONFIG = LlamaConfig(
    vocabulary=50, width=24, layers=2, heads=6, kv_heads=2, mlp_width=40, context=32
)
OURS_TO_PEFT = {"left": "lora_B.default.weight", "right": "lora_A.default.weight"}


def decoder() -> Llama:
    torch.manual_seed(0)
    model = Llama(CONFIG)
    initialize(model)
    return model


def sequence() -> nn.Sequential:
    """With biases, and an embedding that gets no adapter."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Embedding(50, 7), nn.Linear(7, 30), nn.Tanh(), nn.Linear(30, 50))


def windows(count: int = 1) -> list[tuple[torch.Tensor, torch.Tensor]]:
    generator = torch.Generator().manual_seed(1)
    tokens = torch.randint(50, (count, 3, 10), generator=generator)
    return [(one[:, :-1], one[:, 1:]) for one in tokens]


def of_peft(model: nn.Module, seed: int, **options) -> nn.Module:
    """peft's copy; `nn.Linear` first draws numbers that LoRA replaces: without them here."""
    names = [name for name, part in model.named_modules() if type(part) is nn.Linear]
    config = LoraConfig(target_modules=names, **options)
    torch.manual_seed(seed)
    with patch.object(nn.Linear, "reset_parameters", lambda _: None):
        return get_peft_model(copy.deepcopy(model), config).base_model.model


def both(model: nn.Module, rank: int = 4, alpha: float = 12.0) -> tuple[nn.Module, nn.Module]:
    ours = add_adapters(model, rank, alpha, torch.Generator().manual_seed(5))
    return ours, of_peft(model, 5, r=rank, lora_alpha=alpha)


def same_parameters(ours: nn.Module, theirs: nn.Module, of=lambda p: p) -> bool:
    known, pairs = dict(theirs.named_parameters()), 0
    for name, parameter in trainable(ours).items():
        layer, _, part = name.rpartition(".")
        pairs += torch.equal(of(parameter), of(known[f"{layer}.{OURS_TO_PEFT[part]}"]))
    return pairs == len(trainable(ours)) == sum(p.requires_grad for p in theirs.parameters())


def trained(rank: int = 4, alpha: float = 12.0, steps: int = 4) -> nn.Module:
    model = add_adapters(decoder(), rank, alpha, torch.Generator().manual_seed(5))
    optimizer = torch.optim.AdamW(trainable(model).values(), lr=0.02)
    train(model, windows(steps), next_token_loss, [optimizer])
    return model


# ---------------------------------------------------------------- beside peft


@pytest.mark.parametrize("make", [decoder, sequence])
def test_start_values_gradients_and_steps_are_those_of_peft(make):
    """Bit for bit: the same sums in the same order."""
    ours, theirs = both(make())
    assert same_parameters(ours, theirs)
    for model in (ours, theirs):
        next_token_loss(model, windows()[0]).backward()
    assert same_parameters(ours, theirs, lambda p: p.grad)
    for model in (ours, theirs):
        learns = [p for p in model.parameters() if p.requires_grad]
        optimizer = torch.optim.AdamW(learns, lr=0.02, weight_decay=0.1)
        train(model, windows(8), next_token_loss, [optimizer])
    assert same_parameters(ours, theirs)
    tokens, _ = windows()[0]
    assert torch.equal(ours(tokens), theirs(tokens))
    assert not torch.allclose(ours(tokens), make()(tokens), atol=0.01)  # something was learned


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_other_dtypes_are_those_of_peft(dtype):
    """Given the same A and B: at the start peft's A is rounded to the base's dtype."""
    ours, theirs = both(sequence().to(dtype))
    wide = torch.promote_types(dtype, torch.float32)
    assert {p.dtype for p in trainable(ours).values()} == {wide}
    for model in (ours, theirs):
        for parameter in (p for p in model.parameters() if p.requires_grad):
            parameter.data.copy_(torch.linspace(-1, 1, parameter.numel()).view_as(parameter))
    tokens, _ = windows()[0]
    assert torch.equal(ours(tokens), theirs(tokens)) and ours(tokens).dtype == dtype
    for model in (ours, theirs):
        model(tokens).float().square().mean().backward()
    assert same_parameters(ours, theirs, lambda p: p.grad)
    assert same_weights(merged(ours), theirs, "merge")


def test_merged_is_what_peft_merges_and_unmerged_what_it_unmerges():
    ours, theirs = both(decoder())
    for model in (ours, theirs):
        learns = [p for p in model.parameters() if p.requires_grad]
        train(model, windows(4), next_token_loss, [torch.optim.AdamW(learns, lr=0.02)])
    one = merged(ours)
    assert same_weights(one, theirs, "merge")
    assert same_weights(unmerged(one, adapter_tensors(ours)), theirs, "unmerge")


def same_weights(plain: nn.Module, theirs: nn.Module, then: str) -> bool:
    """Whether linear layers have the weights of peft's layers after this call of theirs."""
    layers = {name: part for name, part in theirs.named_modules() if hasattr(part, then)}
    for layer in layers.values():
        getattr(layer, then)()
    pairs = ((plain.get_submodule(n).weight, part.base_layer.weight) for n, part in layers.items())
    return bool(layers) and all(torch.equal(a, b) for a, b in pairs)


def test_rank_stabilized_scaling_is_another_alpha():
    """Kalajdzievski, 2023: α / √r in place of α / r."""
    model, tokens = sequence(), windows()[0][0]
    theirs = of_peft(model, 5, r=4, lora_alpha=6.0, use_rslora=True, init_lora_weights=True)
    ours = add_adapters(model, 4, 6.0 * 4**0.5, torch.Generator().manual_seed(5))
    for model in (ours, theirs):
        for name, parameter in model.named_parameters():
            if name.endswith(("left", "lora_B.default.weight")):
                parameter.data.fill_(0.5)
    assert torch.equal(ours(tokens), theirs(tokens))


def test_a_file_of_peft_is_a_matter_of_names():
    base, tokens = decoder(), windows()[0][0]
    _, theirs = both(base)
    for name, parameter in theirs.named_parameters():
        if "lora_B" in name:
            parameter.data.normal_()
    tensors = {}
    for name, part in theirs.named_modules():
        if hasattr(part, "lora_A"):
            tensors[f"{name}.left"] = part.lora_B["default"].weight.detach()
            tensors[f"{name}.right"] = part.lora_A["default"].weight.detach()
            tensors[f"{name}.alpha"] = torch.tensor(12.0)
    assert torch.equal(load_adapters(base, tensors)(tokens), theirs(tokens))


# ---------------------------------------------------------------- beside a dense change


@given(st.integers(1, 9), st.integers(1, 9), st.data())
def test_a_layer_is_its_dense_sum_and_so_are_its_gradients(outputs, inputs, data):
    rank = data.draw(st.integers(1, min(outputs, inputs)))
    bias, shape = data.draw(st.booleans()), data.draw(st.sampled_from([(), (4,), (2, 3), (0,)]))
    generator = torch.Generator().manual_seed(data.draw(st.integers(0, 99)))
    layer = LoRALinear(nn.Linear(inputs, outputs, bias).double(), rank, 3.0, generator)
    layer.left.data.normal_(generator=generator)
    x = torch.randn(*shape, inputs, dtype=torch.float64, generator=generator, requires_grad=True)
    left, right, twin = (t.detach().clone().requires_grad_() for t in (layer.left, layer.right, x))
    dense = layer.base.weight + 3.0 / rank * left @ right
    y, wanted = layer(x), F.linear(twin, dense, layer.base.bias)
    torch.testing.assert_close(y, wanted)
    for value in (y, wanted):
        value.square().sum().backward()
    for found, known in ((layer.left, left), (layer.right, right), (x, twin)):
        torch.testing.assert_close(found.grad, known.grad)
    assert layer.base.weight.grad is None
    one = merged(layer)
    assert type(one) is nn.Linear
    torch.testing.assert_close(one(x), y)


def test_full_rank_reaches_any_change_and_rank_1_one_direction():
    change = torch.randn(5, 5)
    u, s, v = torch.linalg.svd(change)
    for rank in (1, 5):
        product = merge(torch.zeros(5, 5), u[:, :rank] * s[:rank], v[:rank], alpha=rank)
        off = (product - change).square().sum().sqrt()
        torch.testing.assert_close(off, s[rank:].square().sum().sqrt(), atol=1e-5, rtol=1e-5)


# ---------------------------------------------------------------- what learns, what stays


def test_a_model_with_new_adapters_is_the_model_and_the_model_is_left_alone():
    model, tokens = decoder().eval(), windows()[0][0]
    model.blocks[0].mlp.train()
    before = copy.deepcopy(model.state_dict())
    tuned = add_adapters(model, 3, 6.0)
    assert torch.equal(tuned(tokens), model(tokens))
    assert not tuned.training and tuned.blocks[0].mlp.up.training
    assert all(p.requires_grad for p in model.parameters())
    assert all(torch.equal(before[name], t) for name, t in model.state_dict().items())
    shared = {p.data_ptr() for p in tuned.parameters()} & {p.data_ptr() for p in model.parameters()}
    assert not shared
    learns = trainable(tuned)
    assert len(learns) == 2 * 14 and all(n.endswith(("left", "right")) for n in learns)
    assert sum(p.numel() for p in learns.values()) == sum(
        3 * sum(layer.weight.shape) for layer in model.modules() if type(layer) is nn.Linear
    )


def test_after_training_the_bytes_of_the_base_are_what_they_were():
    model, tuned = decoder(), trained()
    found = {n.replace(".base.", "."): t for n, t in tuned.state_dict().items()}
    for name, tensor in model.state_dict().items():
        assert torch.equal(found[name].view(torch.int32), tensor.view(torch.int32)), name
    assert all(p.grad is None for n, p in tuned.named_parameters() if not p.requires_grad)
    assert all(layer.left.any() for layer in tuned.modules() if isinstance(layer, LoRALinear))


def test_at_the_start_the_left_factor_moves_and_from_zeros_nothing_does():
    tuned = add_adapters(decoder(), 2, 4.0)
    next_token_loss(tuned, windows()[0]).backward()
    for name, parameter in trainable(tuned).items():
        assert bool(parameter.grad.any()) == name.endswith("left")
    zeros = {n: torch.zeros_like(t) if t.dim() else t for n, t in adapter_tensors(tuned).items()}
    dead = load_adapters(decoder(), zeros)
    optimizer = torch.optim.AdamW(trainable(dead).values(), lr=0.1)
    train(dead, windows(3), next_token_loss, [optimizer])
    assert not any(parameter.any() for parameter in trainable(dead).values())


def test_a_seed_gives_one_start_and_the_global_generator_is_not_asked():
    model = decoder()
    before = torch.random.get_rng_state()
    starts = [add_adapters(model, 2, 4.0, torch.Generator().manual_seed(s)) for s in (1, 1, 2)]
    one, two, other = (adapter_tensors(tuned)["blocks.1.mlp.up.right"] for tuned in starts)
    assert torch.equal(one, two) and not torch.equal(one, other)
    merged(load_adapters(model, adapter_tensors(starts[0])))
    assert torch.equal(before, torch.random.get_rng_state())


def test_the_start_is_uniform_up_to_one_over_the_root_of_the_inputs():
    layer = LoRALinear(nn.Linear(10_000, 64), 32, 1.0, torch.Generator().manual_seed(0))
    bound = 0.01
    assert 0.999 * bound < layer.right.abs().max() <= bound
    torch.testing.assert_close(layer.right.std(), torch.tensor(bound / 3**0.5), rtol=0.01, atol=0)


def test_some_layers_by_name():
    names = ["blocks.1.attention.value", "blocks.0.attention.query"]
    tuned = add_adapters(decoder(), 2, 4.0, names=names)
    assert {name.rpartition(".")[0] for name in trainable(tuned)} == set(names)
    same = add_adapters(decoder(), 2, 4.0, torch.Generator().manual_seed(3), names)
    turned = add_adapters(decoder(), 2, 4.0, torch.Generator().manual_seed(3), names[::-1])
    pairs = zip(trainable(same).values(), trainable(turned).values(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


def test_a_layer_in_two_places_has_one_adapter():
    """Blocks that are shared, as in ALBERT."""
    layer = nn.Linear(4, 4)
    tuned = add_adapters(nn.Sequential(layer, nn.ReLU(), layer), 2, 4.0)
    assert tuned[0] is tuned[2] and len(trainable(tuned)) == 2
    one = merged(tuned)
    assert one[0] is one[2]


def test_copies_and_state_dicts_hold_the_adapters():
    tuned, tokens = trained(), windows()[0][0]
    assert torch.equal(copy.deepcopy(tuned)(tokens), tuned(tokens))
    fresh = add_adapters(decoder(), 4, 12.0)
    fresh.load_state_dict(tuned.state_dict())
    assert torch.equal(fresh(tokens), tuned(tokens))
    assert torch.equal(tuned.train()(tokens), tuned.eval()(tokens))


def test_one_number():
    layer = LoRALinear(nn.Linear(1, 1, bias=False), 1, 2.0)
    layer.left.data.fill_(3.0)
    x = torch.tensor([[0.5]])
    wanted = x * (layer.base.weight + 2.0 * 3.0 * layer.right)
    torch.testing.assert_close(layer(x), wanted)


# ---------------------------------------------------------------- merge, unmerge


@pytest.mark.parametrize(("dtype", "half"), [(torch.bfloat16, 2**-8), (torch.float16, 2**-11)])
def test_in_16_bits_merging_rounds_once_and_what_comes_back_is_near(dtype, half):
    """To the nearest: half a unit in the last place, once for the sum and once for what is left."""
    weight = torch.randn(64, 48).to(dtype)
    left, right = torch.randn(64, 4), 0.05 * torch.randn(4, 48)
    exact = weight.double() + 2.0 / 4 * left.double() @ right.double()
    one = merge(weight, left, right, 2.0)
    assert one.dtype == dtype
    off = (one.double() - exact).abs()
    assert (off <= half * exact.abs() + 1e-6).all()  # float32's own sums are off by that
    back = merge(one, left, right, -2.0)
    assert not torch.equal(back, weight)  # what was rounded off is gone
    lost = (back.double() - weight.double()).abs()
    assert (lost <= half * (one.double().abs() + back.double().abs()) + 1e-6).all()


def test_in_float32_what_comes_back_is_off_by_rounding_alone():
    weight, left, right = torch.randn(64, 48), torch.randn(64, 4), torch.randn(4, 48)
    back = merge(merge(weight, left, right, 8.0), left, right, -8.0)
    torch.testing.assert_close(back, weight, rtol=0, atol=2e-6)  # 2⁻²⁴ of sums up to 20
    assert torch.equal(merge(weight, torch.zeros(64, 4), right, 8.0), weight)


def test_merged_models_are_the_models_that_were_trained():
    """Sums in another order: float32's rounding in logits of about 1."""
    tuned, tokens = trained(), windows()[0][0]
    one = merged(tuned)
    torch.testing.assert_close(one(tokens), tuned(tokens), rtol=1e-4, atol=1e-5)
    assert not any(isinstance(part, LoRALinear) for part in one.modules())
    assert not trainable(one) and one.state_dict().keys() == decoder().state_dict().keys()
    back, base = unmerged(one, adapter_tensors(tuned)), decoder()
    for name, tensor in base.state_dict().items():
        torch.testing.assert_close(back.state_dict()[name], tensor, rtol=0, atol=1e-6)
    again = merged(add_adapters(one, 2, 4.0))  # others may be put on
    assert torch.equal(again(tokens), one(tokens))


def test_merging_keeps_biases_and_modes():
    tuned = add_adapters(sequence().eval(), 3, 6.0)
    one = merged(tuned)
    assert torch.equal(one[1].bias, tuned[1].base.bias) and not one[1].training
    back = unmerged(one, adapter_tensors(tuned))
    assert torch.equal(back[3].bias, one[3].bias) and not back[3].training


@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_tiny_and_huge_weights_merge(scale):
    weight, left, right = scale * torch.randn(4, 5), scale * torch.randn(4, 2), torch.randn(2, 5)
    exact = weight.double() + left.double() @ right.double()
    torch.testing.assert_close(merge(weight, left, right, 2.0), exact.float())


# ---------------------------------------------------------------- files


def test_a_file_holds_the_adapters_and_nothing_of_the_base():
    tuned, tokens = trained(), windows()[0][0]
    tensors = adapter_tensors(tuned)
    written = save(tensors)
    numbers = sum(p.numel() for p in trainable(tuned).values())
    assert 4 * numbers < len(written) < 4 * numbers + 100 * len(tensors) + 100
    again = load_adapters(decoder(), load(written))
    assert torch.equal(again(tokens), tuned(tokens))
    assert trainable(again).keys() == trainable(tuned).keys()
    small = load_adapters(decoder(), load(save({n: t.half() for n, t in tensors.items()})))
    torch.testing.assert_close(small(tokens), tuned(tokens), rtol=0, atol=5e-3)


def test_saved_tensors_do_not_go_on_learning():
    tuned = trained(steps=2)
    tensors = adapter_tensors(tuned)
    kept = {name: tensor.clone() for name, tensor in tensors.items()}
    optimizer = torch.optim.AdamW(trainable(tuned).values(), lr=0.1)
    train(tuned, windows(2), next_token_loss, [optimizer])
    assert all(torch.equal(kept[name], tensor) for name, tensor in tensors.items())


def test_a_bare_layer_has_a_file_too():
    base = nn.Linear(6, 4)
    tuned = add_adapters(base, 2, 4.0)
    assert adapter_tensors(tuned).keys() == {"left", "right", "alpha"}
    x = torch.randn(3, 6)
    assert torch.equal(load_adapters(base, adapter_tensors(tuned))(x), tuned(x))
    assert type(unmerged(merged(tuned), adapter_tensors(tuned))) is nn.Linear


# ---------------------------------------------------------------- refused


def test_bad_adapters_are_refused():
    base = nn.Linear(6, 4)
    for rank in (0, -1, 5):
        with pytest.raises(ValueError, match=f"rank must be from 1 to 4 .* got {rank}"):
            LoRALinear(base, rank, 1.0)
    for alpha in (0.0, -1.0, float("inf"), float("nan")):
        with pytest.raises(ValueError, match="alpha must be above 0 and finite"):
            LoRALinear(base, 2, alpha)
    for other in (nn.Embedding(9, 4), nn.Conv1d(3, 3, 1)):
        with pytest.raises(ValueError, match="base must be a layer with in_features"):
            LoRALinear(other, 1, 1.0)


def test_models_that_cannot_have_adapters_are_refused():
    model = decoder()
    with pytest.raises(ValueError, match="at least one layer must get an adapter"):
        add_adapters(nn.ReLU(), 2, 4.0)
    with pytest.raises(ValueError, match="at least one layer must get an adapter"):
        add_adapters(model, 2, 4.0, names=[])
    with pytest.raises(ValueError, match="it has no blocks.9.mlp.up"):
        add_adapters(model, 2, 4.0, names=["blocks.9.mlp.up"])
    with pytest.raises(ValueError, match="base must be a layer with in_features"):
        add_adapters(model, 2, 4.0, names=["embedding"])
    with pytest.raises(ValueError, match="rank must be from 1 to 8"):
        add_adapters(model, 9, 4.0)  # the keys have 2 heads of 4
    with pytest.raises(ValueError, match="must have no adapters yet"):
        add_adapters(add_adapters(model, 2, 4.0), 2, 4.0)
    tied = nn.Sequential(nn.Embedding(9, 4), nn.Linear(4, 4), nn.Linear(4, 9, bias=False))
    tied[2].weight = tied[0].weight
    with pytest.raises(ValueError, match="2 must not get an adapter: it is tied to another module"):
        add_adapters(tied, 2, 4.0)
    assert len(trainable(add_adapters(tied, 2, 4.0, names=["1"]))) == 2


def test_files_that_do_not_fit_are_refused():
    model, tensors = decoder(), adapter_tensors(trained())
    name = "blocks.0.mlp.up"

    def without(*gone: str, **new) -> dict:
        kept = {n: t for n, t in tensors.items() if n not in gone}
        return kept | {f"{name}.{part}": tensor for part, tensor in new.items()}

    wrong = {
        "left, right, alpha of layers": without(f"{name}.left"),
        "got left, right, alpha, bias of": without(bias=torch.zeros(40)),
        "alpha of blocks.9.mlp.up": {
            n.replace(name, "blocks.9.mlp.up"): t for n, t in tensors.items()
        },
        r"left \(40, r\), right \(r, 24\)": without(left=torch.zeros(41, 4)),
        r"got \(40, 4\), \(3, 24\)": without(right=torch.zeros(3, 24)),
        r"\(4, 24\) and \(1,\)": without(alpha=torch.ones(1)),
        r"got \(40, 4\), \(\) and \(\)": without(right=torch.ones(())),
        "left must be finite": without(left=torch.full((40, 4), torch.nan)),
        "alpha must be above 0": without(alpha=torch.tensor(-1.0)),
        "rank must be from 1 to 24": without(left=torch.zeros(40, 25), right=torch.zeros(25, 24)),
    }
    for message, given_ in wrong.items():
        with pytest.raises(ValueError, match=message):
            load_adapters(model, given_)
    with pytest.raises(ValueError, match="base must be a layer"):
        load_adapters(model, {n.replace(name, "embedding"): t for n, t in tensors.items()})
    with pytest.raises(ValueError, match="at least one layer must get an adapter"):
        load_adapters(model, {})
    with pytest.raises(ValueError, match="must have no adapters yet"):
        load_adapters(trained(), tensors)


def test_sums_that_are_not_finite_are_refused():
    ones = torch.ones(2, 1)
    for name in ("weight", "left", "right"):
        given_ = {"weight": torch.ones(2, 2), "left": ones, "right": ones.T.clone()}
        given_[name] = torch.full_like(given_[name], torch.inf)
        with pytest.raises(ValueError, match=f"{name} must be finite"):
            merge(**given_, alpha=1.0)
    big = torch.full((2, 2), 6e4).half()
    with pytest.raises(ValueError, match="the merged weight, in torch.float16, must be finite"):
        merge(big, 1e4 * ones, ones.T, alpha=1.0)
    for left, right in ((ones, torch.ones(2, 2)), (torch.ones(3, 1), ones.T), (ones[0], ones.T)):
        with pytest.raises(ValueError, match=r"weight must have shape \(O, I\)"):
            merge(torch.ones(2, 2), left, right, 1.0)
    with pytest.raises(ValueError, match="r at least 1"):
        merge(torch.ones(2, 2), torch.ones(2, 0), torch.ones(0, 2), 1.0)
    with pytest.raises(TypeError, match="weight must be a tensor of floats"):
        merge(torch.ones(2, 2).int(), ones, ones.T, 1.0)


# ---------------------------------------------------------------- other places


def test_under_autocast_the_change_is_summed_in_full():
    weight, left, right = torch.randn(8, 8), torch.randn(8, 2), torch.randn(2, 8)
    wanted = merge(weight, left, right, 2.0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(merge(weight, left, right, 2.0), wanted)


ON_AN_ACCELERATOR = """
import torch
from fake_accelerator import accelerator
from torch import nn
from course_lib.low_rank.adapters import adapter_tensors, add_adapters, merged, trainable
with accelerator() as put:
    model = put({"model": nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 3))})["model"]
    x = put({"x": torch.randn(5, 6)})["x"]
    tuned = add_adapters(model, 2, 4.0, torch.Generator().manual_seed(0))
    y = tuned(x)
    y.sum().backward()
    found = [y, *trainable(tuned).values(), *(p.grad for p in trainable(tuned).values())]
    one = merged(tuned)
    tensors = adapter_tensors(tuned)
    found += [one(x), *(t for n, t in tensors.items() if not n.endswith("alpha"))]
    assert all(t.device.type == "toygpu" for t in found if torch.is_tensor(t)), found
"""


def test_on_an_accelerator():
    run_on_accelerator(ON_AN_ACCELERATOR)
