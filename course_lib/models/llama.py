"""A small Llama-style decoder: the language model that every lesson compresses.

A token's embedding x passes through L blocks. Each block adds two corrections to it,

    x ← x + attention(rms_norm(x))        tokens exchange information
    x ← x + mlp(rms_norm(x))              each token is processed on its own

and the last x, compared with every embedding, gives the logits of the next token (the embedding is
used twice: "tied"; a model that is not has a head of its own). Left out on purpose: dropout, biases
and padding. No lesson needs them.

Source: Touvron et al., 2023, "LLaMA: Open and Efficient Foundation Language Models".

Axes: B batch, T tokens, S tokens seen so far (cache included), D model width, H query heads,
G key-value heads, E head width, F hidden width of the MLP, V vocabulary.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from course_lib.models.kv_cache import AnyCache, next_place, remember
from course_lib.models.llama_config import LlamaConfig


class RMSNorm(nn.Module):
    """Divide by the root mean square over D, then scale: w · x / √(mean(x²) + ε).

    Source: Zhang and Sennrich, 2019, "Root Mean Square Layer Normalization".
    """

    def __init__(self, width: int, epsilon: float):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.epsilon = epsilon

    def forward(self, x: Tensor) -> Tensor:
        mean_square = x.float().square().mean(dim=-1, keepdim=True)
        return self.weight * (x.float() * torch.rsqrt(mean_square + self.epsilon)).to(x.dtype)


def rotary_tables(positions: Tensor, head_width: int, base: float) -> tuple[Tensor, Tensor]:
    """Cosine and sine of position · base^(−2i/E) for i < E/2, each repeated once: (T, E).

    Source: Su et al., 2021, "RoFormer: Enhanced Transformer with Rotary Position Embedding".

    >>> cos, sin = rotary_tables(torch.arange(3), head_width=4, base=10_000.0)
    >>> cos.shape, cos[0].tolist(), sin[0].tolist()
    (torch.Size([3, 4]), [1.0, 1.0, 1.0, 1.0], [0.0, 0.0, 0.0, 0.0])
    """
    exponents = torch.arange(0, head_width, 2, device=positions.device) / head_width
    angles = positions[:, None] * base**-exponents  # (T, E/2)
    angles = torch.cat([angles, angles], dim=-1)  # (T, E/2) -> (T, E)
    return angles.cos(), angles.sin()


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn each pair (x_i, x_{i+E/2}) by its angle; x is (B, heads, T, E)."""
    first, second = x.chunk(2, dim=-1)
    return x * cos.to(x.dtype) + torch.cat([-second, first], dim=-1) * sin.to(x.dtype)


class Attention(nn.Module):
    """Causal attention in which H query heads share G key-value heads.

    A key-value head serves the query heads of its group, which stand side by side.

    Source: Ainslie et al., 2023, "GQA: Training Generalized Multi-Query Transformer Models".
    """

    def __init__(self, config: LlamaConfig, number: int = 0):
        super().__init__()
        self.groups = config.shapes[number].groups
        self.heads, self.kv_heads = sum(self.groups), len(self.groups)
        self.head_width = config.head_width
        heads_width, kv_width = self.heads * self.head_width, self.kv_heads * self.head_width
        self.query = nn.Linear(config.width, heads_width, bias=False)
        self.key = nn.Linear(config.width, kv_width, bias=False)
        self.value = nn.Linear(config.width, kv_width, bias=False)
        self.output = nn.Linear(heads_width, config.width, bias=False)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, cache: AnyCache | None = None) -> Tensor:
        return self.output(self.mix(x, cos, sin, cache))

    def turned(self, x: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Turned queries (B, H, T, E) and keys (B, G, T, E), and values, of x (B, T, D)."""
        q, k, v = (
            y.unflatten(2, (-1, self.head_width)).transpose(1, 2)  # (B, T, H·E) -> (B, H, T, E)
            for y in (self.query(x), self.key(x), self.value(x))
        )
        return rotate(q, cos, sin), rotate(k, cos, sin), v

    def mix(self, x: Tensor, cos: Tensor, sin: Tensor, cache: AnyCache | None = None) -> Tensor:
        """What `output` is given: the heads' mixtures of values, side by side, (B, T, H·E)."""
        B, T, _ = x.shape
        q, k, v = self.turned(x, cos, sin)
        if cache is not None:
            k, v = remember(cache, k, v)  # (B, G, T, E) -> (B, G, S, E)
        # Query t may look at keys 0 … S − T + t: one alone at all of them.
        seen = None
        if T > 1:
            seen = torch.ones(T, k.shape[2], dtype=torch.bool, device=x.device)
            seen = seen.tril(diagonal=k.shape[2] - T)
        if len(set(self.groups)) > 1:  # PyTorch shares only among groups of equal size
            served = [g for g, size in enumerate(self.groups) for _ in range(size)]  # H numbers
            k, v = k[:, served], v[:, served]  # (B, G, S, E) -> (B, H, S, E)
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=seen, enable_gqa=True)
        return y.transpose(1, 2).flatten(2)  # (B, H, T, E) -> (B, T, H·E)


