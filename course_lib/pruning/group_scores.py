"""By what score does a whole unit or head go? The lowest go; `scores` has those of single weights.

    norm            √ Σ w² over all that would go together               no data
    norm product    ‖gate_p‖ ‖up_p‖ ‖down_p‖                             no data
    Taylor          mean |Σ g x| over what the part sends on             gradients
    contribution    mean ‖W_p x_p‖, in `models.layers`                   inputs of the last matrix
    output error    mean ‖W_p x_p‖²: of the output, without the part     their second moments
    repair error    of the output, once the others were refitted         their second moments

The norm changes when a unit's `up` is doubled and its `down` halved, which changes nothing else.
The product does not, nor do those that use data.

Axes: N examples, O outputs, I inputs, P parts, E columns of a part, L layers, F hidden units.
"""

import copy
from collections.abc import Callable, Sequence
from functools import reduce

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from course_lib.device import without_autocast
from course_lib.models.finite import check_finite
from course_lib.models.layers import contributions
from course_lib.models.llama import Llama
from course_lib.models.parts import AT_ONCE, record_inputs
from course_lib.pruning.inverse_hessian import damped_inverse, layer_hessian
from course_lib.pruning.refit import DAMPING
from course_lib.pruning.scores import wide


def group_norm(parts: Sequence[Tensor]) -> Tensor:
    """√ Σ w² over all weights that would go with each part: (P,), in float32 or wider.

    Args:
        parts: tensors (P, …), the parts along the first axis: of an MLP gate, up and downᵀ.

    Raises:
        ValueError: no tensor, or they differ in P; NaN or infinity.

    Source: Fang et al., 2023, "DepGraph: Towards Any Structural Pruning"; for the
    filters of one layer, Li et al., 2017, "Pruning Filters for Efficient
    ConvNets".

    >>> group_norm([torch.tensor([[3.0], [1.0]]), torch.tensor([[4.0, 0.0], [0.0, 0.0]])])
    tensor([5., 1.])
    """
    return torch.stack(_norms(parts)).norm(dim=0)


def norm_product(parts: Sequence[Tensor]) -> Tensor:
    """The product of the norms of each part's weights in several tensors: (P,).

    Args, Raises: as for `group_norm`.

    >>> norm_product([torch.tensor([[3.0], [1.0]]), torch.tensor([[4.0, 0.0], [0.0, 0.0]])])
    tensor([12.,  0.])
    """
    return reduce(torch.mul, _norms(parts))


def group_taylor(inputs: Tensor, gradients: Tensor, parts: int) -> Tensor:
    """Mean over N of |Σ_e g x|: how an example's loss would change, were it a straight line: (P,).

    Σ_e g x is the derivative of the loss by a factor in front of the part, whose step from 1 to 0
    removes it. The magnitude is taken example by example: the sum over all examples is nearly zero
    at a minimum, whatever the part does.

    Args:
        inputs: x, what the parts send on, (N, I), with I = P · E.
        gradients: g, that of each example's loss by x, (N, I).
        parts: P.

    Returns:
        (P,), in float32 or wider.

    Raises:
        ValueError: the shapes differ, or parts do not divide I; NaN or infinity.

    Source: Molchanov et al., 2017, "Pruning Convolutional Neural Networks for
    Resource Efficient Inference".

    >>> x, g = torch.tensor([[2.0, 1.0], [2.0, 1.0]]), torch.tensor([[1.0, 3.0], [-1.0, 3.0]])
    >>> group_taylor(x, g, parts=2)
    tensor([2., 3.])
    """
    if inputs.dim() != 2 or inputs.shape != gradients.shape or inputs.shape[1] % parts:
        raise ValueError(
            "inputs and gradients must both have shape (N, I), and parts divide I; "
            f"got {tuple(inputs.shape)}, {tuple(gradients.shape)} and {parts}"
        )
    check_finite(inputs, "inputs")
    check_finite(gradients, "gradients")
    slopes = (wide(inputs) * wide(gradients)).unflatten(1, (parts, -1))  # (N, I) -> (N, P, E)
    return slopes.sum(dim=2).abs().mean(dim=0)


@without_autocast
@torch.no_grad()
def output_errors(weight: Tensor, hessian: Tensor, parts: int) -> Tensor:
    """The squared error of W x when one part goes, mean ‖W_p x_p‖² = ½ trace(W_p H_pp W_pᵀ): (P,).

    Its root is a contribution in which large values count more.

    Args, Raises: as for `repair_errors`.

    >>> output_errors(torch.tensor([[1.0, 2.0]]), torch.tensor([[4.0, 2.0], [2.0, 2.0]]), parts=2)
    tensor([2., 4.])
    """
    _check_parts(weight, hessian, parts)
    own = _own_blocks(hessian.double(), parts)  # (P, E, E)
    columns = weight.double().T.unflatten(0, (parts, -1))  # (I, O) -> (P, E, O)
    errors = (columns * (own @ columns)).sum(dim=(1, 2)) / 2
    return errors.to(wide(weight[:0]).dtype)


