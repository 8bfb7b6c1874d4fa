"""Is a tensor made of finite numbers? If not, an error says where it is not."""

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor


def check_floats(tensor: Tensor, name: str) -> None:
    """Raise unless a tensor holds floats, and is not empty."""
    if not tensor.is_floating_point():
        raise TypeError(f"{name} must be a tensor of floats; got {tensor.dtype}")
    if tensor.numel() == 0:
        raise ValueError(f"{name} must not be empty; got shape {tuple(tensor.shape)}")


def check_finite(tensor: Tensor, name: str) -> None:
    """Raise unless a tensor of any shape holds finite floats.

    Raises:
        TypeError: not floats.
        ValueError: empty, NaN or infinity.

    >>> check_finite(torch.tensor([1.0, float("inf")]), "weight")
    Traceback (most recent call last):
    ValueError: weight must be finite; got 1 NaN or infinity among 2 numbers, first at [1]
    """
    check_floats(tensor, name)
    if is_fake(tensor) or torch.stack(tensor.aminmax()).isfinite().all():
        return
    wrong = (~tensor.isfinite()).nonzero()
    raise ValueError(
        f"{name} must be finite; got {len(wrong)} NaN or infinity among {tensor.numel()} numbers, "
        f"first at {wrong[0].tolist()}"
    )


def is_fake(tensor: Tensor) -> bool:
    """Whether a tensor has a shape and a device but no numbers, so that nothing can be checked."""
    return isinstance(tensor, FakeTensor)
