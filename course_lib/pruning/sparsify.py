"""Sparsity by chance: most weights are zero in each draw, and none is lost on average.

Pruning decides once which weights go. Here a coin decides anew each time: weight w stays with
probability p, and then counts w / p. So the draw ŵ is right on average, and the price is noise:

    E[ŵ] = p · w/p + (1 − p) · 0 = w          Var[ŵ] = p · (w/p)² − w² = w² (1 − p) / p

As noise of training it is DropConnect. One coin for each input of a layer, instead of one for each
weight, is dropout (Srivastava et al., 2014): a column of the weight matrix comes or goes as one.

Source: Wan et al., 2013, "Regularization of Neural Networks using
DropConnect" (there the weights that stay are not divided by p).
"""

import torch
from torch import Tensor

from course_lib.models.finite import check_finite, is_fake


def random_sparsify(weight: Tensor, keep: float, uniform: Tensor) -> Tensor:
    """A draw of few non-zeros whose mean is the weight.

        ŵ = w / p  where u < p,  else 0

    Args:
        weight: w, finite floats of any shape; gradients pass to the entries that stay.
        keep: p, the probability that an entry stays, above 0 and at most 1. At 1 the draw is w.
        uniform: u, of the weight's shape, from 0 to below 1, as `torch.rand` gives. One row that is
            expanded to all rows is dropout of the layer's inputs.

    Returns:
        ŵ, of the weight's shape and dtype.

    Raises:
        ValueError: keep or uniform is out of range; the shapes differ; a weight is NaN or
            infinite, or w / p is, in the weight's dtype.

    Source: Wan et al., 2013, "Regularization of Neural Networks using
    DropConnect".

    >>> weight = torch.tensor([1.0, -2.0, 3.0])
    >>> random_sparsify(weight, keep=0.5, uniform=torch.tensor([0.1, 0.7, 0.4])).tolist()
    [2.0, 0.0, 6.0]
    """
    if not 0 < keep <= 1:
        raise ValueError(f"keep must be above 0 and at most 1; got {keep}")
    if uniform.shape != weight.shape:
        raise ValueError(
            f"uniform must have the weight's shape {tuple(weight.shape)}; "
            f"got {tuple(uniform.shape)}"
        )
    check_finite(weight, "weight")
    check_finite(uniform, "uniform")
    if not is_fake(uniform) and not 0 <= uniform.amin() <= uniform.amax() < 1:
        raise ValueError(
            f"uniform must be from 0 to below 1; got {uniform.amin():g} to {uniform.amax():g}"
        )
    drawn = torch.where(uniform < keep, weight / keep, 0)
    check_finite(drawn, "weight / keep")
    return drawn
