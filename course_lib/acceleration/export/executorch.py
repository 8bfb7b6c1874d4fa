"""A decoder as a .pte file, which ExecuTorch runs: PyTorch's own engine for phones.

    export_executorch(model, path, length, kind)
    logits = run_executorch(open_executorch(path), tokens)

    float32    4 bytes a weight
    float16    2 bytes; products of float16 numbers, norms in float32
    int8       1 byte for linear layers, a scale for each output; their inputs are rounded to 8 bits
               as they come; the rest, and the embedding, in float32

The file is a program for T tokens, no more and no fewer: the memory that it needs is planned when
it is written. XNNPACK, a library of kernels for the CPUs of phones and laptops, computes all of it
except the look-up of the embeddings. A tied embedding stands in the file twice: as a table, and as
the head, in the layout that XNNPACK wants.

Source: "ExecuTorch", in the documentation of the project PyTorch.

Axes: T tokens, V vocabulary.
"""

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from course_lib.acceleration.export.plain_form import PlainForm
from course_lib.acceleration.export.quiet import quiet
from course_lib.models.finite import check_finite
from course_lib.models.llama import Llama

if TYPE_CHECKING:
    from executorch.runtime import Method

KINDS = ("float32", "float16", "int8")
PACKAGES = ("executorch", "torchao", "flatbuffers", "ruamel.yaml")


def has_executorch() -> bool:
    """Whether ExecuTorch is installed, and torchao, which quantizes for it.

    >>> has_executorch() in (True, False)
    True
    """
    return all(find_spec(package.partition(".")[0]) for package in PACKAGES)


def export_executorch(model: Llama, path: Path, length: int, kind: str = "float32") -> None:
    """Write a decoder as a .pte file that reads T tokens at once.

    It takes a while: each of 4 blocks costs 2 to 4 seconds.

    Args:
        model: an ordinary decoder, its blocks alike.
        path: of the file; "….pte" by custom. One that stands there is replaced.
        length: T.
        kind: "float32", "float16" or "int8".

    Raises:
        ValueError: kind is another; a weight is NaN or infinite, in float16 too; what `PlainForm`
            refuses.
        ModuleNotFoundError: executorch is not installed.
    """
    if kind not in KINDS:
        raise ValueError(f"kind must be one of {KINDS}; got {kind!r}")
    form = PlainForm(model, length)
    if kind == "float16":
        form = PlainForm(form.model.half(), length)
    for name, weight in form.model.named_parameters():
        check_finite(weight, name)
    with quiet(), torch.no_grad():
        from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
        from executorch.exir import to_edge_transform_and_lower

        tokens = (torch.zeros(length, dtype=torch.long),)
        plain = _quantized(form, tokens) if kind == "int8" else form
        program = torch.export.export(plain, tokens)
        edge = to_edge_transform_and_lower(program, partitioner=[XnnpackPartitioner()])
        path.write_bytes(edge.to_executorch().buffer)


def _quantized(form: nn.Module, tokens: tuple[Tensor]) -> nn.Module:
    """With int8 weights; each linear layer rounds its inputs with a scale found as they come."""
    from executorch.backends.xnnpack.quantizer.xnnpack_quantizer import (
        XNNPACKQuantizer,
        get_symmetric_quantization_config,
    )
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

    config = get_symmetric_quantization_config(is_per_channel=True, is_dynamic=True)
    graph = torch.export.export(form, tokens).module()
    graph = prepare_pt2e(graph, XNNPACKQuantizer().set_global(config))
    graph(*tokens)
    return convert_pt2e(graph)


def open_executorch(path: Path) -> "Method":
    """A file made ready to run: XNNPACK lays out its weights.

    Raises:
        ModuleNotFoundError: executorch is not installed.
    """
    with quiet():
        from executorch.runtime import Runtime

        return Runtime.get().load_program(path).load_method("forward")


def run_executorch(method: "Method", tokens: Tensor) -> Tensor:
    """Logits (T, V), in float32 on the CPU, of tokens (T,); T is what the file was written for.

    Raises:
        ValueError: tokens have another shape; a logit is NaN or infinite.
    """
    length = tuple(method.metadata.input_tensor_meta(0).sizes())
    if tokens.shape != length:
        raise ValueError(f"tokens must have shape {length}; got {tuple(tokens.shape)}")
    (logits,) = method.execute([tokens.cpu().contiguous()])
    check_finite(logits, "the logits")
    return logits.float()
