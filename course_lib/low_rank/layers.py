"""A linear layer as two small ones: y = B (A x) + b.

    right   A, (r, I)   I inputs -> r numbers
    left    B, (O, r)   r numbers -> O outputs

Both are plain `nn.Linear`, so whatever treats a model's linear layers treats them, too: files
(`formats.model_file`), rounding, a second layer beside them.

A convolution's weight (O, I, k) is a matrix (O, I · k): A becomes a convolution with r outputs, and
B one with a kernel of 1.

Axes: O outputs, I inputs, r rank, k kernel.
"""

import copy
from collections import OrderedDict
from collections.abc import Mapping

from torch import Tensor, nn

from course_lib.low_rank.svd import Factors


class FactoredLinear(nn.Module):
    """B (A x) + b: (…, I) -> (…, O).

    The factors become parameters: they are not copied, and take gradients.

    Args:
        factors: B (O, r) and A (r, I), from `svd` or `output_aware`.
        bias: b, (O,).

    >>> import torch
    >>> layer = FactoredLinear(Factors(torch.tensor([[1.0], [2.0]]), torch.tensor([[3.0, 4.0]])))
    >>> layer
    FactoredLinear(
      (right): Linear(in_features=2, out_features=1, bias=False)
      (left): Linear(in_features=1, out_features=2, bias=False)
    )
    >>> layer(torch.tensor([1.0, 1.0])).tolist()
    [7.0, 14.0]
    """

    def __init__(self, factors: Factors, bias: Tensor | None = None):
        super().__init__()
        left, right = factors
        if left.dim() != 2 or right.dim() != 2 or not left.shape[1] == len(right) > 0:
            raise ValueError(
                "factors must have shapes (O, r) and (r, I) with r ≥ 1; "
                f"got {tuple(left.shape)} and {tuple(right.shape)}"
            )
        if bias is not None and bias.shape != left.shape[:1]:
            raise ValueError(f"bias must have shape ({len(left)},); got {tuple(bias.shape)}")
        self.right, self.left = _linear(right), _linear(left, bias)

    @property
    def in_features(self) -> int:
        """I."""
        return self.right.in_features

    @property
    def out_features(self) -> int:
        """O."""
        return self.left.out_features

    def forward(self, x: Tensor) -> Tensor:
        return self.left(self.right(x))  # (…, I) -> (…, r) -> (…, O)


def _linear(weight: Tensor, bias: Tensor | None = None) -> nn.Linear:
    outputs, inputs = weight.shape
    layer = nn.Linear(inputs, outputs, bias is not None, device="meta")  # draws no numbers
    layer.weight = nn.Parameter(weight)
    if bias is not None:
        layer.bias = nn.Parameter(bias)
    return layer


def with_factors(model: nn.Module, factors: Mapping[str, Factors]) -> nn.Module:
    """A copy of the model whose named layers are two small ones each; the others stay.

    Args:
        factors: name of a layer's weight, as `parts.prunable_weights` gives it -> its factors.

    Raises:
        ValueError: a name belongs to no nn.Linear and no convolution with groups=1 and zeros for
            padding; factors do not fit its shape.

    >>> import torch
    >>> model = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
    >>> small = with_factors(model, {"0.weight": Factors(torch.ones(3, 1), torch.ones(1, 4))})
    >>> small[0].right.out_features, small[0].left.bias.equal(model[0].bias), small[2]
    (1, True, Linear(in_features=3, out_features=2, bias=True))
    """
    model = copy.deepcopy(model)
    for name, parts in factors.items():
        replace_layer(model, name.removesuffix(".weight"), parts)
    return model


def replace_layer(model: nn.Module, name: str, factors: Factors) -> None:
    """In place: two small layers for one; its bias stays, and whether and where it learns.

    Args:
        name: of an nn.Linear in the model, "blocks.0.mlp.up" say, or of a convolution.
        factors: that fit its weight; a convolution's (O, I, k, …) is the matrix (O, I · k …).

    Raises:
        ValueError: as for `with_factors`.

    >>> import torch
    >>> model = nn.Sequential(nn.Linear(4, 3))
    >>> replace_layer(model, "0", Factors(torch.ones(3, 2), torch.ones(2, 4)))
    >>> type(model[0]).__name__
    'FactoredLinear'
    """
    layer = dict(model.named_modules()).get(name)
    if type(layer) is not nn.Linear and not _is_plain_convolution(layer):
        raise ValueError(
            "name must be that of an nn.Linear, or of an nn.Conv1d or nn.Conv2d with groups=1 "
            f"and zeros for padding; {name!r} is {type(layer).__name__}"
        )
    shapes = [tuple(part.shape) for part in factors]
    matrix = layer.weight.flatten(1)  # (O, I, k, …) -> (O, I · k …)
    if (shapes[0][0], shapes[1][-1]) != tuple(matrix.shape):
        raise ValueError(f"the factors of {name} must fit {tuple(matrix.shape)}; got {shapes}")
    bias = None if layer.bias is None else layer.bias.detach().clone()
    linear = type(layer) is nn.Linear
    small = FactoredLinear(factors, bias) if linear else _factored(layer, factors, bias)
    small.requires_grad_(layer.weight.requires_grad).train(layer.training)
    model.set_submodule(name, small)


def _is_plain_convolution(layer: nn.Module | None) -> bool:
    kinds = (nn.Conv1d, nn.Conv2d)
    return type(layer) in kinds and layer.groups == 1 and layer.padding_mode == "zeros"


def _factored(layer: nn.Conv1d | nn.Conv2d, factors: Factors, bias: Tensor | None) -> nn.Sequential:
    """The convolution as one with r outputs, in its place, and one with a kernel of 1."""
    kind, (outputs, rank) = type(layer), factors.left.shape
    place = (layer.kernel_size, layer.stride, layer.padding, layer.dilation)
    right = kind(layer.in_channels, rank, *place, bias=False, device="meta")
    left = kind(rank, outputs, 1, bias=bias is not None, device="meta")
    right.weight = nn.Parameter(factors.right.reshape(rank, *layer.weight.shape[1:]))
    left.weight = nn.Parameter(factors.left.reshape(outputs, rank, *[1] * len(layer.kernel_size)))
    if bias is not None:
        left.bias = nn.Parameter(bias)
    return nn.Sequential(OrderedDict(right=right, left=left))
