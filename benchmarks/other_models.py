"""What the benchmarks of other networks than language models share: the ways to make a file small.

Each way is the library's, unchanged: it takes weights by name, each (O, I) or (O, I, k, k), and
gives what the file holds, `pack_tensors`, and what comes back, `unpack_tensors`. What is no weight
(biases, norms) stands in float16 in every file.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from course_lib.formats.codebook import Codebook
from course_lib.formats.forms import AnyScheme
from course_lib.formats.linear import Scheme
from course_lib.formats.model_file import pack_tensors, unpack_tensors
from course_lib.formats.shared import Shared
from course_lib.formats.sparse import Sparse
from course_lib.low_rank.svd import truncated
from course_lib.measure.size import size
from course_lib.pruning.masks import magnitude_masks
from course_lib.quantization.codebook import lookup, nearest_codes
from course_lib.quantization.linear import Format
from course_lib.quantization.optimal_kmeans import optimal_levels

Tensors = dict[str, Tensor]
GROUP = 32


class Stored(NamedTuple):
    """A file's bytes, and the tensors that it gives back, in their own shapes."""

    bytes: int
    tensors: Tensors


Schemes = Mapping[str, AnyScheme]
# All tensors; which of them are to shrink; the schemes of some others.
Way = Callable[[Tensors, list[str], Schemes], Stored]


def stored(tensors: Mapping[str, Tensor], schemes: Schemes) -> Stored:
    """A file under these schemes, all other tensors in float16."""
    packed = pack_tensors(tensors, {**dict.fromkeys(tensors, torch.float16), **schemes})
    return Stored(size(packed).bytes, unpack_tensors(packed, tensors))


def linear(bits: int, granularity: str | int) -> Way:
    """Rounded to nearest, affine; what groups do not divide gets a scale for each output."""

    def way(tensors: Tensors, names: list[str], beside: Schemes) -> Stored:
        schemes = {}
        for name in names:
            fits = not isinstance(granularity, int) or not tensors[name][0].numel() % granularity
            schemes[name] = Scheme(Format(bits), granularity if fits else "channel")
        return stored(tensors, {**beside, **schemes})

    return way


def pruned(density: float, per_layer: bool) -> Way:
    """The largest stay, in float16, behind a bitmap."""

    def way(tensors: Tensors, names: list[str], beside: Schemes) -> Stored:
        masks = magnitude_masks({name: tensors[name] for name in names}, density, per_layer)
        kept = {name: (tensors[name] * masks[name]).half() for name in names}
        return stored({**tensors, **kept}, {**beside, **dict.fromkeys(names, Sparse())})

    return way


def factored(share: float) -> Way:
    """Every weight as B A with this share of its numbers; a filter's pixels count as inputs."""

    def way(tensors: Tensors, names: list[str], beside: Schemes) -> Stored:
        parts = {name: tensor for name, tensor in tensors.items() if name not in names}
        for name in names:
            matrix = tensors[name].flatten(1)  # (O, I, k, k) -> (O, I k²)
            rank = max(1, int(share * matrix.numel() / sum(matrix.shape)))
            factors = truncated(matrix, rank)
            parts |= {f"{name}.left": factors.left, f"{name}.right": factors.right}
        file = stored(parts, beside)
        for name in names:
            left, right = (file.tensors.pop(f"{name}.{side}") for side in ("left", "right"))
            file.tensors[name] = (left.float() @ right.float()).view(tensors[name].shape)
        return file

    return way


def codebooks(bits: int) -> Way:
    """The best 2ⁿ levels for each weight tensor, by k-means."""

    def way(tensors: Tensors, names: list[str], beside: Schemes) -> Stored:
        return stored(tensors, {**beside, **dict.fromkeys(names, Codebook(bits))})

    return way


def pruned_codebooks(density: float, values: int) -> Way:
    """In each layer the largest stay, as so many values; values and gaps under Huffman's code."""

    def way(tensors: Tensors, names: list[str], beside: Schemes) -> Stored:
        masks = magnitude_masks({name: tensors[name] for name in names}, density, per_layer=True)
        few = {}
        for name in names:
            kept = tensors[name][masks[name]][None]  # (1, n)
            levels = optimal_levels(kept, values).half().float()
            near = lookup(nearest_codes(kept, levels), levels)
            few[name] = torch.zeros_like(tensors[name]).masked_scatter(masks[name], near)
        return stored({**tensors, **few}, {**beside, **dict.fromkeys(names, Shared())})

    return way


BITS: dict[str, Way] = {
    f"{bits} bits, {where}": linear(bits, granularity)
    for bits in (8, 6, 5, 4, 3)
    for where, granularity in (
        ("tensor", "tensor"), ("channel", "channel"), (f"groups of {GROUP}", GROUP),
    )
}  # fmt: skip
OTHERS: dict[str, Way] = {
    "20 % pruned, each layer": pruned(0.8, per_layer=True),
    "half pruned, each layer": pruned(0.5, per_layer=True),
    "half pruned, over all": pruned(0.5, per_layer=False),
    "half the numbers, low rank": factored(0.5),
    "75 % of the numbers, low rank": factored(0.75),
    "4-bit codebook": codebooks(4),
    "3-bit codebook": codebooks(3),
    "half pruned, 16 values, Huffman": pruned_codebooks(0.5, 16),
}
