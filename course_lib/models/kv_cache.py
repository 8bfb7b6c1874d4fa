"""A layer's key-value cache: what its attention keeps of the tokens that it has read.

The plain one is a dictionary, empty or with all keys and values so far:

    {"key": k, "value": v}      (B, G, S, E) each, the keys turned to their places

It may be any other object with the two methods of `LayerCache`; `acceleration.cache` has one that
rounds, one that forgets, and one that never copies.

Axes: B batch, T new tokens, S tokens kept, G key-value heads, E head width.
"""

from typing import Protocol

import torch
from torch import Tensor


class LayerCache(Protocol):
    """What a model asks of a cache that is not a dictionary."""

    def place(self, count: int) -> int:
        """The place at which the first of `count` new tokens will stand; changes nothing."""
        ...

    def append(self, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """All keys and values to look at, (B, G, S, E), the new ones (B, G, T, E) at the end.

        The new keys come turned to the places from `place(T)` on.
        """
        ...


AnyCache = dict[str, Tensor] | LayerCache


def next_place(cache: AnyCache, count: int) -> int:
    """The place at which the first of `count` new tokens will stand.

    >>> next_place({}, 3), next_place({"key": torch.zeros(1, 2, 5, 4)}, 3)
    (0, 5)
    """
    if isinstance(cache, dict):
        return cache["key"].shape[2] if cache else 0
    return cache.place(count)


def remember(cache: AnyCache, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
    """All keys and values to look at, (B, G, S, E), once the new ones stand in the cache.

    Args:
        cache: of one layer; extended in place.
        key, value: of the new tokens, (B, G, T, E), the keys turned to their places.

    >>> cache = {}
    >>> for _ in range(2):
    ...     keys, values = remember(cache, torch.ones(1, 2, 3, 4), torch.ones(1, 2, 3, 4))
    >>> keys.shape, cache["value"] is values
    (torch.Size([1, 2, 6, 4]), True)
    """
    if not isinstance(cache, dict):
        return cache.append(key, value)
    if cache:
        key = torch.cat([cache["key"], key], dim=2)  # (B, G, S − T, E) -> (B, G, S, E)
        value = torch.cat([cache["value"], value], dim=2)
    cache.update(key=key, value=value)
    return key, value
