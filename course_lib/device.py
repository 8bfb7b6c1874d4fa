"""Where the lessons compute."""

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
