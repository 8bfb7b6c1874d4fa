"""Ternary weights: the exact rule against brute force, the others against their formulas; trits."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from on_accelerator import run_on_accelerator
from torch import nn

from course_lib.formats.model_file import every_linear, pack_model, unpack_model
from course_lib.formats.trits import (
    Ternary,
    Trits,
    decode_trits,
    encode_ternary,
    encode_trits,
    pack_trits,
    unpack_trits,
)
from course_lib.measure.size import size
from course_lib.quantization.ternary import (
    absmean_signs,
    best_signs,
    binary_signs,
    signs_through,
    threshold_signs,
)

RULES = [threshold_signs, best_signs, absmean_signs, binary_signs]


def drawn(seed: int, shape: tuple[int, ...] = (5, 300)) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def error(rows, signs):
    codes, alpha = signs
    return (rows.double() - codes * alpha.double()).square().sum(1)


def brute_force(row, values=(-1, 0, 1)):
    """The least squared error over every t, each with its own best α ≥ 0."""
    least = row.square().sum()
    for t in itertools.product(values, repeat=len(row)):
        t = torch.tensor(t, dtype=torch.float64)
        if t.any():
            alpha = (row @ t / (t @ t)).clamp(min=0)
            least = torch.minimum(least, (row - alpha * t).square().sum())
    return least


small = st.lists(st.integers(-8, 8).map(float), min_size=1, max_size=6)


@settings(max_examples=60, deadline=None)
@given(small)
def test_best_signs_are_those_of_brute_force(values):
    row = torch.tensor(values, dtype=torch.float64)
    found = error(row[None], best_signs(row[None]))
    torch.testing.assert_close(found[0], brute_force(row), atol=1e-9, rtol=1e-9)


@settings(max_examples=30, deadline=None)
@given(small)
def test_binary_signs_are_those_of_brute_force(values):
    row = torch.tensor(values, dtype=torch.float64)
    found = error(row[None], binary_signs(row[None]))
    # of zeros alone α is 2⁻²⁴, not 0
    torch.testing.assert_close(found[0], brute_force(row, (-1, 1)), atol=1e-9, rtol=1e-9)


def test_the_best_threshold_is_half_of_alpha_and_the_rules_order_holds():
    rows = drawn(0)
    codes, alpha = best_signs(rows)
    assert torch.equal(codes != 0, rows.abs() > alpha / 2)
    errors = [error(rows, rule(rows)) for rule in (best_signs, threshold_signs, absmean_signs)]
    assert (errors[0] <= errors[1]).all() and (errors[0] < errors[2]).all()
    assert (errors[0] < error(rows, binary_signs(rows))).all()


def test_the_papers_share_of_seven_tenths_is_near_the_best_for_normal_and_uniform_weights():
    """Normal: the best threshold is 0.612 σ, 0.767 mean |w|; uniform: 2/3 of mean |w|."""
    normal = drawn(1, (1, 400_000))
    uniform = 2 * torch.rand(1, 400_000, generator=torch.Generator().manual_seed(1)) - 1
    for rows, share in ((normal, 0.767), (uniform, 2 / 3)):
        codes, _ = best_signs(rows)
        least = rows.abs()[codes != 0].min() / rows.abs().mean()
        assert least == pytest.approx(share, abs=0.02)
        assert error(rows, threshold_signs(rows)) < 1.01 * error(rows, best_signs(rows))


def test_absmean_is_bitnets_formula():
    rows = drawn(2)
    codes, alpha = absmean_signs(rows)
    gamma = rows.abs().mean(1, keepdim=True)
    theirs = (rows / (gamma + 1e-5)).round().clamp(-1, 1)  # the paper's ε; none is that near ½
    assert torch.equal(codes.float(), theirs)
    torch.testing.assert_close(alpha, gamma)


@pytest.mark.parametrize("rule", RULES)
def test_dead_rows_equals_and_extremes(rule):
    rows = torch.stack([torch.zeros(6), torch.full((6,), -0.37), torch.full((6,), 3e38)])
    codes, alpha = rule(rows)
    assert alpha.isfinite().all() and (alpha > 0).all()
    torch.testing.assert_close(codes * alpha, rows, atol=1e-7, rtol=1e-6)
    codes, alpha = rule(torch.tensor([[-2.5]]))
    assert codes.item() * alpha.item() == -2.5


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_dtypes(rule, dtype):
    rows = drawn(3).to(dtype).requires_grad_()
    codes, alpha = rule(rows)
    wide = torch.promote_types(dtype, torch.float32)
    same, precise = rule(rows.detach().double())
    assert codes.dtype == torch.int8 and alpha.dtype == wide
    assert (codes != same).sum() <= 2  # a number on a threshold may fall either way
    torch.testing.assert_close(alpha.double(), precise, rtol=1e-3, atol=0)
    upstream = drawn(4).to(wide)
    values = signs_through(rows, rule)
    values.backward(upstream)
    assert torch.equal(rows.grad, upstream.to(dtype))
    assert torch.equal(values.half().to(wide), values)


@pytest.mark.parametrize("rule", RULES)
def test_bad_rows_are_refused(rule):
    with pytest.raises(ValueError, match="rows must be finite"):
        rule(torch.tensor([[1.0, torch.nan]]))
    with pytest.raises(ValueError, match=r"rows must have shape \(R, C\)"):
        rule(torch.ones(3))
    with pytest.raises(ValueError, match="rows must not be empty"):
        rule(torch.ones(0, 3))
    with pytest.raises(TypeError, match="rows must be a tensor of floats"):
        rule(torch.ones(2, 3).int())


# ------------------------------------------------------------------ five in a byte


@given(st.lists(st.integers(-1, 1), min_size=1, max_size=40))
def test_trits_come_back_and_take_a_fifth_of_a_byte(codes):
    packed = pack_trits(torch.tensor(codes))
    assert len(packed) == -(-len(codes) // 5) and packed.dtype == torch.uint8
    assert unpack_trits(packed, len(codes)).tolist() == codes


def test_all_243_bytes_are_used_each_for_one_five():
    fives = torch.tensor(list(itertools.product((-1, 0, 1), repeat=5)))  # (243, 5)
    packed = pack_trits(fives.T)
    assert packed.sort().values.tolist() == list(range(243))
    assert torch.equal(unpack_trits(packed, 5 * 243).view(5, -1).T, fives)


@pytest.mark.parametrize("granularity", ["tensor", "channel", 25])
@pytest.mark.parametrize("rule", RULES)
def test_a_model_in_trits_comes_back_from_its_file(granularity, rule):
    model = nn.Sequential(nn.Linear(50, 31, bias=False), nn.Linear(31, 3))
    schemes = {"0.weight": Ternary(granularity, rule)}
    packed = pack_model(model, schemes)
    rows = model[0].weight.detach().view(len(packed["0.weight:scale"]), -1)
    codes, alpha = rule(rows)
    expected = codes * alpha.half().float()
    assert torch.equal(unpack_model(packed, model)[0].weight, expected.view(31, 50))
    ready = Trits(codes.view(31, 50), alpha.half().float())
    again = pack_model(model, {"0.weight": ready})
    assert all(torch.equal(packed[name], again[name]) for name in packed)
    assert torch.equal(ready.weight, expected.view(31, 50))


def test_a_large_weight_takes_sixteen_tenths_of_a_bit():
    model = nn.Linear(1000, 500, bias=False)
    found = size(pack_model(model, every_linear(model, Ternary("tensor"))), 500_000)
    assert 1.6 < found.bits_per_parameter < 1.604


def test_bad_codes_and_damaged_files_are_refused():
    with pytest.raises(ValueError, match="codes must be −1, 0 or 1; got 0 to 2"):
        pack_trits(torch.tensor([0, 2]))
    with pytest.raises(ValueError, match="codes must be integers"):
        pack_trits(torch.zeros(3))
    with pytest.raises(ValueError, match="codes must be integers; got 0"):
        pack_trits(torch.zeros(0, dtype=torch.int8))
    with pytest.raises(ValueError, match="from 0 to 242; got 243"):
        unpack_trits(torch.tensor([243], dtype=torch.uint8), 5)
    with pytest.raises(ValueError, match=r"must be uint8 of shape \(2,\) for 6 codes"):
        unpack_trits(torch.zeros(1, dtype=torch.uint8), 6)
    weight = torch.ones(2, 3)
    codes = weight.to(torch.int8)
    for scale, message in (
        (torch.tensor([[0.1]]), "float16 numbers"),
        (torch.tensor([[0.0]]), "above 0"),
        (torch.tensor([[torch.nan]]), "finite"),
        (torch.ones(4, 1), "fill 4 rows"),
    ):
        with pytest.raises(ValueError, match=message):
            encode_trits(weight, Trits(codes, scale))
    with pytest.raises(ValueError, match="the weight's shape"):
        encode_trits(weight, Trits(codes.T, torch.ones(1, 1)))
    with pytest.raises(ValueError, match="in float16"):
        encode_ternary(torch.full((1, 2), 1e9), Ternary())
    parts = encode_ternary(weight, Ternary())
    with pytest.raises(ValueError, match="rows must fill a weight of 7"):
        decode_trits(parts, torch.Size((7, 1)))


def test_on_an_accelerator():
    run_on_accelerator("""
import torch
from fake_accelerator import accelerator
from course_lib.formats.trits import Ternary, decode_trits, encode_ternary
from course_lib.quantization.ternary import (
    absmean_signs, best_signs, binary_signs, signs_through, threshold_signs)
with accelerator() as put:
    rows = put(torch.randn(4, 10))
    for rule in (absmean_signs, best_signs, binary_signs, threshold_signs):
        assert signs_through(rows, rule).device == rows.device
        parts = encode_ternary(rows, Ternary("channel", rule))
        assert decode_trits(parts, rows.shape).device == rows.device
""")
