"""What is given back: the best of its rank, on weights and on outputs; the loop's error falls."""

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from on_accelerator import run_on_accelerator

from course_lib.formats.linear import Scheme, nearest_codes
from course_lib.low_rank.residual import alternate, give_back
from course_lib.models.moments import Moments, output_error
from course_lib.models.selection import largest_masks
from course_lib.quantization.linear import Format

THREE_BITS = Scheme(Format(3), 16)


def rounded(weight):
    return nearest_codes(weight, THREE_BITS).weight


def largest(k):
    return lambda weight: weight * largest_masks({"w": weight}, k)["w"]


def layer(O=24, I=32, seed=0, tokens=200):  # noqa: E741
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(tokens, I, generator=generator) @ torch.randn(I, I, generator=generator)
    return torch.randn(O, I, generator=generator), Moments.empty(I).add(x).gram, x


def lost(weight, approximation, factors):
    return (weight - approximation - factors.product).double().norm()


@pytest.mark.parametrize("rank", [0, 1, 5, 24])
def test_what_is_left_are_the_last_singular_values_of_the_residual(rank):
    weight, _, _ = layer()
    left_over = torch.linalg.svdvals((weight - rounded(weight)).double())[rank:].norm()
    found = lost(weight, rounded(weight), give_back(weight, rounded(weight), rank))
    torch.testing.assert_close(found, left_over, atol=1e-5, rtol=1e-5)  # float32 factors


@pytest.mark.parametrize("rank", [1, 6])
def test_on_the_outputs_no_descent_finds_better_and_plain_is_worse(rank):
    """The independent peer: both factors trained from what plain truncation gives."""
    weight, gram, x = layer()
    approximation = rounded(weight)
    missing = weight - approximation

    def error(factors):
        return output_error(missing - factors[0] @ factors[1], gram).sum()

    plain, ours = (give_back(weight, approximation, rank, g) for g in (None, gram))
    trained = [f.clone(memory_format=torch.contiguous_format).requires_grad_() for f in plain]
    optimizer = torch.optim.LBFGS(trained, max_iter=2000, line_search_fn="strong_wolfe")

    def closure():
        optimizer.zero_grad()
        loss = error(trained)
        loss.backward()
        return loss

    for _ in range(5):
        optimizer.step(closure)
    best = error(trained).item()
    assert error(ours).item() <= best * (1 + 1e-4)  # float32 sums
    assert best == pytest.approx(error(ours).item(), rel=0.01)  # descent gets there
    assert error(plain) > 1.05 * error(ours)
    by_hand = (x @ (missing - ours.product).T).square().sum(1).mean()
    torch.testing.assert_close(error(ours), by_hand, rtol=1e-3, atol=0)


def test_a_residual_of_that_rank_comes_back_whole():
    weight, gram, _ = layer()
    thin = torch.randn(24, 3) @ torch.randn(3, 32)
    for g in (None, gram):
        assert lost(weight + thin, weight, give_back(weight + thin, weight, 3, g)) < 1e-4


def test_one_round_is_give_back():
    weight, gram, _ = layer()
    for g in (None, gram):
        approximation, factors = alternate(weight, rounded, 4, rounds=1, gram=g)
        assert approximation.equal(rounded(weight))
        assert factors.product.equal(give_back(weight, rounded(weight), 4, g).product)


@given(st.integers(1, 9), st.integers(1, 9), st.integers(0, 99), st.floats(0, 1), st.floats(0, 1))
def test_low_rank_and_sparse_the_error_never_rises(O, I, seed, some, share):  # noqa: E741
    """Each step is a projection: it finds the nearest of its kind to what the other leaves."""
    weight = torch.randn(O, I, generator=torch.Generator().manual_seed(seed)).double()
    rank, k = round(some * min(O, I)), round(share * O * I)
    errors = [lost(weight, *alternate(weight, largest(k), rank, rounds)) for rounds in (1, 2, 4)]
    for before, after in itertools.pairwise(errors):
        assert after <= before + 1e-12


def test_low_rank_and_sparse_find_a_low_rank_and_a_sparse_matrix_again():
    """What GoDec is for: 5 % of large numbers on top of rank 2."""
    generator = torch.Generator().manual_seed(0)
    thin = torch.randn(40, 2, generator=generator) @ torch.randn(2, 50, generator=generator)
    few = torch.randn(40, 50, generator=generator) * (
        torch.rand(40, 50, generator=generator) < 0.05
    )
    few = few + 5 * few.sign()
    count = int((few != 0).sum())
    sparse, factors = alternate(thin + few, largest(count), rank=2, rounds=60)
    assert torch.equal(sparse != 0, few != 0)
    torch.testing.assert_close(factors.product, thin, atol=1e-3, rtol=0)
    once, _ = alternate(thin + few, largest(count), rank=2, rounds=1)
    assert ((once != 0) != (few != 0)).any()  # one round does not


