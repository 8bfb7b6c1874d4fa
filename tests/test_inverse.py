"""The triangle: a factor of the damped Hessian, what an error costs, repair by least squares."""

import pytest
import torch

from course_lib.language_models.inverse import damped_factor, repaired, targets
from course_lib.models.moments import output_error
from course_lib.pruning.inverse_hessian import inverse_factor


def gram_of(inputs: int = 12, tokens: int = 40, dtype=torch.float64) -> torch.Tensor:
    x = torch.randn(tokens, inputs, dtype=dtype) @ torch.randn(inputs, inputs, dtype=dtype)
    return x.T @ x / tokens


@pytest.mark.parametrize("damping", [0.0, 0.01, 3.0])
def test_the_factor_times_its_transpose_is_the_damped_matrix(damping):
    gram = gram_of()
    factor = damped_factor(gram, damping)
    R = factor.unit * factor.diagonal
    expected = gram + damping * gram.diagonal().mean() * torch.eye(12, dtype=torch.float64)
    torch.testing.assert_close(R @ R.T, expected)
    assert factor.damping == damping and not factor.dead.any()
    assert torch.equal(R, R.triu()) and (factor.unit.diagonal() == 1).all()


def test_its_inverse_is_the_factor_that_the_papers_use():
    """U with UᵀU = H⁻¹, from pruning: R = U⁻¹, of the Gram matrix; of H = 2 G, by √2 larger."""
    gram = gram_of()
    factor = damped_factor(gram, 0.01)
    U = inverse_factor(gram, 0.01)
    eye = torch.eye(12, dtype=torch.float64)
    torch.testing.assert_close((factor.unit * factor.diagonal) @ U, eye)
    twice = damped_factor(2 * gram, 0.01)
    torch.testing.assert_close(twice.unit, factor.unit)
    torch.testing.assert_close(twice.diagonal, 2**0.5 * factor.diagonal)


def test_the_error_falls_apart_into_columns():
    """‖(W − Ŵ) R‖² = Σ R_jj² ‖t_j − ŵ_j‖², whatever Ŵ is."""
    gram, weight = gram_of(), torch.randn(12, 5, dtype=torch.float64)
    other = weight.round()
    factor = damped_factor(gram, 0.0)
    aims = [targets(weight, weight - other, factor.unit, slice(j, j + 1)) for j in range(12)]
    columns = factor.diagonal[:, None] * (torch.cat(aims) - other)
    torch.testing.assert_close(columns.square().sum(0), output_error((weight - other).T, gram))


def test_the_repair_of_columns_is_least_squares():
    """With the first columns fixed, the best others are least squares on their own inputs."""
    x, weight = torch.randn(40, 9, dtype=torch.float64), torch.randn(9, 3, dtype=torch.float64)
    fixed = weight[:4].round()
    missing = x @ weight - x[:, :4] @ fixed
    best = torch.linalg.lstsq(x[:, 4:], missing).solution
    change = torch.zeros_like(weight)
    change[:4] = weight[:4] - fixed
    factor = damped_factor(x.T @ x / 40, 0.0)
    for stop in (5, 9):  # of the next column alone, or of them all
        columns = slice(4, stop)
        target = targets(weight, change, factor.unit, columns)
        torch.testing.assert_close(repaired(weight, target, factor.unit, columns), best[: stop - 4])


def test_dead_inputs_carry_nothing_and_do_not_count():
    gram = gram_of()
    dead = torch.tensor([0, 5, 11])
    gram[dead] = 0
    gram[:, dead] = 0
    live = [i for i in range(12) if i not in dead]
    factor, alone = damped_factor(gram), damped_factor(gram[live][:, live])
    torch.testing.assert_close(factor.unit[live][:, live], alone.unit)
    torch.testing.assert_close(factor.diagonal[live], alone.diagonal)
    assert factor.dead.nonzero().flatten().tolist() == dead.tolist()
    assert torch.equal(factor.unit[dead], torch.eye(12, dtype=gram.dtype)[dead])
    assert torch.equal(factor.unit[:, dead], torch.eye(12, dtype=gram.dtype)[:, dead])


def test_where_all_inputs_are_dead():
    factor = damped_factor(torch.zeros(3, 3))
    assert torch.equal(factor.unit, torch.eye(3)) and factor.dead.all()
    assert factor.diagonal.isfinite().all()


def test_damping_rises_as_far_as_it_must_and_says_so():
    x = torch.randn(40, 4)
    twins = torch.cat([x, x], dim=1)
    one_token = torch.outer(twins[0], twins[0])
    indefinite = torch.tensor([[1.0, 3.0], [3.0, 1.0]])  # eigenvalues 4 and −2
    for gram in (twins.T @ twins / 40, one_token, indefinite):
        factor = damped_factor(gram, 0.0)
        assert factor.unit.isfinite().all() and (factor.diagonal > 0).all()
    assert damped_factor(indefinite, 0.01).damping == pytest.approx(10)  # 1 leaves −1
    assert damped_factor(one_token, 0.01).damping == 0.01
    assert 0 < damped_factor(one_token, 0.0).damping < 0.01


def test_half_precision_and_autocast_are_computed_in_float32():
    gram = gram_of(dtype=torch.float32)
    factor = damped_factor(gram)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(damped_factor(gram).unit, factor.unit)
    half = gram.half()
    assert torch.equal(damped_factor(half).unit, damped_factor(half.float()).unit)


@pytest.mark.parametrize(
    "gram, damping, message",
    [
        (torch.ones(2, 3), 0.01, r"gram must have shape \(I, I\); got \(2, 3\)"),
        (torch.ones(2), 0.01, "gram must have shape"),
        (torch.ones(2, 2), -0.1, "damping must be at least 0 and finite; got -0.1"),
        (torch.ones(2, 2), float("nan"), "damping must be at least 0"),
        (torch.tensor([[1.0, torch.nan], [0.0, 1.0]]), 0.01, "gram must be finite; got 1 NaN"),
        (-torch.eye(2), 0.01, "gram must have no negative diagonal; the least is -1"),
        (torch.tensor([[1.0, 0.5], [0.0, 1.0]]), 0.01, "gram must be symmetric"),
        (torch.tensor([[1e-20, 1e20], [1e20, 1e-20]]), 0.01, "gram must be a mean of x xᵀ"),
    ],
)
def test_bad_input_is_refused(gram, damping, message):
    with pytest.raises(ValueError, match=message):
        damped_factor(gram, damping)
