"""What may be done to a layer's weights, step by step: inputs of exercises, nothing to use.

Those whose names end in an underscore overwrite what they are given, and return it.

Axes: O outputs, I inputs.
"""

from torch import Tensor


def half_dropped(weight: Tensor) -> Tensor:
    """The smaller half of all numbers, by magnitude, becomes 0; of equal ones the earlier stay.

    >>> import torch
    >>> half_dropped(torch.tensor([[1.0, -3.0], [2.0, 0.5]]))
    tensor([[ 0., -3.],
            [ 2.,  0.]])
    """
    order = weight.abs().flatten().argsort(descending=True, stable=True)
    return weight.where(order.argsort().view_as(weight) < weight.numel() // 2, 0)


def rounded(weight: Tensor, largest: int = 3) -> Tensor:
    """On the levels s · (−largest … largest), with s so that a row's largest |w| is the last.

    >>> import torch
    >>> rounded(torch.tensor([[1.0, -6.0, 3.2]]))
    tensor([[ 0., -6.,  4.]])
    """
    step = weight.abs().amax(dim=1, keepdim=True) / largest
    return (weight / step.where(step > 0, 1)).round() * step


def clipped(weight: Tensor) -> Tensor:
    """Cut off at twice the mean magnitude of all numbers.

    >>> import torch
    >>> clipped(torch.tensor([[1.0, -1.0, 10.0]]))
    tensor([[ 1., -1.,  8.]])
    """
    bound = 2 * weight.abs().mean()
    return weight.minimum(bound).maximum(-bound)


def doubled(weight: Tensor) -> Tensor:
    """Twice as large, exactly.

    >>> import torch
    >>> doubled(torch.ones(1, 2))
    tensor([[2., 2.]])
    """
    return 2 * weight


def halved(weight: Tensor) -> Tensor:
    """Half as large, exactly, but for the smallest floats.

    >>> import torch
    >>> halved(torch.ones(1, 2))
    tensor([[0.5000, 0.5000]])
    """
    return weight / 2


def first_column_turned_(weight: Tensor) -> Tensor:
    """In place: the first column changes its sign.

    >>> import torch
    >>> first_column_turned_(torch.ones(1, 2))
    tensor([[-1.,  1.]])
    """
    weight[:, 0] *= -1
    return weight


def half_dropped_(weight: Tensor) -> Tensor:
    """In place: `half_dropped`.

    >>> import torch
    >>> half_dropped_(torch.tensor([[1.0, -3.0]]))
    tensor([[ 0., -3.]])
    """
    return weight.copy_(half_dropped(weight))


def rounded_(weight: Tensor) -> Tensor:
    """In place: `rounded`.

    >>> import torch
    >>> rounded_(torch.tensor([[1.0, -6.0]]))
    tensor([[ 0., -6.]])
    """
    return weight.copy_(rounded(weight))
