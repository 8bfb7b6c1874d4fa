"""Output-aware factors: the least error of the outputs, SVD-LLM's, whatever G is."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from on_accelerator import run_on_accelerator

from course_lib.low_rank.output_aware import (
    DAMPING,
    output_factors,
    output_spectrum,
    scaled_factors,
)
from course_lib.low_rank.svd import error_norms, truncated
from course_lib.models.moments import Moments, output_error

SHAPES = [(8, 8), (12, 6), (6, 12), (1, 5), (5, 1), (1, 1)]
DOUBLE = torch.float64


def layer(seed, outputs, inputs, tokens=200, dtype=DOUBLE):
    """A weight, inputs that go together and differ in size a hundredfold, and their moments."""
    generator = torch.Generator().manual_seed(seed)
    draw = lambda *shape: torch.randn(*shape, generator=generator, dtype=DOUBLE)  # noqa: E731
    sizes = torch.logspace(0, -2, inputs, dtype=DOUBLE)
    x = (draw(tokens, inputs) @ draw(inputs, inputs) * sizes).to(dtype)
    return draw(outputs, inputs).to(dtype), x, Moments.empty(inputs, dtype).add(x).gram


def cost(weight, factors, gram):
    """mean ‖(W − B A) x‖²."""
    change = weight.double() - factors[0].double() @ factors[1].double()
    return output_error(change, gram.double()).sum()


def slack(weight, gram):
    """What the damping δ can cost: f + δ ‖W − Ŵ‖² is the least, and ‖W − Ŵ‖ at most ‖W‖."""
    return float(DAMPING * gram.trace() * weight.double().square().sum())


@pytest.mark.parametrize("shape", SHAPES)
def test_the_error_is_the_tail_of_the_outputs_spectrum(shape):
    weight, x, gram = layer(0, *shape)
    outputs = x @ weight.T  # (N, O)
    spectrum = torch.linalg.svdvals(outputs) / len(x) ** 0.5
    found = output_spectrum(weight, gram)
    # the squares are exact to 1e-16 of the first one
    torch.testing.assert_close(found, spectrum[: min(shape)], rtol=1e-7, atol=1e-8 * spectrum[0])
    for rank in range(min(shape) + 1):
        factors = output_factors(weight, gram, rank)
        assert factors.left.shape == (shape[0], rank) and factors.right.shape == (rank, shape[1])
        missing = (outputs - x @ factors.product.T).square().sum(dim=1).mean()
        least = float(error_norms(found, rank).frobenius) ** 2
        assert missing == pytest.approx(least, rel=1e-9, abs=slack(weight, gram))


def svd_llm(weight, gram, rank):
    """Truncation-aware whitening as published: [W S]_r S⁻¹, with S from Cholesky."""
    S = torch.linalg.cholesky(gram)
    U, sigma, V = torch.linalg.svd(weight @ S, full_matrices=False)
    kept = U[:, :rank] * sigma[:rank] @ V[:rank]
    return torch.linalg.solve(S, kept, left=False)


@pytest.mark.parametrize("shape", [(8, 8), (12, 6), (6, 12)])
def test_svd_llm_gives_the_same(shape):
    weight, x, gram = layer(1, *shape)
    mild = Moments.empty(shape[1], DOUBLE).add(torch.randn_like(x)).gram
    for rank in (1, 3, 5):
        peer = svd_llm(weight, mild, rank)
        found = output_factors(weight, mild, rank).product
        torch.testing.assert_close(found, peer, rtol=0, atol=1e-4)  # the damping over the gap
        theirs = output_error(weight - svd_llm(weight, gram, rank), gram).sum()
        ours = cost(weight, output_factors(weight, gram, rank), gram)
        assert ours == pytest.approx(float(theirs), rel=1e-9, abs=slack(weight, gram))


def test_principal_components_of_the_outputs_give_the_same():
    from sklearn.decomposition import TruncatedSVD

    weight, x, gram = layer(2, 9, 7)
    outputs = x @ weight.T
    peer = TruncatedSVD(3, algorithm="arpack").fit(outputs.numpy())  # PCA without centring
    directions = torch.from_numpy(peer.components_.copy())
    through = outputs @ directions.T @ directions
    ours = x @ output_factors(weight, gram, 3).product.T
    torch.testing.assert_close(ours, through, rtol=0, atol=1e-4 * float(outputs.abs().max()))


@pytest.mark.parametrize("shape", [(6, 5), (5, 6)])
@pytest.mark.parametrize("rank", [1, 3])
def test_gradient_descent_finds_nothing_better(shape, rank):
    weight, _, gram = layer(3, *shape)
    ours = cost(weight, output_factors(weight, gram, rank), gram)
    reached = []
    for seed in range(3):
        torch.manual_seed(seed)
        left = torch.randn(shape[0], rank, dtype=DOUBLE, requires_grad=True)
        right = torch.randn(rank, shape[1], dtype=DOUBLE, requires_grad=True)
        descent = torch.optim.LBFGS(
            [left, right], max_iter=3000, tolerance_grad=1e-12, tolerance_change=0,
            line_search_fn="strong_wolfe",
        )  # fmt: skip

        def closure(left=left, right=right, descent=descent):
            descent.zero_grad()
            loss = output_error(weight - left @ right, gram).sum()
            loss.backward()
            return loss

        descent.step(closure)
        reached.append(cost(weight, (left.detach(), right.detach()), gram))
    assert min(reached) == pytest.approx(float(ours), rel=1e-6, abs=slack(weight, gram))


@given(st.integers(0, 10_000), st.integers(1, 4), st.sampled_from([1e-4, 1e-2, 1.0]))
@settings(max_examples=40, deadline=None)
def test_no_competitor_of_its_rank_has_a_smaller_error(seed, rank, step):
    weight, _, gram = layer(seed, 7, 5)
    best = output_factors(weight, gram, rank)
    torch.manual_seed(seed)
    left = best.left + step * torch.randn_like(best.left)
    basis = torch.linalg.qr(left).Q
    right = best.right + step * torch.randn_like(best.right)
    for other in ((left, right), (basis, basis.T @ weight), truncated(weight, rank)):
        assert cost(weight, other, gram) >= cost(weight, best, gram) - slack(weight, gram)


def test_white_inputs_leave_the_weight_to_decide():
    for shape in SHAPES:
        weight, _, _ = layer(4, *shape, dtype=torch.float32)
        rank = (min(shape) + 1) // 2
        for gram in (torch.eye(shape[1]) * 3, torch.zeros(shape[1], shape[1])):
            found, plain = output_factors(weight, gram, rank), truncated(weight, rank)
            torch.testing.assert_close(found.product, plain.product, atol=1e-4, rtol=0)


def test_the_factors_are_balanced_and_nested():
    weight, _, gram = layer(5, 9, 7)
    found = output_factors(weight, gram, 5)
    lengths = found.left.norm(dim=0)
    torch.testing.assert_close(lengths, found.right.norm(dim=1))
    unit = found.left / lengths
    torch.testing.assert_close(unit.T @ unit, torch.eye(5, dtype=DOUBLE), atol=1e-12, rtol=0)
    fewer = output_factors(weight, gram, 2)
    torch.testing.assert_close(found.left[:, :2], fewer.left)
    torch.testing.assert_close(found.right[:2], fewer.right)


@pytest.mark.parametrize("dtype", [torch.float32, DOUBLE])
@pytest.mark.parametrize("shape", [(10, 14), (14, 10), (12, 12)])
@pytest.mark.parametrize("tokens", [1, 4])
def test_beyond_what_the_tokens_tell_the_weight_decides(shape, tokens, dtype):
    """Fewer tokens than inputs: their outputs are exact, and the rest is its nearest matrix."""
    weight, x, gram = layer(6, *shape, tokens=tokens, dtype=dtype)
    outputs = x @ weight.T
    for rank in (tokens, tokens + 3, min(shape)):
        found = output_factors(weight, gram, rank).product
        torch.testing.assert_close(x @ found.T, outputs, rtol=0, atol=2e-3 * outputs.abs().max())
        seen = torch.linalg.qr(outputs.T.double()).Q  # (O, N)
        rest = weight.double() - seen @ (seen.T @ weight.double())
        expected = error_norms(torch.linalg.svdvals(rest), min(rank - tokens, min(rest.shape)))
        missing = torch.linalg.matrix_norm(weight.double() - found.double())
        assert missing <= expected.frobenius * 1.01 + 1e-4  # the damping turns what is seen


def test_a_dead_input_costs_nothing_and_a_loud_one_comes_first():
    weight, x, _ = layer(7, 6, 5)
    x[:, 2] = 0
    x[:, 4] *= 1e8
    gram = Moments.empty(5, DOUBLE).add(x).gram
    found = output_factors(weight, gram, 4)
    assert cost(weight, found, gram) < slack(weight, gram)
    loud = output_factors(weight, gram, 1).product[:, 4]
    torch.testing.assert_close(loud, weight[:, 4], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("gram_scale", [2.0**-100, 2.0**100])
@pytest.mark.parametrize("scale", [2.0**-100, 2.0**100])
@pytest.mark.parametrize("shape", [(6, 4), (4, 6)])
def test_huge_and_tiny_scales(shape, scale, gram_scale):
    weight, _, gram = layer(8, *shape, dtype=torch.float32)
    plain, found = (
        output_factors(w, g, 2) for w, g in ((weight, gram), (weight * scale, gram * gram_scale))
    )
    torch.testing.assert_close(found.product / scale, plain.product, rtol=1e-3, atol=1e-4)
    spectrum = output_spectrum(weight * scale, gram * gram_scale)
    expected = output_spectrum(weight, gram) * scale * gram_scale**0.5
    torch.testing.assert_close(spectrum, expected, rtol=1e-5, atol=0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, DOUBLE])
def test_dtypes(dtype):
    weight, _, gram = layer(9, 6, 5, dtype=torch.float32)
    found = output_factors(weight.to(dtype), gram, 5)
    assert {found.left.dtype, found.right.dtype} == {dtype}
    atol = 50 * torch.finfo(dtype).eps
    torch.testing.assert_close(found.product, weight.to(dtype), rtol=0, atol=atol)
    assert output_factors(weight.to(dtype), gram.double(), 2).left.dtype == dtype


def test_small_directions_survive_in_float32():
    """σ from 1 to 1e-6: squared, the last ones would be below float32's rounding of the first."""
    n = 12
    torch.manual_seed(0)
    U, V = (torch.linalg.qr(torch.randn(n, n, dtype=DOUBLE)).Q for _ in range(2))
    sigma = torch.logspace(0, -6, n, dtype=DOUBLE)
    weight, gram = (U * sigma @ V).float(), torch.eye(n)
    exact = torch.linalg.svdvals(weight.double())
    torch.testing.assert_close(output_spectrum(weight, gram), exact, rtol=0, atol=2e-8)
    for rank in range(n - 2):
        least = error_norms(exact, rank).frobenius
        found = cost(weight, output_factors(weight, gram, rank), gram).sqrt()
        assert found <= 1.02 * least + 1e-6  # float32's rounding of the first


