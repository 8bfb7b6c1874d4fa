"""A BatchNorm folded into the layer before it: the same function in one step instead of two.

Source: Jacob et al., 2018, "Quantization and Training of Neural Networks for Efficient
Integer-Arithmetic-Only Inference", section 3.2.

Axes: O outputs.
"""

import copy

import torch
from torch import nn

BATCH_NORMS = nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d
FOLDABLE = nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d


@torch.no_grad()
def fold_batch_norm(layer: FOLDABLE, batch_norm: BATCH_NORMS) -> FOLDABLE:
    """A copy of a layer that does what the layer and the BatchNorm behind it did.

        γ (W x + b − μ) / √(σ² + ε) + β  =  (a W) x + (a (b − μ) + β)      a = γ / √(σ² + ε)

    μ and σ² are the running ones: this holds for a network that is used, not while it learns.

    Args:
        layer: linear or convolution, with or without a bias.
        batch_norm: with running statistics, in eval mode.

    Returns:
        A layer with a bias, in the layer's dtype; the product is taken in float64.

    Raises:
        TypeError: another kind of layer.
        ValueError: batch_norm is for another number of channels, keeps no statistics, or is in
            training mode.

    Source: Jacob et al., 2018, "Quantization and Training of Neural Networks for Efficient
    Integer-Arithmetic-Only Inference", section 3.2.

    >>> layer, norm = nn.Linear(3, 2), nn.BatchNorm1d(2).eval()
    >>> x = torch.randn(5, 3)
    >>> torch.allclose(fold_batch_norm(layer, norm)(x), norm(layer(x)), atol=1e-6)
    True
    """
    if not isinstance(layer, FOLDABLE):
        raise TypeError(f"layer must be linear or a convolution; got {type(layer).__name__}")
    _check_batch_norm(batch_norm, len(layer.weight))
    weight = layer.weight.double()
    bias = weight.new_zeros(len(weight)) if layer.bias is None else layer.bias.double()
    factor = torch.rsqrt(batch_norm.running_var.double() + batch_norm.eps)  # (O,)
    if batch_norm.affine:
        factor = factor * batch_norm.weight
    bias = factor * (bias - batch_norm.running_mean)
    if batch_norm.affine:
        bias = bias + batch_norm.bias
    folded = copy.deepcopy(layer)
    folded.weight.copy_(weight * factor.view(-1, *[1] * (weight.dim() - 1)))  # (O,) -> (O, 1, …)
    folded.bias = nn.Parameter(bias.to(layer.weight.dtype), layer.weight.requires_grad)
    return folded


def _check_batch_norm(batch_norm: BATCH_NORMS, channels: int) -> None:
    if not isinstance(batch_norm, BATCH_NORMS):
        raise TypeError(f"batch_norm must be a BatchNorm; got {type(batch_norm).__name__}")
    if batch_norm.num_features != channels:
        raise ValueError(
            f"batch_norm must be for the layer's {channels} outputs; "
            f"got one for {batch_norm.num_features}"
        )
    if batch_norm.running_var is None or batch_norm.training:
        raise ValueError("batch_norm must have running statistics and be in eval mode")


def fold_batch_norms(network: nn.Sequential) -> nn.Sequential:
    """A copy of a network without the BatchNorms that stand right behind a layer.

    Raises: as for `fold_batch_norm`.

    >>> fold_batch_norms(nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2), nn.ReLU()).eval())
    Sequential(
      (0): Linear(in_features=3, out_features=2, bias=True)
      (1): ReLU()
    )
    """
    layers: list[nn.Module] = []
    for module in network:
        if isinstance(module, BATCH_NORMS) and layers and isinstance(layers[-1], FOLDABLE):
            layers[-1] = fold_batch_norm(layers[-1], module)
        else:
            layers.append(copy.deepcopy(module))
    return nn.Sequential(*layers).train(network.training)
