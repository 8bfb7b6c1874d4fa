"""Sparsity by chance: right on average, with the variance of the formula, and what dropout is."""

import itertools
import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from on_accelerator import run_on_accelerator

from course_lib.pruning.sparsify import random_sparsify

KEEPS = [0.1, 0.25, 0.5, 0.9, 1.0]


@pytest.mark.parametrize("keep", KEEPS)
def test_mean_and_variance_are_those_of_the_formula(keep):
    """All outcomes of one coin: 1000 evenly spaced values of u, so nothing is left to chance."""
    weight = torch.tensor([-3.0, -0.5, 0.0, 1e-3, 2.0], dtype=torch.float64)
    uniform = (torch.arange(1000, dtype=torch.float64) / 1000)[:, None].expand(-1, 5)
    drawn = random_sparsify(weight.expand(1000, 5), keep, uniform)
    torch.testing.assert_close(drawn.mean(0), weight)
    variance = weight.square() * (1 - keep) / keep
    torch.testing.assert_close(drawn.var(0, correction=0), variance)


def test_random_draws_are_unbiased_too():
    """20,000 draws: the mean's standard error is √(w²(1 − p)/(p n)); five of them are allowed."""
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(30, generator=generator)
    uniform = torch.rand(20_000, 30, generator=generator)
    drawn = random_sparsify(weight.expand(20_000, 30), 0.2, uniform)
    error = (drawn.mean(0) - weight).abs()
    assert (error < 5 * weight.abs() * math.sqrt(4 / 20_000)).all()
    assert (drawn != 0).float().mean() == pytest.approx(0.2, abs=0.005)


@given(st.lists(st.floats(-1e3, 1e3, width=32), min_size=1), st.floats(0.01, 1.0))
def test_each_entry_is_zero_or_divided(values, keep):
    weight = torch.tensor(values)
    uniform = torch.rand(len(values), generator=torch.Generator().manual_seed(0))
    drawn = random_sparsify(weight, keep, uniform)
    for w, u, found in zip(weight, uniform, drawn, strict=True):
        assert found == (w / keep if u < keep else 0)


def test_at_keep_one_the_draw_is_the_weight_itself():
    weight = torch.randn(6, 7)
    assert random_sparsify(weight, 1.0, torch.rand(6, 7)).equal(weight)
    nearly_one = torch.full((6, 7), 1 - 2**-24)  # the largest that `torch.rand` gives
    assert random_sparsify(weight, 1, nearly_one).equal(weight)


def test_the_edges_of_u():
    """u = 0 stays at any p; u = p goes, for u < p has probability p."""
    weight = torch.ones(3)
    uniform = torch.tensor([0.0, 0.25, 0.2499])
    assert random_sparsify(weight, 0.25, uniform).tolist() == [4, 0, 4]


def test_one_coin_for_each_input_is_dropout():
    torch.manual_seed(0)
    x, weight, uniform = torch.randn(5, 8), torch.randn(3, 8), torch.rand(8)
    dropped = x * (uniform < 0.7) / 0.7  # what dropout does with these coins
    drawn = random_sparsify(weight, 0.7, uniform.expand(3, 8))
    torch.testing.assert_close(F.linear(x, drawn), F.linear(dropped, weight))


def test_the_layer_is_unbiased_over_all_sixteen_masks():
    """Σ over masks of probability · output = the dense output, by brute force."""
    weight, x = torch.tensor([[1.0, -2.0], [0.5, 3.0]]), torch.tensor([1.0, 2.0])
    total = torch.zeros(2)
    for stay in itertools.product((True, False), repeat=4):
        uniform = torch.where(torch.tensor(stay).view(2, 2), 0.0, 0.5)
        probability = 0.3 ** sum(stay) * 0.7 ** (4 - sum(stay))
        total += probability * (random_sparsify(weight, 0.3, uniform) @ x)
    torch.testing.assert_close(total, weight @ x)


def test_gradients_pass_to_what_stays():
    weight = torch.ones(3, requires_grad=True)
    random_sparsify(weight, 0.5, torch.tensor([0.1, 0.9, 0.4])).sum().backward()
    assert weight.grad.tolist() == [2, 0, 2]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_the_dtype_stays(dtype):
    drawn = random_sparsify(torch.ones(4, dtype=dtype), 0.5, torch.rand(4))
    assert drawn.dtype == dtype
    assert set(drawn.tolist()) <= {0.0, 2.0}


ONES, RAND = torch.ones(2), torch.tensor([0.1, 0.9])


@pytest.mark.parametrize(
    ("weight", "keep", "uniform", "says"),
    [
        (ONES, 0.0, RAND, "keep must be above 0 and at most 1; got 0.0"),
        (ONES, -0.1, RAND, "keep must be"),
        (ONES, 1.1, RAND, "keep must be"),
        (ONES, float("nan"), RAND, "keep must be"),
        (ONES, 0.5, torch.rand(3), r"uniform must have the weight's shape \(2,\); got \(3,\)"),
        (ONES, 0.5, torch.tensor([0.5, 1.0]), "uniform must be from 0 to below 1; got 0.5 to 1"),
        (ONES, 0.5, torch.tensor([-0.5, 0.5]), "uniform must be from 0"),
        (ONES, 0.5, torch.tensor([float("nan"), 0.5]), "uniform must be finite"),
        (torch.tensor([float("nan"), 1.0]), 0.5, RAND, "weight must be finite"),
        (torch.tensor([float("inf"), 1.0]), 0.5, RAND, "weight must be finite"),
        (torch.tensor([6e4, 1.0]).half(), 0.5, RAND, "weight / keep must be finite"),
        (torch.ones(0), 0.5, torch.ones(0), "weight must not be empty"),
    ],
)
def test_bad_input_is_refused(weight, keep, uniform, says):
    with pytest.raises(ValueError, match=says):
        random_sparsify(weight, keep, uniform)


ON_AN_ACCELERATOR = """
import torch
from torch import nn
from fake_accelerator import accelerator
from course_lib.models.llama import Llama, LlamaConfig
from course_lib.pruning.activations import products, threshold_activations, top_k_activations
from course_lib.pruning.autoencoder import SparseAutoencoder, train_autoencoder
from course_lib.pruning.lottery import rewound, shuffled_masks
from course_lib.pruning.sparsify import random_sparsify

config = LlamaConfig(11, width=8, layers=2, heads=2, kv_heads=1, mlp_width=12, context=16)
with accelerator() as put:
    x, layer, model = put(torch.randn(600, 4)), put(nn.Linear(4, 3)), put(Llama(config))
    tokens, autoencoder = put(torch.zeros(1, 5).long()), put(SparseAutoencoder(4, 8, 2))
    early = {name: value.clone() for name, value in layer.state_dict().items()}
    masks = shuffled_masks({"weight": put(torch.rand(3, 4) < 0.5)}, torch.Generator())
    found = [
        random_sparsify(x, 0.5, put(torch.rand(600, 4))), top_k_activations(x, 2),
        train_autoencoder(autoencoder, x, steps=2), autoencoder(x), *masks.values(),
        rewound(layer, early, masks).weight, *products(model, tokens),
        threshold_activations(model, 0.1)(tokens),
    ]
    assert all(tensor.device.type == "toygpu" for tensor in found)
"""


@pytest.mark.slow
def test_tickets_codes_and_activations_too_run_on_an_accelerator():
    run_on_accelerator(ON_AN_ACCELERATOR)
