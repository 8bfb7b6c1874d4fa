"""Hidden units that a layer could do without: dead ones, and twins that say the same.

    y = outgoing · relu(incoming · x)      incoming (F, I), outgoing (O, F)

A bias of the hidden layer is one more column of `incoming`, and x has a one in that place. Unit j
is dead if it is zero for every x of the data. Units i and j are twins if their incoming rows point
the same way, w_j = c w_i with c > 0: then h_j = c h_i for every x, and

    outgoing_i h_i + outgoing_j h_j = (outgoing_i + c outgoing_j) h_i

so one of them is enough once it has taken over the other's outgoing weights. To drop it and leave
the rest alone changes y: each of two twins is needed as long as the other has not been told.

Source: Srinivas and Babu, 2015, "Data-Free Parameter Pruning for Deep Neural Networks".

Axes: N tokens, F hidden units, I inputs, O outputs.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from course_lib.device import without_autocast
from course_lib.models.finite import check_finite


def dead_units(hidden: Tensor, tolerance: float = 0.0) -> Tensor:
    """True for each unit whose largest |h| over the data is at most `tolerance` · RMS(h): (F,).

    Args:
        hidden: values of the units after the activation, (…, F), over as much data as possible: a
            unit may sleep through one batch. For several, combine the answers with `&`.
        tolerance: 0 finds exact zeros, which is right for ReLU. SiLU and GELU are never flat, so
            there a unit can only be nearly dead: try 0.01 to 0.1.

    >>> dead_units(torch.tensor([[0.0, 2.0, 0.0], [0.0, 0.0, 0.1]])).tolist()
    [True, False, False]
    """
    if tolerance < 0:
        raise ValueError(f"tolerance must not be negative; got {tolerance}")
    if hidden.dim() < 2 or hidden.numel() == 0:
        raise ValueError(f"hidden must have shape (…, F), not empty; got {tuple(hidden.shape)}")
    check_finite(hidden, "hidden")
    rows = hidden.reshape(-1, hidden.shape[-1]).float()  # (…, F) -> (N, F)
    largest = rows.abs().amax(dim=0)
    unit = largest.amax().clamp(min=torch.finfo(rows.dtype).tiny)  # squares may overflow
    return largest / unit <= tolerance * (rows / unit).square().mean().sqrt()


@without_autocast
def twin_heads(incoming: Tensor, cosine: float = 0.9999) -> Tensor:
    """For each unit the first unit that is its twin, or the unit itself: (F,) of indices.

    i and j are twins if cos(w_i, w_j) ≥ `cosine`. A unit counts as a head only if it has no head
    itself, so every unit is a twin of its head, not only of a twin of it. Rows of zeros have none.

    >>> twin_heads(torch.tensor([[1.0, 0.0], [0.0, 1.0], [3.0, 0.0], [-1.0, 0.0]])).tolist()
    [0, 1, 0, 3]
    """
    if incoming.dim() != 2:
        raise ValueError(f"incoming must have shape (F, I); got {tuple(incoming.shape)}")
    check_finite(incoming, "incoming")
    directions = F.normalize(_scaled(incoming.double())[0], dim=1)
    own = torch.arange(len(incoming), device=incoming.device)
    similar = (directions @ directions.T >= cosine) | (own[:, None] == own)
    first = similar.int().argmax(dim=1)  # the first True of each row
    return torch.where(first[first] == first, first, own)


def merge_twins(incoming: Tensor, outgoing: Tensor, heads: Tensor) -> Tensor:
    """New outgoing weights: each head takes over those of its twins, whose own become zero.

    The layer's function stays exactly the same where rows are exact multiples and the activation is
    positively homogeneous, as ReLU is; where c = 1 (equal rows), any activation will do. A unit
    with heads[i] ≠ i then does nothing and may be removed from both matrices.

    Args:
        incoming, outgoing: (F, I) and (O, F).
        heads: (F,), from `twin_heads`.

    Returns:
        Outgoing weights (O, F).

    >>> incoming, outgoing = torch.tensor([[1.0], [1.0], [2.0]]), torch.tensor([[3.0, 2.0, 1.0]])
    >>> merge_twins(incoming, outgoing, twin_heads(incoming))
    tensor([[7., 0., 0.]])
    """
    if incoming.shape[0] != outgoing.shape[-1] or heads.shape != incoming.shape[:1]:
        raise ValueError(
            "incoming (F, I), outgoing (O, F) and heads (F,) must agree in F; got "
            f"{tuple(incoming.shape)}, {tuple(outgoing.shape)} and {tuple(heads.shape)}"
        )
    scaled, size = _scaled(incoming.double())
    lengths = (scaled.norm(dim=1, keepdim=True) * size).squeeze(1)
    own = torch.arange(len(heads), device=heads.device)
    ratio = torch.where(heads == own, 1.0, lengths / lengths[heads]).to(outgoing.dtype)  # c
    return torch.zeros_like(outgoing).index_add(1, heads, outgoing * ratio)


def _scaled(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Each row divided by its largest magnitude, and that; squares then neither vanish nor grow."""
    size = rows.abs().amax(dim=1, keepdim=True)
    return rows / size.clamp(min=torch.finfo(rows.dtype).tiny), size
