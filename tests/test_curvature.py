"""Second derivatives: against finite differences, closed forms, and the removal itself."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.func import functional_call

from course_lib.models.llama import Llama, LlamaConfig
from course_lib.pruning.curvature import (
    exact_hessian,
    hessian_diagonal,
    hutchinson_diagonal,
    predicted_increase,
)
from course_lib.pruning.evidence import gradients_of


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def smooth_problem():
    """A network of 4-3-2 with tanh in float64, and its loss on 20 examples: 23 weights."""
    model = nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 2)).double()
    x = torch.randn(20, 4, generator=seeded(1), dtype=torch.float64)
    y = torch.randint(2, (20,), generator=seeded(2))
    weights = {name: p.detach() for name, p in model.named_parameters()}
    return weights, lambda w: F.cross_entropy(functional_call(model, w, (x,)), y)


def moved(weights, at, step):
    """The weights with number `at` of all of them, in one row, changed by `step`."""
    row = torch.cat([w.flatten() for w in weights.values()])
    row[at] += step
    parts = row.split([w.numel() for w in weights.values()])
    return {n: part.view(w.shape) for (n, w), part in zip(weights.items(), parts, strict=True)}


def gradient_row(loss, weights):
    leaves = {name: w.clone().requires_grad_() for name, w in weights.items()}
    return torch.cat([g.flatten() for g in gradients_of(loss(leaves), leaves)])


def test_the_hessian_is_what_finite_differences_of_gradients_give():
    """Central differences with step 1e-5 err by about (1e-5)², and rounding by 1e-16 / 1e-5."""
    weights, loss = smooth_problem()
    differences = torch.stack(
        [
            (
                gradient_row(loss, moved(weights, i, 1e-5))
                - gradient_row(loss, moved(weights, i, -1e-5))
            )
            / 2e-5
            for i in range(23)
        ]
    )
    torch.testing.assert_close(exact_hessian(loss, weights), differences, rtol=0, atol=1e-8)


def test_gradients_are_what_finite_differences_of_losses_give():
    weights, loss = smooth_problem()
    differences = torch.stack(
        [(loss(moved(weights, i, 1e-5)) - loss(moved(weights, i, -1e-5))) / 2e-5 for i in range(23)]
    )
    torch.testing.assert_close(gradient_row(loss, weights), differences, rtol=0, atol=1e-9)


def test_the_hessian_of_least_squares_is_2_xx_over_n():
    """L = ‖Xw − y‖² / N has H = 2 XᵀX / N, wherever w is."""
    X = torch.randn(30, 5, generator=seeded(), dtype=torch.float64)
    y = torch.randn(30, generator=seeded(1), dtype=torch.float64)
    for w in torch.zeros(5), torch.ones(5):
        hessian = exact_hessian(lambda w: (X @ w["w"] - y).square().mean(), {"w": w.double()})
        torch.testing.assert_close(hessian, 2 * X.T @ X / 30)


def test_more_weights_than_rows_computed_together():
    scale = torch.arange(300, dtype=torch.float32)
    hessian = exact_hessian(lambda w: (scale * w["w"].square()).sum() / 2, {"w": torch.ones(300)})
    assert hessian.equal(scale.diag())


def test_the_hessian_is_symmetric_and_its_diagonal_goes_back_to_the_weights():
    weights, loss = smooth_problem()
    hessian = exact_hessian(loss, weights)
    torch.testing.assert_close(hessian, hessian.T)
    diagonal = hessian_diagonal(hessian, weights)
    assert {n: d.shape for n, d in diagonal.items()} == {n: w.shape for n, w in weights.items()}
    assert torch.cat([d.flatten() for d in diagonal.values()]).equal(hessian.diagonal())
    transposed = {"w": torch.ones(2, 3).T}
    assert hessian_diagonal(torch.arange(6.0).diag(), transposed)["w"].tolist() == [
        [0, 1], [2, 3], [4, 5]
    ]  # fmt: skip


# ---------------------------------------------------------------- Hutchinson


@pytest.mark.parametrize("seed", range(3))
def test_one_probe_is_exact_where_the_hessian_is_diagonal(seed):
    weights = {"a": torch.randn(4, 3, generator=seeded()), "b": torch.randn(5, generator=seeded(1))}
    loss = lambda w: (w["a"] ** 4).sum() + w["b"].exp().sum()  # noqa: E731
    found = hutchinson_diagonal(loss, weights, 1, seeded(seed))
    torch.testing.assert_close(found["a"], 12 * weights["a"] ** 2)
    torch.testing.assert_close(found["b"], weights["b"].exp())


def test_the_mean_over_many_probes_is_the_diagonal():
    """Its standard error is √(Σ_{j≠i} H_ij² / K); of 23 numbers none is five of them away."""
    weights, loss = smooth_problem()
    hessian = exact_hessian(loss, weights)
    K = 2000
    found = torch.cat(
        [d.flatten() for d in hutchinson_diagonal(loss, weights, K, seeded()).values()]
    )
    variance = hessian.square().sum(1) - hessian.diagonal().square()
    sigmas = (found - hessian.diagonal()) / (variance / K).sqrt()
    assert sigmas.abs().max() < 5
    assert 0.5 < sigmas.square().mean().sqrt() < 2  # and that error is the right one


def test_probes_are_averaged_and_come_from_the_generator_alone():
    weights, loss = smooth_problem()
    generator = seeded(7)
    single = [hutchinson_diagonal(loss, weights, 1, generator) for _ in range(4)]
    together = hutchinson_diagonal(loss, weights, 4, seeded(7))
    for name in weights:
        torch.testing.assert_close(together[name], sum(one[name] for one in single) / 4)


def test_a_weight_that_the_loss_does_not_bend_has_no_curvature():
    """Unused, linear, and all linear: zeros, not an error."""
    weights = {"bent": torch.ones(2), "straight": torch.ones(2), "unused": torch.ones(3)}
    found = hutchinson_diagonal(
        lambda w: (w["bent"] ** 2).sum() + w["straight"].sum(), weights, 2, seeded()
    )
    assert {n: t.tolist() for n, t in found.items()} == {
        "bent": [2, 2], "straight": [0, 0], "unused": [0, 0, 0]
    }  # fmt: skip
    flat = hutchinson_diagonal(lambda w: 3 * w["w"].sum(), {"w": torch.ones(2)}, 1, seeded())
    assert flat["w"].tolist() == [0, 0]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_estimates_in_half_precision_are_float32(dtype):
    weights = {"w": torch.tensor([2.0, 3.0], dtype=dtype)}
    found = hutchinson_diagonal(lambda w: (w["w"] ** 3).sum(), weights, 3, seeded())["w"]
    assert found.dtype == torch.float32 and found.tolist() == [12, 18]


def test_weights_are_left_alone_and_gradients_may_be_off():
    weights, loss = smooth_problem()
    parameters = {name: nn.Parameter(w.clone(), requires_grad=False) for name, w in weights.items()}
    with torch.no_grad():
        found = hutchinson_diagonal(loss, parameters, 1, seeded())
        exact_hessian(loss, parameters)
    assert not any(p.requires_grad or p.grad is not None for p in parameters.values())
    assert not any(d.requires_grad for d in found.values())


def test_attention_can_be_differentiated_twice(monkeypatch):
    """A small decoder, the embedding used twice: finite differences of its gradient along v."""
    monkeypatch.setattr(torch.Tensor, "float", lambda x: x)  # the norms stay in float64
    config = LlamaConfig(
        vocabulary=7, width=8, layers=1, heads=2, kv_heads=1, mlp_width=6, context=8
    )
    model = Llama(config).double()  # the embedding is N(0, 1), so steps of 1e-5 are small
    tokens = torch.randint(7, (2, 6), generator=seeded(1))
    weights = {name: p.detach() for name, p in model.named_parameters()}

    def loss(w):
        logits = functional_call(model, w, (tokens,))
        return F.cross_entropy(logits[:, :-1].flatten(0, 1), tokens[:, 1:].flatten())

    found = hutchinson_diagonal(loss, weights, 1, seeded(3))
    generator = seeded(3)
    v = {n: torch.randint(2, w.shape, generator=generator) * 2.0 - 1 for n, w in weights.items()}
    up, down = (
        gradient_row(loss, {n: w + s * 1e-5 * v[n] for n, w in weights.items()}) for s in (1, -1)
    )
    signs = torch.cat([t.flatten() for t in v.values()]).double()
    row = torch.cat([t.flatten() for t in found.values()])
    # central differences err by 1.6e-8 here; by 100 times that with a step 10 times as large
    torch.testing.assert_close(row, signs * (up - down) / 2e-5, rtol=0, atol=1e-6)
    assert row.abs().max() > 0.1
    torch.testing.assert_close(row, signs * (exact_hessian(loss, weights) @ signs))


# ---------------------------------------------------------------- many weights at once


def test_a_quadratic_loss_increases_by_what_is_predicted():
    """Least squares without some of its weights, not at the minimum: exact, for any set of them."""
    X = torch.randn(30, 6, generator=seeded(), dtype=torch.float64)
    y = torch.randn(30, generator=seeded(1), dtype=torch.float64)
    w = torch.randn(6, generator=seeded(2), dtype=torch.float64)
    loss = lambda w: (X @ w["w"] - y).square().mean()  # noqa: E731
    gradient, hessian = gradient_row(loss, {"w": w}), exact_hessian(loss, {"w": w})
    for gone in ([0], [1, 4], [0, 2, 3, 5], list(range(6))):
        change = torch.zeros_like(w)
        change[gone] = -w[gone]
        measured = loss({"w": w + change}) - loss({"w": w})
        torch.testing.assert_close(predicted_increase(change, gradient, hessian), measured)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda w, loss: hutchinson_diagonal(loss, w, 0, seeded()), "at least 1; got 0"),
        (lambda w, loss: hutchinson_diagonal(lambda w: w["w"], w, 1, seeded()), "0-d tensor"),
        (lambda w, loss: hessian_diagonal(torch.ones(2, 3), w), r"\(3, 3\); got \(2, 3\)"),
        (
            lambda w, loss: predicted_increase(w["w"], w["w"], torch.ones(3)),
            r"\(P,\), \(P,\), \(P, P\); got \(\(3,\), \(3,\), \(3,\)\)",
        ),
    ],
)
def test_bad_input_is_refused(call, says):
    with pytest.raises(ValueError, match=says):
        call({"w": torch.ones(3)}, lambda w: w["w"].square().sum())
