"""How many times a model calls PyTorch: each call costs some microseconds, whatever it computes."""

from collections.abc import Callable

from torch.utils._python_dispatch import TorchDispatchMode


class _Counting(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.calls = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.calls += 1
        return function(*args, **(kwargs or {}))


def count_calls(function: Callable[[], object]) -> int:
    """How many operations of PyTorch a function calls; views, which compute nothing, count too.

    >>> import torch
    >>> x = torch.ones(3)
    >>> count_calls(lambda: (2 * x + 1).relu())
    3
    """
    with _Counting() as counting:
        function()
    return counting.calls
