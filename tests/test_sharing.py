"""Tied blocks count, train and are stored once; a shared basis is the best one, by descent, too."""

import copy

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from course_lib.formats.linear import Scheme
from course_lib.formats.model_file import every_linear, pack_model, unpack_model
from course_lib.low_rank.layers import FactoredLinear
from course_lib.low_rank.output_aware import output_factors
from course_lib.low_rank.sharing import shared_basis, shared_count, tie_blocks
from course_lib.low_rank.svd import truncated
from course_lib.measure.size import count_parameters, size
from course_lib.models.llama import Llama, LlamaConfig, generate
from course_lib.models.llama_config import BlockShape
from course_lib.models.moments import Moments, output_error
from course_lib.quantization.linear import Format

CONFIG = LlamaConfig(
    vocabulary=13, width=16, layers=5, heads=2, kv_heads=1, mlp_width=24, context=16
)
TOKENS = torch.arange(12).view(1, 12)


def small(seed=0, config=CONFIG):
    torch.manual_seed(seed)
    return Llama(config)


def test_a_group_is_one_module_and_the_model_itself_stays():
    model = small()
    before = copy.deepcopy(model.state_dict())
    tied = tie_blocks(model, 2)
    first, second, third, fourth, fifth = tied.blocks
    assert first is second and third is fourth
    assert len({first, third, fifth}) == 3
    assert all(tensor.equal(before[name]) for name, tensor in model.state_dict().items())
    assert first is not model.blocks[0]
    for number, block in ((0, first), (2, third), (4, fifth)):
        for ours, theirs in zip(block.parameters(), model.blocks[number].parameters(), strict=True):
            assert ours.equal(theirs)


def test_groups_of_one_change_nothing_and_one_group_may_be_all():
    model = small()
    assert tie_blocks(model, 1)(TOKENS).equal(model(TOKENS))
    for group in (5, 99):
        assert len(set(tie_blocks(model, group).blocks)) == 1


def test_what_it_computes_is_the_first_block_again_and_again():
    model = small()
    by_hand = copy.deepcopy(model)
    for number, first in enumerate((0, 0, 0, 3, 3)):
        by_hand.blocks[number] = copy.deepcopy(model.blocks[first])
    tied = tie_blocks(model, 3)
    assert tied(TOKENS).equal(by_hand(TOKENS))
    assert generate(tied, TOKENS[:, :3], 5).equal(generate(tied, TOKENS[:, :3], 5, cached=False))


def test_the_mean_is_that_of_each_number():
    model = small()
    tied = tie_blocks(model, 3, mean=True)
    for number, members in ((0, (0, 1, 2)), (3, (3, 4))):
        found = dict(tied.blocks[number].named_parameters())
        for name, tensor in found.items():
            parts = [model.blocks[member].get_parameter(name) for member in members]
            torch.testing.assert_close(tensor, sum(parts) / len(parts))
    half = copy.deepcopy(model).half()
    for block in half.blocks:
        block.mlp.up.weight.data.fill_(60_000)  # two of them are beyond float16
    assert tie_blocks(half, 5, mean=True).blocks[0].mlp.up.weight.eq(60_000).all()


def test_parameters_count_once_and_a_file_holds_them_once(tmp_path):
    model = small()
    tied = tie_blocks(model, 5)
    of_block = sum(p.numel() for p in model.blocks[0].parameters())
    assert count_parameters(tied) == count_parameters(model) - 4 * of_block
    assert size(model.state_dict()).bytes - size(tied.state_dict()).bytes > 0.95 * 16 * of_block
    packed = pack_model(tied, every_linear(tied, Scheme(Format(4), 8)))
    dense = pack_model(model, every_linear(model, Scheme(Format(4), 8)))
    assert size(packed).bytes < 0.6 * size(dense).bytes  # the header still names each twin
    again = unpack_model(packed, tied)
    assert len(set(again.blocks)) == 1
    torch.testing.assert_close(again(TOKENS), unpack_model(packed, model)(TOKENS))
    save_file(dict(tied.named_parameters()), tmp_path / "tied.safetensors")
    other = tie_blocks(small(seed=1), 5)
    other.load_state_dict(load_file(tmp_path / "tied.safetensors"), strict=False)
    assert other(TOKENS).equal(tied(TOKENS))


def test_a_tied_block_gets_the_gradients_of_all_its_places():
    model = small()
    tied = tie_blocks(model, 5)
    apart = copy.deepcopy(model)
    for block in apart.blocks:
        block.load_state_dict(tied.blocks[0].state_dict())
    for some in (tied, apart):
        some(TOKENS).square().sum().backward()
    together = sum(block.mlp.up.weight.grad for block in apart.blocks)
    torch.testing.assert_close(tied.blocks[0].mlp.up.weight.grad, together, rtol=1e-4, atol=1e-4)


