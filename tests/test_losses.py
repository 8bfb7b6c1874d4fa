"""The distillation losses: against PyTorch and brute force, in their limits, and by gradients."""

import math

import pytest
import torch
import torch.nn.functional as F

from course_lib.distillation.losses import (
    decoupled_loss,
    jensen_shannon_loss,
    logit_matching_loss,
    mixed_loss,
    reverse_loss,
    soft_target_loss,
    token_loss,
)

LABELS = torch.tensor([0, 3, 6, 2])
OF_TWO = {
    "soft": lambda s, t: soft_target_loss(s, t, 3.0),
    "reverse": lambda s, t: reverse_loss(s, t, 3.0),
    "jensen-shannon": lambda s, t: jensen_shannon_loss(s, t, 3.0),
    "logits": logit_matching_loss,
    "mixed": lambda s, t: mixed_loss(s, t, LABELS, 3.0, 0.7),
    "decoupled": lambda s, t: decoupled_loss(s, t, LABELS, 3.0),
    "tokens": lambda s, t: token_loss(s, t, torch.tensor([1, -100, 2, 3]), 3.0),
}
each_loss = pytest.mark.parametrize("loss", OF_TWO.values(), ids=OF_TWO)


@pytest.fixture
def logits():
    """A student's and a teacher's, four examples of seven classes, in float64."""
    return 2 * torch.randn(4, 7, dtype=torch.float64), 3 * torch.randn(4, 7, dtype=torch.float64)


@each_loss
def test_gradients_agree_with_finite_differences(logits, loss):
    student, teacher = logits
    assert torch.autograd.gradcheck(lambda s: loss(s, teacher), student.requires_grad_())


@each_loss
def test_a_constant_added_to_all_logits_changes_nothing(logits, loss):
    student, teacher = logits
    assert torch.allclose(loss(student + 5, teacher - 2), loss(student, teacher))


@pytest.mark.parametrize("name", ["soft", "reverse", "jensen-shannon", "logits"])
def test_a_divergence_is_zero_for_equals_and_positive_otherwise(logits, name):
    student, teacher = logits
    assert OF_TWO[name](student, student).abs() < 1e-12
    assert OF_TWO[name](student, teacher) > 0.01


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
def test_soft_targets_agree_with_pytorch_and_with_the_definition(logits, temperature):
    student, teacher = logits
    log_q, p = (student / temperature).log_softmax(1), (teacher / temperature).softmax(1)
    theirs = temperature**2 * F.kl_div(log_q, p, reduction="batchmean")
    ours = soft_target_loss(student, teacher, temperature)
    assert torch.allclose(ours, theirs)
    rows = [
        sum(a * math.log(a / b) for a, b in zip(one, other, strict=True))
        for one, other in zip(p.tolist(), log_q.exp().tolist(), strict=True)
    ]
    assert ours.item() == pytest.approx(temperature**2 * sum(rows) / len(rows))


def test_the_mean_is_over_all_examples_whatever_their_axes(logits):
    student, teacher = logits
    whole = soft_target_loss(student.view(2, 2, 7), teacher.view(2, 2, 7), 2.0)
    assert torch.allclose(whole, soft_target_loss(student, teacher, 2.0))


@pytest.mark.parametrize("certain", [60.0, torch.inf])
def test_a_one_hot_teacher_at_temperature_one_is_cross_entropy(logits, certain):
    student, _ = logits
    one_hot = F.one_hot(LABELS, 7).double()
    teacher = torch.where(one_hot > 0, 0.0, -certain).double()
    loss = soft_target_loss(student.requires_grad_(), teacher)
    assert torch.allclose(loss, F.cross_entropy(student, LABELS))
    (gradient,) = torch.autograd.grad(loss, student)
    (expected,) = torch.autograd.grad(F.cross_entropy(student, LABELS), student)
    assert torch.allclose(gradient, expected)


def test_high_temperature_tends_to_logit_matching(logits):
    student, teacher = logits
    limit = logit_matching_loss(student, teacher)
    errors = [(soft_target_loss(student, teacher, T) - limit).abs() for T in (1e2, 1e3, 1e4)]
    assert errors[2] < 1e-3 * limit
    assert errors[0] > 5 * errors[1] > 25 * errors[2]  # it falls as 1 / T


def test_the_factor_keeps_the_gradient_from_vanishing(logits):
    student, teacher = logits

    def norm(temperature):
        s = student.clone().requires_grad_()
        soft_target_loss(s, teacher, temperature).backward()
        return s.grad.norm()

    assert 0.9 < norm(100.0) / norm(50.0) < 1.1


def test_jensen_shannon_is_symmetric_and_bounded(logits):
    student, teacher = logits
    there, back = jensen_shannon_loss(student, teacher), jensen_shannon_loss(teacher, student)
    assert torch.allclose(there, back)
    assert jensen_shannon_loss(100 * student, 100 * teacher) <= math.log(2)


def test_mixed_is_the_labels_alone_or_the_teacher_alone_at_its_ends(logits):
    student, teacher = logits
    labels_alone = mixed_loss(student, teacher, LABELS, 4.0, 0.0)
    assert torch.allclose(labels_alone, F.cross_entropy(student, LABELS))
    teacher_alone = mixed_loss(student, teacher, LABELS, 4.0, 1.0)
    assert torch.allclose(teacher_alone, soft_target_loss(student, teacher, 4.0))


def test_decoupled_parts_add_up_to_the_divergence(logits):
    """KL = first + (1 − p_y) · second, example by example."""
    for i in range(4):
        s, t, y = (x[i : i + 1] for x in (*logits, LABELS))
        first, second = decoupled_loss(s, t, y, 2.0, 1, 0), decoupled_loss(s, t, y, 2.0, 0, 1)
        p_label = (t / 2).softmax(1)[0, y[0]]
        assert torch.allclose(first + (1 - p_label) * second, soft_target_loss(s, t, 2.0))


def test_padding_counts_for_nothing(logits):
    student, teacher = (x.clone() for x in logits)
    targets = torch.tensor([1, -100, 2, -100])
    before = token_loss(student, teacher, targets)
    assert torch.allclose(before, soft_target_loss(student[[0, 2]], teacher[[0, 2]]))
    student[1] = 99.0
    teacher[3] *= -7
    assert token_loss(student, teacher, targets) == before


def test_bad_input_is_refused(logits):
    student, teacher = logits
    with pytest.raises(ValueError, match="temperature"):
        soft_target_loss(student, teacher, 0.0)
    with pytest.raises(ValueError, match="one shape"):
        soft_target_loss(student, teacher[:, :-1])
    with pytest.raises(ValueError, match="soft_share"):
        mixed_loss(student, teacher, LABELS, 1.0, 1.5)
    with pytest.raises(ValueError, match="padding"):
        token_loss(student, teacher, torch.full((4,), -100))
