"""Units and channels removed for real: new layers that are smaller, in a chain of layers.

A unit is a row of one layer and a column of the next; a channel is a filter of one convolution, the
four numbers that BatchNorm keeps about it, and one slice of every filter of the next. These go
together or not at all:

    layer        its row of the weight, its bias
    BatchNorm    its scale, shift, running mean, running variance
    next layer   its column; k × k columns if that is a convolution with k × k places, and as many
                 as the picture has places if pictures were flattened before

A mask that zeros them saves nothing. What remains here are plain modules with smaller numbers.

Sources: Li, Kadav, Durdanovic, Samet, Graf, 2017, "Pruning Filters for Efficient ConvNets"; Fang,
Ma, Song, Mi, Wang, 2023, "DepGraph: Towards Any Structural Pruning" (what must go together).

Axes: B batch, N rows that a layer multiplies, O outputs, I inputs, K outputs or inputs that stay.
"""

import copy
from collections import OrderedDict
from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from course_lib.pruning.repair import check_keep, cut, fold_mean

Mend = Callable[[Tensor, Tensor | None, Tensor, Tensor], tuple[Tensor, Tensor | None]]
Weighted = nn.Linear | nn.Conv2d
BatchNorm = nn.BatchNorm1d | nn.BatchNorm2d
EACH_BY_ITSELF = (
    nn.ReLU | nn.LeakyReLU | nn.ELU | nn.GELU | nn.SiLU | nn.Tanh | nn.Sigmoid | nn.Identity
    | nn.Dropout | nn.Dropout2d | nn.Flatten
    | nn.MaxPool2d | nn.AvgPool2d | nn.AdaptiveMaxPool2d | nn.AdaptiveAvgPool2d
)  # fmt: skip


@torch.no_grad()
def shrink_chain(
    model: nn.Sequential,
    keep: Mapping[str, Tensor],
    examples: Tensor | None = None,
    mend: Mend = fold_mean,
) -> nn.Sequential:
    """A new, smaller chain of layers, without some units or channels.

    Removing a unit that gives the same for every input is exact with `fold_mean`; if it gives 0,
    without examples, too. Not so before a convolution that pads with zeros: at the border the unit
    gave 0 and not its constant.

    Args:
        model: linear layers, convolutions, BatchNorm, and what treats each unit by itself.
        keep: layer's name -> True for the outputs that stay, (O,) bool. The last layer's outputs
            are the answer: they stay.
        examples: what the model takes. With them the next layer is mended, on what it is given once
            the layers before were shrunk; without, nothing makes up for what went. Where it has
            no bias and BatchNorm follows, the running mean takes what the bias would have got.
        mend: `repair.fold_mean` or `repair.refit`.

    Returns:
        A plain nn.Sequential with the same names.

    Raises:
        ValueError: a name that is no linear layer or convolution before another; a mask that does
            not fit or keeps nothing; a module between that may mix units; what `mend` refuses.

    >>> model = nn.Sequential(nn.Linear(4, 9), nn.ReLU(), nn.Linear(9, 2))
    >>> shrink_chain(model, {"0": torch.arange(9) < 3})
    Sequential(
      (0): Linear(in_features=4, out_features=3, bias=True)
      (1): ReLU()
      (2): Linear(in_features=3, out_features=2, bias=True)
    )
    """
    small = nn.Sequential(OrderedDict(copy.deepcopy(model).named_children())).eval()
    for name, mask in keep.items():
        at, following = _layer_and_next(small, name)
        given = None if examples is None else small[:following](examples)  # by all units still
        for number in range(at, following):
            if isinstance(small[number], Weighted | BatchNorm):
                small[number] = keep_outputs(small[number], mask)
        _shrink_inputs(small, following, mask, given, mend)
    return small.train(model.training)


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


def _shrink_inputs(
    chain: nn.Sequential, at: int, keep: Tensor, given: Tensor | None, mend: Mend
) -> None:
    """In place. A layer without a bias that BatchNorm follows has one there: minus its mean."""
    layer, norm = chain[at], chain[at + 1] if at + 1 < len(chain) else None
    elsewhere = layer.bias is None and getattr(norm, "running_mean", None) is not None
    if elsewhere:
        layer = with_weight(layer, layer.weight, norm.running_mean.new_zeros(len(layer.weight)))
    layer = keep_inputs(layer, keep, given, mend)
    if elsewhere:
        norm.running_mean -= layer.bias
        layer = with_weight(layer, layer.weight, None)
    chain[at] = layer


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


def _layer_and_next(chain: nn.Sequential, name: str) -> tuple[int, int]:
    """The places of a layer and of the next that has a weight; an error for what stands between."""
    names = list(chain._modules)
    weighted = [at for at, module in enumerate(chain) if isinstance(module, Weighted)]
    allowed = [names[at] for at in weighted[:-1]]
    if name not in allowed:
        raise ValueError(f"keep must name layers that another follows, of {allowed}; got {name!r}")
    at = names.index(name)
    following = weighted[weighted.index(at) + 1]
    for module in chain[at + 1 : following]:
        if not isinstance(module, EACH_BY_ITSELF | BatchNorm):
            raise ValueError(
                f"what stands behind {name!r} must treat each unit by itself; got {module}"
            )
    return at, following


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
