"""SparseGPT: the authors' zeros and values, least squares, counts, a grid in the same pass."""

import pytest
import torch
from test_gptq import layer

from benchmarks import authors
from course_lib.formats.linear import Scheme, fit_stored
from course_lib.language_models import sparsegpt as module
from course_lib.language_models.sparsegpt import sparsegpt
from course_lib.language_models.wanda import row_mask, wanda_score
from course_lib.models.moments import output_error
from course_lib.pruning.least_squares import best_subset, squared_error
from course_lib.quantization.linear import Format, fake_quantize


@pytest.mark.parametrize("density", [0.5, 0.25, (2, 4), (1, 4), (4, 8)])
def test_the_new_weight_is_that_of_the_authors(density):
    """More than a block of 128 columns, and no multiple of it."""
    weight, gram = layer(12, 200, tokens=600)
    ours, theirs = sparsegpt(weight, gram, density), authors.sparsegpt(weight, 2 * gram, density)
    assert torch.equal(ours == 0, theirs == 0)
    torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("density", [0.5, (2, 4)])
def test_with_a_grid_in_the_same_pass(density, symmetric):
    weight, gram = layer(12, 160, tokens=600)
    format = Format(4, symmetric)
    grid = fit_stored(weight, Scheme(format, "channel"))
    ours = sparsegpt(weight, gram, density, grid)
    levels = (grid.scale, grid.zero_point, format.lowest, format.highest)
    theirs = authors.sparsegpt(weight, 2 * gram, density, levels)
    torch.testing.assert_close(ours, theirs)
    assert torch.equal(ours, fake_quantize(ours, grid))
    assert (ours == 0).double().mean() >= 0.5


def test_float32_errs_no_more_than_the_authors():
    weight, gram = layer(32, 256, torch.float32, tokens=900)
    for density in (0.5, (2, 4)):
        ours, theirs = (
            sparsegpt(weight, gram, density),
            authors.sparsegpt(weight, 2 * gram, density),
        )
        ratio = output_error(weight - ours, gram).sum() / output_error(weight - theirs, gram).sum()
        assert ratio < 1.001
        assert ((ours == 0) != (theirs == 0)).double().mean() < 0.01


def test_strips_change_nothing(monkeypatch):
    weight, gram = layer(6, 50)
    whole = sparsegpt(weight, gram, 0.5)
    for strip in (1, 7, 128):
        monkeypatch.setattr(module, "STRIP", strip)
        torch.testing.assert_close(sparsegpt(weight, gram, 0.5), whole)


def test_when_the_first_input_goes_the_others_are_least_squares():
    """All others come after it, and all of them move."""
    x, weight = torch.randn(50, 6, dtype=torch.float64), torch.randn(1, 6, dtype=torch.float64)
    weight[0, 0] = 1e-3  # it costs least
    pruned = sparsegpt(weight, x.T @ x / 50, 5 / 6, damping=0.0)
    best = torch.linalg.lstsq(x[:, 1:], x @ weight[0]).solution
    assert pruned[0, 0] == 0
    torch.testing.assert_close(pruned[0, 1:], best)


def test_never_better_than_the_best_subset():
    for _ in range(40):
        x, weight = torch.randn(30, 6, dtype=torch.float64), torch.randn(6, dtype=torch.float64)
        ours = sparsegpt(weight[None], x.T @ x / 30, 0.5, damping=0.0)[0]
        best = squared_error(x, x @ weight, best_subset(x, x @ weight, 3))
        assert squared_error(x, x @ weight, ours) >= best * (1 - 1e-9)


@pytest.mark.parametrize("density", [0.5, (2, 4)])
def test_repair_pays(density):
    """Beside the same zeros without a repair, and beside Wanda's."""
    x = torch.randn(400, 64) @ (torch.eye(64) + 0.1 * torch.randn(64, 64))
    weight, gram = torch.randn(40, 64), x.T @ x / 400
    ours = sparsegpt(weight, gram, density)
    error = output_error(weight - ours, gram).sum()
    assert error < 0.8 * output_error(weight * (ours == 0), gram).sum()
    if density == 0.5:
        gone = ~row_mask(wanda_score(weight, gram), 0.5)
        assert error < 0.9 * output_error(weight * gone, gram).sum()


