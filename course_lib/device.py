"""Where the lessons compute."""

import torch


def best_device() -> torch.device:
    """The accelerator if this machine has one (cuda, mps, …), else the CPU.

    >>> best_device().type in ("cpu", "cuda", "mps", "xpu")
    True
    """
    accelerator = torch.accelerator.current_accelerator(check_available=True)
    return accelerator or torch.device("cpu")
