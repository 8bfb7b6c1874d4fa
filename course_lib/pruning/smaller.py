"""A layer with fewer outputs or inputs: the one cut of which every removal is made.

Axes: B batch, N rows that a layer multiplies, O outputs, I inputs, K of them that stay, P units,
channels or heads, E inputs of each.
"""

import copy
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from course_lib.models.selection import check_keep
from course_lib.pruning.repair import cut

# (weight, bias, inputs, keep) -> weight and bias for the inputs that stay, as in `repair`.
Mend = Callable[[Tensor, Tensor | None, Tensor, Tensor], tuple[Tensor, Tensor | None]]
Weighted = nn.Linear | nn.Conv2d
BatchNorm = nn.BatchNorm1d | nn.BatchNorm2d


@torch.no_grad()
def keep_outputs(layer: nn.Module, keep: Tensor) -> nn.Module:
    """A copy of a linear layer, a convolution or a BatchNorm with some of its outputs.

    Args:
        keep: (O,) bool.

    Raises:
        ValueError: keep does not fit or keeps nothing; the layer is of another kind, or a
            convolution in groups.

    >>> keep_outputs(nn.Linear(2, 3), torch.tensor([True, False, True]))
    Linear(in_features=2, out_features=2, bias=True)
    """
    if isinstance(layer, BatchNorm):
        return _smaller_batch_norm(layer, keep)
    _check_layer(layer)
    check_keep(keep, len(layer.weight))
    return with_weight(layer, layer.weight[keep], None if layer.bias is None else layer.bias[keep])


@torch.no_grad()
def keep_inputs(
    layer: nn.Module, keep: Tensor, examples: Tensor | None = None, mend: Mend = cut
) -> nn.Module:
    """A copy of a linear layer or a convolution with some of its inputs.

    Args:
        keep: of units, channels or heads, (P,) bool. Where a linear layer has P · E inputs, each
            has E of them, side by side.
        examples: what the layer is given, all inputs still: (…, I), or pictures (B, I, height,
            width). Without them nothing is mended.
        mend: one of `repair`'s.

    Raises:
        ValueError: P does not divide the inputs; keep keeps nothing; the layer is of another kind,
            or a convolution in groups; what `mend` refuses.

    >>> keep_inputs(nn.Linear(6, 2), torch.tensor([True, False, True]))
    Linear(in_features=4, out_features=2, bias=True)
    """
    _check_layer(layer)
    if not len(keep) or layer.weight.shape[1] % len(keep):
        raise ValueError(
            f"keep must be for units that the {layer.weight.shape[1]} inputs can be divided among; "
            f"got shape {tuple(keep.shape)}"
        )
    check_keep(keep, len(keep))
    matrix = layer.weight.flatten(1)  # (O, I, k, k) -> (O, I·k·k)
    columns = keep.repeat_interleave(matrix.shape[1] // len(keep))
    if examples is None:
        weight, bias = cut(matrix, layer.bias, None, columns)
    else:
        weight, bias = mend(matrix, layer.bias, _rows(layer, examples), columns)
    shape = (len(weight), -1, *layer.weight.shape[2:])
    return with_weight(layer, weight.reshape(shape), bias)  # (O, K·k·k) -> (O, K, k, k)


def with_weight(layer: nn.Module, weight: Tensor, bias: Tensor | None) -> nn.Module:
    """A copy of a linear layer or a convolution with another weight and bias, and their sizes.

    >>> with_weight(nn.Linear(2, 3), torch.ones(1, 5), None)
    Linear(in_features=5, out_features=1, bias=False)
    """
    made, grown = copy.deepcopy(layer), layer.weight.requires_grad
    made.weight = nn.Parameter(weight.detach().clone(), grown)
    made.bias = None if bias is None else nn.Parameter(bias.detach().clone(), grown)
    if isinstance(layer, nn.Linear):
        made.out_features, made.in_features = weight.shape
    else:
        made.out_channels, made.in_channels = weight.shape[:2]
    return made


def _smaller_batch_norm(layer: nn.Module, keep: Tensor) -> nn.Module:
    check_keep(keep, layer.num_features)
    made = copy.deepcopy(layer)
    made.num_features = int(keep.sum())
    for name, part in layer.named_parameters():
        setattr(made, name, nn.Parameter(part.detach()[keep].clone(), part.requires_grad))
    for name, part in layer.named_buffers():
        if part.dim():  # all but num_batches_tracked
            setattr(made, name, part[keep].clone())
    return made


def _rows(layer: nn.Module, examples: Tensor) -> Tensor:
    """What a layer multiplies its matrix with: (N, I), or (N, I·k·k), a row for each place."""
    if isinstance(layer, nn.Linear):
        return examples.flatten(0, -2)  # (B, …, I) -> (N, I)
    if isinstance(layer.padding, str) or layer.padding_mode != "zeros":
        raise ValueError(f"a convolution must be padded by a number of zeros; got {layer}")
    patches = F.unfold(examples, layer.kernel_size, layer.dilation, layer.padding, layer.stride)
    return patches.transpose(1, 2).flatten(0, 1)  # (B, I·k·k, places) -> (N, I·k·k)


def _check_layer(layer: nn.Module) -> None:
    if not isinstance(layer, Weighted) or getattr(layer, "groups", 1) != 1:
        raise ValueError(f"layer must be linear or a convolution whose groups are 1; got {layer}")
    if not isinstance(layer._parameters.get("weight"), nn.Parameter):
        raise ValueError("a layer's weight must be a parameter, not computed from others")
