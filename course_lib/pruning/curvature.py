"""How does the loss curve? Second derivatives: all of them, or those of each weight alone.

To second order the loss L changes, when the weights w change by δ, by

    gᵀδ + ½ δᵀHδ          g = ∂L/∂w,  H = ∂²L/∂w∂wᵀ

H has P² numbers. Three ways to its diagonal, from the exact one to the cheapest: all of H
(`exact_hessian`, for a few thousand weights), products Hv with random signs v
(`hutchinson_diagonal`), or squared gradients in place of it (`evidence.collect_evidence`).

A loss of weights is a function of them by name, made of a model by `torch.func.functional_call`:

    lambda weights: F.cross_entropy(functional_call(model, weights, (images,)), labels)

Axes: P weights in all, K probes.
"""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from course_lib.pruning.evidence import gradients_of
from course_lib.pruning.scores import wide

ROWS = 128  # of a Hessian, computed together


def exact_hessian(
    loss: Callable[[dict[str, Tensor]], Tensor], weights: Mapping[str, Tensor]
) -> Tensor:
    """H = ∂²L/∂w∂wᵀ over all the weights in one row, in their order: (P, P).

    Args:
        loss: of the weights by name, a 0-d tensor.
        weights: where to take it; P numbers in all, of one floating dtype.

    Source: Pearlmutter, 1994, "Fast Exact Multiplication by the Hessian" (a row of H costs about
    as much as a gradient; here 128 rows are computed together).

    >>> exact_hessian(lambda w: w["a"].prod() + w["b"].sum() ** 3, {
    ...     "a": torch.tensor([5.0, 7.0]), "b": torch.tensor([2.0])})
    tensor([[ 0.,  1.,  0.],
            [ 1.,  0.,  0.],
            [ 0.,  0., 12.]])
    """

    def of_row(row: Tensor) -> Tensor:
        return loss(_split(row, weights))

    # (…) of each weight -> (P,)
    row = torch.cat([weight.detach().flatten() for weight in weights.values()])
    with sdpa_kernel(SDPBackend.MATH):  # the others cannot be differentiated twice
        return torch.func.jacrev(torch.func.grad(of_row), chunk_size=ROWS)(row)


def hessian_diagonal(matrix: Tensor, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The diagonal of a matrix (P, P) over all weights, as a tensor of each weight's shape.

    Raises:
        ValueError: the matrix has another shape.

    >>> hessian_diagonal(torch.diag(torch.arange(3.0)), {"a": torch.ones(1, 2), "b": torch.ones(1)})
    {'a': tensor([[0., 1.]]), 'b': tensor([2.])}
    """
    size = sum(weight.numel() for weight in weights.values())
    if matrix.shape != (size, size):
        raise ValueError(f"matrix must have shape ({size}, {size}); got {tuple(matrix.shape)}")
    return _split(matrix.diagonal(), weights)


def hutchinson_diagonal(
    loss: Callable[[dict[str, Tensor]], Tensor],
    weights: Mapping[str, Tensor],
    probes: int,
    generator: torch.Generator,
) -> dict[str, Tensor]:
    """An estimate of H's diagonal: the mean of v ⊙ Hv over K random v of entries ±1.

        (v ⊙ Hv)_i = H_ii + Σ_{j≠i} v_i v_j H_ij

    The mean of v_i v_j is 0, so the rest vanishes on average; its variance is Σ_{j≠i} H_ij² / K.
    H itself is never there: Hv is the gradient of gᵀv.

    Args:
        loss: of the weights by name, a 0-d tensor.
        weights: where to take it.
        probes: K, at least 1. Each costs two or three backward passes.
        generator: a CPU generator, so that the same seed gives the same v on every device.

    Returns:
        For each name an estimate of its weight's shape and dtype, float32 if that is narrower.

    Raises:
        ValueError: probes is less than 1.

    Sources: Hutchinson, 1989, "A Stochastic Estimator of the Trace of the Influence Matrix for
    Laplacian Smoothing Splines"; Bekas et al., 2007, "An Estimator for the Diagonal of
    a Matrix".

    >>> weights = {"a": torch.tensor([2.0, 3.0])}
    >>> generator = torch.Generator().manual_seed(0)
    >>> hutchinson_diagonal(lambda w: (w["a"] ** 3).sum(), weights, 1, generator)
    {'a': tensor([12., 18.])}
    """
    if probes < 1:
        raise ValueError(f"probes must be at least 1; got {probes}")
    leaves = {name: weight.detach().requires_grad_() for name, weight in weights.items()}
    total = {name: torch.zeros_like(wide(w)) for name, w in weights.items()}
    with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH):  # others: not twice differentiable
        gradients = gradients_of(loss(leaves), leaves, create_graph=True)
    for _ in range(probes):
        signs = [_signs(weight, generator) for weight in leaves.values()]
        products = _hessian_product(gradients, leaves, signs)
        for name, v, product in zip(leaves, signs, products, strict=True):
            total[name].add_(v * product)
    return {name: t.div_(probes) for name, t in total.items()}


def predicted_increase(change: Tensor, gradient: Tensor, hessian: Tensor) -> Tensor:
    """gᵀδ + ½ δᵀHδ: by how much the loss grows, to second order, when the weights change by δ.

    To remove some weights, δ is −w there and 0 elsewhere.

    Args:
        change: δ, (P,); gradient: g, (P,); hessian: H, (P, P).

    Returns:
        A 0-d tensor.

    >>> w, gradient = torch.tensor([2.0, 1.0]), torch.tensor([0.0, 1.0])
    >>> predicted_increase(-w, gradient, torch.tensor([[3.0, 1.0], [1.0, 5.0]]))
    tensor(9.5000)
    """
    P = len(change)
    if change.shape != (P,) or gradient.shape != (P,) or hessian.shape != (P, P):
        shapes = tuple(change.shape), tuple(gradient.shape), tuple(hessian.shape)
        raise ValueError(f"change, gradient, hessian must be (P,), (P,), (P, P); got {shapes}")
    return gradient @ change + change @ hessian @ change / 2


def _hessian_product(
    gradients: tuple[Tensor, ...], leaves: Mapping[str, Tensor], signs: list[Tensor]
) -> tuple[Tensor, ...]:
    """Hv of each weight; a gradient that depends on no weight adds nothing to it."""
    pairs = [(g, v) for g, v in zip(gradients, signs, strict=True) if g.requires_grad]
    if not pairs:
        return tuple(torch.zeros_like(v) for v in signs)
    return torch.autograd.grad(
        [g for g, _ in pairs], list(leaves.values()), [v for _, v in pairs],
        retain_graph=True, materialize_grads=True,
    )  # fmt: skip


def _signs(weight: Tensor, generator: torch.Generator) -> Tensor:
    return torch.randint(2, weight.shape, generator=generator).mul_(2).sub_(1).to(weight)


def _split(row: Tensor, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """(P,) -> the shape of each weight."""
    parts = row.split([weight.numel() for weight in weights.values()])
    return {n: part.view(w.shape) for (n, w), part in zip(weights.items(), parts, strict=True)}
