"""Weights out of an ONNX graph and into it, on a graph made here, with PyTorch as the peer."""

import math
import sys

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from course_lib.models.onnx_weights import (
    float_tensors,
    open_graph,
    read_graph,
    run_graph,
    weight_kinds,
    with_tensors,
)

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
SHAPES = {  # as they stand in the graph
    "full": (4, 2, 3, 3),
    "deep": (4, 1, 3, 3),
    "point": (6, 4, 1, 1),
    "matrix": (6, 5),
    "gemm": (3, 5),
    "bias": (3,),
}


@pytest.fixture
def graph():
    """Three convolutions, the mean over pixels, a MatMul (I, O) and a Gemm (O, I) with a bias."""
    generator = np.random.default_rng(0)
    constants = [
        onnx.numpy_helper.from_array(generator.normal(size=shape).astype(np.float32), name)
        for name, shape in SHAPES.items()
    ]
    constants.append(onnx.numpy_helper.from_array(np.float32(2), "scalar"))
    constants.append(onnx.numpy_helper.from_array(np.array([2, 3]), "axes"))
    node = onnx.helper.make_node
    nodes = [
        node("Conv", ["x", "full"], ["a"], pads=[1, 1, 1, 1]),
        node("Conv", ["a", "deep"], ["b"], group=4, pads=[1, 1, 1, 1]),
        node("Conv", ["b", "point"], ["c"]),
        node("ReduceMean", ["c", "axes"], ["d"], keepdims=0),
        node("Mul", ["d", "scalar"], ["e"]),
        node("MatMul", ["e", "matrix"], ["f"]),
        node("Gemm", ["f", "gemm", "bias"], ["y"], transB=1),
    ]
    value = onnx.helper.make_tensor_value_info
    ends = [value("x", 1, ["B", 2, 8, "W"])], [value("y", 1, ["B", 3])]
    made = onnx.helper.make_graph(nodes, "small", *ends, constants)
    opset = onnx.helper.make_opsetid("", 18)
    return onnx.helper.make_model(made, ir_version=10, opset_imports=[opset])


def by_pytorch(t: dict, x: torch.Tensor) -> torch.Tensor:
    x = F.conv2d(x, t["full"], padding=1)
    x = F.conv2d(F.conv2d(x, t["deep"], padding=1, groups=4), t["point"])
    x = F.linear(2 * x.mean(dim=(2, 3)), t["matrix"])
    return F.linear(x, t["gemm"], t["bias"])


def test_weights_are_found_by_what_uses_them(graph):
    kinds = ["convolution", "depthwise", "pointwise", "product", "product"]
    assert list(weight_kinds(graph).values()) == kinds
    assert list(weight_kinds(graph)) == ["full", "deep", "point", "matrix", "gemm"]


def test_rows_are_outputs(graph):
    shapes = {name: tuple(tensor.shape) for name, tensor in float_tensors(graph).items()}
    assert shapes == {**SHAPES, "matrix": (5, 6)}


def test_numbers_come_back_as_they_were(graph):
    tensors = float_tensors(graph)
    again = float_tensors(with_tensors(graph, tensors))
    assert all(tensor.equal(again[name]) for name, tensor in tensors.items())


def test_the_graph_computes_with_the_numbers_that_were_written(graph):
    x = torch.randn(2, 2, 8, 9)
    for scale in (1.0, -0.5):
        tensors = {name: scale * tensor for name, tensor in float_tensors(graph).items()}
        found = run_graph(open_graph(with_tensors(graph, tensors)), x)
        torch.testing.assert_close(found, by_pytorch(tensors, x), atol=1e-4, rtol=1e-4)


def test_the_graph_itself_is_left_as_it_is_and_half_precision_is_widened(graph):
    before = float_tensors(graph)["gemm"]
    changed = with_tensors(graph, {"gemm": torch.ones(3, 5, dtype=torch.float16)})
    assert float_tensors(graph)["gemm"].equal(before)
    assert float_tensors(changed)["gemm"].equal(torch.ones(3, 5))


def test_an_output_may_lose_rows(graph):
    tensors = float_tensors(graph)
    fewer = {"gemm": tensors["gemm"][:2], "bias": tensors["bias"][:2]}
    found = run_graph(open_graph(with_tensors(graph, fewer)), torch.ones(1, 2, 8, 8))
    whole = run_graph(open_graph(graph), torch.ones(1, 2, 8, 8))
    torch.testing.assert_close(found, whole[:, :2], atol=1e-4, rtol=1e-4)


def test_nan_is_written_as_it_is(graph):
    bias = torch.tensor([math.nan, math.inf, 0.0])
    written = float_tensors(with_tensors(graph, {"bias": bias}))["bias"]
    assert written[0].isnan() and written[1:].equal(bias[1:])


@pytest.mark.parametrize("name", ["nobody", "gemm"])
def test_what_does_not_fit_is_refused(graph, name):
    with pytest.raises(ValueError, match="tensors must fit the graph"):
        with_tensors(graph, {name: torch.ones(3)})


def test_a_missing_package_is_named_with_its_remedy(graph, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ModuleNotFoundError, match="onnx is not installed.*pip install"):
        read_graph(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="onnxruntime is not installed.*pip install"):
        open_graph(graph)
