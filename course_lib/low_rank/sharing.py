"""Layers that share: whole blocks that are one, or weights that are made of one basis.

Tied blocks run one module several times. Its parameters count once, and a file holds them once;
the time that a token takes stays what it was.

A shared basis asks less: the weights W_1 … W_L keep matrices of their own, of the same A:

    W_l ≈ B_l A        r (I + Σ O_l) numbers in place of Σ r (I + O_l)

On the weights the best A and B_l are the truncated SVD of the W_l on top of each other. On the
outputs, Σ_l mean ‖(W_l − B_l A) x_l‖², it is the same on top of each other where all have the same
inputs, as query, key and value have. Inputs of different layers differ, and then no closed form
gives the best A. Here A is the best one for inputs of which each layer brings its share (the mean
of the Gram matrices, as the authors do), and then each B_l the best one for its own inputs (which
they leave out): the first is a compromise, the second is not. On TinyLM's matrices at half of their
numbers the second step takes 3 to 17 % off the error; what descent on A and B_l together finds is
lower by another 2 to 23 %.

Sources: Lan et al., 2020, "ALBERT: A Lite BERT for Self-supervised Learning of Language
Representations" (tied blocks); Wang, Chen, Lin, Li and Zhang, 2025, "Basis Sharing: Cross-Layer
Parameter Sharing for Large Language Model Compression".

Axes: L weights or layers, O_l outputs of weight l, I inputs, r rank.
"""

import copy
from collections.abc import Sequence

import torch
from torch import Tensor

from course_lib.device import without_autocast
from course_lib.low_rank.output_aware import output_factors
from course_lib.low_rank.svd import Factors, truncated
from course_lib.models.finite import check_finite
from course_lib.models.llama import Block, Llama


@torch.no_grad()
def tie_blocks(model: Llama, group: int, mean: bool = False) -> Llama:
    """A copy of the model in which each `group` neighbouring blocks are one module.

    Args:
        group: how many, at least 1; the last group may have fewer.
        mean: whether the one is the mean of the group's blocks, number by number; else the first.

    Raises:
        ValueError: group is below 1; blocks of a group have different shapes.

    >>> from course_lib.models.pretrained import tiny
    >>> tied = tie_blocks(tiny()[0], 2)
    >>> tied.blocks[0] is tied.blocks[1], tied.blocks[1] is tied.blocks[2]
    (True, False)
    >>> sum(parameter.numel() for parameter in tied.parameters())
    1180608
    """
    if group < 1:
        raise ValueError(f"group must be at least 1; got {group}")
    model = copy.deepcopy(model)
    blocks = list(model.blocks)
    for start in range(0, len(blocks), group):
        some = blocks[start : start + group]
        _check_alike(some, start)
        if mean:
            _average(some)
        for number in range(start, start + len(some)):
            model.blocks[number] = some[0]
    return model


def _check_alike(blocks: list[Block], start: int) -> None:
    shapes = [{name: tuple(p.shape) for name, p in block.named_parameters()} for block in blocks]
    for number, shape in enumerate(shapes):
        if shape != shapes[0]:
            raise ValueError(
                f"blocks that become one must have the same shapes; {start + number} differs from "
                f"{start}"
            )


def _average(blocks: list[Block]) -> None:
    """In place: the first becomes the mean, summed in float32 or wider."""
    for parts in zip(*(block.parameters() for block in blocks), strict=True):
        wide = torch.promote_types(parts[0].dtype, torch.float32)
        parts[0].copy_(torch.stack([part.to(wide) for part in parts]).mean(dim=0))


@without_autocast
@torch.no_grad()
def shared_basis(
    weights: Sequence[Tensor], rank: int, grams: Sequence[Tensor] | None = None
) -> list[Factors]:
    """Factors B_l of each weight with one A for all: r (I + Σ O_l) numbers.

    Args:
        weights: W_l, (O_l, I) each: the same I, dtype and device.
        rank: r, from 0 to min(Σ O_l, I).
        grams: G_l of each weight's own inputs, (I, I). Where all are equal, the answer is the best
            on the outputs; without them it is the best on the weights.

    Returns:
        A `Factors` for each weight, whose `right` is the same tensor throughout; in the weights'
        dtype.

    Raises:
        ValueError: no weights; weights or grams that do not fit each other; NaN or infinity; what
            `truncated` or `output_factors` refuse.

    >>> basis = torch.tensor([[1.0, 2.0, 2.0]])
    >>> first, second = shared_basis([torch.ones(4, 1) @ basis, torch.ones(2, 1) @ -basis], rank=1)
    >>> first.right is second.right, second.product.round(decimals=4).tolist()
    (True, [[-1.0, -2.0, -2.0], [-1.0, -2.0, -2.0]])
    """
    _check_weights(weights, grams)
    dtype = weights[0].dtype
    stacked = torch.cat(list(weights)).to(torch.promote_types(dtype, torch.float32))  # (Σ O_l, I)
    outputs = [len(weight) for weight in weights]
    if grams is None:
        left, right = truncated(stacked, rank)
        parts = left.split(outputs)
    else:
        left, right = output_factors(stacked, torch.stack(list(grams)).mean(dim=0), rank)
        parts = [
            _own_left(*both, right)
            for both in zip(stacked.split(outputs), left.split(outputs), grams, strict=True)
        ]
    right = right.to(dtype)
    return [Factors(part.to(dtype), right) for part in parts]


def shared_count(factors: Sequence[Factors]) -> int:
    """How many numbers some factors hold, a tensor that stands in several of them once.

    >>> basis = torch.ones(2, 5)
    >>> shared_count([Factors(torch.ones(3, 2), basis), Factors(torch.ones(4, 2), basis)])
    24
    """
    return sum({id(part): part.numel() for pair in factors for part in pair}.values())


def _own_left(weight: Tensor, left: Tensor, gram: Tensor, right: Tensor) -> Tensor:
    """B + (W − B A) G Aᵀ (A G Aᵀ)⁺: the best B for a given A; what G never sees stays. (O, r)."""
    W, B, G, A = (part.double() for part in (weight, left, gram, right))
    seen = A @ G  # (r, I)
    inverse = torch.linalg.pinv(seen @ A.T, hermitian=True)  # (r, r)
    return (B + (W - B @ A) @ seen.T @ inverse).to(left.dtype)


def _check_weights(weights: Sequence[Tensor], grams: Sequence[Tensor] | None) -> None:
    if not weights:
        raise ValueError("weights must hold at least one; got none")
    kinds = {(w.dim(), w.shape[-1], w.dtype, w.device) for w in weights}
    if len(kinds) > 1 or weights[0].dim() != 2:
        found = [(tuple(w.shape), w.dtype) for w in weights]
        raise ValueError(f"weights must be (O_l, I), of one I, dtype and device; got {found}")
    for number, weight in enumerate(weights):
        check_finite(weight, f"weights[{number}]")
    inputs = weights[0].shape[1]
    if grams is not None and [tuple(g.shape) for g in grams] != [(inputs, inputs)] * len(weights):
        raise ValueError(
            f"grams must be {len(weights)} of shape {(inputs, inputs)}; "
            f"got {[tuple(g.shape) for g in grams]}"
        )
