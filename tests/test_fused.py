"""The fused loss is the mixed loss: value, gradient, any number of rows in a block."""

import pytest
import torch

from course_lib.distillation import fused
from course_lib.distillation.losses import mixed_loss


@pytest.mark.parametrize("block", [1, 50, 10**6])
@pytest.mark.parametrize("soft_share", [0.0, 0.3, 1.0])
def test_value_and_gradient_are_those_of_the_mixed_loss(monkeypatch, block, soft_share):
    monkeypatch.setattr(fused, "BLOCK", block)
    student, teacher = torch.randn(9, 11).requires_grad_(), 3 * torch.randn(9, 11)
    labels = torch.randint(11, (9,))
    ours = fused.fused_mixed_loss(student, teacher, labels, 3.0, soft_share)
    expected = mixed_loss(student, teacher, labels, 3.0, soft_share)
    assert torch.allclose(ours, expected)
    (gradient,) = torch.autograd.grad(7 * ours, student)
    assert torch.allclose(gradient, torch.autograd.grad(7 * expected, student)[0], atol=1e-6)


def test_the_gradient_agrees_with_finite_differences():
    student, teacher = torch.randn(2, 3, 5, dtype=torch.float64)
    labels = torch.tensor([4, 0, 2])
    assert torch.autograd.gradcheck(
        lambda s: fused.fused_mixed_loss(s, teacher, labels, 2.0, 0.6), student.requires_grad_()
    )


def test_inputs_stay_as_they_are_and_the_teacher_gets_no_gradient():
    student, teacher = torch.randn(2, 3, 5).unbind()
    student, teacher = student.clone().requires_grad_(), teacher.clone().requires_grad_()
    before = student.clone(), teacher.clone()
    fused.fused_mixed_loss(student, teacher, torch.tensor([4, 0, 2]), 2.0, 0.6).backward()
    assert student.equal(before[0]) and teacher.equal(before[1])
    assert student.grad is not None and teacher.grad is None


def test_a_class_that_cannot_be_makes_no_nan():
    student, teacher = torch.randn(1, 4).requires_grad_(), torch.tensor([[0.0, 1, -torch.inf, 2]])
    loss = fused.fused_mixed_loss(student, teacher, torch.tensor([1]), 2.0, 0.5)
    assert torch.allclose(loss, mixed_loss(student, teacher, torch.tensor([1]), 2.0, 0.5))


def test_bad_input_is_refused():
    some, labels = torch.zeros(2, 3), torch.zeros(2, dtype=torch.int64)
    with pytest.raises(ValueError, match="one shape"):
        fused.fused_mixed_loss(some, some[:1], labels, 1.0, 0.5)
    with pytest.raises(ValueError, match="temperature"):
        fused.fused_mixed_loss(some, some, labels, 0.0, 0.5)
