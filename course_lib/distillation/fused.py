"""`mixed_loss` with the memory of one gradient instead of a dozen intermediate tensors.

Its gradient is known in closed form: for N examples with label y (as a one-hot vector)

    ∂/∂s = ((1 − a) (softmax(s) − y) + a T (softmax(s/T) − softmax(t/T))) / N

So it can be computed together with the loss, a few rows at a time, while these are in the
processor's cache. Nothing but the gradient is kept until `backward`. The teacher gets no gradient,
and there is no second derivative.

Axes: N examples, C classes.
"""

import torch
from torch import Tensor

BLOCK = 2**17  # logits looked at together


def fused_mixed_loss(
    student: Tensor, teacher: Tensor, labels: Tensor, temperature: float, soft_share: float
) -> Tensor:
    """What `losses.mixed_loss` computes, with less memory; arguments as there.

    >>> student, teacher = torch.tensor([[1.0, 2.0, 0.0]]), torch.tensor([[4.0, 1.0, 0.0]])
    >>> fused_mixed_loss(student, teacher, torch.tensor([0]), temperature=4.0, soft_share=0.7)
    tensor(1.5739)
    """
    if student.shape != teacher.shape or student.dim() != 2:
        raise ValueError(
            "student and teacher must have logits of one shape (N, C); "
            f"got {tuple(student.shape)} and {tuple(teacher.shape)}"
        )
    if not (temperature > 0 and 0 <= soft_share <= 1):
        raise ValueError(
            "temperature must be above 0 and soft_share from 0 to 1; "
            f"got {temperature} and {soft_share}"
        )
    return _FusedMixedLoss.apply(student, teacher.detach(), labels, temperature, soft_share)


class _FusedMixedLoss(torch.autograd.Function):
    @staticmethod
    def forward(ctx, student, teacher, labels, temperature, soft_share):
        gradient = torch.empty_like(student)
        rows = max(1, BLOCK // student.shape[1])
        parts = (x.split(rows) for x in (student, teacher, labels, gradient))
        wide = torch.promote_types(student.dtype, torch.float32)
        total = student.new_zeros((), dtype=wide)
        for s, t, y, g in zip(*parts, strict=True):
            total += _block(s, t, y, g, temperature, soft_share)
        ctx.save_for_backward(gradient.div_(len(student)))
        return total / len(student)

    @staticmethod
    def backward(ctx, outer):
        (gradient,) = ctx.saved_tensors
        return (gradient * outer).to(gradient.dtype), None, None, None, None


def _block(s: Tensor, t: Tensor, y: Tensor, g: Tensor, temperature: float, share: float) -> Tensor:
    """The summed loss of some rows, in float32 at least; their gradient is written into g."""
    wide = torch.promote_types(s.dtype, torch.float32)
    s, t, y = s.to(wide), t.to(wide), y[:, None]
    hard = s.log_softmax(dim=1)
    loss = -(1 - share) * hard.gather(1, y).sum()
    found = hard.exp()
    found.scatter_add_(1, y, torch.full_like(y, -1, dtype=wide)).mul_(1 - share)
    log_q = torch.div(s, temperature, out=hard).log_softmax(dim=1)
    log_p = torch.div(t, temperature, out=hard).log_softmax(dim=1)
    p = log_p.exp()
    loss += share * temperature**2 * torch.sum(p * log_p.sub_(log_q).masked_fill_(p == 0, 0))
    g.copy_(found.add_(log_q.exp_().sub_(p), alpha=share * temperature))
    return loss
