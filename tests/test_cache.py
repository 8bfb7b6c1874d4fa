"""Stored answers: exact where all is kept, a lower bound where not, the same after the disk."""

import pytest
import torch
from torch import nn

from course_lib.distillation.cache import ask_teacher, load_top_k, save_top_k, top_k, top_k_loss
from course_lib.distillation.losses import soft_target_loss


@pytest.fixture
def logits():
    return 2 * torch.randn(3, 5, 40), 2 * torch.randn(3, 5, 40)


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_all_tokens_kept_is_the_full_divergence(logits, temperature):
    student, teacher = logits
    kept = top_k(teacher, 40, temperature)
    full = soft_target_loss(student, teacher, temperature)
    assert torch.allclose(top_k_loss(student, kept), full, rtol=2e-3)  # float16


def test_fewer_tokens_see_less_of_the_divergence(logits):
    student, teacher = logits
    losses = [top_k_loss(student, top_k(teacher, k)) for k in (1, 2, 5, 15, 40)]
    assert all(less < more + 1e-3 for less, more in zip(losses, losses[1:], strict=False))
    assert 0 < losses[0] < 0.9 * losses[-1]


def test_the_student_that_equals_the_teacher_has_no_loss_and_no_gradient(logits):
    _, teacher = logits
    student = teacher.clone().requires_grad_()
    loss = top_k_loss(student, top_k(teacher, 5))
    loss.backward()
    assert loss.abs() < 1e-4 and student.grad.abs().max() < 1e-4


def test_the_gradient_agrees_with_finite_differences():
    student = torch.randn(3, 8, dtype=torch.float64, requires_grad=True)
    kept = top_k(torch.randn(3, 8, dtype=torch.float64), 3, 2.0)
    assert torch.autograd.gradcheck(lambda s: top_k_loss(s, kept), student)


def test_tokens_come_likeliest_first_and_large_vocabularies_fit(logits):
    kept = top_k(logits[1], 4)
    assert kept.tokens.dtype == torch.int16
    assert kept.tokens[..., 0].equal(logits[1].argmax(-1).short())
    large = torch.zeros(1, 40_000)
    large[0, 39_999] = 1
    assert top_k(large, 1).tokens.tolist() == [[39_999]]


def test_disk_gives_back_what_it_got(logits, tmp_path):
    kept = top_k(logits[1], 4, 2.0)
    count = save_top_k(kept, tmp_path / "answers.safetensors")
    back = load_top_k(tmp_path / "answers.safetensors")
    assert back.tokens.equal(kept.tokens) and back.temperature == 2.0
    assert back.log_probabilities.equal(kept.log_probabilities)
    assert kept.bytes == 3 * 5 * 4 * 4 < count < kept.bytes + 300


def test_the_teacher_is_asked_in_eval_mode_and_stays_as_it_was():
    teacher = nn.Sequential(nn.Embedding(9, 6), nn.Dropout(0.5), nn.Linear(6, 9)).train()
    windows = torch.randint(9, (40, 5))
    kept = ask_teacher(teacher, windows, 3)
    assert teacher.training and all(p.requires_grad for p in teacher.parameters())
    expected = top_k(teacher.eval()(windows), 3)
    assert kept.tokens.equal(expected.tokens) and kept.tokens.shape == (40, 5, 3)


def test_k_has_bounds():
    for k in (0, 6):
        with pytest.raises(ValueError, match="k must be"):
            top_k(torch.zeros(2, 5), k)
