"""A small student for TinyLM, and three ways to train it on the same windows of text.

Axes: N windows, B windows of a batch, T tokens of a window, V vocabulary.
"""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from course_lib.distillation.cache import TopK, top_k_loss
from course_lib.distillation.losses import soft_target_loss
from course_lib.distillation.training import distill
from course_lib.models.llama import Llama, LlamaConfig, initialize
from course_lib.models.training import make_optimizers, rate_factor

STUDENT = LlamaConfig(
    vocabulary=2048, width=96, layers=2, heads=4, kv_heads=2, mlp_width=256, context=256
)
BATCH = 8


def new_student(seed: int = 0) -> Llama:
    """A student of 399,840 parameters that knows nothing yet; TinyLM has 4.9 times as many.

    >>> sum(parameter.numel() for parameter in new_student().parameters())
    399840
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Llama(STUDENT)
        initialize(model)
    return model


def train_student(
    student: Llama,
    windows: tuple[Tensor, Tensor],
    steps: int,
    teacher: Llama | None = None,
    kept: TopK | None = None,
    seed: int = 0,
) -> Tensor:
    """Train in place, `steps` batches of 8 windows: from the text, or from the teacher's answers.

    Args:
        student: on the windows' device.
        windows: inputs and targets, (N, T) both.
        steps: at least 1. Equal seeds choose equal windows, whoever teaches.
        teacher: asked at every step; the loss is `soft_target_loss` at T = 1.
        kept: the teacher's stored answers on the N windows; then the loss is `top_k_loss`.
        seed: of the choice of windows.

    Returns:
        The loss of each step, (steps,); of another kind with a teacher than without.
    """

    def loss(logits: Tensor, answer: Tensor | None, targets: Tensor | TopK) -> Tensor:
        if answer is not None:
            return soft_target_loss(logits, answer)
        if kept is not None:
            return top_k_loss(logits, targets)
        return F.cross_entropy(logits.flatten(0, 1), targets.flatten())

    wanted = windows[1] if kept is None else kept
    batches = _batches(windows[0], wanted, steps, seed)
    optimizers = make_optimizers(student)
    return distill(student, batches, loss, optimizers, teacher, lambda k: rate_factor(k, steps))


def _batches(inputs: Tensor, targets, steps: int, seed: int) -> Iterator[tuple]:
    """Batches of windows, all of them once before one comes again."""
    generator = torch.Generator().manual_seed(seed)
    order = torch.empty(0, dtype=torch.int64)
    for _ in range(steps):
        if len(order) < BATCH:
            order = torch.cat([order, torch.randperm(len(inputs), generator=generator)])
        rows, order = order[:BATCH].to(inputs.device), order[BATCH:]
        yield inputs[rows], targets[rows]
