import math

import pytest
import torch
from on_accelerator import run_on_accelerator
from torch import Tensor

from course_lib.formats.linear import Scheme
from course_lib.formats.model_file import every_linear, quantize_model
from course_lib.language_models.awq import clipped, scaled, search_clip, search_scale
from course_lib.models.llama import Llama, LlamaConfig, initialize
from course_lib.models.moments import Moments, output_error
from course_lib.models.pretrained import tiny
from course_lib.quantization.calibration import minmax_range, mse_range
from course_lib.quantization.linear import Format, fake_quantize, fit_grid
from course_lib.quantization.rows import to_rows

CONFIG = LlamaConfig(
    vocabulary=50, width=24, layers=2, heads=6, kv_heads=2, mlp_width=40, context=32
)
TOKENS = torch.randint(50, (3, 20), generator=torch.Generator().manual_seed(0))
FORMATS = [Format(2), Format(3), Format(4), Format(4, symmetric=True)]


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def some_inputs(inputs: int = 32) -> Tensor:
    """Correlated, with a few large channels."""
    mix = torch.randn(inputs, inputs, generator=seeded(2))
    x = torch.randn(64, inputs, generator=seeded(1)) @ mix
    return x * torch.rand(inputs, generator=seeded(3)).pow(-0.5)


def some_weight(outputs: int = 6, inputs: int = 32, seed: int = 4) -> Tensor:
    """With heavy tails."""
    weight = torch.randn(outputs, inputs, generator=seeded(seed))
    return weight / torch.rand(outputs, inputs, generator=seeded(5)).sqrt()


def moments_of(x: Tensor) -> Moments:
    return Moments.empty(x.shape[1]).add(x)


def nearest(format: Format, granularity: str | int):
    def quantize(weight: Tensor) -> Tensor:
        rows = to_rows(weight, granularity)
        return fake_quantize(rows, fit_grid(*minmax_range(rows), format)).view_as(weight)

    return quantize


def small() -> Llama:
    torch.manual_seed(0)
    model = Llama(CONFIG).requires_grad_(False)
    initialize(model)
    return model


def relative(found, exact) -> float:
    return ((found - exact).abs().max() / exact.abs().max()).item()


# ------------------------------------------------------------------ scale


def scale_on_tokens(weights, x, quantize) -> tuple[Tensor, list[float]]:
    """As the authors' program does it: the layers run again for each candidate."""
    best, errors = None, []
    for step in range(20):
        scale = x.abs().mean(0).pow(step / 20).clamp(min=1e-4)
        scale = scale / (scale.max() * scale.min()).sqrt()
        outputs = [x @ (quantize(weight * scale) / scale - weight).T for weight in weights]
        errors.append(sum(output.square().sum().item() for output in outputs))
        best = scale if errors[-1] == min(errors) else best
    return best, errors


@pytest.mark.parametrize("format", FORMATS, ids=str)
@pytest.mark.parametrize("granularity", ["channel", 8])
def test_the_scale_is_the_one_found_on_tokens(format, granularity):
    x, weights = some_inputs(), [some_weight(), some_weight(3, seed=9)]
    quantize = nearest(format, granularity)
    found = search_scale(weights, moments_of(x), quantize)
    expected, errors = scale_on_tokens(weights, x, quantize)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=0)
    assert min(errors) < errors[0]


def test_layers_that_share_an_input_are_weighed_together():
    x, weights = some_inputs(), [some_weight(), 30 * some_weight(seed=9)]
    quantize, moments = nearest(Format(3), 8), moments_of(x)
    together = search_scale(weights, moments, quantize)
    errors = {}
    for name, scale in {
        "together": together,
        "first": search_scale(weights[:1], moments, quantize),
    }.items():
        changes = [quantize(weight * scale) / scale - weight for weight in weights]
        errors[name] = sum(output_error(change, moments.gram).sum() for change in changes)
    assert errors["together"] <= errors["first"]


