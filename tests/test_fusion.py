import copy
import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_linear_bn_eval
from torch.utils._python_dispatch import TorchDispatchMode

from course_lib.acceleration.attention import attention_traffic, plain_attention
from course_lib.acceleration.batch_norm import fold_batch_norm, fold_batch_norms
from course_lib.acceleration.cache import PreallocatedCache, ThroughCache
from course_lib.acceleration.fusion import (
    fold_norm_gains,
    fuse_model,
    has_compiler,
    join_linears,
)
from course_lib.models.digits_cnn import DigitsCNN
from course_lib.models.llama import Llama, LlamaConfig
from course_lib.models.llama_config import BlockShape

SMALL = LlamaConfig(
    vocabulary=50, width=48, layers=2, heads=6, kv_heads=2, mlp_width=40, context=32
)
UNEVEN = SMALL.with_shapes([BlockShape((3, 1), 40), BlockShape((2,), 7)])
CONFIGS = {"tied": SMALL, "untied": replace(SMALL, tied=False), "uneven": UNEVEN}
TOKENS = torch.randint(50, (2, 20), generator=torch.Generator().manual_seed(0))


def small(config: LlamaConfig = SMALL) -> Llama:
    """With weights large enough for every part to matter, gains far from 1 among them."""
    torch.manual_seed(0)
    model = Llama(config).eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3)
    return model


def relative(found: torch.Tensor, expected: torch.Tensor) -> float:
    return ((found - expected).abs().max() / expected.abs().max()).item()


def seasoned(batch_norm: nn.Module) -> nn.Module:
    """As if it had learned: no statistic and no weight is 0 or 1."""
    batch_norm.running_mean.normal_()
    batch_norm.running_var.uniform_(0.1, 3)
    if batch_norm.affine:
        nn.init.normal_(batch_norm.weight)
        nn.init.normal_(batch_norm.bias)
    return batch_norm.eval()


# ---------------------------------------------------------------------------------- BatchNorm

CONVOLUTIONS = {
    "without a bias": (nn.Conv2d(4, 6, 3, bias=False), (5, 4, 8, 8)),
    "with a bias": (nn.Conv2d(4, 6, 3), (5, 4, 8, 8)),
    "stride, padding, groups": (nn.Conv2d(4, 6, 3, 2, 1, groups=2), (5, 4, 8, 8)),
    "1-D": (nn.Conv1d(4, 6, 3), (5, 4, 8)),
    "3-D": (nn.Conv3d(4, 6, 2), (5, 4, 3, 3, 3)),
    "linear": (nn.Linear(4, 6), (5, 4)),
    "linear, no bias": (nn.Linear(4, 6, bias=False), (5, 4)),
}


@pytest.mark.parametrize("case", CONVOLUTIONS)
@pytest.mark.parametrize("affine", [True, False])
@torch.no_grad()
def test_a_batch_norm_folds_into_every_kind_of_layer(case, affine):
    layer, shape = CONVOLUTIONS[case]
    kind = {2: nn.BatchNorm1d, 3: nn.BatchNorm1d, 4: nn.BatchNorm2d, 5: nn.BatchNorm3d}[len(shape)]
    norm, x = seasoned(kind(6, affine=affine)), torch.randn(shape)
    before = copy.deepcopy(layer.state_dict())
    folded = fold_batch_norm(layer, norm)
    assert relative(folded(x), norm(layer(x))) < 1e-5
    assert all(layer.state_dict()[name].equal(x) for name, x in before.items())


