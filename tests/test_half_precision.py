"""Half precision, autocast, infinities, zeros: a right value or a clear error, in every method.

Float64 is the judge: a function of half-precision inputs must give what it gives of the same
numbers in float64, as nearly as its own dtype can tell.
"""

import pytest
import torch
from torch import nn

from course_lib.distillation.cache import top_k, top_k_loss
from course_lib.distillation.features import attention_map, attention_transfer_loss, hint_loss
from course_lib.distillation.fused import fused_mixed_loss
from course_lib.distillation.losses import (
    jensen_shannon_loss,
    logit_matching_loss,
    mixed_loss,
    reverse_loss,
    soft_target_loss,
)
from course_lib.models.muon import orthogonalize
from course_lib.pruning.iterative_thresholding import ista, iterative_hard_thresholding
from course_lib.pruning.least_squares import (
    best_subset,
    orthogonal_matching_pursuit,
    ridge,
)
from course_lib.quantization.integer_linear import integer_matmul
from course_lib.quantization.midrise import dequantize_midrise, quantize_midrise
from course_lib.redundancy.spectra import effective_rank, energy_rank, stable_rank
from course_lib.redundancy.units import dead_units, merge_twins, twin_heads

HALVES = [torch.float16, torch.bfloat16]
LOSSES = [soft_target_loss, reverse_loss, jensen_shannon_loss, logit_matching_loss]
halves = pytest.mark.parametrize("dtype", HALVES, ids=str)
losses = pytest.mark.parametrize("loss", LOSSES, ids=lambda f: f.__name__)


@halves
@losses
@pytest.mark.parametrize("classes", [10, 49_152])
def test_a_small_divergence_of_halves_is_that_of_their_numbers(loss, dtype, classes):
    teacher = torch.randn(4, classes)
    student = (teacher + 0.1 * torch.randn(4, classes)).to(dtype)
    teacher = teacher.to(dtype)
    found, exact = loss(student, teacher), loss(student.double(), teacher.double())
    assert found > 0 and found.item() == pytest.approx(exact.item(), rel=0.01)


@halves
def test_the_fused_loss_of_halves_too(dtype):
    student, teacher = torch.randn(4, 30).to(dtype).requires_grad_(), torch.randn(4, 30).to(dtype)
    labels = torch.tensor([0, 3, 29, 1])
    found = fused_mixed_loss(student, teacher, labels, 4.0, 0.7)
    (gradient,) = torch.autograd.grad(found, student)
    exact = mixed_loss(student.double(), teacher.double(), labels, 4.0, 0.7)
    (wanted,) = torch.autograd.grad(exact, student)
    assert found.item() == pytest.approx(exact.item(), rel=1e-4) and gradient.dtype == dtype
    torch.testing.assert_close(gradient, wanted, rtol=0.02, atol=1e-3)


PADDED = torch.tensor([[1.0, 2.0, 0.5, -torch.inf], [0.0, -1.0, 3.0, -torch.inf]])


@pytest.mark.parametrize("loss", LOSSES[:3], ids=lambda f: f.__name__)
def test_classes_that_both_rule_out_add_nothing(loss):
    """As a padded vocabulary has them: value and gradient are those without these classes."""
    teacher = PADDED.flip(0)
    student, short = PADDED.clone().requires_grad_(), PADDED[:, :3].clone().requires_grad_()
    found, wanted = loss(student, teacher, 2.0), loss(short, teacher[:, :3], 2.0)
    torch.testing.assert_close(found, wanted)
    found.backward()
    wanted.backward()
    torch.testing.assert_close(student.grad[:, :3], short.grad)
    assert (student.grad[:, 3] == 0).all()


def test_fused_and_cached_losses_rule_them_out_as_well():
    teacher, labels = PADDED.flip(0), torch.tensor([0, 2])
    student = PADDED.clone().requires_grad_()
    found = fused_mixed_loss(student, teacher, labels, 2.0, 0.5)
    torch.testing.assert_close(found, mixed_loss(PADDED, teacher, labels, 2.0, 0.5))
    cached = top_k_loss(student, top_k(teacher, 4))
    torch.testing.assert_close(cached, soft_target_loss(PADDED, teacher), rtol=1e-2, atol=0)
    (found + cached).backward()
    assert student.grad.isfinite().all()
    alone = torch.tensor([[0.0, -torch.inf]])
    assert fused_mixed_loss(alone, alone, torch.tensor([0]), 1.0, 0.5) == 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
def test_a_class_that_the_student_alone_rules_out_costs_infinity(dtype):
    student, teacher = PADDED.to(dtype), torch.zeros(2, 4, dtype=dtype)
    assert soft_target_loss(student, teacher) == torch.inf
    assert jensen_shannon_loss(student, teacher).isfinite()


def test_a_student_that_equals_the_teacher_pays_for_the_caches_rounding():
    """The limit that `cache` states."""
    logits = 3 * torch.randn(64, 2048)
    for temperature in (1.0, 4.0):
        loss = top_k_loss(logits, top_k(logits, 2048, temperature))
        assert abs(loss) < 3e-3
    assert isinstance(top_k(logits, 2, torch.tensor(2.0)).temperature, float)


