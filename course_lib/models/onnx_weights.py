"""The weights of a network that exists only as an ONNX graph: read, replaced, and run again.

    graph = read_graph(path)
    tensors = float_tensors(graph)                     name -> weight, as (O, I) or (O, I, k, k)
    outputs = run_graph(open_graph(with_tensors(graph, smaller)), inputs)

A graph is a list of standard operations and a table of named tensors. What is a weight, the
operations tell: it is the second input of a convolution or of a matrix product. ONNX's MatMul
computes x W with W (I, O); here each such matrix is turned, so that a row stands for an output as
everywhere in the course, and turned back when it is written.

A convolution of one input channel for each output ("depthwise") has filters of k² numbers: 9, say.

Source: "Open Neural Network Exchange", the standard of the project ONNX.

Axes: B batch, O outputs, I inputs, k pixels of a filter's side.
"""

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from onnx import AttributeProto, ModelProto, NodeProto
    from onnxruntime import InferenceSession

PRODUCTS = ("MatMul", "Gemm")
REMEDY = "python -m pip install onnx onnxruntime (the course's extra `edge`)"


def read_graph(path: Path) -> "ModelProto":
    """The graph that a file holds.

    Raises:
        ModuleNotFoundError: onnx is not installed; the message names the remedy.
    """
    return _package("onnx").load(str(path))


def weight_kinds(graph: "ModelProto") -> dict[str, str]:
    """Name of each weight -> "product", "depthwise", "pointwise" or "convolution", in their order.

    Pointwise is a convolution of single pixels, k = 1: a matrix product at each place of a picture.
    """
    constants = {tensor.name: tensor for tensor in graph.graph.initializer}
    kinds: dict[str, str] = {}
    for node in graph.graph.node:
        if node.op_type not in (*PRODUCTS, "Conv") or node.input[1] not in constants:
            continue
        name, shape = node.input[1], list(constants[node.input[1]].dims)
        if node.op_type in PRODUCTS:
            kind = "product"
        elif shape[1] == 1 and _attribute(node, "group", 1) > 1:
            kind = "depthwise"
        else:
            kind = "pointwise" if set(shape[2:]) == {1} else "convolution"
        kinds.setdefault(name, kind)
    return kinds


def float_tensors(graph: "ModelProto") -> dict[str, Tensor]:
    """Name -> every float32 tensor of the graph that has an axis: weights, biases, norms.

    The matrices of products are (O, I).
    """
    from onnx import TensorProto, numpy_helper

    turned = _turned(graph)
    found = {}
    for constant in graph.graph.initializer:
        if constant.data_type == TensorProto.FLOAT and constant.dims:
            tensor = torch.from_numpy(numpy_helper.to_array(constant).copy())
            found[constant.name] = tensor.T.contiguous() if constant.name in turned else tensor
    return found


def with_tensors(graph: "ModelProto", tensors: Mapping[str, Tensor]) -> "ModelProto":
    """A copy of the graph with other numbers under some names.

    A tensor may have another length than before: then all that meet it must fit, which is the
    caller's to see to. So no shapes of results are noted in the copy.

    Args:
        tensors: as `float_tensors` gives them, any float type; written as float32.

    Raises:
        ValueError: a name that the graph does not have; a tensor with another number of axes.
    """
    from onnx import ModelProto, numpy_helper

    copy, turned = ModelProto(), _turned(graph)
    copy.CopyFrom(graph)
    constants = {constant.name: constant for constant in copy.graph.initializer}
    for name, tensor in tensors.items():
        if name not in constants or len(constants[name].dims) != tensor.dim():
            there = list(constants[name].dims) if name in constants else "nothing"
            raise ValueError(
                f"tensors must fit the graph, which has {there} under {name!r}; "
                f"got {tuple(tensor.shape)}"
            )
        array = (tensor.T if name in turned else tensor).detach().cpu().float().contiguous()
        constants[name].CopyFrom(numpy_helper.from_array(array.numpy(), name))
    del copy.graph.value_info[:]
    for output in copy.graph.output:
        output.type.tensor_type.ClearField("shape")
    return copy


def open_graph(graph: "ModelProto", threads: int = 1) -> "InferenceSession":
    """A graph made ready to run on the CPU: its nodes are fused and its weights laid out.

    Raises:
        ModuleNotFoundError: onnxruntime is not installed; the message names the remedy.
    """
    onnxruntime = _package("onnxruntime")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3  # errors only
    return onnxruntime.InferenceSession(
        graph.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


def run_graph(session: "InferenceSession", inputs: Tensor) -> Tensor:
    """The first output of a graph of one input, on the CPU: (B, …) -> (B, …)."""
    (name,) = (entry.name for entry in session.get_inputs())
    outputs = session.run(None, {name: inputs.detach().cpu().numpy()})
    return torch.from_numpy(outputs[0])


def _turned(graph: "ModelProto") -> set[str]:
    """The matrices that stand as (I, O) in the graph."""
    kinds = weight_kinds(graph)
    return {
        node.input[1]
        for node in graph.graph.node
        if node.op_type in PRODUCTS
        and kinds.get(node.input[1]) == "product"
        and not _attribute(node, "transB", 0)
    }


def _attribute(node: "NodeProto", name: str, otherwise: int) -> int:
    found: list[AttributeProto] = [entry for entry in node.attribute if entry.name == name]
    return found[0].i if found else otherwise


def _package(name: str) -> ModuleType:
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(f"{name} is not installed. To get it: {REMEDY}") from error
