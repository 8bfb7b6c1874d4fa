"""A layer of two small ones: beside the product, gradients, files, a layer replaced where asked."""

import copy

import pytest
import torch
from torch import nn

from course_lib.formats.linear import Format, Scheme
from course_lib.formats.model_file import every_linear, pack_model, unpack_model
from course_lib.low_rank.layers import FactoredLinear, replace_layer, with_factors
from course_lib.low_rank.svd import Factors, truncated
from course_lib.measure.size import size
from course_lib.models.parts import linear_weights
from tests.on_accelerator import run_on_accelerator


def some_factors(outputs=5, inputs=7, rank=3, dtype=torch.float32):
    return Factors(torch.randn(outputs, rank, dtype=dtype), torch.randn(rank, inputs, dtype=dtype))


@pytest.mark.parametrize("shape", [(7,), (2, 7), (2, 3, 7), (0, 7)])
@pytest.mark.parametrize("rank", [1, 3])
@pytest.mark.parametrize("biased", [True, False])
def test_it_gives_what_the_product_gives(shape, rank, biased):
    factors = some_factors(rank=rank, dtype=torch.float64)
    bias = torch.randn(5, dtype=torch.float64) if biased else None
    layer, x = FactoredLinear(factors, bias), torch.randn(shape, dtype=torch.float64)
    expected = nn.functional.linear(x, factors.product, bias)
    torch.testing.assert_close(layer(x), expected)
    assert (layer.in_features, layer.out_features) == (7, 5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_dtypes_stay(dtype):
    layer = FactoredLinear(some_factors(dtype=dtype), torch.zeros(5, dtype=dtype))
    assert layer(torch.ones(2, 7, dtype=dtype)).dtype == dtype
    assert {parameter.dtype for parameter in layer.parameters()} == {dtype}


def test_both_factors_learn_as_the_chain_rule_says():
    factors, x = some_factors(dtype=torch.float64), torch.randn(4, 7, dtype=torch.float64)
    layer = FactoredLinear(factors)
    layer(x).square().sum().backward()
    slope = 2 * x @ factors.product.T  # d loss / d y, (4, 5)
    torch.testing.assert_close(layer.left.weight.grad, slope.T @ x @ factors.right.T)
    torch.testing.assert_close(layer.right.weight.grad, factors.left.T @ slope.T @ x)


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(32, 16), nn.ReLU(), nn.Linear(16, 16, bias=False))


def test_only_what_is_named_is_replaced_and_in_a_copy():
    model = network().eval()
    before = copy.deepcopy(model.state_dict())
    small = with_factors(model, {"0.weight": truncated(model[0].weight, 4)})
    assert isinstance(small[0], FactoredLinear) and type(small[2]) is nn.Linear
    assert not small[0].training and all(p.requires_grad for p in small.parameters())
    assert list(linear_weights(small)) == ["0.right.weight", "0.left.weight", "2.weight"]
    with torch.no_grad():
        small[0].left.bias.add_(1)
        small[2].weight.add_(1)
    assert all(torch.equal(before[name], t) for name, t in model.state_dict().items())
    frozen = with_factors(model.requires_grad_(False), {"2.weight": truncated(model[2].weight, 4)})
    assert not any(p.requires_grad for p in frozen.parameters())


def test_at_full_rank_the_model_gives_the_same():
    model = network().double()
    factors = {name: truncated(w, min(w.shape)) for name, w in linear_weights(model).items()}
    x = torch.randn(9, 32, dtype=torch.float64)
    torch.testing.assert_close(with_factors(model, factors)(x), model(x))


def test_a_file_holds_the_factors():
    model = network().requires_grad_(False)
    small = with_factors(model, {"0.weight": truncated(model[0].weight, 4)})
    packed = pack_model(small, every_linear(small, torch.float16))
    assert packed["0.right.weight"].shape == (4, 32)
    again = unpack_model(packed, small)
    torch.testing.assert_close(again[0].right.weight, small[0].right.weight, rtol=1e-3, atol=1e-6)
    assert size(packed).bytes < size(pack_model(model, every_linear(model, torch.float16))).bytes


