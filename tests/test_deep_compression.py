"""The digits' network in a small file: each step keeps what it should, and the file's network
is the one that was trained."""

import pytest
import torch
from torch import nn

from course_lib.data.images import digits
from course_lib.deep_compression import (
    Recipe,
    deep_compression,
    drop_dead_units,
    prune_gradually,
    teacher_loss,
)
from course_lib.formats.model_file import unpack_model
from course_lib.measure.size import size
from course_lib.models.digits_mlp import DigitsMLP, train_digits
from course_lib.models.parts import prunable_weights


@pytest.fixture(scope="module")
def dense():
    torch.manual_seed(0)
    model = DigitsMLP()
    train_digits(model, digits())
    return model


def accuracy(model):
    data = digits()
    with torch.no_grad():
        return (model(data.test_images).argmax(1) == data.test_labels).float().mean().item()


def test_a_short_training_gives_a_file_forty_times_smaller(dense):
    packed = deep_compression(dense, digits(), Recipe(0.08, epochs=15, retraining=5))
    assert size(dense.state_dict()).bytes > 40 * size(packed).bytes
    assert accuracy(unpack_model(packed, dense)) > accuracy(dense) - 0.03


def test_the_density_is_reached_and_the_dense_network_left_alone(dense):
    before = {name: tensor.clone() for name, tensor in dense.state_dict().items()}
    pruned = prune_gradually(dense, digits(), Recipe(0.1, epochs=3), teacher_loss(dense))
    weights = prunable_weights(pruned).values()
    kept = sum(int(weight.count_nonzero()) for weight in weights)
    assert kept == round(0.1 * sum(weight.numel() for weight in weights))
    assert all(dense.state_dict()[name].equal(tensor) for name, tensor in before.items())


def test_dropping_dead_units_changes_no_output():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Linear(9, 20), nn.ReLU(), nn.Linear(20, 20), nn.ReLU(), nn.Linear(20, 4)
    )
    for layer in (model[0], model[2], model[4]):
        layer.weight.data[torch.rand_like(layer.weight) < 0.85] = 0
    x = torch.randn(50, 9)
    smaller = drop_dead_units(model)
    assert torch.allclose(model(x), smaller(x), atol=1e-5)
    counts = [sum(int(p.count_nonzero()) for p in m.parameters()) for m in (model, smaller)]
    assert counts[1] < counts[0]
    again = drop_dead_units(smaller)
    assert torch.allclose(model(x), again(x), atol=1e-5)
