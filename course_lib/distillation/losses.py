"""How far a student's answers are from a teacher's.

Logits t of the teacher and s of the student become distributions at a temperature T,

    p = softmax(t / T),    q = softmax(s / T),    KL(p ‖ q) = Σ_c p_c ln(p_c / q_c).

Every loss here is summed over the C classes and averaged over the examples; PyTorch's own
`kl_div(reduction="mean")` would divide by C as well. The gradient of KL at temperature T is
(q − p) / T, and q − p itself shrinks as 1 / T; the factor T² makes up for both.

Axes: … examples (any number of axes), N examples in one row, C classes.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

LEAST = -1e4  # the logarithm of a probability that is 0 in every dtype
IGNORED = -100  # the target that PyTorch's cross_entropy leaves out by default


def soft_target_loss(student: Tensor, teacher: Tensor, temperature: float = 1.0) -> Tensor:
    """T² · KL(p ‖ q), averaged over the examples, in nats.

    Args:
        student: logits (…, C).
        teacher: logits (…, C); −∞ stands for a class that cannot be.
        temperature: T > 0.

    Source: Hinton, Vinyals, Dean, 2015, "Distilling the Knowledge in a Neural Network".

    >>> soft_target_loss(torch.tensor([[1.0, 2.0, 0.0]]), torch.tensor([[4.0, 1.0, 0.0]]), 4.0)
    tensor(1.6451)
    """
    log_p, log_q = _log_both(student, teacher, temperature)
    return temperature**2 * _divergence(log_p, log_q).mean()


def reverse_loss(student: Tensor, teacher: Tensor, temperature: float = 1.0) -> Tensor:
    """T² · KL(q ‖ p): punishes what the student says and the teacher would not.

    Args as for `soft_target_loss`, but for −∞.

    Source: Gu, Dong, Wei, Huang, 2024, "MiniLLM: Knowledge Distillation of Large Language Models".

    >>> some = torch.tensor([[1.0, 2.0]])
    >>> reverse_loss(some, some)
    tensor(0.)
    """
    log_p, log_q = _log_both(student, teacher, temperature)
    return temperature**2 * _divergence(log_q, log_p).mean()


def jensen_shannon_loss(student: Tensor, teacher: Tensor, temperature: float = 1.0) -> Tensor:
    """T² · (KL(p ‖ m) + KL(q ‖ m)) / 2 with m = (p + q) / 2: symmetric, at most T² ln 2.

    Args as for `soft_target_loss`.

    Source: Agarwal et al., 2024, "On-Policy Distillation of Language Models: Learning from
    Self-Generated Mistakes".

    >>> apart = torch.tensor([[50.0, -50.0]])
    >>> jensen_shannon_loss(apart, -apart)
    tensor(0.6931)
    """
    log_p, log_q = _log_both(student, teacher, temperature)
    never = torch.maximum(log_p, log_q) == -torch.inf  # for both; logaddexp has no gradient there
    log_p, log_q = (log.masked_fill(never, LEAST) for log in (log_p, log_q))
    log_m = torch.logaddexp(log_p, log_q) - torch.log(log_p.new_tensor(2.0))
    return temperature**2 * (_divergence(log_p, log_m) + _divergence(log_q, log_m)).mean() / 2


def logit_matching_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Σ_c (d_c − d̄)² / (2 C) with d = s − t: the limit of `soft_target_loss` for T → ∞.

    A constant added to all logits changes no probability, and does not count here either.

    Source: Ba and Caruana, 2014, "Do Deep Nets Really Need to be Deep?"; as a limit: Hinton,
    Vinyals, Dean, 2015.

    >>> logit_matching_loss(torch.tensor([[1.0, 2.0]]), torch.tensor([[5.0, 4.0]]))
    tensor(0.5000)
    """
    difference = _wide(student) - _wide(teacher)
    centred = difference - difference.mean(dim=-1, keepdim=True)
    return centred.square().mean() / 2


def mixed_loss(
    student: Tensor, teacher: Tensor, labels: Tensor, temperature: float, soft_share: float
) -> Tensor:
    """(1 − a) · CE(y, softmax(s)) + a · T² · KL(p ‖ q). The labels' term has no temperature.

    Args:
        student, teacher: logits (N, C).
        labels: (N,) y, from 0 to C − 1.
        temperature: T > 0, of the soft term.
        soft_share: a, from 0 (labels alone) to 1 (teacher alone).

    Source: Hinton, Vinyals, Dean, 2015, "Distilling the Knowledge in a Neural Network".

    >>> student, teacher = torch.tensor([[1.0, 2.0, 0.0]]), torch.tensor([[4.0, 1.0, 0.0]])
    >>> mixed_loss(student, teacher, torch.tensor([0]), temperature=4.0, soft_share=0.7)
    tensor(1.5739)
    """
    if not 0 <= soft_share <= 1:
        raise ValueError(f"soft_share must be from 0 to 1; got {soft_share}")
    hard = F.cross_entropy(_wide(student), labels)
    return (1 - soft_share) * hard + soft_share * soft_target_loss(student, teacher, temperature)


