"""Weights that share few values, and a network that learns the values and not the weights.

A tensor's entries that are not zero are put into k cells, and each is replaced by its cell's value
c_j. Training goes on with the values alone. As all weights of a cell move together, a value's
gradient is the sum of theirs:

    w_i = c_a(i)        ∂L/∂c_j = Σ over i with a(i) = j of ∂L/∂w_i

Source: Han, Mao, Dally, 2016, "Deep Compression: Compressing Deep Neural Networks with Pruning,
Trained Quantization and Huffman Coding".
"""

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from course_lib.quantization.vectors import lloyd, nearest


class SharedValues(nn.Module):
    """A network of the same inputs and outputs as the model, whose parameters are the values.

    Args:
        model: left as it is.
        k: name of a parameter -> how many values it may have besides zero. The other parameters
            stay as they are, and do not learn.

    Raises:
        ValueError: a name that there is not; k below 1; NaN or infinity.

    >>> model = nn.Linear(2, 2, bias=False)
    >>> model.weight = nn.Parameter(torch.tensor([[1.0, 2.0], [0.0, 9.0]]))
    >>> shared = SharedValues(model, {"weight": 2})
    >>> shared.tensors()["weight"].tolist()
    [[1.5, 1.5], [0.0, 9.0]]
    >>> shared(torch.tensor([1.0, 1.0])).sum().backward()
    >>> [values.grad.tolist() for values in shared.values]
    [[2.0, 1.0]]
    """

    def __init__(self, model: nn.Module, k: Mapping[str, int]):
        super().__init__()
        weights = {name: weight.detach() for name, weight in model.named_parameters()}
        if unknown := k.keys() - weights.keys():
            raise ValueError(f"k must name parameters of the model; got {sorted(unknown)}")
        self.fixed = (model,)  # in a tuple, so that its parameters are none of this module's
        self.masks = {name: weights[name] != 0 for name in k}
        self.values, self.cells = nn.ParameterList(), []
        for name, count in k.items():
            values, cells = share(weights[name][self.masks[name]], count)
            self.values.append(nn.Parameter(values))
            self.cells.append(cells)

    def tensors(self) -> dict[str, Tensor]:
        """The shared tensors by name, zeros filled in: what the values learn through."""
        parts = zip(self.masks.items(), self.values, self.cells, strict=True)
        return {
            name: values.new_zeros(mask.shape).masked_scatter(mask, values[cells])
            for (name, mask), values, cells in parts
        }

    def forward(self, *inputs: Any) -> Any:
        """The model's outputs, with the shared tensors in place of its own."""
        return functional_call(self.fixed[0], self.tensors(), inputs)

    @torch.no_grad()
    def model(self) -> nn.Module:
        """A copy of the model with the shared tensors, their values rounded to float16."""
        model = copy.deepcopy(self.fixed[0])
        parameters = dict(model.named_parameters())
        for name, tensor in self.tensors().items():
            parameters[name].copy_(tensor.to(torch.float16))
        return model


def share(weights: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """At most k values, (k,), and the cell of each weight, (N,): Lloyd from evenly spaced values.

    Even ones leave large weights, which are few and matter, a value near them.

    Args:
        weights: (N,), finite.

    Raises:
        ValueError: k below 1; NaN or infinity.

    >>> [part.tolist() for part in share(torch.tensor([1.0, 2.0, 9.0]), k=2)]
    [[1.5, 9.0], [0, 0, 1]]
    """
    if k < 1:
        raise ValueError(f"k must be at least 1; got {k}")
    distinct = weights.unique()
    if len(distinct) > k:
        even = torch.linspace(float(distinct[0]), float(distinct[-1]), k).to(weights)
        distinct = lloyd(weights[:, None], even[:, None]).squeeze(1).sort().values  # (k, 1) -> (k,)
    if not len(distinct):
        return distinct, weights.new_empty(0, dtype=torch.int64)
    return distinct, nearest(weights[:, None], distinct[:, None])