def test_exact_weights_need_no_scale():
    assert search_scale([some_weight()], moments_of(some_inputs()), lambda w: w).isfinite().all()
    found = search_scale([torch.zeros(2, 32)], moments_of(some_inputs()), nearest(Format(3), 8))
    assert found.equal(torch.ones(32))


@pytest.mark.parametrize("dead", [slice(0, 1), slice(0, 31), slice(0, 32)])
def test_channels_where_nothing_flows_have_a_finite_scale(dead):
    x = some_inputs()
    x[:, dead] = 0
    found = search_scale([some_weight()], moments_of(x), nearest(Format(3), 8))
    assert found.isfinite().all() and (found > 0).all()
    assert found.max() / found.min() <= 1.01e4


def test_zero_columns_of_a_weight_are_no_trouble():
    weight = some_weight()
    weight[:, 3] = 0
    assert search_scale([weight], moments_of(some_inputs()), nearest(Format(3), 8)).isfinite().all()


def test_half_precision_weights_are_scaled_in_float32():
    x, weight = some_inputs(), some_weight().half()
    found = search_scale([weight], moments_of(x), nearest(Format(3), 8))
    assert found.equal(search_scale([weight.float()], moments_of(x), nearest(Format(3), 8)))


@pytest.mark.parametrize(
    ("weight", "says"),
    [
        (torch.full((2, 32), math.nan), "weight must be finite"),
        (torch.zeros(2, 31), r"gram \(I, I\); got \(2, 31\) and \(32, 32\)"),
    ],
)
def test_weights_that_do_not_fit_are_refused(weight, says):
    moments = moments_of(some_inputs())
    with pytest.raises(ValueError, match=says):
        search_scale([weight], moments, nearest(Format(3), 8))
    with pytest.raises(ValueError, match=says):
        search_clip(weight, moments.gram, Format(3), "channel")


# ------------------------------------------------------------------ clip


def clip_on_tokens(weight, x, format, granularity) -> tuple[Tensor, Tensor]:
    """The ranges, group by group, and the least squared errors of the groups' outputs, (R,)."""
    G = weight.shape[1] if granularity == "channel" else granularity
    ranges, least = [], []
    for row in weight:
        for i in range(0, len(row), G):
            group, inputs = row[None, i : i + G], x[:, i : i + G]
            tried = []
            for step in range(10):
                m = group.abs().max() * (1 - step / 20)
                ends = group.min().clamp(-m, 0).view(1, 1), group.max().clamp(0, m).view(1, 1)
                change = fake_quantize(group, fit_grid(*ends, format)) - group
                tried.append(((inputs @ change.T).square().mean().item(), ends))
            error, ends = min(tried, key=lambda pair: pair[0])
            ranges.append(torch.cat(ends, 1))
            least.append(error)
    return torch.cat(ranges), torch.tensor(least)


@pytest.mark.parametrize("format", FORMATS, ids=str)
@pytest.mark.parametrize("granularity", ["channel", 8])
def test_the_range_is_the_one_found_on_tokens(format, granularity):
    x, weight = some_inputs(), some_weight()
    found = torch.cat(search_clip(weight, moments_of(x).gram, format, granularity), 1)
    expected, _ = clip_on_tokens(weight, x, format, granularity)
    torch.testing.assert_close(found, expected)
    whole = torch.cat(minmax_range(to_rows(weight, granularity)), 1)
    assert not torch.allclose(found, whole)