@torch.no_grad()
def test_folding_agrees_with_pytorch():
    norm = seasoned(nn.BatchNorm2d(6))
    for case in ("without a bias", "with a bias", "stride, padding, groups"):
        ours, peer = (
            f(CONVOLUTIONS[case][0].eval(), norm) for f in (fold_batch_norm, fuse_conv_bn_eval)
        )
        torch.testing.assert_close(ours.weight, peer.weight, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(ours.bias, peer.bias, rtol=1e-5, atol=1e-6)
    norm, layer = seasoned(nn.BatchNorm1d(6)), CONVOLUTIONS["linear"][0].eval()
    ours, peer = fold_batch_norm(layer, norm), fuse_linear_bn_eval(layer, norm)
    torch.testing.assert_close(ours.weight, peer.weight, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(ours.bias, peer.bias, rtol=1e-5, atol=1e-6)


@torch.no_grad()
def test_a_channel_that_never_varied_folds_too():
    norm = seasoned(nn.BatchNorm1d(6))
    norm.running_var[2] = 0
    layer, x = CONVOLUTIONS["linear"][0], torch.randn(5, 4)
    assert relative(fold_batch_norm(layer, norm)(x), norm(layer(x))) < 1e-5


@torch.no_grad()
def test_a_network_without_its_batch_norms_gives_the_same():
    network, images = DigitsCNN().eval(), torch.rand(7, 64)
    for module in network:
        if isinstance(module, nn.BatchNorm2d):
            seasoned(module)
    folded = fold_batch_norms(network)
    assert len(network) - len(folded) == 3 and not folded.training
    assert not any(isinstance(module, nn.BatchNorm2d) for module in folded)
    assert relative(folded(images), network(images)) < 1e-5


def test_a_batch_norm_with_no_layer_before_it_stays():
    network = nn.Sequential(nn.BatchNorm1d(3), nn.Linear(3, 3), nn.ReLU(), nn.BatchNorm1d(3)).eval()
    assert len(fold_batch_norms(network)) == 4


@pytest.mark.parametrize(
    ("layer", "norm", "error", "says"),
    [
        (nn.ReLU(), nn.BatchNorm1d(6).eval(), TypeError, "got ReLU"),
        (nn.Linear(4, 6), nn.ReLU(), TypeError, "got ReLU"),
        (nn.Linear(4, 6), nn.BatchNorm1d(5).eval(), ValueError, "6 outputs; got one for 5"),
        (nn.Linear(4, 6), nn.BatchNorm1d(6), ValueError, "eval mode"),
        (
            nn.Linear(4, 6),
            nn.BatchNorm1d(6, track_running_stats=False).eval(),
            ValueError,
            "running statistics",
        ),
    ],
)
def test_what_does_not_fold_is_refused(layer, norm, error, says):
    with pytest.raises(error, match=says):
        fold_batch_norm(layer, norm)


# ------------------------------------------------------------------------------ a decoder's parts


@pytest.mark.parametrize("case", CONFIGS)
@torch.no_grad()
def test_gains_fold_and_the_logits_stay(case):
    model = small(CONFIGS[case])
    folded = fold_norm_gains(model)
    assert relative(folded(TOKENS), model(TOKENS)) < 1e-5
    assert all((block.mlp_norm.weight == 1).all() for block in folded.blocks)
    assert (folded.norm.weight == 1).all().item() is not model.config.tied
    assert not (model.blocks[0].mlp_norm.weight == 1).any()  # a copy was folded


@torch.no_grad()
def test_joined_layers_give_the_outputs_side_by_side():
    layers = [nn.Linear(5, 3), nn.Linear(5, 1), nn.Linear(5, 4)]
    x = torch.randn(2, 5)
    expected = torch.cat([layer(x) for layer in layers], dim=-1)
    torch.testing.assert_close(join_linears(layers)(x), expected)


@pytest.mark.parametrize(
    "layers",
    [
        [],
        [nn.Linear(5, 3), nn.Linear(4, 3)],
        [nn.Linear(5, 3), nn.Linear(5, 3, bias=False)],
        [nn.Linear(5, 3), nn.Linear(5, 3).double()],
    ],
)
def test_layers_that_differ_are_not_joined(layers):
    with pytest.raises(ValueError, match="equal inputs, dtype and device"):
        join_linears(layers)


@pytest.mark.parametrize("case", CONFIGS)
@torch.no_grad()
def test_a_fused_decoder_gives_the_same_logits_with_and_without_a_cache(case):
    model = small(CONFIGS[case])
    fused, expected = fuse_model(model), model(TOKENS)
    assert relative(fused(TOKENS), expected) < 1e-5
    for make in (dict, lambda: PreallocatedCache(20)):
        assert relative(ThroughCache(fused, make)(TOKENS), expected) < 1e-5
    gains = 0 if case == "untied" else model.config.width
    norms = sum(p.numel() for p in model.parameters() if p.dim() == 1)
    counts = [sum(p.numel() for p in net.parameters()) for net in (model, fused)]
    assert counts[0] - counts[1] == norms - gains


@torch.no_grad()
def test_tinylm_fused_gives_the_same_logits(tiny):
    tokens = torch.randint(2048, (2, 100))
    assert relative(fuse_model(tiny[0])(tokens), tiny[0](tokens)) < 1e-5


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.bfloat16, 0.05), (torch.float64, 1e-6)])
@torch.no_grad()
def test_other_float_types_fuse(dtype, tolerance):
    """RMSNorm computes in float32 whatever it is given, so float64 agrees no further."""
    model = small().to(dtype)
    assert relative(fuse_model(model)(TOKENS), model(TOKENS)) < tolerance


