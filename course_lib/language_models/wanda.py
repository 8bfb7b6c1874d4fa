"""Wanda: which weights go, by their size times the size of what flows into them.

    score_ij = |W_ij| · ‖x_j‖ / √N = |W_ij| · √G_jj

This is what the output of row i moves by, as a root mean square over the tokens, if this weight
alone is set to 0. Scores are compared within a row: each output keeps an equal share of its inputs.
No weight is changed to make up for those that go.

Source: Sun, Liu, Bair, Kolter, 2024, "A Simple and Effective Pruning Approach for Large Language
Models".

Axes: N tokens, O outputs, I inputs.
"""

import numpy as np
import torch
from torch import Tensor

from course_lib.models.finite import check_finite
from course_lib.models.n_of_m import check_scores


def wanda_score(weight: Tensor, gram: Tensor) -> Tensor:
    """|W_ij| · √G_jj: (O, I), in float32 or wider.

    Args:
        weight: W, (O, I).
        gram: G, the mean of x xᵀ, (I, I), from `moments.Moments`.

    Raises:
        ValueError: the shapes do not fit; NaN, infinity, or a negative number on G's diagonal.

    >>> wanda_score(torch.tensor([[1.0, -2.0]]), torch.tensor([[9.0, 0.0], [0.0, 1.0]]))
    tensor([[3., 2.]])
    """
    if weight.dim() != 2 or gram.shape != (weight.shape[1],) * 2:
        raise ValueError(
            "weight must have shape (O, I) and gram (I, I); "
            f"got {tuple(weight.shape)} and {tuple(gram.shape)}"
        )
    check_finite(weight, "weight")
    size = gram.diagonal().sqrt()  # NaN where negative
    check_finite(size, "the root of gram's diagonal")
    weight = weight.detach().to(torch.promote_types(weight.dtype, torch.float32))
    return weight.abs().mul_(size)


def row_mask(score: Tensor, density: float) -> Tensor:
    """True at the round(density · I) largest scores of each row; of equal ones the first stay.

    Args:
        score: (O, I).
        density: share of each row that stays, from 0 to 1.

    Raises:
        ValueError: density out of range; score not (O, I), empty, NaN or infinite.

    >>> row_mask(torch.tensor([[3.0, 1.0, 2.0, 4.0], [1.0, 1.0, 1.0, 0.0]]), 0.5).tolist()
    [[True, False, False, True], [True, True, False, False]]
    """
    check_scores(score)
    if not 0 <= density <= 1:
        raise ValueError(f"density must be from 0 to 1; got {density}")
    inputs = score.shape[1]
    k = round(density * inputs)
    if k == 0:
        return torch.zeros_like(score, dtype=torch.bool)
    least = _kth_largest(score, k)  # (O, 1)
    mask = score >= least
    crowded = (mask.sum(dim=1) > k).nonzero().squeeze(1)  # rows with more equal scores than places
    if len(crowded):
        some, least = score[crowded], least[crowded]
        above, equal = some > least, some == least
        places = k - above.sum(dim=1, keepdim=True)
        mask[crowded] = above | (equal & (equal.cumsum(dim=1) <= places))
    return mask


def _kth_largest(score: Tensor, k: int) -> Tensor:
    """Of each row: (O, I) -> (O, 1). NumPy's partition is several times faster than `topk`."""
    place = score.shape[1] - k
    if score.device.type == "cpu" and score.dtype in (torch.float32, torch.float64):
        rows = np.partition(score.detach().numpy(), place, axis=1)
        return torch.from_numpy(rows)[:, place : place + 1]
    return score.kthvalue(place + 1, dim=1, keepdim=True).values
