"""The numbers that define a decoder's shape, for all its blocks or for each.

Axes: D model width, H query heads, G key-value heads, E head width, F hidden width of the MLP.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class BlockShape:
    """What a block has of its own where blocks differ, as they do once parts were removed.

    groups: how many query heads each key-value head serves: G numbers, H in sum.
    mlp_width: F.
    """

    groups: tuple[int, ...]
    mlp_width: int

    def __post_init__(self):
        if not self.groups or min(*self.groups, self.mlp_width) < 1:
            raise ValueError(f"a block must have a head and a hidden unit at least; got {self}")


@dataclass(frozen=True)
class LlamaConfig:
    """The numbers that define a model's shape.

    tied: whether the head is the embedding; else it is a linear layer of its own.
    each_head: E, the width of a head, where it is not D / H.
    blocks: the shape of each block where they differ; heads, kv_heads and mlp_width are then those
        of the largest.
    """

    vocabulary: int
    width: int
    layers: int
    heads: int
    kv_heads: int
    mlp_width: int
    context: int
    rope_base: float = 10_000.0
    norm_epsilon: float = 1e-5
    tied: bool = True
    each_head: int | None = None
    blocks: tuple[BlockShape, ...] = ()

    def __post_init__(self):
        if self.each_head is None and (self.width % self.heads or self.width // self.heads % 2):
            raise ValueError(
                f"width must be an even multiple of heads; got {self.width} and {self.heads}"
            )
        if self.each_head is not None and (self.each_head < 2 or self.each_head % 2):
            raise ValueError(f"each_head must be even and at least 2; got {self.each_head}")
        if not self.blocks and self.heads % self.kv_heads:
            raise ValueError(f"kv_heads must divide heads; got {self.kv_heads} and {self.heads}")
        if self.blocks and len(self.blocks) != self.layers:
            raise ValueError(
                f"blocks must give each of {self.layers} layers a shape; got {len(self.blocks)}"
            )

    @property
    def head_width(self) -> int:
        """E."""
        return self.each_head or self.width // self.heads

    @property
    def shapes(self) -> tuple[BlockShape, ...]:
        """The shape of each block."""
        groups = (self.heads // self.kv_heads,) * self.kv_heads
        return self.blocks or (BlockShape(groups, self.mlp_width),) * self.layers

    def with_shapes(self, shapes: Sequence[BlockShape]) -> "LlamaConfig":
        """The config of a model of these blocks: without `blocks` where three numbers say it all.

        >>> config = LlamaConfig(9, width=8, layers=2, heads=2, kv_heads=1, mlp_width=4, context=4)
        >>> config.with_shapes([BlockShape((1,), 4)])
        ... # doctest: +NORMALIZE_WHITESPACE
        LlamaConfig(vocabulary=9, width=8, layers=1, heads=1, kv_heads=1, mlp_width=4, context=4,
                    rope_base=10000.0, norm_epsilon=1e-05, tied=True, each_head=4, blocks=())
        """
        heads = max((sum(shape.groups) for shape in shapes), default=self.heads)
        alike = len({(shape.mlp_width, *shape.groups) for shape in shapes}) <= 1
        even = all(len(set(shape.groups)) == 1 for shape in shapes)
        return replace(
            self,
            layers=len(shapes),
            heads=heads,
            kv_heads=max((len(shape.groups) for shape in shapes), default=self.kv_heads),
            mlp_width=max((shape.mlp_width for shape in shapes), default=self.mlp_width),
            each_head=None if heads * self.head_width == self.width else self.head_width,
            blocks=() if alike and even else tuple(shapes),
        )