# ----------------------------------------------------------------------------------- attention


def random_heads(H: int, G: int, T: int, S: int, E: int) -> list[torch.Tensor]:
    return [torch.randn(2, heads, length, E) for heads, length in ((H, T), (G, S), (G, S))]


@pytest.mark.parametrize(
    "shape", [(6, 2, 5, 5, 4), (6, 6, 1, 9, 8), (3, 1, 4, 9, 2), (1, 1, 1, 1, 2)]
)
@pytest.mark.parametrize("causal", [True, False])
def test_plain_attention_is_the_fused_one(shape, causal):
    q, k, v = random_heads(*shape)
    T, S = shape[2], shape[3]
    seen = torch.ones(T, S, dtype=torch.bool).tril(S - T) if causal else None
    fused = F.scaled_dot_product_attention(q, k, v, attn_mask=seen, enable_gqa=True)
    torch.testing.assert_close(plain_attention(q, k, v, seen), fused, rtol=1e-4, atol=1e-5)


def test_plain_attention_by_loops():
    q, k, v = random_heads(4, 2, 3, 5, 2)
    ours = plain_attention(q, k, v)
    for h in range(4):
        for t in range(3):
            e = [math.exp(float(q[1, h, t] @ k[1, h // 2, s]) / math.sqrt(2)) for s in range(5)]
            mixed = sum(e[s] * v[1, h // 2, s] for s in range(5)) / sum(e)
            torch.testing.assert_close(ours[1, h, t], mixed, rtol=1e-4, atol=1e-5)


def test_heads_that_do_not_divide_are_refused():
    with pytest.raises(ValueError, match="got 2 and 3"):
        plain_attention(*random_heads(3, 2, 1, 1, 2))


class Traffic(TorchDispatchMode):
    """Bytes that the products and the softmax read and write."""

    def __init__(self):
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(self, function, types, given=(), named=None):
        result = function(*given, **(named or {}))
        if function in (torch.ops.aten.bmm.default, torch.ops.aten._softmax.default):
            self.bytes += sum(x.nbytes for x in [*given, result] if isinstance(x, torch.Tensor))
        return result


@pytest.mark.parametrize("shape", [(3, 3, 7, 11, 4), (2, 2, 1, 9, 8), (1, 1, 64, 64, 16)])
def test_traffic_is_what_the_steps_read_and_write(shape):
    H, G, T, S, E = shape
    q, k, v = random_heads(*shape)
    with Traffic() as counted:
        plain_attention(q, k, v)
    plain, fused = attention_traffic(2, H, G, T, S, E)
    result = torch.empty(2, H, T, E)
    assert counted.bytes == plain
    assert fused == q.nbytes + k.nbytes + v.nbytes + result.nbytes


def test_traffic_of_one_token_is_the_caches():
    plain, fused = attention_traffic(1, 9, 3, tokens=1, seen=4096, head_width=64, bits=16)
    cache = 2 * 3 * 4096 * 64 * 2
    assert cache < fused < 1.01 * cache and plain < 1.2 * fused


def test_traffic_of_nothing_is_refused():
    with pytest.raises(ValueError, match="at least 1"):
        attention_traffic(1, 1, 1, 0, 1, 1)


# ------------------------------------------------------------------------------------ compiling


def test_a_compiler_that_is_not_there_is_not_found(monkeypatch):
    monkeypatch.setenv("CXX", "a-compiler-that-is-not-there")
    assert not has_compiler()
