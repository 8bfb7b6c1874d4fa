"""Optimal Brain Surgeon against least squares, brute force and an inverse made anew each step."""

from itertools import combinations

import pytest
import torch
import torch.nn.functional as F

from course_lib.data.images import digits
from course_lib.models.digits_mlp import small_student, train_digits
from course_lib.pruning import obs
from course_lib.pruning.obs import (
    damped_inverse,
    inverse_factor,
    layer_hessian,
    obs_prune,
    obs_saliency,
    obs_step,
)

EXACT = {"rtol": 1e-9, "atol": 1e-11}  # float64; the normal equations square X's condition, ≤ 1e3


def regression(seed, rows=40, inputs=7, correlation=1.0):
    """X, y, the least-squares w and the mean squared error's Hessian, in float64."""
    generator = torch.Generator().manual_seed(seed)
    X = torch.randn(rows, inputs, dtype=torch.float64, generator=generator)
    X = X + correlation * X[:, :1]
    y = X @ torch.randn(inputs, dtype=torch.float64, generator=generator)
    y = y + 0.5 * torch.randn(rows, dtype=torch.float64, generator=generator)
    return X, y, torch.linalg.lstsq(X, y).solution, layer_hessian(X)


def layer(seed, outputs=6, inputs=12, examples=50, dtype=torch.float64):
    """A weight, its inputs with correlations of their own, and its Hessian."""
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(inputs, inputs, dtype=torch.float64, generator=generator)
    X = torch.randn(examples, inputs, dtype=torch.float64, generator=generator) @ mixing
    weight = torch.randn(outputs, inputs, dtype=torch.float64, generator=generator)
    return weight.to(dtype), X, layer_hessian(X)


def error(X, y, w):
    return (X @ w - y).square().mean()


def refitted(X, y, support):
    """Least squares on some columns; zero elsewhere."""
    w = X.new_zeros(X.shape[1])
    w[support] = torch.linalg.lstsq(X[:, support], y).solution
    return w


def inverted_anew(weight, hessian, count):
    """Repeated removal as the formula says it: the inverse of what is left, made anew each time."""
    rows = []
    for w in weight.double():
        w, left = w.clone(), list(range(len(w)))
        for _ in range(count):
            inverse = torch.linalg.inv(hessian[left][:, left])
            at = int((w[left].square() / inverse.diagonal()).argmin())
            w[left] -= w[left[at]] / inverse[at, at] * inverse[:, at]
            w[left.pop(at)] = 0
        rows.append(w)
    return torch.stack(rows)


@pytest.mark.parametrize("seed", range(5))
def test_one_removal_is_least_squares_on_the_other_columns(seed):
    X, y, w, hessian = regression(seed)
    inverse = damped_inverse(hessian)
    saliency = obs_saliency(w, inverse)
    for q in range(len(w)):
        others = [p for p in range(len(w)) if p != q]
        found, left = obs_step(w, inverse, q)
        best = refitted(X, y, others)
        torch.testing.assert_close(found, best, **EXACT)
        torch.testing.assert_close(saliency[q], error(X, y, best) - error(X, y, w), **EXACT)
        torch.testing.assert_close(
            left[others][:, others], torch.linalg.inv(hessian[others][:, others]), **EXACT
        )
        assert found[q] == 0 and not left[q].any() and not left[:, q].any()
        assert obs_saliency(found, left)[q] == torch.inf


@pytest.mark.parametrize("seed", range(8))
def test_one_removal_is_the_best_of_all_and_two_are_the_best_for_their_pair(seed):
    """Of all single removals the best one is found. Two removals in turn leave what is optimal for
    the pair that they chose; another pair may be better, which the next test shows."""
    X, y, w, hessian = regression(seed)
    for count in (1, 2):
        found = obs_prune(w[None], hessian, 1 - count / len(w))[0]
        kept = list(combinations(range(len(w)), len(w) - count))
        errors = torch.stack([error(X, y, refitted(X, y, list(s))) for s in kept])
        own = errors[kept.index(tuple(found.nonzero().flatten().tolist()))]
        torch.testing.assert_close(error(X, y, found), own, **EXACT)
        assert count == 2 or own == errors.min()


