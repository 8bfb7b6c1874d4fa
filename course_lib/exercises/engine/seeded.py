"""Random inputs of one seed, drawn one after another: what cases are made of."""

from collections.abc import Callable

import torch
from torch import Tensor, nn


class Draw:
    """A source of random inputs; equal seeds draw equal inputs, on every machine.

    >>> Draw(0).normal(2, 3).equal(Draw(0).normal(2, 3)), Draw(1).integers(0, 5, 4).shape
    (True, torch.Size([4]))
    """

    def __init__(self, seed: int):
        self.generator = torch.Generator().manual_seed(seed)

    def normal(self, *shape: int) -> Tensor:
        """Standard normal numbers, float32."""
        return torch.randn(*shape, generator=self.generator)

    def uniform(self, *shape: int) -> Tensor:
        """Numbers from 0 to 1, float32."""
        return torch.rand(*shape, generator=self.generator)

    def integers(self, low: int, high: int, *shape: int) -> Tensor:
        """Integers from low to high − 1, int64."""
        return torch.randint(low, high, shape, generator=self.generator)

    def order(self, count: int) -> Tensor:
        """The numbers 0 … count − 1 in a random order."""
        return torch.randperm(count, generator=self.generator)

    def number(self, low: int, high: int) -> int:
        """One integer from low to high − 1."""
        return int(self.integers(low, high, 1))

    def module(self, build: Callable[[], nn.Module]) -> nn.Module:
        """What `build` makes, with weights of this seed; PyTorch's own generator is left alone."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.number(0, 2**31))
            return build()
