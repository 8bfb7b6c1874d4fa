"""A small convolution network with BatchNorm for the digits, 8 × 8 pixels.

Source of BatchNorm: Ioffe and Szegedy, 2015, "Batch Normalization: Accelerating Deep Network
Training by Reducing Internal Covariate Shift".

Axes: B batch.
"""

from torch import nn


class DigitsCNN(nn.Sequential):
    """Images (B, 64) in, logits (B, 10) out; three convolutions of 16, 32 and 32 channels.

    Trained by `digits_mlp.train_digits`, as all networks for these images.

    >>> import torch
    >>> DigitsCNN()(torch.zeros(2, 64)).shape, sum(p.numel() for p in DigitsCNN().parameters())
    (torch.Size([2, 10]), 15418)
    """

    def __init__(self):
        super().__init__(
            nn.Unflatten(1, (1, 8, 8)),
            nn.Conv2d(1, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU(),
            nn.Conv2d(16, 32, 3, padding=1, bias=False), nn.BatchNorm2d(32), nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(32, 32, 3, padding=1, bias=False), nn.BatchNorm2d(32), nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(), nn.Linear(128, 10),
        )  # fmt: skip