def test_blocks_of_different_shapes_are_not_tied():
    shapes = [BlockShape((2,), 24)] * 3 + [BlockShape((2,), 20)] * 2
    model = small(config=CONFIG.with_shapes(shapes))
    with pytest.raises(ValueError, match="must have the same shapes; 3 differs from 2"):
        tie_blocks(model, 2)
    assert len(set(tie_blocks(model, 3).blocks)) == 2
    with pytest.raises(ValueError, match="group must be at least 1; got 0"):
        tie_blocks(model, 0)


# ---------------------------------------------------------------- a shared basis


def layers(count=3, O=12, I=20, seed=0, alike=False):  # noqa: E741
    """Weights, and the Gram matrices of inputs that are correlated: alike, and each in its way."""
    generator = torch.Generator().manual_seed(seed)

    def noise(*shape):
        return torch.randn(*shape, generator=generator)

    weights = [noise(O + l, I) for l in range(count)]  # noqa: E741
    common = noise(I, I) * noise(I).exp()
    xs = [noise(400, I) @ (common + noise(I, I)) for _ in range(count)]
    grams = [Moments.empty(I).add(x).gram for x in xs]
    return weights, grams[:1] * count if alike else grams


def error(weights, factors, grams=None):
    grams = grams or [torch.eye(weights[0].shape[1])] * len(weights)
    return sum(
        output_error(w.double() - f.left.double() @ f.right.double(), g.double()).sum()
        for w, f, g in zip(weights, factors, grams, strict=True)
    ).item()


def descend(weights, grams, factors, rounds=2):
    """The peer: A and all B_l trained by LBFGS from given ones, in float64."""
    right = factors[0].right.double().clone(memory_format=torch.contiguous_format)
    lefts = [f.left.double().clone(memory_format=torch.contiguous_format) for f in factors]
    parameters = [p.requires_grad_() for p in (right, *lefts)]
    optimizer = torch.optim.LBFGS(parameters, max_iter=1000, line_search_fn="strong_wolfe")

    def loss():
        return sum(
            output_error(w.double() - left @ right, g.double()).sum()
            for w, left, g in zip(weights, lefts, grams, strict=True)
        )

    def closure():
        optimizer.zero_grad()
        value = loss()
        value.backward()
        return value

    for _ in range(rounds):
        optimizer.step(closure)
    return loss().item()


@pytest.mark.parametrize("rank", [0, 1, 4, 20])
def test_on_the_weights_it_is_the_svd_of_them_on_top_of_each_other(rank):
    weights, _ = layers()
    factors = shared_basis(weights, rank)
    assert len({id(f.right) for f in factors}) == 1
    assert [f.left.shape for f in factors] == [(12 + i, rank) for i in range(3)]
    best = torch.linalg.svdvals(torch.cat(weights).double())[rank:].square().sum().item()
    assert error(weights, factors) == pytest.approx(best, rel=1e-5, abs=1e-8)


@pytest.mark.parametrize("rank", [1, 5])
def test_with_equal_inputs_no_descent_finds_better(rank):
    weights, grams = layers(alike=True)
    factors = shared_basis(weights, rank, grams)
    ours = error(weights, factors, grams)
    stacked = torch.cat(weights)
    alone = output_factors(stacked, grams[0], rank)
    assert ours == pytest.approx(error([stacked], [alone], grams[:1]), rel=1e-4)
    start = shared_basis(weights, rank)  # from another place
    found = descend(weights, grams, start)
    assert ours <= found * (1 + 1e-5)
    assert found == pytest.approx(ours, rel=0.02)
    assert error(weights, start, grams) > 1.05 * ours


@pytest.mark.parametrize("rank", [2, 5])
def test_with_different_inputs_each_left_is_the_best_for_its_own(rank):
    """A is a compromise: better exists, within a bound; the authors' lefts are worse."""
    weights, grams = layers()
    factors = shared_basis(weights, rank, grams)
    ours = error(weights, factors, grams)
    for weight, gram, (left, right) in zip(weights, grams, factors, strict=True):
        A, G = right.double(), gram.double()
        best = torch.linalg.lstsq(A @ G @ A.T, A @ G @ weight.double().T).solution.T
        torch.testing.assert_close(left.double(), best, rtol=1e-3, atol=1e-4)
    mean = sum(grams) / len(grams)
    left, right = output_factors(torch.cat(weights), mean, rank)
    authors = [type(factors[0])(part, right) for part in left.split([len(w) for w in weights])]
    assert ours < error(weights, authors, grams)
    found = descend(weights, grams, factors)
    assert found <= ours < 1.5 * found
    separate = [output_factors(w, g, rank) for w, g in zip(weights, grams, strict=True)]
    assert error(weights, separate, grams) < ours  # each with an A of its own, more numbers


