"""A decoder as an ONNX file, which onnxruntime runs: on servers, on desktops, in browsers.

    export_onnx(model, path)                 TinyLM: 37 matrix products among 380 nodes
    quantize_onnx(path, small)               int8 weights, and inputs rounded as they come
    logits = run_onnx(open_onnx(path), tokens)

The file holds the graph of `Llama.forward` as a list of standard operations, and its weights. No
Python is left in it, and no PyTorch. B and T stay free: one file reads any batch of any length.
There is no cache in it: each call reads the whole text.

Source: "Open Neural Network Exchange", the standard of the project ONNX.

Axes: B batch, T tokens, V vocabulary.
"""

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from course_lib.acceleration.export.quiet import quiet
from course_lib.models.finite import check_finite
from course_lib.models.llama import Llama

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

PACKAGES = ("onnx", "onnxscript", "onnxruntime")


def has_onnx() -> bool:
    """Whether the packages onnx, onnxscript and onnxruntime are installed.

    >>> has_onnx() in (True, False)
    True
    """
    return all(find_spec(package) for package in PACKAGES)


def export_onnx(model: Llama, path: Path) -> None:
    """Write a decoder as an ONNX file: input "tokens" (B, T), output "logits" (B, T, V).

    It takes some seconds: PyTorch calls the model once and writes down what it does.

    Args:
        path: of the file; "….onnx" by custom. One that stands there is replaced.

    Raises:
        ValueError: a weight is NaN or infinite.
        ModuleNotFoundError: onnx or onnxscript is not installed (the extra `edge`).
    """
    for name, weight in model.named_parameters():
        check_finite(weight, name)
    batch = torch.export.Dim("B")
    length = torch.export.Dim("T", max=model.config.context)
    tokens = torch.zeros(2, 4, dtype=torch.long, device=model.embedding.weight.device)
    with quiet(), torch.no_grad():
        torch.onnx.export(
            model,
            (tokens,),
            str(path),
            dynamic_shapes=({0: batch, 1: length},),
            input_names=["tokens"],
            output_names=["logits"],
            external_data=False,
            verbose=False,
        )


def quantize_onnx(path: Path, target: Path) -> None:
    """Another file, with matrices of 8 bits: a scale for each output, as `Scheme(…, "channel")`.

    The inputs of each product are rounded when they come: one scale and one zero-point for all
    tokens of a call ("dynamic quantization"). The embedding is quantized too, with one scale.

    Raises:
        ModuleNotFoundError: onnx or onnxruntime is not installed (the extra `edge`).
    """
    from onnxruntime.quantization import QuantType, quantize_dynamic

    with quiet():
        quantize_dynamic(path, target, per_channel=True, weight_type=QuantType.QInt8)


def open_onnx(path: Path, threads: int = 1) -> "InferenceSession":
    """A file made ready to run on the CPU: its nodes are fused and its weights laid out.

    Raises:
        ModuleNotFoundError: onnxruntime is not installed (the extra `edge`).
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3  # errors only
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def run_onnx(session: "InferenceSession", tokens: Tensor) -> Tensor:
    """Logits (B, T, V), on the CPU, of tokens (B, T).

    Raises:
        ValueError: tokens is not 2-D.
    """
    if tokens.dim() != 2:
        raise ValueError(f"tokens must have shape (B, T); got {tuple(tokens.shape)}")
    (logits,) = session.run(["logits"], {"tokens": tokens.cpu().numpy()})
    return torch.from_numpy(logits)
