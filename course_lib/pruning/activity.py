"""How active is a unit? Scores of a layer's units from its activations on data.

Axes: N examples, I units of a layer.
"""

import torch
from torch import Tensor

from course_lib.models.finite import check_finite
from course_lib.pruning.scores import wide


class UnitActivity:
    """Totals of a layer's activations, batch by batch, from which scores of its units come.

    Totals, not means of means: the last batch may be smaller than the others.

    Source: Hu et al., 2016, "Network Trimming: A Data-Driven Neuron Pruning Approach
    towards Efficient Deep Architectures".

    >>> activity = UnitActivity()
    >>> activity.add(torch.tensor([[0.0, 3.0], [0.0, 1.0]]))
    >>> activity.add(torch.tensor([[6.0, 0.0]]))
    >>> activity.mean(), activity.average_zeros()
    (tensor([2.0000, 1.3333]), tensor([0.6667, 0.3333]))
    """

    def __init__(self):
        self.count = 0
        self.magnitudes: Tensor | None = None  # Σ |a|, (I,)
        self.zeros: Tensor | None = None  # number of a = 0, (I,)

    def add(self, activations: Tensor) -> None:
        """In place: count a batch (N, I); floats, finite, at least one row, I as before."""
        if activations.dim() != 2 or (self.count and activations.shape[1] != len(self.zeros)):
            units = len(self.zeros) if self.count else "I"
            raise ValueError(
                f"activations must have shape (N, {units}); got {tuple(activations.shape)}"
            )
        check_finite(activations, "activations")
        magnitudes = wide(activations).abs().sum(0)
        zeros = len(activations) - torch.count_nonzero(activations, dim=0)
        self.magnitudes = magnitudes + self.magnitudes if self.count else magnitudes
        self.zeros = zeros + self.zeros if self.count else zeros
        self.count += len(activations)

    def mean(self) -> Tensor:
        """Mean |a| of each unit: (I,)."""
        self._check()
        return self.magnitudes / self.count

    def average_zeros(self) -> Tensor:
        """Share of the examples on which each unit is exactly zero: (I,)."""
        self._check()
        return self.zeros.to(self.magnitudes.dtype) / self.count

    def _check(self) -> None:
        if not self.count:
            raise ValueError("activations must have been added; there are none")


def mean_activation(activations: Tensor) -> Tensor:
    """Mean |a| of each unit over examples: activations (N, I), scores (I,).

    Raises:
        ValueError: the shape is another; there is no row; NaN or infinity.

    >>> mean_activation(torch.tensor([[0.0, 3.0], [0.0, -1.0]]))
    tensor([0., 2.])
    """
    activity = UnitActivity()
    activity.add(activations)
    return activity.mean()


def average_zeros(activations: Tensor) -> Tensor:
    """APoZ, the share of examples on which each unit is zero: activations (N, I), result (I,).

    A unit with many zeros matters little: its score is −APoZ, or 1 − APoZ.

    Raises:
        ValueError: as for `mean_activation`.

    Source: Hu et al., 2016, "Network Trimming: A Data-Driven Neuron Pruning Approach
    towards Efficient Deep Architectures".

    >>> average_zeros(torch.tensor([[0.0, 3.0], [0.0, 0.0]]))
    tensor([1.0000, 0.5000])
    """
    activity = UnitActivity()
    activity.add(activations)
    return activity.average_zeros()