def test_two_removals_in_turn_are_not_always_the_best_pair():
    """The third input is nearly the sum of the others. It is not needed beside them, so it goes
    first; but alone it would have done for both."""
    X = torch.tensor([[1.0, 0.0, 1.0], [0.0, 1.0, 1.0], [0.0, 0.0, 0.1]]).double()
    y = torch.tensor([1.0, 1.1, 0.0]).double()
    w = torch.linalg.solve(X, y)
    found = obs_prune(w[None], layer_hessian(X), 1 / 3)[0]
    assert found.nonzero().tolist() == [[1]]
    assert error(X, y, refitted(X, y, [2])) < 0.1 * error(X, y, found)


@pytest.mark.parametrize("seed", range(3))
def test_repeated_removal_is_least_squares_on_what_stays(seed):
    weight, X, hessian = layer(seed)
    for k in range(13):
        found = obs_prune(weight, hessian, k / 12)
        assert ((found != 0).sum(dim=1) == k).all()
        for w, new in zip(weight, found, strict=True):
            best = refitted(X, X @ w, new.nonzero().flatten().tolist())
            torch.testing.assert_close(new, best, **EXACT)


@pytest.mark.parametrize(
    ("dtype", "close"),  # half: the old weight and the new one are rounded, to 2⁻¹¹ of each
    [
        (torch.float64, EXACT),
        (torch.float32, {"rtol": 1e-6, "atol": 1e-6}),
        (torch.float16, {"rtol": 1e-3, "atol": 1e-3}),
        (torch.bfloat16, {"rtol": 1e-2, "atol": 1e-2}),
    ],
)
@pytest.mark.parametrize("seed", range(3))
def test_an_inverse_made_anew_at_each_step_gives_the_same(seed, dtype, close):
    weight, _, hessian = layer(seed, inputs=30, examples=100, dtype=dtype)
    for count in (1, 15, 29):
        found = obs_prune(weight, hessian, 1 - count / 30)
        assert found.dtype == dtype
        peer = inverted_anew(weight, hessian, count)
        assert (found == 0).equal(peer == 0)
        torch.testing.assert_close(found, peer.to(dtype), **close)


def test_steps_by_hand_give_the_same():
    weight, _, hessian = layer(0)
    w, inverse = weight[0], damped_inverse(hessian)
    for _ in range(6):
        w, inverse = obs_step(w, inverse, obs_saliency(w, inverse).argmin())
    torch.testing.assert_close(obs_prune(weight, hessian, 0.5)[0], w, **EXACT)


