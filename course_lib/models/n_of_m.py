"""n of every m neighbours in a row stay: the one pattern of zeros that matrix units can multiply.

Source: Mishra et al., 2021, "Accelerating Sparse Deep Neural Networks" (2 of 4).

Axes: O outputs, I inputs.
"""

import torch
from torch import Tensor

from course_lib.models.finite import check_finite


def n_of_m_mask(score: Tensor, n: int, m: int) -> Tensor:
    """True at the n largest of every m neighbours in a row; of equal ones the first stay.

    Args:
        score: (O, I), where m divides I.
        n, m: 0 ≤ n ≤ m; 2 and 4 is what sparse tensor cores can multiply.

    Raises:
        ValueError: n out of range, m does not divide I; score not (O, I), empty, NaN or infinite.

    >>> n_of_m_mask(torch.tensor([[3.0, 1.0, 2.0, 4.0, 1.0, 0.0, 1.0, 1.0]]), 2, 4).int().tolist()
    [[1, 0, 0, 1, 1, 0, 1, 0]]
    """
    check_scores(score)
    check_n_of_m(score.shape[1], n, m)
    groups = score.unflatten(1, (-1, m))  # (O, I) -> (O, I/m, m)
    return largest_of_few(groups, n).view(score.shape)  # (O, I/m, m) -> (O, I)


def largest_of_few(scores: Tensor, n: int, dim: int = -1) -> Tensor:
    """True at the n largest along a short axis; of equal ones the first. Unchecked.

    An entry stays if fewer than n others come before it: those that are larger, and the equal ones
    on its left. For 4 entries this is far faster than to sort them.

    >>> largest_of_few(torch.tensor([1.0, 3.0, 3.0, 2.0]), 2)
    tensor([False,  True,  True, False])
    """
    entries = scores.unbind(dim)
    masks = []
    for j, entry in enumerate(entries):
        before = torch.zeros_like(entry, dtype=torch.uint8 if len(entries) < 256 else torch.int32)
        for i, other in enumerate(entries):
            if i != j:
                before += other >= entry if i < j else other > entry
        masks.append(before < n)
    return torch.stack(masks, dim)


def check_n_of_m(inputs: int, n: int, m: int) -> None:
    """Raise a ValueError unless 0 ≤ n ≤ m and m divides the inputs."""
    if not 0 <= n <= m or m < 1:
        raise ValueError(f"n of m must have 0 ≤ n ≤ m and m ≥ 1; got {n} of {m}")
    if inputs % m:
        raise ValueError(f"m must divide the {inputs} inputs of an output; got {m}")


def check_scores(score: Tensor) -> None:
    """Raise a ValueError unless scores are (O, I) and finite."""
    if score.dim() != 2:
        raise ValueError(f"score must have shape (O, I); got {tuple(score.shape)}")
    check_finite(score, "score")
