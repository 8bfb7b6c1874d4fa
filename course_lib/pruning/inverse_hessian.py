"""A loss's second derivatives H, and the inverse of H as pruning and quantization need it.

Whoever removes or rounds one weight and moves the others to make up for it needs H⁻¹, and after
that weight the inverse without it. In one fixed order all these inverses lie in one triangular
matrix, `inverse_factor`: GPTQ and SparseGPT go through a layer with it. Where each row chooses its
own order, `obs_prune` starts from `damped_inverse`.

Axes: N examples, I inputs.
"""

import torch
from torch import Tensor

from course_lib.device import without_autocast
from course_lib.models.finite import check_finite, is_fake


@without_autocast
def layer_hessian(inputs: Tensor) -> Tensor:
    """H = 2 XᵀX / N: of the squared error of one output, ‖X(w + δ) − Xw‖² / N = ½ δᵀHδ.

    All outputs of a linear layer have this one Hessian. It is float64, as it is to be inverted.
    That of several batches of equal size is the mean of theirs.

    Args:
        inputs: X, what the layer is given, (N, I).

    Returns:
        H, (I, I), float64.

    Raises:
        ValueError: the shape does not fit, or inputs are not finite.

    Source: Frantar et al., 2022, "Optimal Brain Compression: A Framework for Accurate
    Post-Training Quantization and Pruning".

    >>> layer_hessian(torch.tensor([[1.0, 0.0], [1.0, 2.0]]))
    tensor([[2., 2.],
            [2., 4.]], dtype=torch.float64)
    """
    if inputs.dim() != 2:
        raise ValueError(f"inputs must have shape (N, I); got {tuple(inputs.shape)}")
    check_finite(inputs, "inputs")
    X = inputs.double()
    return 2 / len(X) * (X.T @ X)  # (I, N) (N, I) -> (I, I)


def damped(hessian: Tensor, damping: float) -> Tensor:
    """H + λ 1 with λ = damping · mean |H_qq|: (I, I), float64; arguments as for `inverse_factor`.

    Raises:
        ValueError: H is not (I, I), symmetric, finite, float32 or float64; damping is negative.

    >>> damped(torch.tensor([[3.0, 1.0], [1.0, 1.0]]), damping=0.5)
    tensor([[4., 1.],
            [1., 2.]], dtype=torch.float64)
    """
    if hessian.dim() != 2 or hessian.shape[0] != hessian.shape[1]:
        raise ValueError(f"hessian must have shape (I, I); got {tuple(hessian.shape)}")
    if hessian.dtype not in (torch.float32, torch.float64):
        raise ValueError(f"hessian must be float32 or float64; got {hessian.dtype}")
    if not 0 <= damping < torch.inf:
        raise ValueError(f"damping must be at least 0 and finite; got {damping}")
    check_finite(hessian, "hessian")
    wide = hessian.double()
    if not is_fake(wide) and (wide - wide.T).abs().max() > 1e-3 * wide.abs().max():
        raise ValueError("hessian must be symmetric; H and Hᵀ differ by more than a thousandth")
    level = damping * wide.diagonal().abs().mean()
    eye = torch.eye(len(wide), dtype=wide.dtype, device=wide.device)
    return (wide + wide.T) / 2 + level * eye


@without_autocast
def inverse_factor(hessian: Tensor, damping: float = 0.0) -> Tensor:
    """The upper triangular U with UᵀU = (H + λ 1)⁻¹, where λ = damping · mean |H_qq|.

    Row q is the column u of the step that removes weight q after all weights before it: what stays
    of U below and right of it is the factor for the others. `damping` makes a matrix invertible
    that is not: inputs that are always 0, inputs that others foretell, fewer examples than inputs,
    directions in which a network's loss bends down. It also holds the weights near their values.

    Args:
        hessian: H, (I, I), symmetric, float32 or float64.
        damping: at least 0; GPTQ and SparseGPT take 0.01.

    Returns:
        U, (I, I).

    Raises:
        ValueError: H is not symmetric and finite; H + λ 1 is not positive definite, or so nearly
            not that rounding decides.

    Source: Frantar et al., 2023, "GPTQ: Accurate Post-Training Quantization
    for Generative Pre-trained Transformers".

    >>> U = inverse_factor(torch.tensor([[2.0, 1.0], [1.0, 1.0]]))
    >>> U.T @ U
    tensor([[ 1., -1.],
            [-1.,  2.]])
    """
    return _factor(hessian, damping).to(hessian.dtype)


@without_autocast
def damped_inverse(hessian: Tensor, damping: float = 0.0) -> Tensor:
    """(H + λ 1)⁻¹ with λ = damping · mean |H_qq|: (I, I); arguments and errors: `inverse_factor`.

    >>> damped_inverse(torch.tensor([[2.0, 0.0], [0.0, 0.0]]), damping=1.0)
    tensor([[0.3333, 0.0000],
            [0.0000, 1.0000]])
    """
    factor = _factor(hessian, damping)
    return (factor.T @ factor).to(hessian.dtype)


def _factor(hessian: Tensor, damping: float) -> Tensor:
    """Upper U with UᵀU = (H + λ 1)⁻¹, float64; an error if that is not positive definite.

    1 / (H_qq [H⁻¹]_qq) is the share of input q that the others do not foretell. Where it is no more
    than H's rounding, the inverse is made of rounding.
    """
    matrix = damped(hessian, damping)
    backwards, failed = torch.linalg.cholesky_ex(matrix.flip(0, 1))  # L; its flip R has H = R Rᵀ
    eye = torch.eye(len(matrix), dtype=matrix.dtype, device=matrix.device)
    factor = torch.linalg.solve_triangular(backwards.flip(0, 1), eye, upper=True)  # R⁻¹
    own_share = 1 / (matrix.diagonal() * factor.square().sum(dim=0))
    rounding = len(matrix) * torch.finfo(hessian.dtype).eps
    if is_fake(matrix) or not (failed or not (own_share > rounding).all()):
        return factor
    smallest = torch.linalg.eigvalsh(matrix)[0].item()
    level = hessian.diagonal().double().abs().mean().item()
    if level == 0:
        raise ValueError("hessian must have a diagonal that is not 0 everywhere")
    needed = damping + max(-smallest / level, rounding)
    raise ValueError(
        "hessian must be positive definite beyond rounding, its damping included; its smallest "
        f"eigenvalue is {smallest:.3g}: damping must be above {needed:.3g}; got {damping}"
    )
