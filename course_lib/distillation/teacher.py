"""A teacher only answers: it does not learn, and answers the same question the same way."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


@contextmanager
def frozen(teacher: nn.Module) -> Iterator[None]:
    """The teacher in eval mode and without gradients; afterwards as it was before."""
    modes = [(module, module.training) for module in teacher.modules()]
    flags = [(parameter, parameter.requires_grad) for parameter in teacher.parameters()]
    teacher.eval().requires_grad_(False)
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode
        for parameter, flag in flags:
            parameter.requires_grad_(flag)
