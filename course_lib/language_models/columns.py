"""What GPTQ and SparseGPT both need to go through a layer: checks, strips of columns, levels.

Axes: O outputs, I inputs, R rows sharing one scale, K groups of inputs.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from course_lib.models.finite import check_finite
from course_lib.quantization.linear import Grid


def check_layer(weight: Tensor, gram: Tensor) -> None:
    """Raise a ValueError unless W is (O, I), finite, not empty, and G is (I, I)."""
    if weight.dim() != 2 or gram.shape != (weight.shape[-1],) * 2:
        raise ValueError(
            "weight must have shape (O, I) and gram (I, I); "
            f"got {tuple(weight.shape)} and {tuple(gram.shape)}"
        )
    check_finite(weight, "weight")


def slices(start: int, stop: int, width: int) -> Iterator[slice]:
    """Neighbouring slices of that width; the last may be narrower.

    >>> list(slices(0, 5, 3))
    [slice(0, 3, None), slice(3, 5, None)]
    """
    for first in range(start, stop, width):
        yield slice(first, min(first + width, stop))


class Levels:
    """A grid laid out for columns: what the O weights of an input need lies side by side.

    scale, zero_point: (K, O); group: which of the K each input has.

    The code of a weight is q; here it is counted from the level of 0, as q − z.
    """

    def __init__(self, grid: Grid, outputs: int, inputs: int):
        R = len(grid.scale)
        K = max(1, R // outputs)
        if R not in (1, K * outputs) or inputs % K:
            raise ValueError(
                f"the grid must have 1 row, or a row for each of K groups of the {inputs} inputs "
                f"and of {outputs} outputs; got {R}"
            )
        self.rows, self.format = R, grid.format
        shape = (outputs, K)  # (R, 1) -> (O, K) -> (K, O)
        self.scale = grid.scale.view(-1, K).expand(shape).T.clone()
        self.zero_point = grid.zero_point.to(self.scale.dtype).view(-1, K).expand(shape).T.clone()
        self.group = [i * K // inputs for i in range(inputs)]
        self.per_step, self.lowest, self.highest = torch.empty_like(self.scale).repeat(3, 1, 1)
        self._prepare(slice(0, K))

    def put(self, k: int, grid: Grid) -> None:
        """In place: give group k the grid of O rows."""
        self.scale[k], self.zero_point[k] = grid.scale.flatten(), grid.zero_point.flatten()
        self._prepare(slice(k, k + 1))

    def _prepare(self, k: slice) -> None:
        self.per_step[k] = 1 / self.scale[k]
        self.lowest[k] = self.format.lowest - self.zero_point[k]
        self.highest[k] = self.format.highest - self.zero_point[k]

    def steps(self, column: Tensor, k: int, out: Tensor) -> Tensor:
        """Into `out`: q − z of the level nearest to each of a column's O numbers, in group k."""
        torch.mul(column, self.per_step[k], out=out)
        return torch.clamp(out.round_(), self.lowest[k], self.highest[k], out=out)

    def grid(self) -> Grid:
        """The grid of R rows."""
        parts = (self.scale, self.zero_point.to(torch.int32))
        if self.rows == 1:
            scale, zero_point = (part[:1, :1] for part in parts)
        else:
            scale, zero_point = (part.T.reshape(-1, 1) for part in parts)  # (K, O) -> (R, 1)
        return Grid(scale, zero_point, self.format)
