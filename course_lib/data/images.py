"""Small images that arrive with scikit-learn."""

from typing import NamedTuple

import torch
from torch import Tensor


class Digits(NamedTuple):
    """Images (N, 64) with values from 0 to 1, and labels (N,) from 0 to 9."""

    train_images: Tensor
    train_labels: Tensor
    test_images: Tensor
    test_labels: Tensor


def digits(seed: int = 0) -> Digits:
    """1257 training and 540 test images of handwritten digits, 8×8 pixels, classes balanced.

    Source: Alpaydin and Kaynak, 1998, "Optical Recognition of Handwritten Digits" (UCI).

    >>> data = digits()
    >>> data.train_images.shape, data.test_images.shape, float(data.test_images.max())
    (torch.Size([1257, 64]), torch.Size([540, 64]), 1.0)
    """
    from sklearn.datasets import load_digits  # here, since it takes 2 s that not all need
    from sklearn.model_selection import train_test_split

    images, labels = load_digits(return_X_y=True)
    parts = train_test_split(images / 16, labels, test_size=540, stratify=labels, random_state=seed)
    train_images, test_images, train_labels, test_labels = map(torch.from_numpy, parts)
    return Digits(train_images.float(), train_labels, test_images.float(), test_labels)