def test_zero_weights_rank_0_views_and_autocast():
    weight, _, gram = layer(10, 6, 8, dtype=torch.float32)
    assert output_factors(torch.zeros(6, 8), gram, 3).product.tolist() == torch.zeros(6, 8).tolist()
    assert torch.equal(output_factors(weight, gram, 0).product, torch.zeros(6, 8))
    assert output_spectrum(torch.zeros(6, 8), gram).tolist() == [0.0] * 6
    assert output_spectrum(weight, torch.zeros(8, 8)).tolist() == [0.0] * 6
    view = weight.T.contiguous().T
    before = view.clone(), gram.clone()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = output_factors(view.requires_grad_(), gram, 3)
    assert not found.left.requires_grad
    torch.testing.assert_close(found.product, output_factors(weight, gram, 3).product)
    assert torch.equal(view.detach(), before[0]) and torch.equal(gram, before[1])
    wide = gram.double()
    torch.testing.assert_close(output_factors(weight, wide, 3).product, found.product)
    assert torch.equal(wide, before[1].double())


def test_asvd_as_published_where_it_can_divide():
    weight, x, _ = layer(11, 8, 6)
    scale = x.abs().mean(dim=0).sqrt()
    U, sigma, V = torch.linalg.svd(weight * scale, full_matrices=False)
    for rank in (0, 2, 5, 6):
        expected = U[:, :rank] * sigma[:rank] @ V[:rank] / scale
        found = scaled_factors(weight, scale, rank).product
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-3)  # damping


