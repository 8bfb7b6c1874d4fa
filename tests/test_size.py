import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import nn

from course_lib.measure import size as module
from course_lib.measure.size import count_parameters, parameters_by_part, size
from course_lib.models.llama import Llama, LlamaConfig

DTYPES = [torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.int8, torch.bool]


def tied() -> nn.ModuleDict:
    """Two layers that share one matrix."""
    layers = nn.ModuleDict(
        {"one": nn.Linear(40, 40, bias=False), "two": nn.Linear(40, 40, bias=False)}
    )
    layers.two.weight = layers.one.weight
    return layers


def test_the_size_is_that_of_a_file(tmp_path):
    tensors = {"a": torch.randn(10, 3), "b": torch.zeros(7, dtype=torch.uint8)}
    save_file(tensors, tmp_path / "file")
    found = size(tensors)
    assert found.bytes == (tmp_path / "file").stat().st_size
    assert found.parameters == 37 and found.bits_per_parameter == 8 * found.bytes / 37


@given(st.sampled_from(DTYPES), st.lists(st.integers(0, 5), max_size=3))
def test_every_dtype_and_shape_comes_back(dtype, shape):
    tensor = torch.full(shape, float("nan")).to(dtype)  # NaN is a value like any other
    assert size({"x": tensor, "y": torch.tensor(2.0)}).parameters == tensor.numel() + 1


def test_views_of_one_storage_come_back():
    matrix = torch.arange(12.0).view(3, 4)
    found = size({"rows": matrix[:2], "more rows": matrix[1:], "turned": matrix.T})
    assert found.parameters == 8 + 8 + 12


def test_tied_tensors_are_stored_once():
    weights = tied().state_dict()
    once = size({"one.weight": weights["one.weight"]})
    twice = size({name: weight.clone() for name, weight in weights.items()})
    both = size(weights)
    assert both.parameters == once.parameters == 1600 and twice.parameters == 3200
    assert once.bytes < both.bytes < once.bytes + 100 < twice.bytes  # the second name, no numbers


def test_a_mask_saves_nothing():
    dense = torch.randn(100, 10)
    assert size({"w": dense * (dense > 1)}) == size({"w": dense})


def test_packed_tensors_stand_for_more_parameters():
    packed = {"codes": torch.zeros(500, dtype=torch.uint8), "scale": torch.tensor(0.1)}
    found = size(packed, parameters=1000)
    assert found.parameters == 1000 and 4 < found.bits_per_parameter < 6


@pytest.mark.parametrize("damage", [lambda t: t + 1, lambda t: t.double(), lambda t: t[None]])
def test_a_file_that_gives_back_something_else_is_noticed(monkeypatch, damage):
    load = module.load_file
    monkeypatch.setattr(
        module, "load_file", lambda path: {name: damage(t) for name, t in load(path).items()}
    )
    with pytest.raises(RuntimeError, match="does not give back"):
        size({"x": torch.zeros(3)})


@pytest.mark.parametrize(
    ("tensors", "error", "says"),
    [
        ({"a": torch.ones(1), "b": [1, 2]}, TypeError, r"\['b'\] must be a Tensor; got list"),
        ({"a": torch.eye(3).to_sparse()}, ValueError, "dense and have numbers; got torch.sparse"),
        ({"a": torch.zeros(3, device="meta")}, ValueError, "got torch.strided on meta"),
        ({"a": torch.zeros(0)}, ValueError, "at least one number"),
        ({}, ValueError, "at least one number"),
    ],
)
def test_what_cannot_be_stored_is_refused(tensors, error, says):
    with pytest.raises(error, match=says):
        size(tensors)


def test_tied_parameters_count_once():
    assert count_parameters(tied()) == 1600
    assert parameters_by_part(tied(), {"first": "one.", "second": "two."}) == {
        "first": 1600,
        "second": 0,
    }


def test_every_parameter_of_a_llama_sits_somewhere():
    config = LlamaConfig(
        vocabulary=20, width=8, layers=2, heads=2, kv_heads=1, mlp_width=12, context=8
    )
    model = Llama(config)
    parts = parameters_by_part(model)
    assert parts == {
        "embedding": 20 * 8,
        "attention": 2 * (2 * 8 * 8 + 2 * 8 * 4),
        "MLP": 2 * 3 * 8 * 12,
        "norms": 5 * 8,
    }
    assert sum(parts.values()) == count_parameters(model)


def test_a_parameter_that_fits_no_part_is_named():
    with pytest.raises(ValueError, match="none fits 0.weight"):
        parameters_by_part(nn.Sequential(nn.Linear(2, 2)))
