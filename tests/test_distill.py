"""The loop: the teacher never changes, its dropout is off, and the student learns from anyone."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from course_lib.distillation.cache import top_k, top_k_loss
from course_lib.distillation.features import hint_loss
from course_lib.distillation.losses import soft_target_loss
from course_lib.distillation.training import distill
from course_lib.models.parts import WithFeatures
from course_lib.models.training import frozen


@pytest.fixture
def teacher():
    """With all that could change: dropout, running statistics, gradients, mixed modes."""
    model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 3))
    model[1].eval()
    model[0].bias.requires_grad_(False)
    return model


def batches(count=30):
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(16, 4, generator=generator)
    return [(images, torch.arange(16) % 3)] * count


def sgd(model, rate=0.5):
    return [torch.optim.SGD(model.parameters(), lr=rate)]


def test_nothing_about_the_teacher_changes(teacher):
    before = copy.deepcopy(teacher.state_dict())
    modes = [m.training for m in teacher.modules()]
    flags = [p.requires_grad for p in teacher.parameters()]
    student = nn.Linear(4, 3)
    distill(student, batches(), lambda s, t, _: soft_target_loss(s, t, 2.0), sgd(student), teacher)
    assert all(tensor.equal(before[name]) for name, tensor in teacher.state_dict().items())
    assert [m.training for m in teacher.modules()] == modes
    assert [p.requires_grad for p in teacher.parameters()] == flags
    assert all(p.grad is None for p in teacher.parameters())


def test_the_teachers_answers_have_no_dropout_and_no_gradient(teacher):
    answers, student = [], nn.Linear(4, 3)

    def loss(s, t, _):
        answers.append(t)
        return soft_target_loss(s, t)

    distill(student, batches(2), loss, sgd(student), teacher)
    assert answers[0].equal(answers[1]) and not answers[0].requires_grad
    assert answers[0].equal(teacher.eval()(batches(1)[0][0]))


def test_the_teacher_is_restored_after_an_error(teacher):
    with pytest.raises(KeyError), frozen(teacher):
        assert not any(m.training for m in teacher.modules())
        raise KeyError
    assert teacher.training and not teacher[1].training


def test_the_student_comes_nearer_to_the_teacher(teacher):
    student = nn.Linear(4, 3)
    losses = distill(student, batches(100), lambda s, t, _: soft_target_loss(s, t), sgd(student),
                     teacher)  # fmt: skip
    assert losses.shape == (100,) and losses[-1] < 0.1 * losses[0]
    assert student.training


def test_labels_stored_answers_and_features_are_taken_too(teacher):
    student = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 3))
    images, labels = batches(1)[0]

    def by_labels(s, t, y):
        assert t is None
        return F.cross_entropy(s, y)

    alone = distill(student, batches(), by_labels, sgd(student))
    stored = [(images, top_k(teacher.eval()(images), 2))] * 30
    cached = distill(student, stored, lambda s, t, y: top_k_loss(s, y), sgd(student))
    projection = nn.Linear(5, 8)
    both = nn.ModuleList([student, projection])
    hints = distill(
        WithFeatures(student, "1"), batches(), lambda s, t, y: hint_loss(s[1], t[1], projection),
        sgd(both), WithFeatures(teacher, "1"),
    )  # fmt: skip
    assert all(losses[-1] < losses[0] for losses in (alone, cached, hints))


def test_the_rate_follows_the_factor_and_comes_back():
    student = nn.Linear(4, 3)
    optimizers, before = sgd(student), student.weight.clone()
    loss = lambda s, t, y: F.cross_entropy(s, y)  # noqa: E731
    distill(student, batches(3), loss, optimizers, factor=lambda step: 0.0)
    assert student.weight.equal(before) and optimizers[0].param_groups[0]["lr"] == 0.5
