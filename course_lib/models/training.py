"""One training loop, with what it needs: optimizers, the rate, a teacher that stays as it is."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR, LRScheduler

from course_lib.models.llama import Llama
from course_lib.models.muon import Muon

MUON_RATE, ADAM_RATE = 0.02, 3e-3


def train(
    model: nn.Module,
    batches: Iterable[Any],
    loss: Callable[[nn.Module, Any], Tensor],
    optimizers: Sequence[torch.optim.Optimizer],
    schedules: Sequence[LRScheduler] = (),
    longest: float | None = None,
) -> Tensor:
    """Train the model in place, one step for each batch.

    A model in eval mode is in training mode meanwhile; of one in training mode, the parts that are
    in eval mode (a frozen BatchNorm) stay so. Afterwards, be it the end, an error or an interrupt,
    its mode and the optimizers' learning rates are what they were.

    Args:
        model: of whatever `loss` gives it.
        batches: whatever `loss` takes.
        loss: of (model, batch), a 0-d tensor.
        optimizers: over the model's parameters, and others that are to learn with it.
        schedules: of the learning rates, `follow_rate` for example; stepped after each step.
        longest: gradients of the model are clipped to this length, if it is given.

    Returns:
        The loss of each step, before the step: (steps,).

    >>> model = nn.Linear(2, 1)
    >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    >>> losses = train(model, range(9), lambda m, _: m.weight.square().sum(), [optimizer])
    >>> losses.shape, bool(losses[-1] < losses[0])
    (torch.Size([9]), True)
    """
    modes = [(module, module.training) for module in model.modules()]
    groups = [group for optimizer in optimizers for group in optimizer.param_groups]
    rates = [group.get("initial_lr", group["lr"]) for group in groups]
    losses = []
    if not model.training:
        model.train()
    try:
        for batch in batches:
            value = loss(model, batch)
            for optimizer in optimizers:
                optimizer.zero_grad()
            value.backward()
            if longest is not None:
                nn.utils.clip_grad_norm_(model.parameters(), longest)
            for step in (*optimizers, *schedules):
                step.step()
            losses.append(value.detach())
    finally:
        for module, mode in modes:
            module.training = mode
        for group, rate in zip(groups, rates, strict=True):
            group["lr"] = rate
            group.pop("initial_lr", None)
    return torch.stack(losses) if losses else torch.empty(0)


def next_token_loss(model: nn.Module, windows: tuple[Tensor, Tensor]) -> Tensor:
    """Mean cross-entropy, in nats per token, of windows from `random_windows`."""
    inputs, targets = windows
    return F.cross_entropy(model(inputs).flatten(0, 1), targets.flatten())  # (B, T, V) -> (B·T, V)


def follow_rate(
    optimizers: Sequence[torch.optim.Optimizer], factor: Callable[[int], float]
) -> list[LRScheduler]:
    """Schedules under which step k has factor(k) times the full learning rate."""
    return [LambdaLR(optimizer, factor) for optimizer in optimizers]


def make_optimizers(model: Llama) -> list[torch.optim.Optimizer]:
    """Muon for the matrices of the blocks, AdamW for the embedding and the norms."""
    matrices = [p for p in model.blocks.parameters() if p.dim() == 2]
    others = [p for p in model.parameters() if all(p is not m for m in matrices)]
    return [
        Muon(matrices, lr=MUON_RATE),
        torch.optim.AdamW(others, lr=ADAM_RATE, betas=(0.9, 0.95), weight_decay=0.0),
    ]


def rate_factor(step: int, steps: int) -> float:
    """Share of the full learning rate: up over 20 steps, flat, then down over the last fifth.

    >>> [round(rate_factor(step, 1000), 3) for step in (0, 19, 500, 900, 999)]
    [0.05, 1.0, 1.0, 0.5, 0.005]
    """
    return min(1.0, (step + 1) / 20, (steps - step) / (0.2 * steps))


def fit(
    model: nn.Module, loss: Callable[[nn.Module], Tensor], steps: int = 40, rate: float = 0.05
) -> Tensor:
    """Train the model in place: `steps` steps of AdamW down the gradient of loss(model).

    For data so small that one batch holds all of it. Returns the loss before each step, (steps,).

    >>> model = nn.Linear(2, 1)
    >>> losses = fit(model, lambda m: m.weight.square().sum(), steps=200)
    >>> bool(model.weight.abs().max() < 0.01)
    True
    """
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate)
    return train(model, range(steps), lambda model, _: loss(model), [optimizer])


@contextmanager
def frozen(teacher: nn.Module) -> Iterator[None]:
    """The teacher in eval mode and without gradients; afterwards as it was before."""
    modes = [(module, module.training) for module in teacher.modules()]
    flags = [(parameter, parameter.requires_grad) for parameter in teacher.parameters()]
    teacher.eval().requires_grad_(False)
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode
        for parameter, flag in flags:
            parameter.requires_grad_(flag)
