"""Rows: the numbers that share one scale, and blocks of rows that fit in the cache.

How many numbers share a scale is called the granularity. It is only a matter of shape: a weight
(O, I) is seen as a matrix whose rows share a scale, and all else in this folder works on rows.

    "tensor"     (O, I) -> (1, O·I)        one scale for the whole weight
    "channel"    (O, I) -> (O, I)          one scale for each output
    G            (O, I) -> (O·I/G, G)      one scale for each group of G neighbours in an output

Axes: O outputs, I inputs, R rows sharing one scale, C numbers in a row, G group size.
"""

from collections.abc import Iterator

from torch import Tensor

from course_lib.models.finite import check_finite, check_floats, is_fake

BLOCK = 2**18  # numbers, 1 MB in float32


def to_rows(weight: Tensor, granularity: str | int) -> Tensor:
    """Reshape a weight so that each row shares one scale; `rows.view_as(weight)` goes back.

    Args:
        weight: (O, I); further axes, as in a convolution, count as part of I.
        granularity: "tensor", "channel", or the group size G, which must divide I.

    Returns:
        Rows (R, C): a view of `weight` where that is possible.

    Raises:
        ValueError: an unknown granularity, or a group size that does not divide I.

    >>> import torch
    >>> weight = torch.zeros(4, 6)
    >>> [tuple(to_rows(weight, granularity).shape) for granularity in ("tensor", "channel", 3)]
    [(1, 24), (4, 6), (8, 3)]
    """
    if granularity == "tensor":
        return weight.reshape(1, -1)  # (O, I) -> (1, O·I)
    if weight.dim() < 2:
        raise ValueError(
            f"weight must have shape (O, I) for granularity {granularity!r};"
            f" got {tuple(weight.shape)}"
        )
    channels = weight.flatten(1)  # (O, I, …) -> (O, I)
    if granularity == "channel":
        return channels
    if not isinstance(granularity, int) or granularity < 1:
        raise ValueError(
            f'granularity must be "tensor", "channel" or a group size; got {granularity!r}'
        )
    if channels.shape[1] % granularity:
        raise ValueError(
            f"a group size must divide the {channels.shape[1]} inputs of an output; "
            f"got {granularity}, which leaves {channels.shape[1] % granularity} over"
        )
    return channels.reshape(-1, granularity)  # (O, I) -> (O·I/G, G)


def blocks(rows: Tensor) -> Iterator[tuple[slice, slice]]:
    """Slices (of rows, of columns) that cut a matrix into blocks of at most 2¹⁸ numbers.

    A formula of several steps is fastest where a block stays in the cache from the first step to
    the last. An accelerator hides memory's delay in another way: there, the matrix is one block.

    >>> import torch
    >>> [(i.stop, j.stop) for i, j in blocks(torch.zeros(2, 300_000))]
    [(1, 262144), (1, 524288), (2, 262144), (2, 524288)]
    """
    R, C = rows.shape
    width = min(C, BLOCK) if rows.device.type == "cpu" else C
    height = BLOCK // width if rows.device.type == "cpu" else R
    for top in range(0, R, height):
        for left in range(0, C, width):
            yield slice(top, top + height), slice(left, left + width)


def row_blocks(rows: Tensor) -> Iterator[slice]:
    """Slices of whole rows of about 2¹⁷ numbers, for a formula with a second buffer of that size.

    >>> import torch
    >>> [(i.start, i.stop) for i in row_blocks(torch.zeros(3, 2**16))]
    [(0, 2), (2, 4)]
    """
    R, C = rows.shape
    height = max(1, BLOCK // 2 // C) if rows.device.type == "cpu" else R
    for top in range(0, R, height):
        yield slice(top, top + height)


def check_rows(rows: Tensor, name: str = "rows") -> None:
    """Raise unless `rows` is a matrix (R, C) of finite floats, and not empty.

    Raises:
        TypeError: not floats.
        ValueError: not a matrix, empty, NaN or infinity.

    >>> import torch
    >>> check_rows(torch.tensor([[1.0, float("nan")]]))
    Traceback (most recent call last):
    ValueError: rows must be finite; got 1 NaN or infinity among 2 numbers, first at [0, 1]
    """
    check_matrix(rows, name)
    check_finite(rows, name)


def check_codes(codes: Tensor, count: int) -> None:
    """Raise a ValueError unless codes are integers from 0 to count − 1."""
    if codes.is_floating_point() or codes.is_complex():
        raise ValueError(f"codes must be integers; got {codes.dtype}")
    if is_fake(codes) or not codes.numel():
        return
    low, high = (int(end) for end in codes.aminmax())
    if low < 0 or high >= count:
        raise ValueError(f"codes must be from 0 to {count - 1}; got {low} to {high}")


def check_matrix(rows: Tensor, name: str = "rows") -> None:
    """What `check_rows` checks without a look at the numbers."""
    if rows.dim() != 2:
        raise ValueError(f"{name} must have shape (R, C); got {tuple(rows.shape)}")
    check_floats(rows, name)
