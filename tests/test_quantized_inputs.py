import math

import pytest
import torch
from torch import nn

from course_lib.language_models.quantized_inputs import InputQuantized, quantized_inputs
from course_lib.models.llama import Llama, LlamaConfig
from course_lib.models.parts import linear_weights
from course_lib.quantization.calibration import minmax_range
from course_lib.quantization.integer_linear import integer_linear
from course_lib.quantization.linear import fit_symmetric, quantize

CONFIG = LlamaConfig(
    vocabulary=50, width=24, layers=2, heads=6, kv_heads=2, mlp_width=40, context=32
)
TOKENS = torch.arange(20)[None] % 50


def layer(bias: bool = False) -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(40, 7, bias=bias).requires_grad_(False)


def inputs() -> torch.Tensor:
    x = torch.randn(2, 5, 40, generator=torch.Generator().manual_seed(1))
    x[..., 3] *= 50
    return x


@pytest.mark.parametrize("static", [False, True])
@pytest.mark.parametrize("bits", [4, 8])
def test_agrees_with_the_product_of_integers(static, bits):
    """With the weight on its own grid: floats' rounding apart, the same numbers."""
    linear, x = layer(bias=True), inputs()
    rows = x.flatten(0, 1)  # (2, 5, I) -> (T, I)
    w_grid = fit_symmetric(*minmax_range(linear.weight), 8)
    w_codes = quantize(linear.weight, w_grid)
    linear.weight = nn.Parameter(w_codes * w_grid.scale, False)
    if static:
        largest = rows.abs().max().view(1, 1)
        x_grid = fit_symmetric(-largest, largest, bits)
        codes = (rows / x_grid.scale).round().to(torch.int8)
    else:
        x_grid = fit_symmetric(*minmax_range(rows), bits)
        codes = quantize(rows, x_grid)
    expected = integer_linear(codes, x_grid, w_codes, w_grid, linear.bias)
    found = InputQuantized(linear, bits, rows.abs().max() if static else None)(x)
    torch.testing.assert_close(found, expected.view(2, 5, 7), rtol=1e-4, atol=1e-4)


def test_a_static_scale_clips_what_is_beyond_the_calibration_text():
    linear = nn.Linear(1, 1, bias=False)
    nn.init.ones_(linear.weight)
    quantized = InputQuantized(linear, 8, torch.tensor(127.0))
    assert quantized(torch.tensor([[300.0], [-300.0], [1.4]])).flatten().tolist() == [127, -127, 1]


def test_a_huge_token_makes_the_static_scale_coarse_for_all_and_the_dynamic_for_itself():
    linear, x = layer(), inputs()
    x[0, 0, 0] = 1e4
    exact = linear(x)
    dynamic = (InputQuantized(linear, 8)(x) - exact)[1].norm()
    static = (InputQuantized(linear, 8, x.abs().max())(x) - exact)[1].norm()
    assert dynamic < static / 10


def test_a_token_of_zeros_stays_zero_and_keeps_the_others():
    linear, x = layer(bias=True), inputs()
    x[0, 0] = 0
    found = InputQuantized(linear, 8)(x)
    assert found[0, 0].equal(linear.bias)
    assert found.isfinite().all()
    assert InputQuantized(linear, 8, torch.tensor(0.0))(x * 0).isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_comes_back_as_it_went_in(dtype):
    linear, x = layer().to(dtype), inputs().to(dtype)
    found = InputQuantized(linear, 8)(x)
    assert found.dtype == dtype
    expected = InputQuantized(layer(), 8)(inputs())
    torch.testing.assert_close(found.float(), expected, rtol=0.1, atol=0.5)


@pytest.mark.parametrize("largest", [None, torch.tensor(1.0)])
@pytest.mark.parametrize("wrong", [math.nan, math.inf])
def test_inputs_that_are_not_finite_are_refused(largest, wrong):
    x = inputs()
    x[0, 0, 0] = wrong
    with pytest.raises(ValueError, match="must be finite"):
        InputQuantized(layer(), 8, largest)(x)


@pytest.mark.parametrize("largest", [math.nan, math.inf, -1.0])
def test_impossible_maxima_are_refused(largest):
    with pytest.raises(ValueError, match="largest must be"):
        InputQuantized(layer(), 8, torch.tensor(largest))


@pytest.mark.parametrize("bits", [1, 17])
def test_bits_that_there_are_not_are_refused(bits):
    with pytest.raises(ValueError, match=f"from 2 to 16; got {bits}"):
        quantized_inputs(Llama(CONFIG), bits)


@torch.no_grad()
def test_a_model_keeps_its_names_and_weights_and_the_first_one_is_left_alone():
    model = Llama(CONFIG)
    exact = model(TOKENS)
    quantized = quantized_inputs(model, 16)
    assert list(linear_weights(quantized)) == list(linear_weights(model))
    torch.testing.assert_close(quantized(TOKENS), exact, rtol=0, atol=1e-3)
    assert model(TOKENS).equal(exact)
    coarse = quantized_inputs(quantized, 2)  # once more: the new bits count
    assert not torch.allclose(coarse(TOKENS), exact, atol=1e-2)
    assert coarse.state_dict().keys() == model.state_dict().keys()


def test_static_scales_belong_to_the_saved_tensors():
    model = Llama(CONFIG)
    maxima = {
        f"blocks.{name}": weight.new_ones(weight.shape[1])
        for name, weight in linear_weights(model.blocks).items()
    }
    saved = quantized_inputs(model, 8, maxima).state_dict()
    assert saved["blocks.1.mlp.down.input_scale"].tolist() == [[pytest.approx(1 / 127)]]


def test_a_layer_without_maxima_is_named():
    with pytest.raises(ValueError, match="blocks.0.attention.query.weight is missing"):
        quantized_inputs(Llama(CONFIG), 8, {})
