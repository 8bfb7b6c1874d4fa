"""Scores of whole units and heads: by their definitions, by brute force, by another library."""

import pytest
import torch
import torch.nn.functional as F
import torch_pruning as tp
from torch import nn

from course_lib.models.llama import Llama, LlamaConfig
from course_lib.models.parts import record_inputs
from course_lib.pruning.group_scores import (
    _gradients_of_products,
    group_norm,
    group_taylor,
    mlp_scores,
    norm_product,
    output_errors,
    repair_errors,
)
from course_lib.pruning.inverse_hessian import layer_hessian
from course_lib.pruning.refit import refit_columns

CONFIG = LlamaConfig(
    vocabulary=17, width=12, layers=2, heads=2, kv_heads=1, mlp_width=10, context=8
)


def test_the_norm_is_that_of_torch_pruning():
    """It normalizes by the mean over the group, and averages the tensors' squares by itself."""
    model = nn.Sequential(nn.Linear(5, 7), nn.ReLU(), nn.Linear(7, 3))
    graph = tp.DependencyGraph().build_dependency(model, torch.ones(1, 5))
    group = graph.get_pruning_group(model[0], tp.prune_linear_out_channels, idxs=list(range(7)))
    importance = tp.importance.GroupMagnitudeImportance(
        p=2, group_reduction="sum", normalizer=None, bias=False
    )
    ours = group_norm([model[0].weight, model[2].weight.T])
    torch.testing.assert_close(ours.square(), importance(group))


def test_norms_know_what_scaling_does():
    gate, up, down = torch.randn(3, 6, 4).unbind()
    up, down = up.clone(), down.clone()
    before = group_norm([gate, up, down]), norm_product([gate, up, down])
    up[2] *= 2
    down[2] /= 2
    assert group_norm([gate, up, down])[2] != before[0][2]
    torch.testing.assert_close(norm_product([gate, up, down]), before[1])


@pytest.mark.parametrize("E", [1, 3])
def test_taylor_is_the_slope_of_switching_a_part_off_for_each_example(E):
    torch.manual_seed(0)
    x, target, P = torch.randn(20, 4 * E).double(), torch.randn(20, 2).double(), 4
    weight, x = torch.randn(2, 4 * E).double(), x.requires_grad_()
    factor = torch.ones(20, P).double().requires_grad_()
    made = (x * factor.repeat_interleave(E, dim=1)) @ weight.T
    slope, gradient = torch.autograd.grad((made - target).square().sum(), [factor, x])
    torch.testing.assert_close(group_taylor(x.detach(), gradient, P), slope.abs().mean(dim=0))


@pytest.mark.parametrize("parts", [1, 3, 6])
def test_errors_are_those_that_are_measured(parts):
    torch.manual_seed(0)
    x = (torch.randn(50, 6) @ torch.randn(6, 6)).double()
    weight, hessian, E = torch.randn(4, 6).double(), layer_hessian(x), 6 // parts
    for part in range(parts):
        keep = torch.arange(6) // E != part
        lost = x[:, ~keep] @ weight[:, ~keep].T
        error = lost.square().sum(dim=1).mean()
        torch.testing.assert_close(output_errors(weight, hessian, parts)[part], error)
        if parts > 1:
            new = refit_columns(weight, hessian, keep, 0.0)
            left = (x @ weight.T - x[:, keep] @ new.T).square().sum(dim=1).mean()
        else:
            left = error  # nothing can make up for it
        torch.testing.assert_close(repair_errors(weight, hessian, parts, 0.0)[part], left)
    assert (
        repair_errors(weight, hessian, parts, 0.0) <= output_errors(weight, hessian, parts)
    ).all()


def test_the_order_of_parts_is_nothing():
    torch.manual_seed(0)
    x, weight, order = torch.randn(50, 6), torch.randn(4, 6), torch.randperm(6)
    hessian = layer_hessian(x @ torch.randn(6, 6))
    for score in (output_errors, repair_errors):
        turned = score(weight[:, order], hessian[order][:, order], 6)
        torch.testing.assert_close(turned, score(weight, hessian, 6)[order])


def test_every_score_of_a_decoders_units():
    torch.manual_seed(0)
    model = Llama(CONFIG).requires_grad_(False)
    tokens = torch.randint(17, (9, 9))
    inputs, targets = tokens[:, :-1], tokens[:, 1:]
    model.blocks[1].mlp.down.weight[:, 3] = 0
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    found = mlp_scores(model, inputs, targets)
    for name, layers in found.items():
        assert [tuple(score.shape) for score in layers] == [(10,), (10,)]
        assert all((score >= 0).all() for score in layers), name
        if name != "norm":
            assert layers[1][3] == 0 and layers[1].count_nonzero() == 9, name
    assert all(torch.equal(before[name], weight) for name, weight in model.state_dict().items())
    assert not any(weight.requires_grad for weight in model.parameters())
    down = model.blocks[0].mlp.down.weight
    (x,) = record_inputs(model, inputs, [model.blocks[0].mlp.down])
    # Taylor: with signs its sum over all tokens is the slope of the column of down.
    down.requires_grad_()
    F.cross_entropy(model(inputs).flatten(0, 1), targets.flatten(), reduction="sum").backward()
    (gradients, _) = _gradients_of_products(model, inputs, targets)
    slopes = (down * down.grad).sum(0).detach()
    torch.testing.assert_close((x * gradients).sum(dim=0), slopes)
    torch.testing.assert_close(found["Taylor"][0], (x * gradients).abs().mean(dim=0))
    root_mean_square = (x.square().mean(0)).sqrt() * down.detach().norm(dim=0)
    torch.testing.assert_close(found["output error"][0].sqrt(), root_mean_square)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_scored_in_float32(dtype):
    """Squares of these are zero in float16."""
    weight, hessian = torch.full((2, 4), 1e-4, dtype=dtype), torch.eye(4)
    assert group_norm([weight.T])[0].item() == pytest.approx(2**0.5 * 1e-4, rel=1e-2)
    assert group_taylor(weight, weight, 4)[0].item() == pytest.approx(1e-8, rel=2e-2)
    assert output_errors(weight, hessian, 4)[0].item() == pytest.approx(1e-8, rel=2e-2)
    assert repair_errors(weight, hessian, 4)[0].dtype == torch.float32


ONES = torch.ones(2, 4)
BAD = [
    (lambda: group_norm([]), "parts must be tensors"),
    (lambda: norm_product([ONES, ONES.T]), "agree in P"),
    (lambda: group_norm([ONES * torch.nan]), "parts must be finite"),
    (lambda: group_taylor(ONES, ONES[:, :3], 1), "inputs and gradients must both have shape"),
    (lambda: group_taylor(ONES, ONES, 3), "parts divide I"),
    (lambda: group_taylor(ONES, ONES / 0, 4), "gradients must be finite"),
    (lambda: output_errors(ONES, torch.eye(4), 3), "parts divide I"),
    (lambda: repair_errors(ONES, torch.eye(3), 1), "parts divide I"),
    (lambda: repair_errors(ONES * torch.nan, torch.eye(4), 1), "weight must be finite"),
    (lambda: repair_errors(ONES, torch.ones(4, 4), 1, 0.0), "hessian must be positive definite"),
    (lambda: repair_errors(ONES, torch.zeros(4, 4), 1), "not 0 everywhere"),
]


@pytest.mark.parametrize(("call", "says"), BAD)
def test_bad_input_is_refused(call, says):
    with pytest.raises(ValueError, match=says):
        call()