@pytest.mark.parametrize("format", [Format(3), Format(4)], ids=str)
def test_outputs_are_as_good_as_those_of_the_authors_program(format):
    """It clips the weights themselves, then rounds what is left from its minimum to its maximum."""
    x, weight = some_inputs(64), some_weight(32, 64)
    found = search_clip(weight, moments_of(x).gram, format, 16)
    rows, inputs = to_rows(weight, 16), x.view(64, 4, 16)  # (N, I) -> (N, I/C, C)

    def errors(values: Tensor) -> Tensor:
        change = (values - rows).view(32, 4, 16)  # (R, C) -> (O, I/C, C)
        return torch.einsum("ogc,ngc->nog", change, inputs).square().mean(0)

    theirs = []
    for step in range(10):
        m = rows.abs().amax(1, keepdim=True) * (1 - step / 20)
        clipped_rows = rows.clamp(-m, m)
        grid = fit_grid(*minmax_range(clipped_rows), format)
        theirs.append(errors(fake_quantize(clipped_rows, grid)))
    theirs = torch.stack(theirs).amin(0).sum()
    assert errors(fake_quantize(rows, fit_grid(*found, format))).sum() <= 1.001 * theirs


def test_blocks_of_outputs_change_nothing(monkeypatch):
    from course_lib.quantization import rows as module

    x, weight = some_inputs(), some_weight(50)
    together = search_clip(weight, moments_of(x).gram, Format(3), 8)
    monkeypatch.setattr(module, "BLOCK", 256)
    pieces = search_clip(weight, moments_of(x).gram, Format(3), 8)
    assert all(a.equal(b) for a, b in zip(together, pieces, strict=True))


def test_a_scale_of_the_weight_scales_the_range():
    """Also far beyond where squares are float32 numbers."""
    x, weight = some_inputs(), some_weight()
    low, high = search_clip(weight, moments_of(x).gram, Format(3), 8)
    for factor in (2.0**-80, 2.0**80):
        found = search_clip(weight * factor, moments_of(x).gram, Format(3), 8)
        assert found[0].equal(low * factor) and found[1].equal(high * factor)


def test_where_nothing_flows_nothing_is_clipped():
    low, high = search_clip(some_weight(), torch.zeros(32, 32), Format(3), 8)
    whole = minmax_range(to_rows(some_weight(), 8))
    assert low.equal(whole[0]) and high.equal(whole[1])


def test_groups_of_zeros_or_of_equal_weights_are_kept():
    gram = moments_of(some_inputs()).gram
    for weight in (torch.zeros(2, 32), torch.full((2, 32), 0.7), torch.full((2, 32), -0.7)):
        low, high = search_clip(weight, gram, Format(3), 8)
        values = fake_quantize(to_rows(weight, 8), fit_grid(low, high, Format(3)))
        torch.testing.assert_close(values.view_as(weight), weight)


@pytest.mark.parametrize(("granularity", "says"), [("tensor", 'got "tensor"'), (5, "must divide")])
def test_granularities_without_a_gram_matrix_are_refused(granularity, says):
    with pytest.raises(ValueError, match=says):
        search_clip(some_weight(), torch.eye(32), Format(3), granularity)


def test_a_gram_matrix_that_is_not_finite_is_refused():
    with pytest.raises(ValueError, match="gram must be finite"):
        search_clip(some_weight(), torch.full((32, 32), math.nan), Format(3), 8)


# ------------------------------------------------------------------ whole models


@pytest.mark.parametrize("bits", [2, 4])
def test_scaling_keeps_the_function_under_shared_value_heads(bits):
    model = small()
    exact = model(TOKENS)
    ready = scaled(model, TOKENS, Scheme(Format(bits), 8))
    assert relative(ready(TOKENS), exact) < 1e-5
    assert model(TOKENS).equal(exact)
    assert not torch.allclose(ready.blocks[0].mlp.up.weight, model.blocks[0].mlp.up.weight)


def test_scaling_keeps_tinylm():
    model, tokens = tiny()[0], torch.randint(2048, (2, 60), generator=seeded())
    ready = scaled(model, tokens, Scheme(Format(3), 64))
    assert relative(ready(tokens), model(tokens)) < 1e-5


def test_a_model_in_half_precision_stays_what_it_was():
    model = small().half()
    ready = scaled(model, TOKENS, Scheme(Format(3), 8))
    assert {p.dtype for p in ready.parameters()} == {torch.float16}
    assert relative(ready(TOKENS).float(), small()(TOKENS)) < 0.02