def test_asvd_divides_by_no_scale():
    weight, _, _ = layer(12, 5, 4, dtype=torch.float32)
    found = scaled_factors(weight, torch.tensor([0.0, 1.0, 2.0, 0.0]), 4).product
    torch.testing.assert_close(found, weight, atol=1e-5, rtol=0)
    for scale in (torch.zeros(4), torch.full((4,), 1e-30), torch.full((4,), 1e30)):
        found = scaled_factors(weight, scale, 2).product
        torch.testing.assert_close(found, truncated(weight, 2).product, atol=1e-5, rtol=1e-4)


def test_knowing_how_inputs_go_together_helps():
    """The order that the lesson tells: plain, scaled, output-aware."""
    weight, x, gram = layer(13, 20, 20, dtype=torch.float32)
    factors = [
        truncated(weight, 5),
        scaled_factors(weight, x.abs().mean(dim=0).sqrt(), 5),
        output_factors(weight, gram, 5),
    ]
    plain, scaled, aware = (float(cost(weight, f, gram)) for f in factors)
    assert aware < 0.8 * scaled < 0.8 * plain


def test_bad_input_is_refused():
    weight, gram = torch.ones(2, 3), torch.eye(3)
    for function in (output_factors, lambda w, g, _: output_spectrum(w, g)):
        with pytest.raises(ValueError, match=r"gram must have shape \(I, I\) = \(3, 3\)"):
            function(weight, torch.eye(2), 1)
        for wrong in (torch.nan, torch.inf):
            with pytest.raises(ValueError, match="gram must be finite"):
                function(weight, gram * wrong, 1)
            with pytest.raises(ValueError, match="weight must be finite"):
                function(weight * wrong, gram, 1)
        with pytest.raises(TypeError, match="gram must be a tensor of floats"):
            function(weight, gram.long(), 1)
    with pytest.raises(ValueError, match="rank be from 0"):
        output_factors(weight, gram, 3)
    with pytest.raises(ValueError, match="gram must be a mean of x xᵀ"):
        output_factors(weight, torch.diag(torch.tensor([1.0, 1.0, -0.1])), 1)
    for scale in (torch.tensor([1.0, -1.0, 1.0]), torch.ones(3, 1)):
        with pytest.raises(ValueError, match=r"scale must have shape \(I,\) and be at least 0"):
            scaled_factors(weight, scale, 1)
    with pytest.raises(ValueError, match="scale must be finite"):
        scaled_factors(weight, torch.tensor([1.0, torch.nan, 1.0]), 1)


