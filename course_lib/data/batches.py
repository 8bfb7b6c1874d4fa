"""Cut a long run of tokens into windows: at random for training, side by side for evaluation.

Axes: N tokens of the whole text, B windows, T tokens of a window.
"""

import torch
from torch import Tensor


def random_windows(
    tokens: Tensor, batch: int, length: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """`batch` windows at random places: inputs (B, T) and, one token later, targets (B, T).

    Args:
        tokens: (N,), with N > length.
        generator: a CPU generator, so that the same seed gives the same batches on every device.

    >>> inputs, targets = random_windows(torch.arange(9), 2, 4, torch.Generator().manual_seed(0))
    >>> inputs.shape, bool((targets == inputs + 1).all())
    (torch.Size([2, 4]), True)
    """
    _check_tokens(tokens, length)
    starts = torch.randint(len(tokens) - length, (batch, 1), generator=generator)
    windows = tokens[starts.to(tokens.device) + torch.arange(length + 1, device=tokens.device)]
    return windows[:, :-1], windows[:, 1:]


def consecutive_windows(tokens: Tensor, length: int) -> tuple[Tensor, Tensor]:
    """All whole windows from the start: inputs (B, T) and, one token later, targets (B, T).

    >>> inputs, targets = consecutive_windows(torch.arange(9), 4)
    >>> inputs.tolist(), targets.tolist()
    ([[0, 1, 2, 3], [4, 5, 6, 7]], [[1, 2, 3, 4], [5, 6, 7, 8]])
    """
    _check_tokens(tokens, length)
    used = (len(tokens) - 1) // length * length
    # (N,) -> (B, T)
    return tokens[:used].view(-1, length), tokens[1 : used + 1].view(-1, length)


def _check_tokens(tokens: Tensor, length: int) -> None:
    if tokens.dim() != 1 or len(tokens) <= length:
        raise ValueError(
            f"tokens must have shape (N,) with N > length; got {tuple(tokens.shape)}, {length=}"
        )
