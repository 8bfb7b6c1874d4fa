"""Sparsity of activations: which products are zero depends on the input, so the pruning is dynamic.

A gated MLP gives its last matrix the products

    a = silu(G x) ⊙ (U x)         y = D a = Σ_i a_i d_i         d_i the columns of D

Where a_i = 0 the column d_i need not even be read. No a_i is exactly zero, but many are small. So
zero those with |a_i| ≤ t, for each token its own: another token, another set of columns. (A mask
that is cut into D once is the static counterpart: one set of columns for all tokens.) What can be
saved is a part of D's work; G and U are computed in full, for the products tell what was needed.

Sources: Liu et al., 2025, "Training-Free Activation Sparsity in Large Language Models" (TEAL:
thresholds on magnitudes, before every matrix); Lee et al., 2024, "CATS: Contextually-Aware
Thresholding for Sparsity in Large Language Models" (a threshold on |silu(G x)| saves work in U and
D); Liu et al., 2023, "Deja Vu: Contextual Sparsity for Efficient LLMs at Inference Time" (a small
network predicts the zeros).

Axes: B batch, T tokens, N = B · T, D model width, F hidden width of the MLP, L layers.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from course_lib.models.finite import check_floats, is_fake
from course_lib.models.llama import MLP, Llama
from course_lib.models.parts import record_inputs, replace_modules


def top_k_activations(x: Tensor, k: int) -> Tensor:
    """The k largest magnitudes of each row; the rest of the row is zero.

    Exactly k entries stay in each row; of equal magnitudes the first. Gradients pass to them alone.

    Args:
        x: (…, I), floats without NaN.
        k: from 0 to I.

    Raises:
        ValueError: k is out of range; x is empty, has no row or holds NaN.

    Source: Makhzani and Frey, 2014, "k-Sparse Autoencoders" (there the largest values).

    >>> top_k_activations(torch.tensor([[1.0, -3.0, 2.0], [5.0, 5.0, 5.0]]), k=2).tolist()
    [[0.0, -3.0, 2.0], [5.0, 5.0, 0.0]]
    """
    check_floats(x, "x")
    if x.dim() == 0 or not 0 <= k <= x.shape[-1]:
        raise ValueError(f"k must be from 0 to the length of x's rows; got {k}, {tuple(x.shape)}")
    if not is_fake(x) and x.isnan().any():
        raise ValueError(f"x must not hold NaN; got {int(x.isnan().sum())} of {x.numel()}")
    order = x.detach().abs().argsort(dim=-1, descending=True, stable=True)
    kept = torch.zeros_like(x, dtype=torch.bool).scatter(-1, order[..., :k], True)
    return torch.where(kept, x, 0)


class ThresholdMLP(nn.Module):
    """The gated MLP of another, whose products of magnitude at most `threshold` are zero."""

    def __init__(self, mlp: MLP, threshold: float):
        super().__init__()
        self.gate, self.up, self.down = mlp.gate, mlp.up, mlp.down
        self.threshold = threshold

    def forward(self, x: Tensor) -> Tensor:
        a = F.silu(self.gate(x)) * self.up(x)  # (B, T, D) -> (B, T, F)
        return self.down(torch.where(a.abs() > self.threshold, a, 0))


def threshold_activations(model: Llama, threshold: float | Sequence[float]) -> Llama:
    """A copy of the model whose MLPs zero their products of magnitude at most t.

    Args:
        model: a decoder.
        threshold: t ≥ 0, one for all layers or one for each. At 0 the model is what it was.

    Raises:
        ValueError: a threshold is negative or NaN; there is not one for each layer.

    Source: Liu et al., 2025, "Training-Free Activation Sparsity in Large Language Models".

    >>> from course_lib.models.pretrained import tiny
    >>> model, tokens = tiny()[0], torch.arange(40)[None]
    >>> shares = zero_shares(threshold_activations(model, 0.05), tokens)
    >>> len(shares), min(shares) > 0
    (4, True)
    """
    count = len(model.blocks)
    thresholds = [threshold] * count if isinstance(threshold, int | float) else list(threshold)
    if len(thresholds) != count or not all(t >= 0 for t in thresholds):
        raise ValueError(
            f"threshold must be one number of at least 0, or {count}, one a layer; got {threshold}"
        )
    left = iter(thresholds)
    return replace_modules(model, MLP, lambda mlp: ThresholdMLP(mlp, next(left)))


def products(model: Llama, tokens: Tensor) -> list[Tensor]:
    """What each layer's last matrix is given, silu(G x) ⊙ (U x): L tensors (N, F).

    Args:
        tokens: (B, T).

    >>> from course_lib.models.pretrained import tiny
    >>> [tuple(a.shape) for a in products(tiny()[0], torch.arange(40)[None])]
    [(40, 512), (40, 512), (40, 512), (40, 512)]
    """
    return record_inputs(model, tokens, [block.mlp.down for block in model.blocks])


def zero_shares(model: Llama, tokens: Tensor) -> list[float]:
    """The share of products that are exactly zero, for each layer.

    >>> from course_lib.models.pretrained import tiny
    >>> zero_shares(tiny()[0], torch.arange(40)[None])
    [0.0, 0.0, 0.0, 0.0]
    """
    return [float((a == 0).float().mean()) for a in products(model, tokens)]


def thresholds_for(found: Sequence[Tensor], share: float, per_layer: bool = False) -> list[float]:
    """For each layer the threshold at which this share of the products is zero.

    Args:
        found: from `products` on a calibration text.
        share: from 0 to 1.
        per_layer: this share of each layer's products, with its own threshold; else one threshold
            for all layers, and this share of all their products.

    Raises:
        ValueError: share is out of range.

    >>> found = [torch.tensor([[1.0, -2.0]]), torch.tensor([[3.0, 40.0]])]
    >>> thresholds_for(found, 0.5), thresholds_for(found, 0.5, per_layer=True)
    ([2.0, 2.0], [1.0, 3.0])
    """
    if not 0 <= share <= 1:
        raise ValueError(f"share must be from 0 to 1; got {share}")
    groups = [[a] for a in found] if per_layer else [list(found)]
    thresholds = []
    for group in groups:
        magnitudes = torch.cat([a.abs().flatten() for a in group]).sort().values
        gone = round(share * len(magnitudes))
        thresholds.append(float(magnitudes[gone - 1]) if gone else 0.0)
    return thresholds if per_layer else thresholds * len(found)
