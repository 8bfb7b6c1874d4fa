"""A decoder said again in the few operations that a phone's library knows.

XNNPACK multiplies matrices, adds, cats and takes softmaxes of any part of a graph that uses nothing
else. What it does not know, a mean over the last axis, a Boolean mask, a repeated head, splits the
graph, and at each cut the tensors are copied out and in. So here

    a mean over D                  is a product with a column of 1/D
    a mask                         is a sum with 0 or −10⁴
    H / G queries of a shared head are rows of one matrix, not copies of the head
    cosines and sines              are constants; so T is fixed, and B is 1

The numbers are those of `Llama`, up to the order of the sums.

Axes: T tokens, D model width, H query heads, G key-value heads, E head width, V vocabulary.
"""

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from course_lib.models.llama import MLP, Attention, Llama, RMSNorm, rotary_tables

FAR = -1e4  # e^−10000 is 0, in float16 too, which ends at −65504


class PlainForm(nn.Module):
    """Logits (T, V) of tokens (T,), as `Llama` has them.

    Norms are computed in float32 whatever the model's dtype: the square of 256 is no float16 number
    any more, and a decoder has such activations.

    Args:
        model: an ordinary decoder, its blocks alike; it is copied.
        length: T, at most the context.

    Raises:
        ValueError: length is not within the context; blocks differ.

    >>> from course_lib.models.pretrained import tiny
    >>> model, tokens = tiny()[0], torch.tensor([3, 1, 4, 1, 5])
    >>> bool((PlainForm(model, 5)(tokens) - model(tokens[None])[0]).abs().max() < 1e-4)
    True
    """

    def __init__(self, model: Llama, length: int):
        super().__init__()
        config = model.config
        if config.blocks or config.each_head is not None:
            raise ValueError(
                "model must have blocks that are alike; parts of this one were removed"
            )
        if not 0 < length <= config.context:
            raise ValueError(f"length must be from 1 to {config.context}; got {length}")
        self.model = copy.deepcopy(model).requires_grad_(False).eval()
        self.length, self.heads, self.kv_heads = length, config.heads, config.kv_heads
        self._add_tables(self.model.embedding.weight)

    def _add_tables(self, weight: Tensor) -> None:
        """The constants, on the model's device; all but the norms' in its dtype."""
        config, length = self.model.config, self.length
        positions = torch.arange(length, device=weight.device)
        cos, sin = rotary_tables(positions, config.head_width, config.rope_base)
        first, second = sin.chunk(2, dim=1)
        far = cos.new_full((length, length), FAR)
        self.register_buffer("cos", cos.to(weight.dtype))  # (T, E)
        self.register_buffer("sin", torch.cat([-first, second], dim=1).to(weight.dtype))
        self.register_buffer("future", far.triu(1).to(weight.dtype))  # (T, T)
        self.register_buffer("scale", weight.new_full((1, 1), config.head_width**-0.5))
        self.register_buffer("mean", cos.new_full((1, config.width), 1 / config.width))
        self.register_buffer("epsilon", cos.new_full((1, 1), config.norm_epsilon))

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.model.embedding(tokens)  # (T,) -> (T, D)
        for block in self.model.blocks:
            x = x + self._attend(self._norm(x, block.attention_norm), block.attention)
            x = x + self._mlp(self._norm(x, block.mlp_norm), block.mlp)
        head = self.model.embedding if self.model.config.tied else self.model.head
        return F.linear(self._norm(x, self.model.norm), head.weight)  # (T, D) -> (T, V)

    def _norm(self, x: Tensor, norm: RMSNorm) -> Tensor:
        wide = x.float()
        wide = wide * torch.rsqrt(F.linear(wide * wide, self.mean) + self.epsilon)
        return wide.to(x.dtype) * norm.weight

    def _attend(self, x: Tensor, attention: Attention) -> Tensor:
        q = self._heads(attention.query(x), self.heads)  # (T, D) -> (H, T, E)
        k = self._heads(attention.key(x), self.kv_heads)  # (T, D) -> (G, T, E)
        v = self._heads(attention.value(x), self.kv_heads)
        q = (self._rotate(q) * self.scale).reshape(len(k), -1, k.shape[2])  # -> (G, H/G·T, E)
        scores = torch.bmm(q, self._rotate(k).transpose(1, 2))  # (G, H/G·T, T)
        scores = scores.view(self.heads, self.length, -1) + self.future  # -> (H, T, T)
        y = torch.bmm(torch.softmax(scores, dim=-1).view(len(k), -1, self.length), v)
        y = y.view(self.heads, self.length, -1).transpose(0, 1)  # (G, H/G·T, E) -> (T, H, E)
        return attention.output(y.reshape(self.length, -1))  # -> (T, D)

    def _heads(self, x: Tensor, heads: int) -> Tensor:
        return x.view(self.length, heads, -1).transpose(0, 1)

    def _rotate(self, x: Tensor) -> Tensor:
        """As `llama.rotate`; the sign stands in the table."""
        half = x.shape[-1] // 2
        return x * self.cos + torch.cat([x[..., half:], x[..., :half]], dim=-1) * self.sin

    def _mlp(self, x: Tensor, mlp: MLP) -> Tensor:
        gate = mlp.gate(x)
        return mlp.down(gate * torch.sigmoid(gate) * mlp.up(x))
