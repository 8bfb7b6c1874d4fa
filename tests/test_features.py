"""Features on the way: caught without touching the model, projected, and compared as maps."""

import pytest
import torch
from torch import nn

from course_lib.distillation.features import (
    attention_map,
    attention_transfer_loss,
    hint_loss,
)
from course_lib.models.parts import WithFeatures


def test_features_are_the_layers_output_and_the_model_is_left_as_it_was():
    model = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
    images = torch.randn(5, 4)
    watched = WithFeatures(model, "1")
    for _ in range(2):
        output, features = watched(images)
        assert output.equal(model(images)) and features.equal(model[:2](images))
    assert len(list(watched.parameters())) == 4
    assert not model[1]._forward_hooks


def test_features_of_a_block_of_tinylm(tiny):
    model, _ = tiny
    watched = WithFeatures(model, "blocks.3")
    tokens = torch.randint(2048, (2, 7))
    output, features = watched(tokens)
    assert torch.allclose(model.norm(features) @ model.embedding.weight.T, output, atol=1e-4)


def test_the_hint_teaches_student_and_projection_but_not_the_teacher():
    student, teacher = torch.randn(6, 3).requires_grad_(), torch.randn(6, 5).requires_grad_()
    projection = nn.Linear(3, 5)
    loss = hint_loss(student, teacher.detach(), projection)
    loss.backward()
    assert torch.allclose(loss, (projection(student) - teacher).square().mean())
    assert student.grad is not None and projection.weight.grad is not None
    assert teacher.grad is None


def test_a_linear_map_of_the_teacher_can_be_matched_exactly():
    teacher = torch.randn(50, 3) @ torch.randn(3, 5)
    student, projection = teacher[:, :3].clone(), nn.Linear(3, 5, bias=False)
    solution = torch.linalg.lstsq(student, teacher).solution
    projection.weight.data = solution.T.contiguous()
    assert hint_loss(student, teacher, projection) < 1e-8


def test_hint_gradients_agree_with_finite_differences():
    projection = nn.Linear(3, 5).double()
    teacher = torch.randn(4, 5, dtype=torch.float64)
    student = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda s: hint_loss(s, teacher, projection), student)


def test_attention_maps_have_length_one_and_ignore_scale_and_sign():
    features = torch.randn(2, 4, 3, 3)
    maps = attention_map(features)
    assert maps.shape == (2, 9) and torch.allclose(maps.norm(dim=1), torch.ones(2))
    assert torch.allclose(attention_map(-5 * features), maps)


def test_attention_transfer_needs_no_equal_channels_and_has_right_gradients():
    teacher = torch.randn(2, 6, 3, 3, dtype=torch.float64)
    student = torch.randn(2, 4, 3, 3, dtype=torch.float64, requires_grad=True)
    assert attention_transfer_loss(teacher, 2 * teacher) < 1e-12
    assert torch.autograd.gradcheck(lambda s: attention_transfer_loss(s, teacher), student)


def test_shapes_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="teacher's shape"):
        hint_loss(torch.zeros(2, 3), torch.zeros(2, 5), nn.Linear(3, 4))
    with pytest.raises(ValueError, match="agree"):
        attention_transfer_loss(torch.zeros(2, 3, 4, 4), torch.zeros(2, 3, 5, 4))
