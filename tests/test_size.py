import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from course_lib.measure.latency import latency, seconds
from course_lib.measure.size import count_parameters, parameters_by_part, size
from course_lib.models.llama import Llama, LlamaConfig

CONFIG = LlamaConfig(vocabulary=20, width=8, layers=2, heads=2, kv_heads=1, mlp_width=12, context=8)


def test_the_size_is_that_of_a_file(tmp_path):
    tensors = {"a": torch.randn(10, 3), "b": torch.zeros(7, dtype=torch.uint8)}
    save_file(tensors, tmp_path / "file")
    found = size(tensors)
    assert found.bytes == (tmp_path / "file").stat().st_size
    assert found.parameters == 37 and found.bits_per_parameter == 8 * found.bytes / 37


@pytest.mark.parametrize(
    "dtype", [torch.float32, torch.float16, torch.bfloat16, torch.int8, torch.bool]
)
def test_every_dtype_comes_back_and_nan_is_a_value(dtype):
    tensor = torch.tensor([0.0, 1.0, float("nan")]).to(dtype)
    assert size({"x": tensor, "one number": torch.tensor(2.0)}).bytes > 0


def test_a_tied_tensor_is_written_once():
    matrix = torch.randn(100, 10)
    assert size({"a": matrix, "b": matrix}).bytes == size({"a": matrix}).bytes


def test_a_mask_saves_nothing():
    dense = torch.randn(100, 10)
    masked = dense * (dense.abs() > 1)
    assert size({"w": masked}).bytes == size({"w": dense}).bytes


@pytest.mark.parametrize("tensors", [{}, {"a": [1, 2]}])
def test_what_is_no_tensor_is_refused(tensors):
    with pytest.raises(ValueError, match="at least one tensor"):
        size(tensors)


def test_parameters_are_counted_once_and_sit_somewhere():
    model = Llama(CONFIG)
    parts = parameters_by_part(model)
    assert sum(parts.values()) == count_parameters(model)
    assert parts == {"embedding": 160, "attention": 2 * 192, "MLP": 2 * 288, "norms": 40}
    tied = nn.ModuleList([nn.Linear(3, 3, bias=False), nn.Linear(3, 3, bias=False)])
    tied[1].weight = tied[0].weight
    assert count_parameters(tied) == 9


def test_latency_is_a_ratio_in_one_run():
    import time

    slow, quick = (lambda: time.sleep(0.03)), (lambda: time.sleep(0.003))
    assert latency(slow, quick, repeats=5).ratio > 3
    assert latency(quick, slow, repeats=5).ratio < 1 / 3
    assert seconds(slow) >= 0.03
    with pytest.raises(ValueError, match="repeats must be at least 1; got 0"):
        latency(slow, quick, repeats=0)