def test_one_weight_is_plain_factoring():
    weights, grams = layers(count=1)
    (alone,) = shared_basis(weights, 3)
    assert alone.product.equal(truncated(weights[0], 3).product)
    (alone,) = shared_basis(weights, 3, grams)
    expected = output_factors(weights[0], grams[0], 3).product
    torch.testing.assert_close(alone.product, expected, rtol=1e-3, atol=1e-4)


@given(st.integers(1, 3), st.integers(1, 4), st.integers(1, 5), st.integers(0, 99), st.booleans())
def test_weights_of_one_basis_come_back(count, O, rank, seed, aware):  # noqa: E741
    generator = torch.Generator().manual_seed(seed)
    basis = torch.randn(rank, 6, generator=generator).double()
    weights = [torch.randn(O, rank, generator=generator).double() @ basis for _ in range(count)]
    grams = [torch.eye(6).double() * (1 + i) for i in range(count)] if aware else None
    factors = shared_basis(weights, min(rank, count * O), grams)
    assert shared_count(factors) == min(rank, count * O) * (6 + count * O)
    for weight, factor in zip(weights, factors, strict=True):
        # The Gram's own rounding, 1e-7 of it, is added to it.
        torch.testing.assert_close(factor.product, weight, atol=1e-5, rtol=0)


def test_a_file_holds_the_basis_once():
    weights, grams = layers()
    model = torch.nn.ModuleList(FactoredLinear(f) for f in shared_basis(weights, 4, grams))
    apart = torch.nn.ModuleList(FactoredLinear(truncated(w, 4)) for w in weights)
    numbers = size(model.state_dict()).parameters, size(apart.state_dict()).parameters
    assert numbers == (4 * (20 + 12 + 13 + 14), 4 * (3 * 20 + 12 + 13 + 14))


def test_inputs_that_a_layer_never_sees_keep_the_others_answer():
    """One token of calibration, and none."""
    weights, grams = layers()
    x = torch.randn(1, 20)
    thin = [grams[0], x.T @ x, torch.zeros(20, 20)]
    factors = shared_basis(weights, 4, thin)
    mean = sum(thin) / 3
    left, right = output_factors(torch.cat(weights), mean, 4)
    assert all(f.left.isfinite().all() for f in factors)
    assert factors[2].left.equal(left[-14:])
    one = error(weights[1:2], factors[1:2], thin[1:2])
    assert one < 1e-6 * output_error(weights[1], thin[1]).sum()  # its one token is met


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_dtypes(dtype):
    weights, grams = layers()
    narrow = [weight.to(dtype) for weight in weights]
    factors = shared_basis(narrow, 5, grams)
    assert {f.left.dtype for f in factors} | {factors[0].right.dtype} == {dtype}
    wide = shared_basis([weight.float() for weight in narrow], 5, grams)
    for ours, theirs in zip(factors, wide, strict=True):
        atol = 16 * torch.finfo(dtype).eps  # five products of numbers of about 2
        torch.testing.assert_close(
            ours.product.double(), theirs.product.double(), atol=max(atol, 1e-5), rtol=0
        )


@pytest.mark.parametrize("scale", [1e-15, 1e15])
def test_huge_and_tiny_scales(scale):
    weights, grams = layers()
    expected = shared_basis(weights, 4, grams)
    for w, g in ((scale, 1.0), (1.0, scale)):
        found = shared_basis([weight * w for weight in weights], 4, [gram * g for gram in grams])
        for ours, theirs in zip(found, expected, strict=True):
            torch.testing.assert_close(ours.product / w, theirs.product, rtol=1e-3, atol=1e-4)


def test_bad_input_is_refused():
    weights, grams = layers()
    with pytest.raises(ValueError, match="weights must hold at least one"):
        shared_basis([], 1)
    for wrong in (weights[0][:, 1:], weights[0].double(), weights[0][0]):
        with pytest.raises(ValueError, match=r"weights must be \(O_l, I\), of one I"):
            shared_basis([weights[1], wrong], 1)
    with pytest.raises(ValueError, match=r"weights\[1\] must be finite"):
        shared_basis([weights[0], weights[1] * torch.nan], 1)
    for wrong in (grams[:2], [*grams[:2], grams[2][1:, 1:]]):
        with pytest.raises(ValueError, match=r"grams must be 3 of shape \(20, 20\)"):
            shared_basis(weights, 1, wrong)
    with pytest.raises(ValueError, match="gram must be finite"):
        shared_basis(weights, 1, [*grams[:2], grams[2] * torch.inf])
    with pytest.raises(ValueError, match="rank"):
        shared_basis(weights, 21)
