"""How well a model decides yes or no, again and again: against another model, against labels.

A model says for each chunk of a recording how probable speech is; above one half it decides yes.

    agreement     share of chunks for which two models decide alike
    distance      mean |p − q| of their probabilities: it moves before a decision does
    wrong share   share of labelled chunks for which a model decides otherwise than the label

Axes: any, the same for all tensors of a call: chunks, recordings.
"""

from torch import Tensor

from course_lib.models.finite import check_finite

THRESHOLD = 0.5


def agreement(probabilities: Tensor, reference: Tensor) -> float:
    """Share, from 0 to 1, of places where both decide alike: yes above one half.

    Raises:
        ValueError: shapes that differ; empty; NaN.

    >>> import torch
    >>> agreement(torch.tensor([0.4, 0.9, 0.6]), torch.tensor([0.1, 0.6, 0.4]))
    0.6666666666666666
    """
    _check(probabilities, reference)
    alike = (probabilities > THRESHOLD) == (reference > THRESHOLD)
    return alike.sum().item() / alike.numel()


def distance(probabilities: Tensor, reference: Tensor) -> float:
    """Mean |p − q|, from 0 to 1.

    Raises:
        ValueError: shapes that differ; empty; NaN.

    >>> import torch
    >>> distance(torch.tensor([0.5, 1.0]), torch.tensor([0.25, 1.0]))
    0.125
    """
    _check(probabilities, reference)
    return (probabilities.double() - reference.double()).abs().mean().item()


def wrong_share(probabilities: Tensor, labels: Tensor) -> float:
    """Share, from 0 to 1, of the labelled places where the decision is not the label.

    Args:
        labels: 1 yes, 0 no, below 0 where neither is right: these do not count.

    Raises:
        ValueError: shapes that differ; NaN; no label that counts, or one above 1.

    >>> import torch
    >>> wrong_share(torch.tensor([0.4, 0.9, 0.6, 0.2]), torch.tensor([0, 1, 0, -1]))
    0.3333333333333333
    """
    _check(probabilities, labels.to(probabilities.dtype))
    counts = labels >= 0
    if (labels > 1).any() or not counts.any():
        raise ValueError(
            f"labels must be 1, 0 or below 0, some of them not below 0; got {labels.unique()}"
        )
    wrong = counts & ((probabilities > THRESHOLD) != (labels == 1))
    return wrong.sum().item() / counts.sum().item()


def _check(probabilities: Tensor, other: Tensor) -> None:
    if probabilities.shape != other.shape:
        raise ValueError(
            "probabilities must have the shape of what they are compared with; "
            f"got {tuple(probabilities.shape)} and {tuple(other.shape)}"
        )
    check_finite(probabilities, "probabilities")
    check_finite(other, "what they are compared with")