def test_factors_can_be_rounded_as_any_linear_layer():
    model = network().requires_grad_(False)
    small = with_factors(model, {"0.weight": truncated(model[0].weight, 8)})
    packed = pack_model(small, every_linear(small, Scheme(Format(8), "channel")))
    assert packed["0.left.weight:codes"].nbytes == 16 * 8
    unpacked = unpack_model(packed, small)
    torch.testing.assert_close(unpacked[0].left.weight, small[0].left.weight, rtol=0, atol=5e-3)


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match=r"factors must have shapes \(O, r\) and \(r, I\)"):
        FactoredLinear(Factors(torch.ones(5, 3), torch.ones(2, 7)))
    with pytest.raises(ValueError, match=r"r ≥ 1; got \(5, 0\) and \(0, 7\)"):
        FactoredLinear(some_factors(rank=0))
    with pytest.raises(ValueError, match=r"bias must have shape \(5,\); got \(7,\)"):
        FactoredLinear(some_factors(), torch.ones(7))
    model = network()
    for name in ("1", "3", "", "0.weight"):
        with pytest.raises(ValueError, match="name must be that of an nn.Linear"):
            replace_layer(model, name, some_factors(16, 32))
    with pytest.raises(ValueError, match=r"factors of 0 must fit \(16, 32\)"):
        with_factors(model, {"0.weight": some_factors(32, 16)})
    small = with_factors(model, {"0.weight": some_factors(16, 32)})
    with pytest.raises(ValueError, match="'0' is FactoredLinear"):
        replace_layer(small, "0", some_factors(16, 32))


CONVOLUTIONS = (
    nn.Conv1d(6, 8, 3, stride=2, padding=1),
    nn.Conv1d(6, 8, 3, dilation=2, bias=False),
    nn.Conv2d(3, 8, (2, 3), stride=(1, 2), padding=(0, 1)),
)


@pytest.mark.parametrize("layer", CONVOLUTIONS, ids=str)
def test_a_convolution_becomes_two(layer):
    matrix = layer.weight.detach().flatten(1)
    small = with_factors(nn.Sequential(layer), {"0.weight": truncated(matrix, 3)})[0]
    x = torch.randn(2, layer.in_channels, 7, *[9] * (layer.weight.dim() - 3))
    rounded = copy.deepcopy(layer)
    rounded.weight.data = truncated(matrix, 3).product.view_as(layer.weight)
    torch.testing.assert_close(small(x), rounded(x))
    biases = 0 if layer.bias is None else 8
    assert sum(p.numel() for p in small.parameters()) == 3 * sum(matrix.shape) + biases


@pytest.mark.parametrize("more", [{"groups": 2}, {"padding": 1, "padding_mode": "reflect"}])
def test_a_convolution_of_another_kind_is_refused(more):
    model = nn.Sequential(nn.Conv1d(4, 4, 3, **more))
    with pytest.raises(ValueError, match="groups=1"):
        with_factors(model, {"0.weight": some_factors(4, 12)})


def test_a_convolutions_factors_must_fit():
    model = nn.Sequential(nn.Conv1d(4, 4, 3))
    with pytest.raises(ValueError, match=r"factors of 0 must fit \(4, 12\)"):
        with_factors(model, {"0.weight": some_factors(4, 4)})


def test_it_runs_where_its_factors_are():
    run_on_accelerator(
        """
import torch
from fake_accelerator import accelerator
from torch import nn
from course_lib.low_rank.layers import with_factors
from course_lib.low_rank.svd import truncated
with accelerator() as put:
    model = put(nn.Sequential(nn.Linear(8, 6)))
    small = with_factors(model, {"0.weight": truncated(model[0].weight, 2)})
    assert small(put(torch.ones(3, 8))).device.type == "toygpu"
"""
    )
