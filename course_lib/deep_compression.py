"""Deep Compression whole: prune a network, let its weights share few values, train those, write it.

    prune       gradually while training, to a share of the weights       pruning
    share       k values for a layer's weights, k' for its biases         quantization
    retrain     the values alone; the network before is the teacher       quantization, distillation
    write       places by their gaps, both under Huffman's code           formats

Two things are ours and not the paper's: the weights go a few at a time and not in one cut, and the
targets are the dense network's own outputs, softened (Hinton, Vinyals, Dean, 2015).

Source: Han, Mao, Dally, 2016, "Deep Compression: Compressing Deep Neural Networks with Pruning,
Trained Quantization and Huffman Coding".
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from course_lib.data.images import Digits
from course_lib.distillation.losses import mixed_loss
from course_lib.formats.model_file import pack_model
from course_lib.formats.shared import Shared
from course_lib.models.digits_mlp import BATCH, train_digits
from course_lib.models.parts import linear_weights, prunable_weights
from course_lib.models.training import frozen
from course_lib.pruning.schedules import cubic_density, follow_density
from course_lib.quantization.shared_values import SharedValues

Loss = Callable[[nn.Module, Tensor, Tensor], Tensor]
TEMPERATURE, SOFT_SHARE = 4.0, 0.9
PRUNING = 0.7  # of the epochs: after them the density stays
RETRAINING_RATE = 2e-3


@dataclass(frozen=True)
class Recipe:
    """How far a network is compressed, and for how long it is trained.

    density: share of the linear weights that stay.
    values: how many different ones a layer's weights may have, zero not counted.
    bias_values: the same for its biases.
    epochs: of training while weights go.
    retraining: epochs of training the values.
    """

    density: float = 0.07
    values: int = 8
    bias_values: int = 8
    epochs: int = 60
    retraining: int = 30


def deep_compression(
    dense: nn.Sequential, data: Digits, recipe: Recipe = Recipe(), seed: int = 0
) -> dict[str, Tensor]:
    """The compressed network as a file holds it, for `model_file.unpack_model`.

    Args:
        dense: trained on the digits, linear layers with ReLU between them; left as it is.
        data: on the network's device.
        seed: of the order of the images.

    >>> from course_lib.data.images import digits
    >>> from course_lib.models.digits_mlp import small_student
    >>> packed = deep_compression(small_student(0), digits(), Recipe(0.2, epochs=1, retraining=1))
    >>> sum(part.nbytes for part in packed.values()) < 400  # of 3640 bytes
    True
    """
    loss = teacher_loss(dense)
    pruned = drop_dead_units(prune_gradually(dense, data, recipe, loss, seed))
    shared = share_and_retrain(pruned, data, recipe, loss, seed)
    return pack_model(shared, dict.fromkeys(dict(shared.named_parameters()), Shared()))


def teacher_loss(teacher: nn.Module) -> Loss:
    """`mixed_loss` of a network's logits, the labels, and what the teacher says of the images."""

    def loss(model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
        with frozen(teacher), torch.no_grad():
            answer = teacher(images)
        return mixed_loss(model(images), answer, labels, TEMPERATURE, SOFT_SHARE)

    return loss


def prune_gradually(
    dense: nn.Module, data: Digits, recipe: Recipe, loss: Loss, seed: int = 0
) -> nn.Module:
    """A copy of the network, trained while its smallest weights go.

    Source: Zhu and Gupta, 2017, "To Prune, or Not to Prune".
    """
    model = copy.deepcopy(dense)
    steps = recipe.epochs * -(-len(data.train_images) // BATCH)
    stop = max(1, round(PRUNING * steps))

    def prepare(optimizer: torch.optim.Optimizer) -> None:
        follow_density(
            optimizer,
            prunable_weights(model),
            lambda step: cubic_density(step, 0, stop, recipe.density),
        )

    train_digits(model, data, recipe.epochs, seed=seed, loss=loss, prepare=prepare)
    return model


@torch.no_grad()
def drop_dead_units(model: nn.Sequential) -> nn.Sequential:
    """A copy that computes the same, without what nothing depends on.

    A unit without an outgoing weight loses its incoming ones and its bias. A unit without an
    incoming weight always gives ReLU(bias), which moves into the biases behind it.

    >>> model = nn.Sequential(nn.Linear(1, 2), nn.ReLU(), nn.Linear(2, 1))
    >>> rows = ([[3.0], [0.0]], [1.0, 2.0], [[0.0, 5.0]], [0.5])
    >>> for parameter, numbers in zip(model.parameters(), rows):
    ...     parameter.data = torch.tensor(numbers)
    >>> [parameter.tolist() for parameter in drop_dead_units(model).parameters()]
    [[[0.0], [0.0]], [0.0, 0.0], [[0.0, 0.0]], [10.5]]
    """
    model = copy.deepcopy(model)
    layers = [layer for layer in model if isinstance(layer, nn.Linear)]
    for layer, behind in zip(layers, layers[1:], strict=False):
        constant = ~layer.weight.any(dim=1)
        behind.bias += behind.weight[:, constant] @ layer.bias[constant].relu()
        behind.weight[:, constant] = 0
    for layer, behind in reversed([*zip(layers, layers[1:], strict=False)]):
        unread = ~behind.weight.any(dim=0)
        layer.weight[unread] = 0
        layer.bias[unread] = 0
    return model


def share_and_retrain(
    model: nn.Module, data: Digits, recipe: Recipe, loss: Loss, seed: int = 0
) -> nn.Module:
    """A copy whose weights and biases take few values, trained; float16 numbers all of them."""
    weights = linear_weights(model).keys()
    names = dict(model.named_parameters())
    k = {name: recipe.values if name in weights else recipe.bias_values for name in names}
    shared = SharedValues(model, k)
    train_digits(shared, data, recipe.retraining, RETRAINING_RATE, seed, loss)
    return shared.model()
