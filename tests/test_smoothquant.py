import math

import pytest
import torch

from course_lib.language_models.quantized_inputs import quantized_inputs
from course_lib.language_models.smoothquant import input_maxima, smoothed, smoothing_scale
from course_lib.models.llama import Llama, LlamaConfig, initialize
from course_lib.models.parts import record_inputs
from course_lib.models.pretrained import tiny

CONFIG = LlamaConfig(
    vocabulary=50, width=24, layers=2, heads=6, kv_heads=2, mlp_width=40, context=32
)
TOKENS = torch.randint(50, (3, 20), generator=torch.Generator().manual_seed(0))


def small() -> Llama:
    torch.manual_seed(0)
    model = Llama(CONFIG).requires_grad_(False)
    initialize(model)
    return model


def with_outliers() -> Llama:
    """Channels of the norms, and hidden units, 100 times larger and read 100 times less."""
    model = small()
    for block in model.blocks:
        attention, mlp = block.attention, block.mlp
        block.attention_norm.weight[3] *= 100
        block.mlp_norm.weight[5] *= 100
        mlp.up.weight[7] *= 100
        for layer in (attention.query, attention.key, attention.value):
            layer.weight[:, 3] /= 100
        for layer in (mlp.gate, mlp.up):
            layer.weight[:, 5] /= 100
        mlp.down.weight[:, 7] /= 100
    return model


def relative(found, exact) -> float:
    return ((found - exact).abs().max() / exact.abs().max()).item()


@pytest.mark.parametrize("alpha", [0.0, 0.3, 0.5, 1.0])
def test_the_scale_is_the_formula_over_all_layers(alpha):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(50, 12, generator=generator)
    weights = [torch.randn(outputs, 12, generator=generator) for outputs in (3, 8)]
    scale = smoothing_scale(x.abs().amax(0), weights, alpha)
    for j in range(12):
        column = max(abs(w) for weight in weights for w in weight[:, j].tolist())
        expected = x[:, j].abs().max().item() ** alpha / column ** (1 - alpha)
        assert scale[j].item() == pytest.approx(expected, rel=1e-5)


def test_at_one_half_inputs_and_weights_become_equally_large():
    x, weight = torch.randn(50, 12) * torch.logspace(-1, 2, 12), torch.randn(5, 12)
    scale = smoothing_scale(x.abs().amax(0), [weight])
    torch.testing.assert_close((x / scale).abs().amax(0), (weight * scale).abs().amax(0))


def test_channels_where_nothing_flows_or_nobody_reads_have_a_scale():
    scale = smoothing_scale(torch.tensor([0.0, 2.0, 8.0]), [torch.tensor([[1.0, 0.0, 2.0]])])
    assert scale.isfinite().all() and (scale > 0).all()
    assert scale[2] == 2
    for maxima, weight in ((torch.zeros(3), torch.ones(1, 3)), (torch.ones(3), torch.zeros(1, 3))):
        assert smoothing_scale(maxima, [weight]).equal(torch.ones(3))


def test_half_precision_gives_a_float32_scale():
    scale = smoothing_scale(torch.full((3,), 4e4).half(), [torch.full((2, 3), 0.01).half()], 0.9)
    assert scale.dtype == torch.float32 and scale.isfinite().all()


@pytest.mark.parametrize(
    ("maxima", "weight", "alpha", "says"),
    [
        (torch.ones(3), torch.ones(1, 3), 1.1, "alpha must be from 0 to 1; got 1.1"),
        (torch.ones(3), torch.ones(1, 3), math.nan, "alpha must be from 0 to 1"),
        (-torch.ones(3), torch.ones(1, 3), 0.5, "be ≥ 0"),
        (torch.full((3,), math.nan), torch.ones(1, 3), 0.5, "maxima must be finite"),
        (torch.ones(3), torch.full((1, 3), math.inf), 0.5, "weight must be finite"),
        (torch.ones(3), torch.ones(1, 4), 0.5, r"shape \(O, 3\); got \(1, 4\)"),
    ],
)
def test_bad_input_is_refused(maxima, weight, alpha, says):
    with pytest.raises(ValueError, match=says):
        smoothing_scale(maxima, [weight], alpha)


def test_maxima_are_those_of_what_the_layers_are_given():
    model = small()
    maxima = input_maxima(model, TOKENS)
    assert len(maxima) == 14
    for name, found in maxima.items():
        layer = model.get_submodule(name.removesuffix(".weight"))
        (x,) = record_inputs(model, TOKENS, [layer])
        torch.testing.assert_close(found, x.abs().amax(0), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("build", [small, with_outliers])
def test_smoothing_keeps_the_function_under_shared_value_heads(build):
    model = build()
    exact = model(TOKENS)
    assert relative(smoothed(model, TOKENS)(TOKENS), exact) < 1e-5
    assert model(TOKENS).equal(exact)


def test_smoothing_keeps_tinylm():
    model, tokens = tiny()[0], torch.randint(2048, (2, 60), generator=torch.Generator())
    assert relative(smoothed(model, tokens)(tokens), model(tokens)) < 1e-5


def test_outliers_of_channels_no_longer_spoil_a_static_scale():
    model = with_outliers()
    exact = model(TOKENS)
    errors = []
    for candidate in (model, smoothed(model, TOKENS)):
        quantized = quantized_inputs(candidate, 8, input_maxima(candidate, TOKENS))
        errors.append((quantized(TOKENS) - exact).norm())
    assert errors[1] < errors[0] / 5


def test_a_model_in_half_precision_stays_what_it_was():
    model = with_outliers().half()
    ready = smoothed(model, TOKENS)
    assert {p.dtype for p in ready.parameters()} == {torch.float16}
    assert relative(ready(TOKENS).float(), with_outliers()(TOKENS)) < 0.02


def test_dead_channels_keep_the_function_too():
    model = small()
    model.blocks[0].attention_norm.weight[2] = 0
    model.blocks[0].mlp.up.weight[4] = 0
    model.blocks[1].attention.value.weight.zero_()
    assert relative(smoothed(model, TOKENS)(TOKENS), model(TOKENS)) < 1e-5


def test_a_broken_model_is_refused():
    model = small()
    model.blocks[1].mlp.down.weight[0, 0] = math.nan
    with pytest.raises(ValueError, match="must be finite"):
        smoothed(model, TOKENS)
