"""By what score does a whole unit or head go? The lowest go; `scores` has those of single weights.

    norm            √ Σ w² over all that would go together               no data
    norm product    ‖gate_p‖ ‖up_p‖ ‖down_p‖                             no data
    Taylor          |Σ g w| over what the part sends on                  gradients
    contribution    mean ‖W_p x_p‖, in `models.layers`                   inputs of the last matrix
    output error    mean ‖W_p x_p‖²: of the output, without the part     their second moments
    repair error    of the output, once the others were refitted         their second moments

The norm changes when a unit's `up` is doubled and its `down` halved, which changes nothing else.
The product does not, nor do those that use data.

Axes: N examples, O outputs, I inputs, P parts, E columns of a part, L layers, F hidden units.
"""

import copy
from collections.abc import Sequence
from functools import reduce

import torch
import torch.nn.functional as F
from torch import Tensor

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


def group_taylor(weight: Tensor, gradient: Tensor) -> Tensor:
    """|Σ g w| over each part: how the loss would change without it, were it a straight line.

    The derivative of the loss by a factor in front of the part, whose step from 1 to 0 removes it.

    Args:
        weight: what the part sends on, (P, …): of an MLP downᵀ alone, as all of a unit's effect
            goes through it.
        gradient: ∂L/∂w, of that shape.

    Returns:
        (P,), in float32 or wider.

    Raises:
        ValueError: the shapes differ; NaN or infinity.

    Source: Molchanov et al., 2017, "Pruning Convolutional Neural Networks for
    Resource Efficient Inference"; summed before the magnitude is taken.

    >>> group_taylor(torch.tensor([[2.0, 1.0]]), torch.tensor([[1.0, -3.0]]))
    tensor([1.])
    """
    if weight.shape != gradient.shape:
        raise ValueError(
            f"gradient must have the weight's shape {tuple(weight.shape)}; "
            f"got {tuple(gradient.shape)}"
        )
    check_finite(weight, "weight")
    check_finite(gradient, "gradient")
    return (wide(weight) * wide(gradient)).flatten(1).sum(dim=1).abs()


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
    gradients = _gradients_of_down(model, inputs, targets)
    return {
        "norm": [group_norm(some) for some in parts],
        "norm product": [norm_product(some) for some in parts],
        "Taylor": [group_taylor(w.T, g.T) for w, g in zip(lasts, gradients, strict=True)],
        "contribution": [contributions(x, w, len(w.T)) for w, x in zip(lasts, given, strict=True)],
        "output error": [output_errors(w, h, len(h)) for w, h in zip(lasts, hessians, strict=True)],
        "repair error": [repair_errors(w, h, len(h)) for w, h in zip(lasts, hessians, strict=True)],
    }


def _gradients_of_down(model: Llama, inputs: Tensor, targets: Tensor) -> list[Tensor]:
    """∂L/∂w of each layer's `down`, (D, F); L is the mean loss of a token."""
    model = copy.deepcopy(model).requires_grad_(False)
    weights = [block.mlp.down.weight.requires_grad_() for block in model.blocks]
    with torch.enable_grad():
        for some, following in zip(inputs.split(AT_ONCE), targets.split(AT_ONCE), strict=True):
            logits = model(some).float().flatten(0, 1)  # (B, T, V) -> (B · T, V)
            loss = F.cross_entropy(logits, following.flatten(), reduction="sum")
            (loss / targets.numel()).backward()
    return [weight.grad for weight in weights]


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