@without_autocast
@torch.no_grad()
def repair_errors(weight: Tensor, hessian: Tensor, parts: int, damping: float = DAMPING) -> Tensor:
    """The squared error of W x that is left when one part goes and the others are refitted: (P,).

        ½ trace(W_p ([(H + λ 1)⁻¹]_pp)⁻¹ W_pᵀ)

    Args:
        weight: W, (O, I), with I = P · E.
        hessian: H = 2 · mean x xᵀ, (I, I), from `layer_hessian`.
        parts: P.
        damping: λ / mean H_jj.

    Raises:
        ValueError: parts do not divide the inputs; what `damped_inverse` refuses.

    Source: Kurtic et al., 2023, "ZipLM: Inference-Aware Structured Pruning of Language
    Models".

    >>> hessian = torch.tensor([[4.0, 2.0], [2.0, 2.0]])
    >>> repair_errors(torch.tensor([[1.0, 2.0]]), hessian, parts=2, damping=0.0)
    tensor([1., 2.])
    """
    _check_parts(weight, hessian, parts)
    own = _own_blocks(damped_inverse(hessian.double(), damping), parts)  # (P, E, E)
    columns = weight.double().T.unflatten(0, (parts, -1))  # (I, O) -> (P, E, O)
    errors = (columns * torch.linalg.solve(own, columns)).sum(dim=(1, 2)) / 2
    return errors.to(wide(weight[:0]).dtype)


def mlp_scores(model: Llama, inputs: Tensor, targets: Tensor) -> dict[str, list[Tensor]]:
    """Every score of every hidden unit of a decoder's MLPs: by its name, (F,) for each of L layers.

    What every `down` is given is held at once: 4 L B T F bytes in float32.

    Args:
        model: is left as it is.
        inputs, targets: windows of calibration text and the tokens that follow, (B, T).

    Returns:
        "norm", "norm product", "Taylor", "contribution", "output error" and "repair error".

    >>> from course_lib.models.pretrained import tiny
    >>> tokens = torch.arange(9)[None]
    >>> {name: tuple(s[3].shape) for name, s in mlp_scores(tiny()[0], tokens, tokens).items()}
    ... # doctest: +NORMALIZE_WHITESPACE
    {'norm': (512,), 'norm product': (512,), 'Taylor': (512,), 'contribution': (512,),
     'output error': (512,), 'repair error': (512,)}
    """
    mlps = [block.mlp for block in model.blocks]
    parts = [[mlp.gate.weight, mlp.up.weight, mlp.down.weight.T] for mlp in mlps]
    given = record_inputs(model, inputs, [mlp.down for mlp in mlps])
    lasts = [mlp.down.weight.detach() for mlp in mlps]
    hessians = [layer_hessian(x) for x in given]
    gradients = _gradients_of_products(model, inputs, targets)
    return {
        "norm": [group_norm(some) for some in parts],
        "norm product": [norm_product(some) for some in parts],
        "Taylor": [group_taylor(x, g, len(x.T)) for x, g in zip(given, gradients, strict=True)],
        "contribution": [contributions(x, w, len(w.T)) for w, x in zip(lasts, given, strict=True)],
        "output error": [output_errors(w, h, len(h)) for w, h in zip(lasts, hessians, strict=True)],
        "repair error": [repair_errors(w, h, len(h)) for w, h in zip(lasts, hessians, strict=True)],
    }


def _gradients_of_products(model: Llama, inputs: Tensor, targets: Tensor) -> list[Tensor]:
    """∂L/∂x of what each layer's `down` is given, (N, F); L is the loss of all tokens together."""
    model = copy.deepcopy(model).requires_grad_(False)
    model.embedding.weight.requires_grad_()  # so that all behind it is followed
    found = [[] for _ in model.blocks]

    def follow(into: list) -> Callable:
        def hook(module: nn.Module, given: tuple) -> None:
            given[0].register_hook(lambda g: into.append(g.flatten(0, -2)))  # (B, T, F) -> (N, F)

        return hook

    for block, into in zip(model.blocks, found, strict=True):
        block.mlp.down.register_forward_pre_hook(follow(into))
    with torch.enable_grad():
        for some, following in zip(inputs.split(AT_ONCE), targets.split(AT_ONCE), strict=True):
            logits = model(some).float().flatten(0, 1)  # (B, T, V) -> (B · T, V)
            F.cross_entropy(logits, following.flatten(), reduction="sum").backward()
    return [torch.cat(parts) for parts in found]


def _own_blocks(matrix: Tensor, parts: int) -> Tensor:
    """The P blocks on the diagonal of a matrix: (I, I) -> (P, E, E)."""
    blocks = matrix.unflatten(0, (parts, -1)).unflatten(2, (parts, -1))  # (I, I) -> (P, E, P, E)
    return blocks.diagonal(dim1=0, dim2=2).permute(2, 0, 1)  # (E, E, P) -> (P, E, E)


def _check_parts(weight: Tensor, hessian: Tensor, parts: int) -> None:
    if weight.dim() != 2 or hessian.shape != (weight.shape[-1],) * 2 or weight.shape[1] % parts:
        raise ValueError(
            "weight must have shape (O, I), hessian (I, I), and parts divide I; "
            f"got {tuple(weight.shape)}, {tuple(hessian.shape)} and {parts}"
        )
    check_finite(weight, "weight")
    check_finite(hessian, "hessian")


def _norms(parts: Sequence[Tensor]) -> list[Tensor]:
    """Of each tensor the norms of its P parts."""
    if not parts or len({len(part) for part in parts}) > 1:
        raise ValueError(
            "parts must be tensors (P, …) that agree in P; "
            f"got shapes {[tuple(part.shape) for part in parts]}"
        )
    for part in parts:
        check_finite(part, "parts")
    return [wide(part).flatten(1).norm(dim=1) for part in parts]