@pytest.mark.parametrize("density", [0.0, 0.1, 0.5, 0.77, 1.0])
def test_each_block_keeps_just_so_many(density):
    weight, gram = layer(5, 150)
    pruned = sparsegpt(weight, gram, density)
    for block in (slice(0, 128), slice(128, 150)):
        part = pruned[:, block]
        assert part.count_nonzero() == round(density * part.numel())
    if density == 1:
        assert torch.equal(pruned, weight)


@pytest.mark.parametrize("n, m", [(0, 4), (1, 2), (2, 4), (3, 5), (4, 4), (1, 150)])
def test_every_m_neighbours_keep_n(n, m):
    weight, gram = layer(5, 300)
    kept = sparsegpt(weight, gram, (n, m)).view(-1, m).count_nonzero(dim=1)
    assert (kept == n).all()


def test_dead_inputs_go_first_and_the_count_stays():
    weight, gram = layer(7, 12)
    dead = [0, 5, 11]
    gram[dead] = 0
    gram[:, dead] = 0
    pruned = sparsegpt(weight, gram, 0.5)
    assert not pruned[:, dead].any() and pruned.count_nonzero() == 42
    live = [i for i in range(12) if i not in dead]
    alone = sparsegpt(weight[:, live], gram[live][:, live], 42 / 63)
    torch.testing.assert_close(pruned[:, live], alone)
    assert sparsegpt(weight, torch.zeros_like(gram), 0.5).count_nonzero() == 42


def test_one_token_twins_and_a_matrix_that_is_no_gram_matrix():
    weight, gram = layer(7, 12, torch.float32)
    x = torch.randn(1, 12)
    indefinite = gram - gram.diagonal().diag() * 0.9
    for some in (x.T @ x, gram[[0, 1, 2] * 4][:, [0, 1, 2] * 4], indefinite):
        for density in (0.5, (2, 4)):
            pruned = sparsegpt(weight, some, density, damping=0.0)
            assert pruned.isfinite().all() and pruned.count_nonzero() == 42


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(dtype):
    weight, gram = layer(6, 16, torch.float32)
    weight = torch.nn.Parameter(weight.to(dtype))
    pruned = sparsegpt(weight, gram, 0.5)
    assert pruned.dtype == dtype
    assert torch.equal(pruned, sparsegpt(weight.detach().float(), gram, 0.5).to(dtype))
    grid = fit_stored(weight.detach().float(), Scheme(Format(4), "channel"))
    assert sparsegpt(weight, gram, 0.5, grid).dtype == torch.float32


def test_bad_input_is_refused():
    weight, gram = layer(4, 12, torch.float32)
    for density in (-0.1, 1.5, float("nan")):
        with pytest.raises(ValueError, match="density must be from 0 to 1"):
            sparsegpt(weight, gram, density)
    with pytest.raises(ValueError, match="m must divide the 12 inputs of an output; got 5"):
        sparsegpt(weight, gram, (2, 5))
    with pytest.raises(ValueError, match="n of m must have"):
        sparsegpt(weight, gram, (5, 4))
    for wrong in (torch.nan, torch.inf):
        with pytest.raises(ValueError, match="weight must be finite"):
            sparsegpt(weight.clone().fill_(wrong), gram, 0.5)
        with pytest.raises(ValueError, match="gram must be finite"):
            sparsegpt(weight, gram.clone().fill_(wrong), 0.5)
    with pytest.raises(ValueError, match=r"weight must have shape \(O, I\) and gram \(I, I\)"):
        sparsegpt(weight, gram[:3, :3], 0.5)
