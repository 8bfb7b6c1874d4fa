"""How many bits a set of codes needs at least.

Source: Shannon, 1948, "A Mathematical Theory of Communication".
"""

import torch
from torch import Tensor


def code_entropy(codes: Tensor, levels: int) -> Tensor:
    """Bits a code needs on average: −Σ p log₂ p over the codes' frequencies p.

    No lossless code that treats the codes one by one needs less.

    Args:
        codes: integers from 0 to levels − 1, of any shape.
        levels: how many codes there are, such as 2**bits.

    Raises:
        ValueError: codes are not integers, or there are none, or one is out of range.

    >>> float(code_entropy(torch.tensor([0, 0, 1, 2]), levels=16))
    1.5
    """
    if codes.is_floating_point() or codes.numel() == 0:
        raise ValueError(
            f"codes must be integers, at least one; got {codes.dtype} of shape {tuple(codes.shape)}"
        )
    low, high = (int(end) for end in codes.long().aminmax())
    if low < 0 or high >= levels:
        raise ValueError(f"codes must be from 0 to {levels - 1}; got {low} to {high}")
    counts = torch.bincount(codes.flatten().long(), minlength=levels)
    shares = counts.double() / codes.numel()
    return (torch.special.entr(shares).sum() / torch.log(shares.new_tensor(2.0))).float()
