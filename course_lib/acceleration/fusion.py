"""Fusion of a decoder: the same function in fewer steps, so that fewer numbers travel.

    fold       a norm's gain disappears into the matrices that read the norm
    join       matrices that read the same input become one

Both are exact up to rounding, need no data, and change no result. `batch_norm` folds BatchNorms.

Axes: B batch, T tokens, I inputs, O outputs, D model width, H query heads, G key-value heads,
E head width, F hidden width of the MLP, V vocabulary.
"""

import copy
import os
import shutil
import sys
import sysconfig
from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from course_lib.models.llama import MLP, Attention, Llama, RMSNorm, rotate
from course_lib.models.norms import fold_block_norms, fold_norm


def fold_norm_gains(model: Llama) -> Llama:
    """A copy of a decoder whose norms have gain 1: the gains stand in the matrices that read them.

    The last norm keeps its gain where the head is tied: the head is the embedding, which is read at
    the other end without a norm. A head of its own would cost V · D numbers to save D.

    >>> from course_lib.models.pretrained import tiny
    >>> model, tokens = tiny()[0], torch.arange(9)[None]
    >>> torch.allclose(fold_norm_gains(model)(tokens), model(tokens), atol=1e-4)
    True
    """
    model = copy.deepcopy(model)
    fold_block_norms(model)
    if not model.config.tied:
        fold_norm(model.norm, [model.head])
    return model


@torch.no_grad()
def join_linears(layers: Sequence[nn.Linear]) -> nn.Linear:
    """One layer that gives the outputs of several, side by side: W = [W₁; W₂; …].

    Raises:
        ValueError: no layers; other inputs, dtypes or devices; some have a bias and some have none.

    >>> join_linears([nn.Linear(3, 2), nn.Linear(3, 5)])
    Linear(in_features=3, out_features=7, bias=True)
    """
    kinds = {(x.in_features, x.bias is None, x.weight.dtype, x.weight.device) for x in layers}
    if len(kinds) != 1:
        raise ValueError(
            "layers must be one or more, with equal inputs, dtype and device, and all or none with "
            f"a bias; got {len(layers)} of {len(kinds)} kinds"
        )
    weight = torch.cat([x.weight for x in layers])  # (O₁ + O₂ + …, I)
    joined = nn.Linear(*reversed(weight.shape), bias=layers[0].bias is not None, device="meta")
    joined.weight = nn.Parameter(weight, layers[0].weight.requires_grad)
    if layers[0].bias is not None:
        joined.bias = nn.Parameter(torch.cat([x.bias for x in layers]), joined.weight.requires_grad)
    return joined


class JoinedAttention(Attention):
    """Attention whose queries, keys and values come from one matrix, (H·E + 2·G·E, D)."""

    def __init__(self, attention: Attention):
        nn.Module.__init__(self)
        self.groups, self.heads = attention.groups, attention.heads
        self.kv_heads, self.head_width = attention.kv_heads, attention.head_width
        parts = [attention.query, attention.key, attention.value]
        self.joined, self.output = join_linears(parts), attention.output

    def turned(self, x: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """As `Attention`; queries and keys turn as one."""
        y = self.joined(x).unflatten(2, (-1, self.head_width)).transpose(1, 2)  # (B, H + 2·G, T, E)
        turning = self.heads + self.kv_heads
        turned = rotate(y[:, :turning], cos, sin)
        return turned[:, : self.heads], turned[:, self.heads :], y[:, turning:]


class JoinedMLP(MLP):
    """An MLP whose gate and up are one matrix, (2·F, D)."""

    def __init__(self, mlp: MLP):
        nn.Module.__init__(self)
        self.joined, self.down = join_linears([mlp.gate, mlp.up]), mlp.down

    def products(self, x: Tensor) -> Tensor:
        """silu(gate(x)) · up(x), (B, T, D) -> (B, T, F)."""
        gate, up = self.joined(x).chunk(2, dim=-1)
        return F.silu(gate) * up


class NormWithoutGain(nn.Module):
    """x / √(mean(x²) + ε) over D: what is left of an RMSNorm whose gain is folded away."""

    def __init__(self, norm: RMSNorm):
        super().__init__()
        self.epsilon = norm.epsilon

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, x.shape[-1:], eps=self.epsilon)


def join_model(model: Llama) -> Llama:
    """A copy of a decoder, to be run: query, key and value are one matrix, and gate and up.

    It gives the same logits, and takes the same caches. Methods that look for a query or a gate do
    not find them any more: compress first, join last. A group of weights that shares a scale stands
    within one output, so it makes no difference to the codes which outputs stand beside it.

    >>> from course_lib.models.pretrained import tiny
    >>> model, tokens = tiny()[0], torch.arange(9)[None]
    >>> torch.allclose(join_model(model)(tokens), model(tokens), atol=1e-4)
    True
    """
    model = copy.deepcopy(model)
    for block in model.blocks:
        block.attention, block.mlp = JoinedAttention(block.attention), JoinedMLP(block.mlp)
    return model


def fuse_model(model: Llama) -> Llama:
    """`join_model` of a decoder whose gains are folded: what is left to do for floats.

    Do not fold before you round to few bits. Of SmolLM2 in 4 bits, groups of 32, the perplexity on
    10,000 letters of articles was 29.9 (float32: 24.1), and 33.0 where gains were folded first.

    >>> from course_lib.models.pretrained import tiny
    >>> model, tokens = tiny()[0], torch.arange(9)[None]
    >>> torch.allclose(fuse_model(model)(tokens), model(tokens), atol=1e-4)
    True
    """
    model = join_model(fold_norm_gains(model))
    for block in model.blocks:
        block.attention_norm = NormWithoutGain(block.attention_norm)
        block.mlp_norm = NormWithoutGain(block.mlp_norm)
    if not model.config.tied:
        model.norm = NormWithoutGain(model.norm)
    return model


def has_compiler() -> bool:
    """Whether `torch.compile` finds here what it needs for the CPU: a C++ compiler and Python.h."""
    usual = {"darwin": "clang++", "win32": "cl"}.get(sys.platform, "g++")
    header = Path(sysconfig.get_paths()["include"]) / "Python.h"
    return shutil.which(os.environ.get("CXX", usual)) is not None and header.is_file()
