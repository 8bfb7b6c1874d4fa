"""A small network for the digits, 64-300-100-10, that trains in about a second.

Its hidden layers are those of LeNet-300-100, which reads 784 pixels instead of 64 (LeCun, Bottou,
Bengio, Haffner, 1998, "Gradient-Based Learning Applied to Document Recognition").

Axes: B batch.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from course_lib.data.images import Digits
from course_lib.models.training import train

BATCH = 64


class DigitsMLP(nn.Sequential):
    """Images (B, 64) in, logits (B, 10) out; two hidden layers with ReLU.

    >>> DigitsMLP()(torch.zeros(2, 64)).shape
    torch.Size([2, 10])
    """

    def __init__(self):
        super().__init__(
            nn.Linear(64, 300), nn.ReLU(), nn.Linear(300, 100), nn.ReLU(), nn.Linear(100, 10)
        )


def small_student(seed: int) -> nn.Module:
    """A network 64-12-10 for the same images, of 910 parameters: 2 % of `DigitsMLP`.

    >>> sum(parameter.numel() for parameter in small_student(0).parameters())
    910
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(64, 12), nn.ReLU(), nn.Linear(12, 10))


def cross_entropy(model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    """Mean cross-entropy of the model's logits, in nats per image."""
    return F.cross_entropy(model(images), labels)


def train_digits(
    model: nn.Module,
    data: Digits,
    epochs: int = 20,
    rate: float = 5e-3,
    seed: int = 0,
    loss: Callable[[nn.Module, Tensor, Tensor], Tensor] = cross_entropy,
    prepare: Callable[[torch.optim.Optimizer], None] = lambda optimizer: None,
) -> None:
    """Train the model in place with AdamW; the learning rate rises to `rate`, then falls to zero.

    Args:
        model: takes images (B, 64).
        data: from `data.images.digits`, on the model's device.
        epochs: passes over the training images.
        rate: highest learning rate.
        seed: of the order of the images.
        loss: of a batch, from (model, images, labels).
        prepare: called with the optimizer before the first step, to hang a mask on it for example.

    >>> from course_lib.data.images import digits
    >>> torch.manual_seed(0)  # doctest: +ELLIPSIS
    <torch...>
    >>> model, data = DigitsMLP(), digits()
    >>> train_digits(model, data, epochs=2)
    >>> bool((model(data.test_images).argmax(1) == data.test_labels).float().mean() > 0.8)
    True
    """
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=1e-4)
    prepare(optimizer)
    count = epochs * -(-len(data.train_images) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=count)
    batches = (rows for _ in range(epochs) for rows in _shuffled(data, generator))

    def batch_loss(model: nn.Module, rows: Tensor) -> Tensor:
        return loss(model, data.train_images[rows], data.train_labels[rows])

    train(model, batches, batch_loss, [optimizer], [schedule])
    model.eval()


def _shuffled(data: Digits, generator: torch.Generator) -> tuple[Tensor, ...]:
    """The numbers of all training images in a random order, BATCH at a time."""
    order = torch.randperm(len(data.train_images), generator=generator)
    return order.to(data.train_images.device).split(BATCH)