def decoupled_loss(
    student: Tensor,
    teacher: Tensor,
    labels: Tensor,
    temperature: float = 1.0,
    target_weight: float = 1.0,
    others_weight: float = 8.0,
) -> Tensor:
    """T² · (α KL(label or not) + β KL(among the others)): two parts of KL, weighted apart.

    With p_y the teacher's probability of the label, KL(p ‖ q) is the first part plus (1 − p_y)
    times the second. So a confident teacher silences what it knows about the other classes.

    Args:
        student, teacher: logits (N, C).
        labels: (N,) y, from 0 to C − 1.
        temperature: T > 0.
        target_weight, others_weight: α and β.

    Source: Zhao, Cui, Song, Qiu, Liang, 2022, "Decoupled Knowledge Distillation".
    """
    is_label = F.one_hot(labels, student.shape[-1]).bool()
    log_p, log_q = _log_both(student, teacher, temperature)
    first = _divergence(_label_or_not(log_p, is_label), _label_or_not(log_q, is_label))
    among_p, among_q = (_among_others(log, is_label) for log in (log_p, log_q))
    second = _divergence(among_p, among_q)
    return temperature**2 * (target_weight * first + others_weight * second).mean()


def token_loss(
    student: Tensor, teacher: Tensor, targets: Tensor, temperature: float = 1.0
) -> Tensor:
    """`soft_target_loss` over the tokens of sequences, each alike; those that are padding left out.

    Args:
        student, teacher: logits (…, C).
        targets: token numbers (…); `IGNORED` (−100) where there is none.
        temperature: T > 0.

    Raises:
        ValueError: all of `targets` is padding.

    Source: Kim and Rush, 2016, "Sequence-Level Knowledge Distillation" (there "word-level").

    >>> logits = torch.randn(2, 3, 5)
    >>> token_loss(logits, logits, torch.tensor([[1, 2, -100], [4, -100, -100]]))
    tensor(0.)
    """
    real = targets != IGNORED
    if not real.any():
        raise ValueError(f"targets must hold a token; got {tuple(targets.shape)} of padding alone")
    # Cleared before anything is computed: a NaN in the padding must not reach the gradient.
    student, teacher = (logits.where(real[..., None], 0) for logits in (student, teacher))
    log_p, log_q = _log_both(student, teacher, temperature)
    return temperature**2 * _divergence(log_p, log_q).sum() / real.sum()


def _log_both(student: Tensor, teacher: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """(ln p, ln q) at a temperature."""
    if student.shape != teacher.shape:
        raise ValueError(
            "student and teacher must have logits of one shape; "
            f"got {tuple(student.shape)} and {tuple(teacher.shape)}"
        )
    if not temperature > 0:
        raise ValueError(f"temperature must be above 0; got {temperature}")
    student, teacher = _wide(student), _wide(teacher)
    return (teacher / temperature).log_softmax(-1), (student / temperature).log_softmax(-1)


def _wide(x: Tensor) -> Tensor:
    """In float32 at least: half precision loses small differences of large sums."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _divergence(log_p: Tensor, log_q: Tensor) -> Tensor:
    """Σ_c p_c (ln p_c − ln q_c): (…, C) -> (…); a class with p_c = 0 adds nothing."""
    p = log_p.exp()
    return (p * (log_p - log_q).masked_fill(p == 0, 0)).sum(dim=-1)


def _label_or_not(log: Tensor, is_label: Tensor) -> Tensor:
    """Log-probabilities (N, C) -> (N, 2): of the label, and of all others together."""
    others = log.masked_fill(is_label, -torch.inf).logsumexp(dim=-1)
    return torch.stack([log[is_label], others], dim=-1)


def _among_others(log: Tensor, is_label: Tensor) -> Tensor:
    """Log-probabilities (N, C) -> (N, C − 1): of the others, given that it is not the label."""
    others = log[~is_label].view(len(log), -1)  # (N · (C − 1),) -> (N, C − 1)
    return others.log_softmax(dim=-1)