def test_with_rounding_the_error_falls_at_first_and_may_rise_later():
    """No projection: the levels follow the range of what is rounded."""
    rises = falls = 0
    for seed in range(20):
        weight, _, _ = layer(seed=seed)
        errors = [lost(weight, *alternate(weight, rounded, 6, rounds)) for rounds in range(1, 9)]
        falls += errors[1] < errors[0]
        rises += any(after > before for before, after in itertools.pairwise(errors))
    assert falls == 20 and rises > 0


def test_other_dtypes():
    for dtype in (torch.float16, torch.bfloat16, torch.float64):
        weight = layer()[0].to(dtype)
        factors = give_back(weight, rounded(weight.float()), 4)
        assert {factor.dtype for factor in factors} == {dtype}
        wide = give_back(weight.double(), rounded(weight.float()), 4).product
        # A factor rounded to p bits is off by 2⁻ᵖ of itself; four products are summed.
        atol = 8 * torch.finfo(dtype).eps
        torch.testing.assert_close(factors.product.double(), wide, atol=max(atol, 1e-6), rtol=0)


@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_huge_and_tiny_scales(scale):
    weight, gram, _ = layer()
    for g in (None, gram):
        expected = give_back(weight, rounded(weight), 4, g).product
        found = give_back(weight * scale, rounded(weight) * scale, 4, g).product / scale
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-3)


def test_nothing_is_missing_or_nothing_flows():
    weight, gram, _ = layer()
    assert not give_back(weight, weight, 3).product.any()
    assert not give_back(weight, weight, 3, gram).product.any()
    dead = give_back(weight, rounded(weight), 3, torch.zeros(32, 32))
    torch.testing.assert_close(dead.product, give_back(weight, rounded(weight), 3).product)
    one = give_back(torch.tensor([[2.0]]), torch.tensor([[0.5]]), 1)
    assert one.product.item() == pytest.approx(1.5)


def test_bad_input_is_refused():
    weight, gram, _ = layer()
    with pytest.raises(ValueError, match=r"one shape \(O, I\); got \(24, 32\) and \(24, 31\)"):
        give_back(weight, weight[:, :31], 2)
    with pytest.raises(ValueError, match="one shape"):
        give_back(weight[0], weight[0], 1)
    with pytest.raises(ValueError, match="weight must be finite"):
        give_back(weight * torch.nan, weight, 1)
    with pytest.raises(ValueError, match="approximation must be finite"):
        give_back(weight, weight / 0, 1)
    with pytest.raises(ValueError, match="rank"):
        give_back(weight, weight, 25)
    with pytest.raises(ValueError, match="gram"):
        give_back(weight, weight, 1, gram[:3, :3])
    with pytest.raises(ValueError, match="rounds must be at least 1; got 0"):
        alternate(weight, rounded, 1, 0)
    with pytest.raises(ValueError, match="one shape"):
        alternate(weight, lambda w: w[1:], 1, 1)
    with pytest.raises(TypeError, match="floats"):
        give_back(weight, weight.int(), 1)


ON_AN_ACCELERATOR = """
import torch
from fake_accelerator import accelerator

from course_lib.formats.corrected import Corrected
from course_lib.formats.forms import FORMS
from course_lib.formats.linear import Scheme
from course_lib.low_rank.residual import alternate, give_back
from course_lib.low_rank.sharing import shared_basis, tie_blocks
from course_lib.models.llama import Llama, LlamaConfig
from course_lib.quantization.linear import Format

weight, gram = torch.randn(8, 32), torch.eye(32)
model = Llama(LlamaConfig(9, 8, layers=2, heads=2, kv_heads=1, mlp_width=12, context=16))
scheme, form = Scheme(Format(3), 16), {form.scheme: form for form in FORMS}[Corrected]
with accelerator() as put:
    weight, gram, model = put((weight, gram, model))
    for g in (None, gram):
        found = [weight, *give_back(weight, weight.half(), 3, g)]
        both = None if g is None else [g, g]
        found += [f.product for f in shared_basis([weight, weight], 3, both)]
        approximation, factors = alternate(weight, lambda w: w.round(), 3, 2, g)
        found += [approximation, *factors]
        parts = form.encode(weight, Corrected(scheme, factors))
        found += [*parts.values(), form.decode(parts, weight.shape)]
        assert {t.device.type for t in found} == {"toygpu"}
    for mean in (False, True):
        tied = tie_blocks(model, 2, mean)
        assert tied.blocks[0] is tied.blocks[1]
        assert {p.device.type for p in tied.parameters()} == {"toygpu"}
"""


@pytest.mark.slow
def test_everything_runs_on_an_accelerator():
    run_on_accelerator(ON_AN_ACCELERATOR)
