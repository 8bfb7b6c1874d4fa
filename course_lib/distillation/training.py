"""A student trained with a teacher, with a teacher's stored answers, or with none."""

from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from course_lib.models.training import follow_rate, frozen, train

LARGEST_GRADIENT = 1.0


def distill(
    student: nn.Module,
    batches: Iterable[tuple[Tensor, Any]],
    loss: Callable[[Any, Any, Any], Tensor],
    optimizers: Sequence[torch.optim.Optimizer],
    teacher: nn.Module | None = None,
    factor: Callable[[int], float] = lambda step: 1.0,
) -> Tensor:
    """Train the student in place, one step for each batch; the teacher stays as it is.

    While this runs the teacher is in eval mode (no dropout, no running statistics) and without
    gradients. Gradients of the student are clipped to length 1.

    Args:
        student: of inputs.
        batches: (inputs, targets); targets are whatever the loss takes, stored answers too.
        loss: of (student's output, teacher's output or None, targets).
        optimizers: over the student's parameters, and a projection's if there is one.
        teacher: of the same inputs.
        factor: step -> share of the full learning rate.

    Returns:
        The loss of each step, before the step: (steps,).

    >>> student, teacher = nn.Linear(2, 2), nn.Linear(2, 2)
    >>> batches = [(torch.randn(8, 2), None)] * 50
    >>> losses = distill(student, batches, lambda s, t, _: (s - t).square().mean(),
    ...                  [torch.optim.SGD(student.parameters(), lr=0.5)], teacher)
    >>> bool(losses[-1] < 0.1 * losses[0])
    True
    """

    def both(student: nn.Module, batch: tuple) -> Tensor:
        inputs, targets = batch
        with torch.no_grad():
            answer = teacher(inputs) if teacher is not None else None
        return loss(student(inputs), answer, targets)

    schedules = follow_rate(optimizers, factor)
    with frozen(teacher) if teacher is not None else nullcontext():
        return train(student, batches, both, optimizers, schedules, LARGEST_GRADIENT)
