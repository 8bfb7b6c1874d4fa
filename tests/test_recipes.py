"""Methods on whole models: every linear layer, the model left alone, the file that comes back."""

import copy

import pytest
import torch
from on_accelerator import run_on_accelerator

from course_lib.formats.linear import Scheme
from course_lib.formats.model_file import pack_model, unpack_model
from course_lib.language_models.recipes import (
    awq_model,
    gptq_model,
    nearest_model,
    smoothquant_model,
    sparsegpt_model,
    wanda_model,
)
from course_lib.models.llama import Llama, LlamaConfig, initialize
from course_lib.models.norms import untied
from course_lib.models.parts import linear_weights, record_inputs
from course_lib.quantization.linear import Format

CONFIG = LlamaConfig(
    vocabulary=60, width=32, layers=2, heads=4, kv_heads=2, mlp_width=48, context=64
)


@pytest.fixture
def model():
    made = Llama(CONFIG).eval().requires_grad_(False)
    initialize(made)
    made.embedding.weight.mul_(50)
    return made


@pytest.fixture
def tokens():
    return torch.randint(60, (9, 20))


@pytest.mark.parametrize("granularity", ["tensor", "channel", 16])
def test_a_quantized_model_is_what_its_file_gives_back(model, tokens, granularity):
    before = copy.deepcopy(model).state_dict()
    scheme = Scheme(Format(4), granularity)
    for small, codes in (nearest_model(model, scheme), gptq_model(model, tokens, scheme)):
        assert codes.keys() == linear_weights(model).keys()
        back = unpack_model(pack_model(small, codes), model).state_dict()
        assert all(torch.equal(back[name], w) for name, w in small.state_dict().items())
    assert all(torch.equal(before[name], w) for name, w in model.state_dict().items())


def test_a_head_of_its_own_is_left_alone_as_the_embedding_is(model, tokens):
    model, scheme = untied(model), Scheme(Format(2), "channel")
    for small, codes in (nearest_model(model, scheme), gptq_model(model, tokens, scheme)):
        assert torch.equal(small.head.weight, model.head.weight)
        assert all(name.startswith("blocks.") for name in codes)


def test_places_that_count_more_change_the_codes_of_gptq(model, tokens):
    scheme, weights = Scheme(Format(3), 16), torch.ones(20)
    plain = gptq_model(model, tokens, scheme)[1]
    same = gptq_model(model, tokens, scheme, weights=weights)[1]
    other = gptq_model(model, tokens, scheme, weights=weights.index_fill(0, torch.tensor(0), 99.0))
    changed = [(plain[n].codes != c.codes).double().mean() for n, c in other[1].items()]
    assert all((plain[n].codes == c.codes).double().mean() > 0.99 for n, c in same.items())
    assert max(changed) > 0.05


def test_gptq_sees_the_inputs_that_the_treated_layers_give(model, tokens):
    """Its own output error, on the tokens that it saw, is below that of rounding to nearest."""
    scheme = Scheme(Format(3), 16)
    small, _ = gptq_model(model, tokens, scheme)
    nearest, _ = nearest_model(model, scheme)
    names = list(linear_weights(model))
    layers = [small.get_submodule(name.removesuffix(".weight")) for name in names]
    for name, x in zip(names, record_inputs(small, tokens, layers), strict=True):
        exact = x @ model.state_dict()[name].T
        errors = [
            (exact - x @ other.state_dict()[name].T).square().sum() for other in (small, nearest)
        ]
        assert errors[0] < errors[1], name


@pytest.mark.parametrize("act_order, static_groups", [(True, True), (False, False)])
def test_orders_and_groups_are_handed_on(model, tokens, act_order, static_groups):
    scheme = Scheme(Format(3), 16)
    _, plain = gptq_model(model, tokens, scheme)
    _, other = gptq_model(model, tokens, scheme, act_order, static_groups)
    assert any((plain[name].codes != other[name].codes).any() for name in plain)
    again, codes = gptq_model(model, tokens, scheme, act_order, static_groups)
    assert all(torch.equal(codes[name].codes, other[name].codes) for name in codes)
    assert torch.equal(again(tokens[:1]), again(tokens[:1]))