class MLP(nn.Module):
    """down(silu(gate(x)) · up(x)).  Source: Shazeer, 2020, "GLU Variants Improve Transformer"."""

    def __init__(self, config: LlamaConfig, number: int = 0):
        super().__init__()
        mlp_width = config.shapes[number].mlp_width
        self.gate = nn.Linear(config.width, mlp_width, bias=False)
        self.up = nn.Linear(config.width, mlp_width, bias=False)
        self.down = nn.Linear(mlp_width, config.width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(self.products(x))  # (B, T, F) -> (B, T, D)

    def products(self, x: Tensor) -> Tensor:
        """What `down` is given: silu(gate(x)) · up(x), (B, T, D) -> (B, T, F)."""
        return F.silu(self.gate(x)) * self.up(x)


class Block(nn.Module):
    """One layer: attention, then MLP, each on a normalised copy of x and added back to it."""

    def __init__(self, config: LlamaConfig, number: int = 0):
        super().__init__()
        self.attention_norm = RMSNorm(config.width, config.norm_epsilon)
        self.attention = Attention(config, number)
        self.mlp_norm = RMSNorm(config.width, config.norm_epsilon)
        self.mlp = MLP(config, number)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, cache: AnyCache | None = None) -> Tensor:
        x = x + self.attention(self.attention_norm(x), cos, sin, cache)
        return x + self.mlp(self.mlp_norm(x))


class Llama(nn.Module):
    """Token numbers in, logits of each next token out.

    >>> config = LlamaConfig(vocabulary=11, width=8, layers=2, heads=2, kv_heads=1, mlp_width=12,
    ...                      context=16)
    >>> Llama(config)(torch.tensor([[1, 2, 3]])).shape
    torch.Size([1, 3, 11])
    """

    def __init__(self, config: LlamaConfig):
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(config.vocabulary, config.width)
        self.blocks = nn.ModuleList(Block(config, number) for number in range(config.layers))
        self.norm = RMSNorm(config.width, config.norm_epsilon)
        if not config.tied:
            self.head = nn.Linear(config.width, config.vocabulary, bias=False)

    def forward(self, tokens: Tensor, cache: Sequence[AnyCache] | None = None) -> Tensor:
        """Logits (B, T, V) of the tokens (B, T); a cache is extended in place.

        Args:
            cache: from `empty_cache`, or one of `acceleration.cache` for each layer.

        Raises:
            ValueError: tokens is not 2-D, or longer (with the cache) than the context.
        """
        if tokens.dim() != 2:
            raise ValueError(f"tokens must have shape (B, T); got {tuple(tokens.shape)}")
        start = next_place(cache[0], tokens.shape[1]) if cache else 0
        stop = start + tokens.shape[1]
        if stop > self.config.context:
            raise ValueError(f"the context holds {self.config.context} tokens; got {stop}")
        x = self.embedding(tokens)  # (B, T) -> (B, T, D)
        cos, sin = rotary_tables(
            torch.arange(start, stop, device=tokens.device),
            self.config.head_width,
            self.config.rope_base,
        )
        for block, layer_cache in zip(self.blocks, cache or [None] * len(self.blocks), strict=True):
            x = block(x, cos, sin, layer_cache)
        x = self.norm(x)  # then (B, T, D) -> (B, T, V)
        return F.linear(x, self.embedding.weight) if self.config.tied else self.head(x)

    def empty_cache(self) -> list[dict]:
        """A key-value cache that has seen nothing: one dictionary a layer."""
        return [{} for _ in self.blocks]


def initialize(model: Llama) -> None:
    """Random weights, in place: N(0, 1/I), output projections smaller by √(2L), embedding 0.02."""
    for name, parameter in model.named_parameters():
        if parameter.dim() == 2:
            std = 0.02 if name == "embedding.weight" else parameter.shape[1] ** -0.5
            if name.endswith(("output.weight", "down.weight")):
                std /= (2 * model.config.layers) ** 0.5
            nn.init.normal_(parameter, std=std)


@torch.no_grad()
def generate(model: Llama, tokens: Tensor, count: int, cached: bool = True) -> Tensor:
    """Append the `count` most likely next tokens, one at a time, to tokens (B, T).

    With the cache each step reads one new token; without it, the whole text again.

    >>> config = LlamaConfig(vocabulary=11, width=8, layers=2, heads=2, kv_heads=1, mlp_width=12,
    ...                      context=16)
    >>> generate(Llama(config), torch.tensor([[1, 2, 3]]), count=4).shape
    torch.Size([1, 7])
    """
    cache, unread = (model.empty_cache() if cached else None), tokens
    for _ in range(count):
        following = model(unread, cache)[:, -1].argmax(dim=-1, keepdim=True)  # (B, V) -> (B, 1)
        tokens = torch.cat([tokens, following], dim=1)
        unread = following if cached else tokens
    return tokens