def test_dead_channels_keep_the_function_too():
    model = small()
    model.blocks[0].attention_norm.weight[2] = 0
    model.blocks[0].mlp.up.weight[4] = 0
    model.blocks[1].attention.value.weight.zero_()
    ready = scaled(model, TOKENS, Scheme(Format(3), 8))
    assert relative(ready(TOKENS), model(TOKENS)) < 1e-5


@torch.no_grad()
def test_large_inputs_get_finer_weights_and_the_output_errs_less():
    model = small()
    for block in model.blocks:
        block.attention_norm.weight[3] = 5
        block.mlp_norm.weight[5] = 5
    exact, scheme = model(TOKENS), Scheme(Format(3), 8)
    ready = scaled(model, TOKENS, scheme)
    schemes = {
        "nearest": (model, every_linear(model, scheme)),
        "scale": (ready, every_linear(ready, scheme)),
        "scale and clip": (ready, clipped(ready, TOKENS, scheme)),
    }
    errors = {
        name: (quantize_model(m, chosen)(TOKENS) - exact).norm().item()
        for name, (m, chosen) in schemes.items()
    }
    assert errors["scale"] < 0.95 * errors["nearest"]  # 0.84
    assert errors["scale and clip"] < 0.9 * errors["nearest"]  # 0.76


def test_the_clipped_schemes_write_what_was_found():
    model, scheme = small(), Scheme(Format(3), 8, mse_range)
    schemes = clipped(model, TOKENS, scheme)
    assert schemes.keys() == every_linear(model, scheme).keys()
    weight = model.blocks[1].mlp.down.weight
    found = schemes["blocks.1.mlp.down.weight"]
    low, high = found.calibrate(to_rows(weight, 8), found.format)
    assert low.shape == high.shape == (24 * 5, 1)
    written = quantize_model(model, schemes).blocks[1].mlp.down.weight
    expected = fake_quantize(to_rows(weight, 8), fit_grid(low, high, Format(3))).view_as(weight)
    step = (high - low).max() / 7
    assert (written - expected).abs().max() < 1.01 * step  # the scale is stored in float16
    assert (written - expected).abs().mean() < 0.01 * step


def test_bits_that_there_are_not_are_refused():
    with pytest.raises(ValueError, match="from 2 to 16; got 1"):
        scaled(small(), TOKENS, Scheme(Format(1), 8))


def test_a_broken_model_is_refused():
    model = small()
    model.blocks[1].mlp.down.weight[0, 0] = math.nan
    for treat in (scaled, clipped):
        with pytest.raises(ValueError, match="must be finite"):
            treat(model, TOKENS, Scheme(Format(3), 8))


ON_AN_ACCELERATOR = """
import torch
from fake_accelerator import accelerator
from course_lib.language_models.quantized_inputs import InputQuantized
from course_lib.language_models.awq import search_clip
from course_lib.models.norms import fold_norms
from course_lib.models.llama import Llama, LlamaConfig
from course_lib.quantization.linear import Format

with accelerator() as put, torch.no_grad():
    weight, gram = put(torch.zeros(8, 12)), put(torch.zeros(12, 12))
    found = []
    for format in (Format(4), Format(8, symmetric=True)):
        for granularity in ("channel", 4):
            found += search_clip(weight, gram, format, granularity)
    model = put(Llama(LlamaConfig(20, 16, 2, 4, 2, 24, 32, tied=False)))
    fold_norms(model)
    found += [model(put(torch.zeros(2, 5).long()))]
    found += [InputQuantized(put(torch.nn.Linear(12, 3)), 4)(weight)]
    assert len(found) == 10 and all(tensor.device.type == "toygpu" for tensor in found)
"""


@pytest.mark.slow
def test_what_asks_for_no_number_runs_on_an_accelerator():
    run_on_accelerator(ON_AN_ACCELERATOR)
