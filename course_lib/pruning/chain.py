"""Units and channels removed for real: new layers that are smaller, in a chain of layers.

A unit is a row of one layer and a column of the next; a channel is a filter of one convolution, the
four numbers that BatchNorm keeps about it, and one slice of every filter of the next. These go
together or not at all:

    layer        its row of the weight, its bias
    BatchNorm    its scale, shift, running mean, running variance
    next layer   its column; k × k columns if that is a convolution with k × k places, and as many
                 as the picture has places if pictures were flattened before

A mask that zeros them saves nothing. What remains here are plain modules with smaller numbers.

Sources: Li et al., 2017, "Pruning Filters for Efficient ConvNets"; Fang et al.,
2023, "DepGraph: Towards Any Structural Pruning" (what must go together).

Axes: B batch, N rows that a layer multiplies, O outputs, I inputs, K outputs or inputs that stay.
"""

import copy
from collections import OrderedDict
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from course_lib.pruning.repair import fold_mean
from course_lib.pruning.smaller import (
    BatchNorm,
    Mend,
    Weighted,
    keep_inputs,
    keep_outputs,
    with_weight,
)

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