ON_AN_ACCELERATOR = """
import torch
from fake_accelerator import accelerator
from course_lib.low_rank.output_aware import output_factors, output_spectrum, scaled_factors
from course_lib.low_rank.randomized import randomized, range_basis
from course_lib.low_rank.svd import error_norms, truncated

with accelerator() as put:
    generator = torch.Generator().manual_seed(0)
    for shape in ((6, 4), (4, 6), (5, 5)):
        for dtype in (torch.float32, torch.float16):
            weight, gram = put(torch.ones(shape, dtype=dtype)), put(torch.eye(shape[1]))
            found = [range_basis(weight, 2, 1, generator), range_basis(weight, 2)]
            all_factors = [truncated(weight, 2), output_factors(weight, gram, 2)]
            all_factors += [scaled_factors(weight, gram[0], 2)]
            all_factors += [randomized(weight, 2, generator=generator), randomized(weight, 0)]
            for factors in all_factors:
                assert factors.left.dtype == factors.product.dtype == dtype
                found += [*factors, factors.product]
            spectrum = output_spectrum(weight, gram)
            found += [spectrum, *error_norms(spectrum, 2)]
            assert all(tensor.device.type == "toygpu" for tensor in found)
"""


@pytest.mark.slow
def test_everything_runs_on_an_accelerator():
    run_on_accelerator(ON_AN_ACCELERATOR)
