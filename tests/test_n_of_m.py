"""2 of 4: the best of all choices, with what stays refitted, on a whole decoder."""

from itertools import combinations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from course_lib.language_models.sparsegpt import sparsegpt
from course_lib.models.llama import Llama, LlamaConfig
from course_lib.models.moments import Moments
from course_lib.models.parts import linear_weights
from course_lib.pruning.inverse_hessian import layer_hessian
from course_lib.pruning.n_of_m import n_of_m, n_of_m_decoder
from course_lib.pruning.refit import refit_rows

CONFIG = LlamaConfig(
    vocabulary=17, width=16, layers=2, heads=4, kv_heads=2, mlp_width=24, context=8
)


@given(st.integers(0, 999), st.sampled_from([(1, 2), (2, 4), (3, 4), (4, 8)]))
def test_the_best_of_all_choices(seed, n_and_m):
    n, m = n_and_m
    weight = torch.randn(3, 2 * m, generator=torch.Generator().manual_seed(seed))
    error = (weight - n_of_m(weight, n, m)).square().sum()
    groups = weight.view(-1, m)
    every = [groups[:, list(gone)].square().sum(1) for gone in combinations(range(m), m - n)]
    torch.testing.assert_close(error, torch.stack(every).amin(0).sum())


def test_refitted_weights_keep_the_places_and_err_less():
    torch.manual_seed(0)
    x = torch.randn(300, 16) @ torch.randn(16, 16) + 1
    weight = torch.randn(5, 16)
    bare, refitted = n_of_m(weight, 2, 4), n_of_m(weight, 2, 4, x)
    assert torch.equal(bare == 0, refitted == 0)
    errors = [(x @ (weight - w).T).square().mean() for w in (bare, refitted)]
    assert errors[1] < 0.7 * errors[0]
    zeros = torch.zeros(2, 8)
    assert torch.equal(n_of_m(zeros, 2, 4, x[:, :8]), zeros)
    assert torch.equal(n_of_m(weight, 4, 4, x), weight)


def test_in_sparse_gpts_places_all_columns_together_err_no_more():
    """It makes up for a column by later ones only."""
    torch.manual_seed(0)
    x = torch.randn(300, 16) @ torch.randn(16, 16)
    weight = torch.randn(5, 16)
    theirs = sparsegpt(weight, Moments.empty(16).add(x).gram, (2, 4), damping=0.0)
    ours = refit_rows(weight, layer_hessian(x), theirs != 0, 0.0)
    errors = [(x @ (weight - w).T).square().mean() for w in (theirs, ours)]
    assert errors[1] < errors[0]


def test_a_decoder_with_two_of_four_everywhere_but_in_its_embedding():
    torch.manual_seed(0)
    model, tokens = Llama(CONFIG).requires_grad_(False), torch.randint(17, (9, 8))
    bare, refitted = n_of_m_decoder(model, 2, 4), n_of_m_decoder(model, 2, 4, tokens)
    for sparse in (bare, refitted):
        for name, weight in linear_weights(sparse).items():
            assert (weight.view(-1, 4).count_nonzero(dim=1) == 2).all(), name
        assert torch.equal(sparse.embedding.weight, model.embedding.weight)
    wrong = [(m(tokens) - model(tokens)).square().mean() for m in (bare, refitted)]
    assert wrong[1] < 0.6 * wrong[0]
    assert torch.equal(n_of_m_decoder(model, 4, 4, tokens)(tokens), model(tokens))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(dtype):
    torch.manual_seed(0)
    weight, x = torch.randn(3, 8).to(dtype), torch.randn(40, 8).to(dtype)
    refitted = n_of_m(weight, 2, 4, x)
    assert refitted.dtype == n_of_m(weight, 2, 4).dtype == dtype
    torch.testing.assert_close(refitted, n_of_m(weight.double(), 2, 4, x.double()).to(dtype))


def test_bad_input_is_refused():
    weight = torch.ones(2, 8)
    with pytest.raises(ValueError, match="n must be at least 1"):
        n_of_m(weight, 0, 4)
    with pytest.raises(ValueError, match="m must divide the 8 inputs of an output; got 3"):
        n_of_m(weight, 2, 3)
    with pytest.raises(ValueError, match="score must be finite"):
        n_of_m(weight / 0, 2, 4)
    with pytest.raises(ValueError, match="inputs must be finite"):
        n_of_m(weight, 2, 4, torch.full((3, 8), torch.nan))
