"""A network that reads a line of text from a picture: PP-OCRv6's small recognizer.

Convolutions cut the picture (3, 48, W) into W / 8 columns, two attention blocks let them look at
each other, and a head says of each column which of 18,710 characters it shows, or none ("blank").
A letter may fill several columns, so a text is read off by connectionist temporal classification:

    best character of each column  ->  runs of one character become one  ->  blanks go

    "hh-ee-l-ll-o"  ->  "h-e-l-l-o"  ->  "hello"

Most of the characters are Chinese. The network comes in a package (see `data.lock`) as an ONNX
graph in float32, and is run by onnxruntime.

Sources: Graves et al., 2006, "Connectionist Temporal Classification"; the PaddleOCR project,
"PP-OCRv6".

Axes: N pictures, W pixels of a picture, T columns, M characters, m characters kept, I inputs.
"""

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from course_lib.data.packages import package_file
from course_lib.models.onnx_weights import read_graph, run_graph

if TYPE_CHECKING:
    from onnx import ModelProto
    from onnxruntime import InferenceSession

PACKAGE, FILE = "rapidocr", "models/PP-OCRv6_rec_small.onnx"
BLANK = 0
AT_ONCE = 8  # pictures


class LineReader(NamedTuple):
    """The network, and which character each of its outputs stands for; the first is the blank."""

    graph: "ModelProto"
    characters: list[str]


def has_line_reader() -> bool:
    """Whether the packages rapidocr, onnx and onnxruntime are installed.

    >>> has_line_reader() in (True, False)
    True
    """
    return all(find_spec(package) for package in (PACKAGE, "onnx", "onnxruntime"))


def line_reader() -> LineReader:
    """PP-OCRv6's small recognizer, in float32.

    Raises:
        FileNotFoundError: the package rapidocr is not installed; the message names the remedy.
        ModuleNotFoundError: onnx is not installed; the message names the remedy.
    """
    graph = read_graph(package_file(PACKAGE, FILE))
    (listed,) = (entry.value for entry in graph.metadata_props if entry.key == "character")
    return LineReader(graph, ["", *listed.split("\n"), " "])


def decode_ctc(best: Sequence[int], characters: Sequence[str]) -> str:
    """The text that the best character of each of T columns stands for.

    Raises:
        IndexError: a number that no character has.

    >>> decode_ctc([1, 1, 0, 2, 0, 3, 3, 0, 3, 4], ["", "h", "e", "l", "o"])
    'hello'
    """
    before = [BLANK, *best][: len(best)]
    return "".join(
        characters[new] for new, old in zip(best, before, strict=True) if new not in (old, BLANK)
    )


def read_lines(session: "InferenceSession", images: Tensor, characters: Sequence[str]) -> list[str]:
    """What stands in N pictures.

    Args:
        session: the network, from `onnx_weights.open_graph`.
        images: (N, 3, 48, W) float32, −1 is black and 1 white.
        characters: as many as the network has outputs.

    Raises:
        ValueError: another shape; a network with another number of outputs.
    """
    if images.dim() != 4 or tuple(images.shape[1:3]) != (3, 48) or not len(images):
        raise ValueError(f"images must have shape (N, 3, 48, W); got {tuple(images.shape)}")
    texts = []
    for some in images.split(AT_ONCE):
        scores = run_graph(session, some)  # (B, T, M)
        if scores.shape[2] != len(characters):
            raise ValueError(
                f"characters must be as many as outputs, {scores.shape[2]}; got {len(characters)}"
            )
        texts += [decode_ctc(best, characters) for best in scores.argmax(dim=2).tolist()]
    return texts


def trim_characters(
    tensors: Mapping[str, Tensor], characters: Sequence[str], keep: str
) -> tuple[dict[str, Tensor], list[str]]:
    """The head without the rows of characters that no text here needs; the blank stays.

    Softmax shares out what the others had, so a column's best character stays the best if kept.

    Args:
        tensors: from `onnx_weights.float_tensors`; those whose first axis is as long as the list
            of characters, the head's weight (M, I) and bias (M,), are cut.
        keep: characters; those that the network does not know are left out.

    Returns:
        All tensors, and the m characters that stay, in their order.

    Raises:
        ValueError: no tensor has M rows.

    >>> tensors = {"head": torch.arange(4.0)[:, None], "norm": torch.ones(3)}
    >>> trimmed, characters = trim_characters(tensors, ["", "a", "字", "b"], keep="ab")
    >>> trimmed["head"].flatten().tolist(), characters
    ([0.0, 1.0, 3.0], ['', 'a', 'b'])
    """
    rows = [i for i, letter in enumerate(characters) if i == BLANK or letter in set(keep)]
    heads = [name for name, tensor in tensors.items() if len(tensor) == len(characters)]
    if not heads:
        raise ValueError(f"tensors must hold one of {len(characters)} rows; none has as many")
    cut = {name: tensors[name][torch.tensor(rows)] for name in heads}
    return {**tensors, **cut}, [characters[i] for i in rows]