@halves
def test_large_and_silent_features_of_halves(dtype):
    features = torch.tensor([[[[300.0, 1.0]], [[200.0, 2.0]]], [[[0.0, 0.0]], [[0.0, 0.0]]]])
    found = attention_map(features.to(dtype))
    torch.testing.assert_close(found, attention_map(features), rtol=0.02, atol=1e-4)
    assert found[1].tolist() == [0, 0]
    assert attention_transfer_loss(features.to(dtype), features.to(dtype)) == 0
    zeros = torch.zeros(1, 2, dtype=dtype)
    wide = hint_loss(zeros + 300, zeros, nn.Identity())
    assert wide == pytest.approx(90_000, rel=0.01)


@halves
@pytest.mark.parametrize("bits", [4, 8, 12, 16])
def test_codes_of_halves_are_those_of_their_numbers(dtype, bits):
    x = torch.empty(500).uniform_(-1, 1).to(dtype)
    codes = quantize_midrise(x, -1, 1, bits)
    assert codes.equal(quantize_midrise(x.double(), -1, 1, bits))
    error = (dequantize_midrise(codes, -1, 1, bits) - x.float()).abs().max()
    assert error <= 2.0**-bits * 1.001 + 1e-7


@pytest.mark.parametrize("scale", [1e-30, 1e-20, 1.0, 1e19, 1e30])
def test_ranks_do_not_depend_on_scale(scale):
    matrix = torch.diag(torch.tensor([2.0, 2.0, 1.0]))
    assert stable_rank(matrix * scale).item() == pytest.approx(2.25, rel=1e-4)
    torch.testing.assert_close(effective_rank(matrix * scale), effective_rank(matrix))
    assert energy_rank(matrix * scale, 0.95) == 3
    with pytest.raises(ValueError, match="matrix must be finite"):
        stable_rank(torch.tensor([[1.0, torch.inf]]))


@pytest.mark.parametrize("dtype", [torch.float32, *HALVES], ids=str)
def test_units_that_are_nearly_alike_are_no_twins(dtype):
    rows = torch.randn(30, 16)
    rows = torch.cat([rows, rows + 0.05 * torch.randn(30, 16)]).to(dtype)
    assert twin_heads(rows).equal(twin_heads(rows.double()))
    assert twin_heads(torch.tensor([[3e30, 0.0], [1e-30, 0.0]])).tolist() == [0, 0]
    merged = merge_twins(torch.tensor([[1e25], [2e25]]), torch.ones(1, 2), torch.tensor([0, 0]))
    torch.testing.assert_close(merged, torch.tensor([[3.0, 0.0]]))
    with pytest.raises(ValueError, match="incoming must be finite"):
        twin_heads(torch.tensor([[torch.nan, 1.0]]))


def test_a_dead_unit_beside_a_loud_one():
    hidden = torch.tensor([[0.001, 300.0, 200.0]])
    for loud in (hidden, hidden.half(), hidden * 1e17, torch.tensor([[0.0, 3e38, 1.0]])):
        assert dead_units(loud, 0.01).tolist()[:2] == [True, False]
    with pytest.raises(ValueError, match="hidden must be finite"):
        dead_units(torch.tensor([[torch.inf, 1.0]]))


def problem(rows=50):
    torch.manual_seed(1)
    return torch.randn(rows, 6), torch.randn(rows)


EXACT = {
    "ridge": lambda X, y: ridge(X, y, 1.0),
    "best subset": lambda X, y: best_subset(X, y, 3),
    "OMP": lambda X, y: orthogonal_matching_pursuit(X, y, 3),
    "ISTA": lambda X, y: ista(X, y, 1.0, steps=50),
    "IHT": lambda X, y: iterative_hard_thresholding(X, y, 3, steps=50),
    "orthogonalize": lambda X, y: orthogonalize(X),
    "twins": lambda X, y: twin_heads(X.repeat(2, 1) + torch.arange(100)[:, None] * 1e-3),
    "integers": lambda X, y: integer_matmul((50 * X).char(), (50 * X).char()),
}


@pytest.mark.parametrize("name", EXACT)
def test_autocast_changes_no_result(name):
    plain = EXACT[name](*problem())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(EXACT[name](*problem()), plain, rtol=0, atol=0)


@pytest.mark.parametrize("rows", [100, 50_000])
@pytest.mark.parametrize("solve", [best_subset, orthogonal_matching_pursuit])
def test_a_small_feature_counts_however_many_rows_there_are(rows, solve):
    torch.manual_seed(2)
    X = torch.randn(rows, 2) * torch.tensor([1.0, 1e-4])
    truth = torch.tensor([1.0, 1e4])
    torch.testing.assert_close(solve(X, X @ truth, 2), truth, rtol=1e-3, atol=0)


def test_nearly_equal_features_are_told_apart():
    torch.manual_seed(3)
    first = torch.randn(200_000)
    X = torch.stack([first, first + 0.02 * torch.randn(200_000)], dim=1)
    y = X @ torch.tensor([3.0, -3.0])
    for theta in (best_subset(X, y, 2), ridge(X, y, 0.0), orthogonal_matching_pursuit(X, y, 2)):
        torch.testing.assert_close(theta, torch.tensor([3.0, -3.0]), rtol=1e-3, atol=0)
    with pytest.raises(ValueError, match="features must be finite"):
        best_subset(torch.tensor([[torch.nan], [1.0]]), torch.ones(2), 1)
