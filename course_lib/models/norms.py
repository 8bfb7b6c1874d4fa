"""A norm's gain folded into the matrices that read it: the same model, and a norm without weights.

    norm(x) · w, then W        becomes    norm(x), then W diag(w)

A tied head is a reader that must not be folded into: it is the embedding, whose rows are read at
the other end of the model without any norm. `untied` gives the head a matrix of its own first.

Axes: O outputs, I inputs.
"""

import copy
from collections.abc import Iterable
from dataclasses import replace

import torch
from torch import nn

from course_lib.models.llama import Llama, RMSNorm


@torch.no_grad()
def untied(model: Llama) -> Llama:
    """A copy of a decoder whose head is a matrix of its own, equal to the embedding.

    >>> from course_lib.models.pretrained import tiny
    >>> model = untied(tiny()[0])
    >>> model.head.weight.equal(model.embedding.weight), model.config.tied
    (True, False)
    """
    model = copy.deepcopy(model)
    if model.config.tied:
        weight = model.embedding.weight
        model.head = nn.Linear(*reversed(weight.shape), bias=False, device="meta")
        model.head.weight = nn.Parameter(weight.clone(), weight.requires_grad)
        model.config = replace(model.config, tied=False)
    return model


@torch.no_grad()
def fold_norm(norm: RMSNorm, readers: Iterable[nn.Linear]) -> None:
    """In place: multiply a norm's weight into the columns of its readers, and make it 1.

    >>> norm, reader = RMSNorm(2, 1e-5), nn.Linear(2, 3)
    >>> norm.weight.data = torch.tensor([2.0, 0.5])
    >>> before = reader(norm(torch.ones(1, 2)))
    >>> fold_norm(norm, [reader])
    >>> torch.allclose(reader(norm(torch.ones(1, 2))), before), norm.weight.tolist()
    (True, [1.0, 1.0])
    """
    for layer in readers:
        layer.weight.mul_(norm.weight)  # (O, I) · (I,)
    norm.weight.fill_(1)


def fold_block_norms(model: Llama) -> None:
    """In place: `fold_norm` for the two norms of each block; the last norm stays as it is.

    >>> from course_lib.models.pretrained import tiny
    >>> model = tiny()[0]
    >>> fold_block_norms(model)
    >>> model.blocks[3].mlp_norm.weight.unique(), len(model.norm.weight.unique()) > 1
    (tensor([1.]), True)
    """
    for block in model.blocks:
        attention, mlp = block.attention, block.mlp
        fold_norm(block.attention_norm, [attention.query, attention.key, attention.value])
        fold_norm(block.mlp_norm, [mlp.gate, mlp.up])


def fold_norms(model: Llama) -> None:
    """In place: `fold_norm` for every norm of a decoder.

    Raises:
        ValueError: the head is the embedding, which must not get the last norm's weight.

    >>> from course_lib.models.pretrained import tiny
    >>> model = untied(tiny()[0])
    >>> fold_norms(model)
    >>> model.norm.weight.unique()
    tensor([1.])
    """
    if model.config.tied:
        raise ValueError("model must have a head of its own, as `untied` gives; its head is tied")
    fold_block_norms(model)
    fold_norm(model.norm, [model.head])
