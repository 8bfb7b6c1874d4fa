"""How large a key-value cache is, and caches that do not grow, or are never copied.

A decoder keeps two vectors of E numbers for each token, layer and key-value head. So the cache of B
texts of S tokens holds

    2 · L · G · E · B · S numbers

and unlike the weights it grows with every token and every reader. Three ways out:

    QuantizedCache      n bits a number (in `quantized_cache`)
    SlidingCache        the first few tokens and the latest ones; those between are forgotten
    PreallocatedCache   all the room from the start: a new token is written, the others stay put

Each is the cache of one layer; a model takes `[PreallocatedCache(256) for _ in model.blocks]`.

Axes: B batch, T new tokens, S tokens kept, L layers, G key-value heads, E head width, V vocabulary.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from course_lib.models.kv_cache import LayerCache
from course_lib.models.llama import Llama, rotary_tables, rotate
from course_lib.models.llama_config import LlamaConfig

SCALE_BITS = 32  # of a group: a scale and a least number, 16 bits each


def cache_bytes(
    config: LlamaConfig, tokens: int, batch: int = 1, bits: int = 16, group: int | None = None
) -> int:
    """Bytes of a key-value cache: 2 · Σ G · E · B · S numbers, Σ over the layers.

    Args:
        tokens: S, of each text.
        batch: B, texts at once.
        bits: of a number.
        group: how many numbers share a scale and a least number of 16 bits each; None: they have
            none, being floats.

    Raises:
        ValueError: a count below 1 (tokens may be 0), or groups that do not come out even.

    >>> from course_lib.models.pretrained import TINY
    >>> cache_bytes(TINY, tokens=256), cache_bytes(TINY, tokens=256, bits=2, group=32)
    (262144, 49152)
    """
    if tokens < 0 or min(batch, bits, group or 1) < 1:
        raise ValueError(
            "batch, bits and group must be at least 1 and tokens at least 0; "
            f"got {batch=}, {bits=}, {group=}, {tokens=}"
        )
    heads = sum(len(shape.groups) for shape in config.shapes)  # Σ G
    numbers = 2 * heads * config.head_width * batch * tokens
    if group and numbers % group:
        raise ValueError(f"a group must divide the cache's {numbers} numbers; got {group}")
    scales = numbers // group * SCALE_BITS if group else 0
    return -(-(numbers * bits + scales) // 8)


class SlidingCache:
    """A layer's cache of at most `limit` tokens: the first `sinks`, and the latest.

    Before T tokens come in, the oldest behind the sinks leave until all fit. A token's place is its
    place *in the cache*, so no place is ever beyond `limit`, however long the text. When tokens
    leave, the others move down: so keys are kept unturned, and turned as they are asked for.

    Attention must go somewhere, and many models learn to rest it on the first tokens when they look
    for nothing. Once these are gone it falls on tokens that mean something. SmolLM2 is such a
    model; TinyLM, whose texts began anywhere, is not.

    Args:
        config: of the model, whose rotary angles are undone.
        limit: tokens kept, at most the context that the model was trained for.
        sinks: first tokens that never leave.

    Source: Xiao et al., 2024, "Efficient Streaming Language Models with Attention Sinks".

    >>> from course_lib.models.pretrained import TINY
    >>> cache = SlidingCache(TINY, limit=6, sinks=1)
    >>> for token in range(9):
    ...     _, values = cache.append(torch.zeros(1, 1, 1, 32), torch.full((1, 1, 1, 32), token))
    >>> values[0, 0, :, 0].tolist(), cache.place(1)
    ([0, 4, 5, 6, 7, 8], 5)
    """

    def __init__(self, config: LlamaConfig, limit: int, sinks: int = 4):
        if not 0 <= sinks < limit:
            raise ValueError(f"sinks must be from 0 to limit − 1; got {sinks=}, {limit=}")
        self.config, self.limit, self.sinks = config, limit, sinks
        self.key: Tensor | None = None  # (B, G, S, E), as if all stood at place 0
        self.value: Tensor | None = None

    def place(self, count: int) -> int:
        kept = 0 if self.key is None else self.key.shape[2]
        if count > self.limit - min(kept, self.sinks):
            raise ValueError(
                f"the cache has room for {self.limit - min(kept, self.sinks)} new tokens at once; "
                f"got {count}"
            )
        return min(kept, self.limit - count)

    def append(self, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        T = key.shape[2]
        start = self.place(T)
        cos, sin = self._tables(key.device, start, start + T)
        key = rotate(key, cos, -sin)
        if self.key is not None:
            leave = self.key.shape[2] - start
            key = torch.cat([_without(self.key, self.sinks, leave), key], dim=2)
            value = torch.cat([_without(self.value, self.sinks, leave), value], dim=2)
        self.key, self.value = key, value
        return rotate(key, *self._tables(key.device, 0, start + T)), value

    def _tables(self, device: torch.device, start: int, stop: int) -> tuple[Tensor, Tensor]:
        places = torch.arange(start, stop, device=device)
        return rotary_tables(places, self.config.head_width, self.config.rope_base)


def _without(x: Tensor, first: int, count: int) -> Tensor:
    """(B, G, S, E) without `count` tokens from `first` on."""
    return torch.cat([x[:, :, :first], x[:, :, first + count :]], dim=2) if count else x


class PreallocatedCache:
    """A layer's cache whose room for `limit` tokens is taken at once; exact, for inference.

    To put a token at the end of a tensor is to copy the tensor: S tokens copied for each new one,
    S²/2 in all. Here a new token is written into its place, and a look at the first S is no copy.

    >>> cache = PreallocatedCache(limit=9)
    >>> for token in range(3):
    ...     keys, _ = cache.append(torch.full((1, 1, 1, 2), token), torch.zeros(1, 1, 1, 2))
    >>> keys[0, 0, :, 0].tolist(), cache.place(1)
    ([0, 1, 2], 3)
    >>> cache.trim(1)
    >>> cache.place(1)
    1
    """

    def __init__(self, limit: int):
        if limit < 1:
            raise ValueError(f"limit must be at least 1; got {limit}")
        self.limit, self.length = limit, 0
        self.key: Tensor | None = None  # (B, G, limit, E)
        self.value: Tensor | None = None

    def place(self, count: int) -> int:
        if self.length + count > self.limit:
            raise ValueError(
                f"the cache has room for {self.limit} tokens; got {self.length + count}"
            )
        return self.length

    def append(self, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        start, stop = self.place(key.shape[2]), self.length + key.shape[2]
        if self.key is None:
            B, G, _, E = key.shape
            self.key, self.value = (x.new_empty(B, G, self.limit, E) for x in (key, value))
        self.key[:, :, start:stop], self.value[:, :, start:stop] = key, value
        self.length = stop
        return self.key[:, :, :stop], self.value[:, :, :stop]

    def trim(self, length: int) -> None:
        """Forget all tokens but the first `length`."""
        if not 0 <= length <= self.length:
            raise ValueError(f"length must be from 0 to {self.length}; got {length}")
        self.length = length


class ThroughCache(nn.Module):
    """A decoder that reads token after token through a cache, to be measured like any other.

    Args:
        make: a new cache of one layer.

    >>> from course_lib.models.pretrained import tiny
    >>> model, tokens = tiny()[0], torch.arange(9)[None]
    >>> slowly = ThroughCache(model, lambda: PreallocatedCache(9))(tokens)
    >>> torch.allclose(slowly, model(tokens), atol=1e-4)
    True
    """

    def __init__(self, model: Llama, make: Callable[[], LayerCache]):
        super().__init__()
        self.model, self.config, self.make = model, model.config, make

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, T) -> (B, T, V)."""
        cache = [self.make() for _ in self.model.blocks]
        return torch.cat([self.model(token, cache) for token in tokens.split(1, dim=1)], dim=1)
