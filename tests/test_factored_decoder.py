"""A decoder of factors: beside the inputs that its layers really get, layer by layer alone."""

import copy
import math

import pytest
import torch

from course_lib.low_rank.budgets import even_ranks, numbers, ranks_by_energy
from course_lib.low_rank.catch_up import caught_up, drift_of
from course_lib.low_rank.decoder import (
    decoder_spectra,
    factor_decoder,
    layer_shapes,
    rank_losses,
)
from course_lib.low_rank.layers import FactoredLinear, with_factors
from course_lib.low_rank.output_aware import output_factors
from course_lib.low_rank.svd import Factors, truncated
from course_lib.measure.size import count_parameters
from course_lib.measure.yardstick import tiny_calibration, tiny_quality
from course_lib.models.llama import Llama, LlamaConfig, generate
from course_lib.models.moments import Moments
from course_lib.models.parts import linear_weights, record_inputs
from course_lib.models.pretrained import tiny
from tests.on_accelerator import run_on_accelerator

CONFIG = LlamaConfig(
    vocabulary=17, width=24, layers=2, heads=6, kv_heads=2, mlp_width=40, context=16, tied=False
)
TOKENS = torch.randint(17, (9, 12), generator=torch.Generator().manual_seed(1))
RANKS = {  # all of a stage, one of a stage, a whole block none
    "blocks.0.attention.query.weight": 5,
    "blocks.0.attention.key.weight": 3,
    "blocks.0.attention.value.weight": 2,
    "blocks.0.attention.output.weight": 7,
    "blocks.0.mlp.up.weight": 4,
    "blocks.0.mlp.down.weight": 6,
}


@pytest.fixture
def model():
    torch.manual_seed(0)
    return Llama(CONFIG).double().requires_grad_(False)


def layer(model, name):
    return model.get_submodule(name.removesuffix(".weight"))


def product(small, name):
    part = layer(small, name)
    return Factors(part.left.weight, part.right.weight).product


def test_shapes_are_those_of_the_blocks(model):
    shapes = layer_shapes(model)
    assert len(shapes) == 14 and shapes["blocks.1.mlp.down.weight"] == (24, 40)
    assert all(model.get_parameter(name).shape == shape for name, shape in shapes.items())


@pytest.mark.parametrize("tokens", [None, TOKENS])
def test_at_full_rank_the_model_gives_the_same(model, tokens):
    full = {name: min(shape) for name, shape in layer_shapes(model).items()}
    small = factor_decoder(model, full, tokens)
    torch.testing.assert_close(small(TOKENS), model(TOKENS), rtol=0, atol=1e-10)
    same = factor_decoder(model, {}, tokens)
    assert torch.equal(same(TOKENS), model(TOKENS)) and same is not model


@pytest.mark.parametrize("tokens", [None, TOKENS])
def test_what_is_named_is_factored_and_nothing_else(model, tokens):
    before = copy.deepcopy(model.state_dict())
    small = factor_decoder(model, RANKS, tokens)
    for name in layer_shapes(model):
        part = layer(small, name)
        assert isinstance(part, FactoredLinear) == (name in RANKS)
        if name in RANKS:
            assert part.right.out_features == RANKS[name]
        else:
            assert torch.equal(part.weight, model.get_parameter(name))
    gone = numbers(layer_shapes(model), {}) - numbers(layer_shapes(model), RANKS)
    assert count_parameters(small) == count_parameters(model) - gone
    assert torch.equal(generate(small, TOKENS[:, :4], 5), generate(small, TOKENS[:, :4], 5, False))
    assert all(torch.equal(before[name], weight) for name, weight in model.state_dict().items())


def test_without_a_text_the_factors_are_the_weights(model):
    small = factor_decoder(model, RANKS)
    for name, rank in RANKS.items():
        expected = truncated(model.get_parameter(name), rank).product
        torch.testing.assert_close(product(small, name), expected)


@pytest.mark.parametrize("makes_up", [False, True])
def test_with_a_text_they_are_best_on_the_inputs_that_the_layers_really_get(model, makes_up):
    """Beside all inputs of a layer, before and after; what is lost before may be made up for."""
    small = factor_decoder(model, RANKS, TOKENS, makes_up)
    old = record_inputs(model, TOKENS, [layer(model, name) for name in RANKS])
    new = record_inputs(small, TOKENS, [layer(small, name) for name in RANKS])
    for (name, rank), x, now in zip(RANKS.items(), old, new, strict=True):
        gram = now.T @ now / len(now)
        weight = model.get_parameter(name)
        if makes_up:
            weight = caught_up(weight, gram, drift_of(x, now))
        expected = output_factors(weight, gram, rank).product
        torch.testing.assert_close(product(small, name), expected, rtol=0, atol=1e-8)
    torch.testing.assert_close(old[0], new[0])  # the first layer has nothing to make up for
    assert not torch.allclose(old[-1], new[-1])