def test_a_hessian_in_float32_is_enough_where_it_is_well_conditioned():
    weight, _, hessian = layer(0, examples=1000)
    found = obs_prune(weight.float(), hessian.float(), 0.5, damping=0.01)
    exact = obs_prune(weight, hessian, 0.5, damping=0.01)
    torch.testing.assert_close(found, exact.float(), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("seed", range(10))
def test_damage_is_never_less_without_the_repair(seed):
    """One removal from each row, of least ½ H_qq w_q² and nothing moved, against OBS."""
    weight, _, hessian = layer(seed)

    def increase(new):
        step = new - weight
        return ((step @ hessian) * step).sum(dim=1) / 2

    damage = (hessian.diagonal() * weight.square()).argsort(dim=1)
    for count in (1, 6, 11):
        obd = weight.scatter(1, damage[:, :count], 0)
        surgeon = increase(obs_prune(weight, hessian, 1 - count / 12))
        if count == 1:  # then it is a theorem, for each row
            assert (surgeon <= increase(obd) * (1 + 1e-12)).all()
        assert surgeon.sum() < increase(obd).sum()


def test_independent_inputs_need_no_surgeon():
    """H = 1: nothing moves, and the smallest magnitudes go."""
    weight = torch.tensor([[3.0, -1.0, 2.0, -4.0]])
    assert obs_prune(weight, torch.eye(4), 0.5).tolist() == [[3, 0, 0, -4]]


def test_rows_do_not_depend_on_how_many_are_pruned_together(monkeypatch):
    weight, _, hessian = layer(0, outputs=9)
    together = obs_prune(weight, hessian, 0.4)
    monkeypatch.setattr(obs, "AT_ONCE", 2 * 12 * 7)
    torch.testing.assert_close(obs_prune(weight, hessian, 0.4), together, **EXACT)


def test_the_inverse_factor_holds_the_columns_of_a_removal_in_order():
    weight, _, hessian = layer(0)
    U, inverse, w = inverse_factor(hessian), damped_inverse(hessian), weight[0]
    torch.testing.assert_close(U.T @ U, torch.linalg.inv(hessian), **EXACT)
    torch.testing.assert_close(U, torch.linalg.cholesky(inverse, upper=True), **EXACT)
    by_factor = w.clone()
    for q in range(12):
        torch.testing.assert_close(U[q], inverse[q] / inverse[q, q].clamp_min(0).sqrt(), **EXACT)
        torch.testing.assert_close(U[q:, q:].T @ U[q:, q:], inverse[q:, q:], **EXACT)
        w, inverse = obs_step(w, inverse, q)
        by_factor = by_factor - by_factor[q] / U[q, q] * U[q]
        torch.testing.assert_close(by_factor, w, **EXACT)


def test_the_hessian_is_that_of_the_mean_squared_error():
    weight, X, hessian = layer(0)
    exact = torch.func.hessian(lambda w: error(X, X @ weight[0], w))(weight[0])
    torch.testing.assert_close(hessian, exact, **EXACT)
    assert layer_hessian(X.half()).dtype == torch.float64
    parts = torch.stack([layer_hessian(part) for part in X.split(10)]).mean(dim=0)
    torch.testing.assert_close(parts, hessian, **EXACT)


def test_an_input_that_is_always_zero():
    weight, X, _ = layer(0)
    X[:, 3] = 0
    with pytest.raises(ValueError, match="damping must be above .*; got 0.0"):
        obs_prune(weight, layer_hessian(X), 0.5)
    found = obs_prune(weight, layer_hessian(X), 11 / 12, damping=1e-9)
    rest = [q for q in range(12) if q != 3]
    assert not found[:, 3].any()  # it costs almost nothing, and goes first
    torch.testing.assert_close(found[:, rest], weight[:, rest])


def test_an_input_that_stands_there_twice():
    """Either may go: the other takes over its weight, and the output stays."""
    weight, X, _ = layer(0)
    X[:, 3] = X[:, 8]
    for hessian in (layer_hessian(X), layer_hessian(X).float()):
        with pytest.raises(ValueError, match="positive definite beyond rounding"):
            obs_prune(weight, hessian, 0.5)
    found = obs_prune(weight, layer_hessian(X), 11 / 12, damping=1e-9)
    assert ((found[:, 3] == 0) != (found[:, 8] == 0)).all()
    torch.testing.assert_close(X @ found.T, X @ weight.T, rtol=1e-5, atol=1e-5)


def test_fewer_examples_than_inputs():
    """With 8 examples, 8 of 12 weights can give the same outputs: damping lets them."""
    weight, X, hessian = layer(0, examples=8)
    with pytest.raises(ValueError, match="positive definite beyond rounding"):
        inverse_factor(hessian)
    found = obs_prune(weight, hessian, 8 / 12, damping=1e-9)
    torch.testing.assert_close(X @ found.T, X @ weight.T, rtol=1e-4, atol=1e-4)


def test_nearly_twice_the_same_input_is_not_ruined_by_rounding():
    """The diagonal of the inverse falls from about 1e10 to 1 when one of the two goes."""
    weight, X, _ = layer(0)
    X[:, 3] = X[:, 8] + 1e-5 * torch.randn(50, dtype=torch.float64)
    found = obs_prune(weight.float(), layer_hessian(X), 0.5)
    for w, new in zip(weight, found, strict=True):
        best = refitted(X, X @ w, new.nonzero().flatten().tolist())
        assert error(X, X @ w, new.double()) <= error(X, X @ w, best) * 1.01


@pytest.mark.parametrize("scale", [1e-9, 1e9])
def test_scales_of_inputs_and_weights_cancel(scale):
    weight, X, hessian = layer(0)
    scales = torch.ones(12).double()
    scales[::2] = scale
    found = obs_prune(weight / scales, layer_hessian(X * scales), 0.5)
    torch.testing.assert_close(found * scales, obs_prune(weight, hessian, 0.5), **EXACT)


def test_autocast_does_not_reach_it():
    weight, X, hessian = layer(0)
    X, weight = X.float(), weight.float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert layer_hessian(X).dtype == torch.float64
        inside = obs_prune(weight, layer_hessian(X), 0.5)
        step = obs_step(weight[0], damped_inverse(hessian.float()), 3)
    assert inside.equal(obs_prune(weight, layer_hessian(X), 0.5))
    assert step[1].equal(obs_step(weight[0], damped_inverse(hessian.float()), 3)[1])


def test_all_and_nothing_and_one_weight():
    weight, _, hessian = layer(0)
    assert obs_prune(weight, hessian, 1.0).equal(weight)
    assert not obs_prune(weight, hessian, 0.0).any()
    one = torch.tensor([[2.0]])
    assert [obs_prune(one, torch.eye(1), d).item() for d in (0.0, 1.0)] == [0, 2]


def test_weights_that_are_zero_go_first():
    weight, _, hessian = layer(0)
    weight[:, [2, 7]] = 0
    assert obs_prune(weight, hessian, 10 / 12).equal(weight)


def test_the_input_stays_as_it_is_and_needs_no_gradient():
    weight, _, hessian = layer(0)
    before = weight.clone(), hessian.clone()
    found = obs_prune(torch.nn.Parameter(weight), hessian, 0.5)
    obs_step(weight[0], damped_inverse(hessian), 0)
    assert weight.equal(before[0]) and hessian.equal(before[1]) and not found.requires_grad


def test_a_whole_network_at_its_minimum():
    """910 weights and biases as one row; the damping is what the error asks for and a little."""
    data, model = digits(), small_student(0)
    train_digits(model, data)
    parameters = dict(model.named_parameters())
    sizes = [p.numel() for p in parameters.values()]
    theta = torch.cat([p.detach().flatten() for p in parameters.values()])  # (P,)

    def loss(theta):
        parts = zip(parameters.items(), theta.split(sizes), strict=True)
        named = {name: part.view(p.shape) for (name, p), part in parts}
        logits = torch.func.functional_call(model, named, (data.train_images,))
        return F.cross_entropy(logits, data.train_labels)

    hessian = torch.func.hessian(loss)(theta).detach()
    with pytest.raises(ValueError, match="damping must be above") as raised:
        obs_prune(theta[None], hessian, 0.4)
    least = float(str(raised.value).split("above ")[1].split(";")[0])
    pruned = obs_prune(theta[None], hessian, 0.4, damping=1.1 * least + 0.1)[0]
    assert (pruned != 0).sum() == round(0.4 * 910)
    damage = (hessian.diagonal() * theta.square()).argsort()[: 910 - round(0.4 * 910)]
    assert loss(pruned) < 0.8 * loss(theta.index_fill(0, damage, 0))


GOOD = torch.eye(3)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda w: obs_prune(w, GOOD, 1.1), "density must be from 0 to 1; got 1.1"),
        (lambda w: obs_prune(w, GOOD, float("nan")), "density must be from 0 to 1; got nan"),
        (lambda w: obs_prune(w * float("nan"), GOOD, 0.5), "weight must be finite"),
        (lambda w: obs_prune(w, GOOD * float("inf"), 0.5), "hessian must be finite"),
        (lambda w: obs_prune(w, torch.eye(2), 0.5), "weight must have shape .O, I. and hessian"),
        (lambda w: obs_prune(w[0], GOOD, 0.5), "weight must have shape .O, I. and hessian"),
        (lambda w: obs_prune(w, GOOD.half(), 0.5), "hessian must be float32 or float64"),
        (lambda w: obs_prune(w, GOOD, 0.5, damping=-1), "damping must be at least 0 and finite"),
        (lambda w: obs_prune(w, GOOD - 0.5, 0.5), "its smallest eigenvalue is -0.5"),
        (lambda w: obs_prune(w, -GOOD, 0.5), "damping must be above 1; got 0.0"),
        (lambda w: obs_prune(w, 0 * GOOD, 0.5, damping=1.0), "a diagonal that is not 0"),
        (lambda w: inverse_factor(GOOD + torch.ones(3, 3).triu(1)), "hessian must be symmetric"),
        (lambda w: inverse_factor(w), "hessian must have shape .I, I."),
        (lambda w: obs_saliency(w, torch.eye(2)), "and inverse .I, I.; got .2, 3. and .2, 2."),
        (lambda w: obs_step(w, GOOD, 0), "weight must have shape .I,. and inverse"),
        (lambda w: obs_step(w[0], 0 * GOOD, 1), "must be positive; got 0 at q = 1"),
        (lambda w: obs_step(w[0], GOOD, -1), "q must be from 0 to 2; got -1"),
        (lambda w: obs_step(w[0], GOOD, torch.tensor(3)), "q must be from 0 to 2; got 3"),
        (lambda w: layer_hessian(w[0]), "inputs must have shape .N, I."),
        (lambda w: layer_hessian(w[:0]), "inputs must not be empty"),
        (lambda w: layer_hessian(w * float("nan")), "inputs must be finite"),
    ],
)
def test_bad_input_is_refused(call, says):
    with pytest.raises(ValueError, match=says):
        call(torch.ones(2, 3))
