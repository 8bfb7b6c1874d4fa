"""A training loop for a student, with a teacher, with a teacher's stored answers, or with none."""

from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from course_lib.distillation.teacher import frozen

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
    full_rates = [[group["lr"] for group in one.param_groups] for one in optimizers]
    mode, losses = student.training, []
    student.train()
    with frozen(teacher) if teacher is not None else nullcontext():
        for step, (inputs, targets) in enumerate(batches):
            _set_rates(optimizers, full_rates, factor(step))
            with torch.no_grad():
                answer = teacher(inputs) if teacher is not None else None
            value = loss(student(inputs), answer, targets)
            for optimizer in optimizers:
                optimizer.zero_grad()
            value.backward()
            nn.utils.clip_grad_norm_(student.parameters(), LARGEST_GRADIENT)
            for optimizer in optimizers:
                optimizer.step()
            losses.append(value.detach())
    student.train(mode)
    _set_rates(optimizers, full_rates, 1.0)
    return torch.stack(losses)


def _set_rates(optimizers, full_rates, share: float) -> None:
    for optimizer, rates in zip(optimizers, full_rates, strict=True):
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = share * rate


def fit(
    model: nn.Module, loss: Callable[[nn.Module], Tensor], steps: int = 40, rate: float = 0.05
) -> None:
    """Train the model in place: `steps` steps of AdamW down the gradient of loss(model).

    For data so small that one batch holds all of it.

    >>> model = nn.Linear(2, 1)
    >>> fit(model, lambda m: m.weight.square().sum(), steps=200)
    >>> bool(model.weight.abs().max() < 0.01)
    True
    """
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate)
    for _ in range(steps):
        value = loss(model)
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
