"""Where the lessons compute."""

from collections.abc import Callable
from functools import wraps

import torch


def best_device() -> torch.device:
    """The accelerator if this machine has one that knows float64 (cuda, xpu, …), else the CPU.

    Apple's (mps) does not know it, and lessons and checks need it here and there.

    >>> best_device().type in ("cpu", "cuda", "xpu")
    True
    """
    accelerator = torch.accelerator.current_accelerator(check_available=True)
    if accelerator is None or accelerator.type == "mps":
        return torch.device("cpu")
    return accelerator


def without_autocast(function: Callable) -> Callable:
    """The function, computing in its inputs' own types under `torch.autocast`, too.

    Autocast takes products of matrices to bfloat16: two digits, too few to solve equations with.

    >>> with torch.autocast("cpu", dtype=torch.bfloat16):
    ...     print(without_autocast(torch.matmul)(torch.ones(2, 2), torch.ones(2, 2)).dtype)
    torch.float32
    """

    @wraps(function)
    def exact(*arguments, **named):
        device = next((a.device.type for a in arguments if torch.is_tensor(a)), "cpu")
        if not (torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)):
            return function(*arguments, **named)
        with torch.autocast(device, enabled=False):
            return function(*arguments, **named)

    return exact
