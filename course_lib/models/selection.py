"""Which k entries: the largest magnitudes or scores of many tensors, or the lowest scores of one.

Those of many are selected without sorting or joining the tensors.

The bits of positive floats, read as integers, are in the same order as the floats. So the k-th
largest magnitude can be found digit by digit, 16 bits each (radix selection): count how often each
leading digit occurs, see in which digit the k-th largest falls, go on with the numbers that have
this digit. float32 needs two passes over the weights and 65,536 counters, however many there are.
Numbers with a sign become ordered, too, once the other bits of the negative ones are turned over.

Source: Alabi et al., 2012, "Fast k-Selection Algorithms for Graphics Processing Units".
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from course_lib.models.finite import is_fake

INTEGERS = {
    torch.float16: torch.int16,
    torch.bfloat16: torch.int16,
    torch.float32: torch.int32,
    torch.float64: torch.int64,
}
DIGIT = 16  # bits
BLOCK = 2**17  # numbers looked at together: few enough to stay in the processor's cache


def kth_largest(tensors: Mapping[str, Tensor], k: int, signed: bool = False) -> tuple[Tensor, int]:
    """The k-th largest magnitude over all tensors, and how many of the k have just that magnitude.

    Args:
        tensors: by name; of one floating dtype, on one device, any shapes, without NaN.
        k: from 0 to the number of entries.
        signed: the k-th largest number, instead of magnitude: −2 is less than 1; −0 is 0.

    Returns:
        The magnitude t, a 0-d tensor, and the number of entries with |w| = t that belong to the k.
        For k = 0, infinity and 0.

    Raises:
        ValueError: k is out of range; the dtypes differ or are not floating; an entry is NaN.

    >>> kth_largest({"a": torch.tensor([3.0, -1.0]), "b": torch.tensor([[-2.0, 1.0, 1.0]])}, k=4)
    (tensor(1.), 2)
    """
    dtype = _check(tensors, k)
    if k == 0:
        return torch.tensor(torch.inf, dtype=dtype, device=next(iter(tensors.values())).device), 0
    prefix, missing = None, k
    for shift in range(8 * dtype.itemsize - DIGIT, -1, -DIGIT):
        counts = _digit_counts(tensors, signed, shift, prefix)
        at_least = counts.flip(0).cumsum(
            0
        )  # entries whose digit is at least the highest, the next, …
        place = int((at_least < missing).sum())
        missing -= int(at_least[place] - counts[-1 - place])
        lowest = -(2 ** (DIGIT - 1)) if signed and prefix is None else 0
        prefix = ((prefix or 0) << DIGIT) + lowest + len(counts) - 1 - place
    bits = torch.tensor(prefix, dtype=INTEGERS[dtype], device=counts.device)
    return (_ordered_bits(bits) if signed else bits).view(dtype), missing


def largest_masks(tensors: Mapping[str, Tensor], k: int) -> dict[str, Tensor]:
    """True at the k entries of largest magnitude over all tensors, exactly k in sum.

    Of equal magnitudes the first stay, in the order of the tensors and then of their indices.

    Args:
        tensors: as for `kth_largest`; weights, or scores of weights.
        k: how many to choose, from 0 to the number of entries.

    Returns:
        For each name a bool tensor of that tensor's shape.

    Raises:
        ValueError: as `kth_largest`.

    >>> largest_masks({"a": torch.tensor([3.0, -1.0]), "b": torch.tensor([[-2.0, 1.0]])}, k=3)
    {'a': tensor([True, True]), 'b': tensor([[ True, False]])}
    """
    return _masks(tensors, k, signed=False)


def highest_masks(tensors: Mapping[str, Tensor], k: int) -> dict[str, Tensor]:
    """True at the k highest entries over all tensors, exactly k in sum; a negative one is low.

    Of equal entries the first stay, in the order of the tensors and then of their indices.

    Args, Returns and Raises: as for `largest_masks`.

    >>> highest_masks({"a": torch.tensor([3.0, -1.0]), "b": torch.tensor([[-2.0, 1.0]])}, k=3)
    {'a': tensor([True, True]), 'b': tensor([[False,  True]])}
    """
    signed = any(tensor.numel() and tensor.detach().amin() < 0 for tensor in tensors.values())
    return _masks(tensors, k, signed)  # without a sign it takes less time


def lowest_mask(scores: Tensor, k: int) -> Tensor:
    """True at the k lowest scores of a tensor; of equal ones, the first in the order of indices.

    Args:
        scores: of any shape, any sign, any dtype that can be sorted.
        k: from 0 to the number of entries.

    Returns:
        A bool tensor of the scores' shape with exactly k True.

    >>> lowest_mask(torch.tensor([[3.0, -1.0], [2.0, 4.0]]), k=2).tolist()
    [[False, True], [True, False]]
    """
    if not 0 <= k <= scores.numel():
        raise ValueError(f"k must be from 0 to {scores.numel()}, the number of scores; got {k}")
    order = scores.detach().flatten().argsort(stable=True)
    mask = torch.zeros_like(order, dtype=torch.bool)
    mask[order[:k]] = True
    return mask.view(scores.shape)  # (entries,) -> the scores' shape


def check_mask(name: str, mask: Tensor, shape: tuple[int, ...]) -> None:
    """Raise a ValueError unless a mask is bool and has this shape."""
    if mask.dtype != torch.bool or mask.shape != shape:
        raise ValueError(
            f"{name} must be bool of shape {shape}; got {mask.dtype} of shape {tuple(mask.shape)}"
        )


def check_keep(keep: Tensor, count: int) -> None:
    """Raise a ValueError unless `keep` is bool, has shape (count,) and keeps something."""
    check_mask("keep", keep, (count,))
    if not is_fake(keep) and not keep.any():
        raise ValueError(f"keep must keep at least 1 of {count}; it keeps none")


def _masks(tensors: Mapping[str, Tensor], k: int, signed: bool) -> dict[str, Tensor]:
    threshold, ties = kth_largest(tensors, k, signed)
    masks = {}
    for name, tensor in tensors.items():
        values = tensor.detach().flatten()
        values = values if signed else values.abs()
        mask = values > threshold
        if ties:
            tied = (values == threshold).nonzero().squeeze(1)[:ties]
            mask[tied] = True
            ties -= len(tied)
        masks[name] = mask.view(tensor.shape)  # (entries,) -> the tensor's shape
    return masks


def _digit_counts(tensors: Mapping, signed: bool, shift: int, prefix: int | None) -> Tensor:
    """How often each digit stands `shift` bits from the right, where `prefix` stands before it."""
    counts = 0
    for tensor in tensors.values():
        integer = INTEGERS[tensor.dtype]
        for block in tensor.detach().flatten().split(BLOCK):
            if signed:
                bits = _ordered_bits((block + 0.0).view(integer))  # −0 + 0 is 0
            else:
                bits = block.abs().view(integer)
            if prefix is not None:
                bits = bits[(bits >> (shift + DIGIT)) == prefix]
            if signed and prefix is None:
                digits = (bits >> shift).int() + 2 ** (DIGIT - 1)  # from 0 on
            else:
                digits = (bits >> shift) & (2**DIGIT - 1)
            counts += torch.bincount(digits, minlength=2**DIGIT)
    return counts


def _ordered_bits(bits: Tensor) -> Tensor:
    """Floats' bits as integers in the floats' order, and such integers as bits again."""
    return torch.where(bits < 0, bits ^ torch.iinfo(bits.dtype).max, bits)


def _check(tensors: Mapping[str, Tensor], k: int) -> torch.dtype:
    dtypes = {tensor.dtype for tensor in tensors.values()}
    if len(dtypes) != 1 or not dtypes <= INTEGERS.keys():
        raise ValueError(f"tensors must have one floating dtype of 16 to 64 bits; got {dtypes}")
    entries = sum(tensor.numel() for tensor in tensors.values())
    if not 0 <= k <= entries:
        raise ValueError(f"k must be from 0 to {entries}, the number of entries; got {k}")
    for name, tensor in tensors.items():
        if tensor.numel() and tensor.detach().amax().isnan():
            raise ValueError(f"tensors must not hold NaN; {name!r} does")
    return dtypes.pop()