@pytest.mark.parametrize("density", [0.5, (2, 4)])
@pytest.mark.parametrize("method", [wanda_model, sparsegpt_model])
def test_pruned_models_have_half_of_their_weights(model, tokens, method, density):
    small = method(model, tokens, density)
    for name, weight in linear_weights(small).items():
        assert weight.count_nonzero() == weight.numel() // 2, name
        if density == (2, 4):
            assert (weight.view(-1, 4).count_nonzero(dim=1) == 2).all()
        kept = weight[weight != 0] == linear_weights(model)[name][weight != 0]
        assert kept.all() if method is wanda_model else not kept.all()


def test_awq_gives_a_folded_model_and_codes_that_are_its_file(model, tokens):
    before, exact = copy.deepcopy(model).state_dict(), model(tokens)
    scheme = Scheme(Format(3), 16)
    small, codes = awq_model(model, tokens, scheme)
    assert codes.keys() == linear_weights(model).keys()
    back = unpack_model(pack_model(small, codes), model)
    assert all(back.state_dict()[name].equal(w) for name, w in small.state_dict().items())
    assert all(before[name].equal(w) for name, w in model.state_dict().items())
    nearest, _ = nearest_model(model, scheme)
    errors = [(other(tokens) - exact).norm() for other in (small, nearest)]
    assert errors[0] < errors[1]


@pytest.mark.parametrize("static", [False, True])
def test_smoothquant_rounds_weights_and_inputs(model, tokens, static):
    scheme = Scheme(Format(8, symmetric=True), "channel")
    exact = model(tokens)
    small, codes = smoothquant_model(model, tokens, scheme, static)
    packed = pack_model(small, codes)
    assert sum(name.endswith("input_scale") for name in packed) == (len(codes) if static else 0)
    back = unpack_model(packed, small)
    assert back(tokens).equal(small(tokens))
    assert 0 < (small(tokens) - exact).norm() < 0.1 * exact.norm()


ON_AN_ACCELERATOR = """
import torch
from fake_accelerator import accelerator
from course_lib.formats.linear import Scheme, parts_of
from course_lib.language_models.gptq import gptq
from course_lib.models.moments import Moments, output_error
from course_lib.language_models.sparsegpt import sparsegpt
from course_lib.language_models.wanda import row_mask, wanda_score
from course_lib.models.n_of_m import n_of_m_mask
from course_lib.models.walk import treat_blocks
from course_lib.models.norms import untied
from course_lib.models.llama import Llama, LlamaConfig
from course_lib.quantization.linear import Format

with accelerator() as put:
    x, weight = put(torch.zeros(3, 12)), put(torch.zeros(8, 12))
    moments = Moments.empty(12, device=x.device).add(x)
    found = [moments.gram, moments.mean_abs, output_error(weight, moments.gram)]
    for format in (Format(4), Format(8, symmetric=True)):
        for granularity in ("tensor", "channel", 4):
            for static in (True, False):
                codes = gptq(weight, moments.gram, Scheme(format, granularity), False, static)
                found += [codes.codes, codes.weight, *parts_of(codes.codes, codes.grid).values()]
    score = wanda_score(weight, moments.gram)
    found += [n_of_m_mask(score, 2, 4), sparsegpt(weight, moments.gram, (2, 4), codes.grid)]
    model = put(Llama(LlamaConfig(20, 16, 2, 4, 2, 24, 32)))
    seen = []
    found.append(treat_blocks(model, put(torch.zeros(2, 5).long()), seen.append))
    found += [stage.moments.gram for stage in seen]
    assert len(seen) == 8 and all(tensor.device.type == "toygpu" for tensor in found)
"""


@pytest.mark.slow
def test_everything_runs_on_an_accelerator():
    """But for what asks for a number: columns by falling power, the k-th largest score."""
    run_on_accelerator(ON_AN_ACCELERATOR)