def test_spectra_are_those_of_weights_and_of_recorded_outputs(model):
    names = list(layer_shapes(model))
    inputs = record_inputs(model, TOKENS, [layer(model, name) for name in names])
    plain, outputs = decoder_spectra(model), decoder_spectra(model, TOKENS)
    assert list(plain) == list(outputs) == names
    for name, x in zip(names, inputs, strict=True):
        weight = model.get_parameter(name)
        torch.testing.assert_close(plain[name], torch.linalg.svdvals(weight))
        y = x @ weight.T  # (N, I) (I, O) -> (N, O)
        expected = torch.linalg.svdvals(y)[: min(weight.shape)] / len(y) ** 0.5
        torch.testing.assert_close(outputs[name], expected, rtol=0, atol=1e-6)


def test_losses_are_those_of_models_with_one_layer_factored(model):
    x = TOKENS[:3]
    ranks = {name: [1, rank] for name, rank in RANKS.items()}
    before = copy.deepcopy(model.state_dict())

    def measure(m):
        return m(x).square().mean().item()

    found = rank_losses(model, ranks, TOKENS, measure)
    assert {name: list(losses) for name, losses in found.items()} == ranks
    inputs = record_inputs(model, TOKENS, [layer(model, name) for name in ranks])
    for (name, losses), given in zip(found.items(), inputs, strict=True):
        gram = Moments.empty(given.shape[1], torch.float64).add(given).gram
        for rank, loss in losses.items():
            factors = output_factors(model.get_parameter(name), gram, rank)
            assert loss == pytest.approx(measure(with_factors(model, {name: factors})), rel=1e-9)
    assert all(torch.equal(before[name], weight) for name, weight in model.state_dict().items())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_other_dtypes(model, dtype):
    half = model.to(dtype)
    for tokens in (None, TOKENS):
        small = factor_decoder(half, RANKS, tokens)
        assert {p.dtype for p in small.parameters()} == {dtype}
        assert small(TOKENS).isfinite().all()


def test_on_tinylm_outputs_beat_weights_and_a_budget_beats_an_even_share():
    """At 70 % of the numbers, in bits per byte; the whole model has 1.17."""
    model, tokenizer = tiny()
    text, shapes = tiny_calibration(tokenizer, 16), layer_shapes(model)
    budget = round(0.7 * numbers(shapes, {}))
    even = even_ranks(shapes, budget)
    spectra = {name: s / s.norm() for name, s in decoder_spectra(model, text).items()}
    chosen = ranks_by_energy(spectra, shapes, budget)
    plain, aware, budgeted = (
        tiny_quality(factor_decoder(model, ranks, tokens), tokenizer).bits_per_byte
        for ranks, tokens in ((even, None), (even, text), (chosen, text))
    )
    assert plain > aware + 0.4 and aware > budgeted + 0.03
    linear = linear_weights(factor_decoder(model, chosen))
    assert sum(w.numel() for w in linear.values()) == numbers(shapes, chosen) <= budget
    assert math.isclose(numbers(shapes, chosen), budget, rel_tol=0.001)


def test_bad_input_is_refused(model):
    for name in ("head.weight", "embedding.weight", "blocks.0.mlp.up", "blocks.2.mlp.up.weight"):
        with pytest.raises(ValueError, match="ranks must name linear layers of the blocks"):
            factor_decoder(model, {name: 3})
        with pytest.raises(ValueError, match="ranks must name linear layers of the blocks"):
            rank_losses(model, {name: [3]}, TOKENS, lambda m: 0.0)
    for tokens in (None, TOKENS):
        with pytest.raises(ValueError, match="rank be from 0 to the smaller"):
            factor_decoder(model, {"blocks.0.mlp.up.weight": 25}, tokens)
        with pytest.raises(ValueError, match="ranks must name linear layers of the blocks"):
            factor_decoder(factor_decoder(model, RANKS), RANKS, tokens)
    with pytest.raises(ValueError, match=r"tokens must have shape \(B, T\)"):
        factor_decoder(model, RANKS, TOKENS[0])


def test_it_runs_where_the_model_is():
    run_on_accelerator(
        """
import torch
from fake_accelerator import accelerator
from course_lib.low_rank.decoder import decoder_spectra, factor_decoder
from course_lib.models.llama import Llama, LlamaConfig
with accelerator() as put:
    model = put(Llama(LlamaConfig(9, 8, 1, 2, 1, 12, 16)).requires_grad_(False))
    tokens = put(torch.zeros(2, 5, dtype=torch.int64))
    for text in (None, tokens):
        small = factor_decoder(model, {"blocks.0.mlp.up.weight": 2}, text)
        assert small(tokens).device.type == "toygpu"
        assert {s.device.type for s in decoder_spectra(model, text).values()} == {"toygpu"}
"""
    )
