"""Exercises of 08_distillation: a teacher's answers used, by token, as features, and stored.

Axes: B batch, T tokens, C classes (or tokens of the vocabulary), D student's width, E teacher's
width, k tokens kept.
"""

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from course_lib.exercises.distillation.losses import kl, pairs_of_logits
from course_lib.exercises.engine.seeded import Draw
from course_lib.exercises.engine.spec import Case, Exercise, Misconception, Property, labelled_cases

# ---------------------------------------------------------------------- repaired_training


def repaired_training(
    student: nn.Module,
    teacher: nn.Module,
    x_train: Tensor,
    y_train: Tensor,
    x_validation: Tensor,
    steps: int,
    rate: float,
) -> nn.Module:
    """A copy of the student after `steps` steps of SGD on its mean square from the teacher.

    Every step sees all of the right inputs. The teacher answers as it does in use; the weights of
    `student` and `teacher` stay as they are.
    """
    student = copy.deepcopy(student)
    optimizer = torch.optim.SGD(student.parameters(), lr=rate)
    teacher.eval()
    with torch.no_grad():
        answers = teacher(x_train)
    for _ in range(steps):
        loss = F.mse_loss(student(x_train), answers)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return student


def _document_pairs(seed: int) -> list[Case]:
    draw = Draw(seed)

    def linear(inputs: int = 6, outputs: int = 3) -> nn.Module:
        return draw.module(lambda: nn.Linear(inputs, outputs))

    def deep(width: int, *more: nn.Module) -> nn.Module:
        return nn.Sequential(linear(6, width), nn.ReLU(), *more, linear(width))

    far = linear()
    with torch.no_grad():
        far.weight *= 20  # gradients longer than 1: nothing is clipped here
    pairs = {
        "a linear student": (linear(), deep(8), draw.number(4, 7), 0.1),
        "a small network": (deep(2), deep(8), draw.number(7, 10), 0.2),
        "a single step": (linear(), linear(), 1, 0.05),
        "a teacher with dropout": (linear(), deep(8, nn.Dropout(0.5)), 5, 0.1),
        "a teacher with running statistics": (linear(), deep(8, nn.BatchNorm1d(8)), 3, 0.1),
        "a student with dropout": (deep(8, nn.Dropout(0.5)), linear(), 3, 0.1),
        "a teacher far away": (linear(), far, 3, 0.1),
        "in float64": (linear().double(), linear().double(), 4, 0.1),
    }
    cases = {}
    for label, (student, teacher, steps, rate) in pairs.items():
        dtype = next(student.parameters()).dtype
        data = (draw.normal(12, 6), draw.normal(12, 3), draw.normal(12, 6))
        cases[label] = (student, teacher, *(x.to(dtype) for x in data), steps, rate)
    names = ("student", "teacher", "x_train", "y_train", "x_validation", "steps", "rate")
    return labelled_cases(names, cases)


def _sgd(student, inputs, targets, steps, rate, zero=True, extra=()):
    student = copy.deepcopy(student)
    optimizer = torch.optim.SGD([*student.parameters(), *extra], lr=rate)
    for _ in range(steps):
        loss = F.mse_loss(student(inputs), targets() if callable(targets) else targets)
        if zero:
            optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return student


REPAIRED_TRAINING = Exercise(
    reference=repaired_training,
    cases=_document_pairs,
    hints=(
        "In the source's loop, which line uses teacher_output after it was computed?",
        "The loss compares the student's outputs with the teacher's, on the training inputs. "
        "Validation data judges; it does not teach.",
        "copy.deepcopy(student) first, then torch.optim.SGD on the copy. zero_grad, backward, "
        "step, `steps` times.",
    ),
    misconceptions=(
        Misconception(
            "the source's loop",
            lambda s, t, x, y, v, n, rate: _sgd(s, x, y, n, rate),
            "that is the source's loop: it compares the student with y_train, and the teacher's "
            "outputs are never used. Any teacher, even a broken one, gives this student.",
        ),
        Misconception(
            "trained on the validation data",
            lambda s, t, x, y, v, n, rate: _sgd(s, v, t(v).detach(), n, rate),
            "the student learned on the validation inputs, as the source's text says. Then nothing "
            "is left to judge it by: learn on x_train.",
        ),
        Misconception(
            "gradients never zeroed",
            lambda s, t, x, y, v, n, rate: _sgd(s, x, t(x).detach(), n, rate, zero=False),
            "gradients of all earlier steps were added up. Call optimizer.zero_grad() before each "
            "backward.",
        ),
        Misconception(
            "the teacher learns too",
            lambda s, t, x, y, v, n, rate: _sgd(s, x, lambda: t(x), n, rate, extra=t.parameters()),
            "the optimizer held the teacher's parameters, so the teacher came to meet the student. "
            "The easiest way to agree is to both know nothing.",
        ),
        Misconception(
            "a copy of the teacher",
            lambda s, t, x, y, v, n, rate: copy.deepcopy(t),
            "you returned a model of the teacher's size, as the source does. It agrees with the "
            "teacher, and saves nothing.",
        ),
    ),
)

# --------------------------------------------------------------------- token_distillation


def token_distillation(student: Tensor, teacher: Tensor, targets: Tensor) -> Tensor:
    """KL(teacher ‖ student) of logits (B, T, C), mean over all tokens whose target is not −100.

    At T = 1, in the logits' dtype. Logits of padding may be anything, NaN too, in both models: they
    reach neither the value nor the gradient. At least one token is real.
    """
    real = targets != -100
    nothing = torch.zeros_like(student)
    student, teacher = (logits.where(real[..., None], nothing) for logits in (student, teacher))
    log_q, log_p = student.log_softmax(dim=2), teacher.log_softmax(dim=2)
    return torch.div((log_p.exp() * (log_p - log_q)).sum(), real.sum())


def _padded(seed: int) -> list[Case]:
    draw = Draw(seed)
    classes = draw.number(4, 8)

    def case(*lengths: int, front=False, student=None, teacher=None) -> tuple[Tensor, ...]:
        longest = max(lengths)
        targets = draw.integers(0, classes, len(lengths), longest)
        padding = torch.arange(longest) >= torch.tensor(lengths)[:, None]
        padding = padding.flip(1) if front else padding
        logits = [2 * draw.normal(len(lengths), longest, classes) for _ in range(2)]
        for some, broken in zip(logits, (student, teacher), strict=True):
            if broken is not None:
                some[padding] = broken
        return (*logits, targets.masked_fill(padding, -100))

    nan, certain = torch.nan, case(3, 1)
    certain[1][0, 0, 0] = 1e4
    certain[0][0, 1, 1] = 1e4
    cases = {
        "no padding": case(3, 3),
        "a single token": case(1, 0),
        "sequences of different length": case(4, 1),
        "padding in front": case(1, 2, 3, front=True),
        "a sequence of padding alone": case(3, 0, 2),
        "padding that holds NaN": case(2, 1, 4, student=nan, teacher=nan),
        "NaN in the student's padding alone": case(1, 3, student=nan),
        "NaN in the teacher's padding alone": case(3, 1, teacher=nan),
        "padding that holds infinity": case(2, 3, student=torch.inf, teacher=-torch.inf),
        "a certain teacher, a certain student": certain,
        "in float64": tuple(x.double() + 1e6 if x.is_floating_point() else x for x in case(2, 1)),
    }
    return labelled_cases(("student", "teacher", "targets"), cases)


def _per_sequence(s, t, y):
    real = y != -100
    divergence = kl(s, t, 1, 1).where(real, 0)
    return (divergence.sum(dim=1) / real.sum(dim=1)).mean()


TOKEN_DISTILLATION = Exercise(
    reference=token_distillation,
    cases=_padded,
    differentiable=("student",),
    hints=(
        "targets != -100 says which tokens are real. Clear the others' logits first: equal ones "
        "have KL 0. Clear the KL at the end, and the value is right, but the gradient is 0 · NaN.",
        "Then KL for each token: a sum over the vocabulary.",
        "Divide the sum by the number of real tokens, not of positions, and not of sequences.",
    ),
    misconceptions=(
        Misconception(
            "padding counted",
            lambda s, t, y: kl(s, t, 1, 1).mean(),
            "padding was counted like text. The student is then trained to imitate what the "
            "teacher says about nothing.",
        ),
        Misconception(
            "divided by all positions",
            lambda s, t, y: kl(s, t, 1, 1).where(y != -100, 0).mean(),
            "padding was set to zero but still counted in the mean: the more padding a batch has, "
            "the less its real tokens weigh.",
        ),
        Misconception(
            "mean of each sequence first",
            _per_sequence,
            "you averaged within each sequence, then over the sequences. A token of a short "
            "sequence then counts more than one of a long one.",
        ),
        Misconception(
            "batchmean of a sequence",
            lambda s, t, y: kl(s, t, 1, 1).where(y != -100, 0).sum() / len(s),
            'you divided by the number of sequences. That is what reduction="batchmean" does with '
            "(B, T, C): it knows the first axis only.",
        ),
        Misconception(
            "multiplied by the mask",
            lambda s, t, y: (kl(s, t, 1, 1) * (y != -100)).sum() / (y != -100).sum(),
            "you multiplied by a mask of zeros and ones. Where the logits of padding are NaN, "
            "0 · NaN is NaN; clear the padding before anything is computed.",
        ),
        Misconception(
            "cleared at the end",
            lambda s, t, y: kl(s, t, 1, 1).where(y != -100, 0).sum() / (y != -100).sum(),
            "the padding was cleared after KL had been computed. The value is right, but on the "
            "way back the gradient is 0 · NaN: clear the logits of both before you compute.",
        ),
    ),
)

# --------------------------------------------------------------------------- feature_loss


def feature_loss(student: Tensor, teacher: Tensor, projection: Tensor) -> Tensor:
    """Mean squared difference of the projected student (B, T, D) and the teacher (B, T, E).

    projection: (E, D), the weight of an nn.Linear(D, E, bias=False). It learns with the student.
    The mean is over all B · T · E numbers, in the features' dtype.
    """
    return (student @ projection.T - teacher).square().mean()


def _features(seed: int) -> list[Case]:
    draw = Draw(seed)

    def case(batch: int, tokens: int, d: int, e: int, scale: float = 1.0) -> tuple[Tensor, ...]:
        student, teacher = 2 * draw.normal(batch, tokens, d), 2 * draw.normal(batch, tokens, e)
        return student, scale * teacher, draw.normal(e, d)

    width = draw.number(3, 6)
    last_far = case(2, 3, 3, 4)
    last_far[1][-1, -1] *= 50
    cases = {
        "a wide teacher": case(2, 3, width, width + 3),
        "a teacher twice as wide": case(2, 4, 3, 6),
        "equal widths": case(2, 3, width, width),
        "a narrow teacher": case(3, 2, width, width - 2),
        "one token": case(1, 1, 3, 4),
        "a loud teacher": case(2, 2, 3, 5, scale=100.0),
        "one token far from the others": last_far,
        "in float64": tuple(1e30 * x.double() for x in case(2, 2, 2, 3)),
    }
    return labelled_cases(("student", "teacher", "projection"), cases)


FEATURE_LOSS = Exercise(
    reference=feature_loss,
    cases=_features,
    relative_tolerance=1e-4,
    differentiable=("student", "projection"),
    hints=(
        "The student's features have to become as wide as the teacher's.",
        "nn.Linear with weight W (E, D) computes x @ W.T: (B, T, D) -> (B, T, E).",
        "Squared differences, averaged over everything.",
    ),
    misconceptions=(
        Misconception(
            "the teacher projected down",
            lambda s, t, w: (s - t @ w).square().mean(),
            "you projected the teacher down to the student's width. With a learned projection that "
            "has a cheap way out: project everything to zero, and ask the student for zero.",
        ),
        Misconception(
            "first coordinates only",
            lambda s, t, w: (s - t[..., : s.shape[-1]]).square().mean(),
            "you compared with the teacher's first coordinates. Nothing says that they mean what "
            "the student's mean, nor that the others may be left out.",
        ),
        Misconception(
            "projected twice",
            lambda s, t, w: ((s @ w.T) @ w - t @ w).square().mean(),
            "you compared in the student's width after projecting there and back. What the "
            "projection cannot see of the teacher is then never asked for.",
        ),
        Misconception(
            "summed over the width",
            lambda s, t, w: (s @ w.T - t).square().sum(dim=-1).mean(),
            "the squares were summed over the width: a wider teacher would count more against the "
            "other terms of the loss. Take the mean.",
        ),
        Misconception(
            "distance instead of square",
            lambda s, t, w: (s @ w.T - t).square().mean().sqrt(),
            "you took the square root. Near the goal the gradient of a distance does not get "
            "smaller, so training never settles.",
        ),
    ),
)

# ----------------------------------------------------------------------------- reverse_kl


def reverse_kl(student: Tensor, teacher: Tensor) -> Tensor:
    """KL(student ‖ teacher) of logits (B, C) at T = 1, mean over B: the student weighs.

    In the logits' dtype; finite even where one of the two is certain (a probability of 0).
    """
    log_q, log_p = student.log_softmax(dim=1), teacher.log_softmax(dim=1)
    return (log_q.exp() * (log_q - log_p)).sum(dim=1).mean()


def _two_without_temperature(seed: int) -> list[Case]:
    return labelled_cases(("student", "teacher"), pairs_of_logits(seed))


REVERSE_KL = Exercise(
    reference=reverse_kl,
    cases=_two_without_temperature,
    differentiable=("student",),
    relative_tolerance=1e-4,
    absolute_tolerance=1e-4,
    hints=(
        "Swap the roles: whose probabilities stand in front of the logarithm?",
        "Σ q (ln q − ln p), with q the student's.",
    ),
    properties=(Property("KL is never negative", lambda inputs, v: bool(v > -1e-6)),),
    misconceptions=(
        Misconception(
            "forward KL",
            lambda s, t: kl(s, t, 1, 1).mean(),
            "that is KL(teacher ‖ student), the usual one. Reverse KL weighs by the student's own "
            "probabilities: it pays for saying what the teacher would not.",
        ),
        Misconception(
            "only the sign changed",
            lambda s, t: -kl(s, t, 1, 1).mean(),
            "minus KL(teacher ‖ student) is not KL(student ‖ teacher): the weights are still the "
            "teacher's, and it is never positive.",
        ),
        Misconception(
            "entropy forgotten",
            lambda s, t: -(s.softmax(1) * t.log_softmax(1)).sum(dim=1).mean(),
            "you left out Σ q ln q. Without it the student does best by putting everything on the "
            "teacher's favourite, and equals do not have 0.",
        ),
        Misconception(
            "both directions",
            lambda s, t: (kl(s, t, 1, 1) + kl(t, s, 1, 1)).mean() / 2,
            "you averaged both directions. Asked is one of them.",
        ),
        Misconception(
            "divided by the classes",
            lambda s, t: kl(t, s, 1, 1).mean() / s.shape[1],
            "you divided by the number of classes. Sum over the classes, average over examples.",
        ),
    ),
)

# ------------------------------------------------------------------------------ cached_kl


def cached_kl(student: Tensor, log_probabilities: Tensor, tokens: Tensor) -> Tensor:
    """KL over k + 1 outcomes, the teacher's top k and "something else", mean over B.

    student: logits (B, C).
    log_probabilities, tokens: ln p of the teacher's k likeliest tokens, and which; (B, k).
    The k hold less than all of the probability, and come in any order. In the logits' dtype.
    """
    log_q = student.log_softmax(dim=1)
    log_q_rest = log_q.scatter(1, tokens, -torch.inf).logsumexp(dim=1)
    log_q, p = log_q.gather(1, tokens), log_probabilities.exp()
    p_rest = 1 - p.sum(dim=1)
    top = (p * (log_probabilities - log_q)).sum(dim=1)
    return (top + p_rest * (p_rest.log() - log_q_rest)).mean()


def _stored(seed: int) -> list[Case]:
    draw = Draw(seed)

    def case(batch: int, classes: int, k: int) -> tuple[Tensor, ...]:
        log_p = (2 * draw.normal(batch, classes)).log_softmax(dim=1)
        values, tokens = log_p.topk(k, dim=1)
        return 2 * draw.normal(batch, classes), values, tokens

    def confident(favourite: int, logit: float) -> tuple[Tensor, ...]:
        """A student that is sure of its `favourite`; 0 and 1 are kept."""
        student = draw.normal(1, 6)
        student[0, favourite] += logit
        return student, torch.tensor([[0.7, 0.2]]).log(), torch.tensor([[0, 1]])

    in_order, doubles = case(3, 7, 4), case(2, 6, 2)
    tokens, order = in_order[2].sort(dim=1)
    cases = {
        "two of five": case(1, 5, 2),
        "three of many": case(4, draw.number(8, 12), 3),
        "one of six": case(3, 6, 1),
        "all but one": case(2, 5, 4),
        "kept in the vocabulary's order": (in_order[0], in_order[1].gather(1, order), tokens),
        "a confident student": confident(draw.number(0, 2), 20.0),
        "a student that is certain": confident(draw.number(0, 2), 500.0),
        "certain of what was not kept": confident(draw.number(2, 6), 500.0),
        "in float64": (doubles[0].double() + 1e6, doubles[1].double(), doubles[2]),
    }
    return labelled_cases(("student", "log_probabilities", "tokens"), cases)


def _top_alone(s, log_p, i):
    return (log_p.exp() * (log_p - s.log_softmax(1).gather(1, i))).sum(dim=1).mean()


def _scaled_up(s, log_p, i):
    return kl(s.gather(1, i), log_p, 1, 1).mean()


def _teacher_scaled_up(s, log_p, i):
    log_p = log_p.log_softmax(dim=1)
    return _top_alone(s, log_p, i)


def _rounded_rest(s, log_p, i):
    log_q, p = s.log_softmax(1).gather(1, i), log_p.exp()
    p_rest, q_rest = 1 - p.sum(dim=1), 1 - log_q.exp().sum(dim=1)
    return ((p * (log_p - log_q)).sum(dim=1) + p_rest * (p_rest / q_rest).log()).mean()


def _first_k(s, log_p, i):
    return cached_kl(s, log_p, torch.arange(i.shape[1], device=i.device).expand_as(i))


CACHED_KL = Exercise(
    reference=cached_kl,
    cases=_stored,
    differentiable=("student",),
    hints=(
        "The student's ln q comes from all its logits; gather(1, tokens) then picks the k.",
        "What is left for all other tokens together? For p, 1 − the sum of the k. For q, which may "
        "be tiny, the logsumexp over the tokens that were not kept: 1 − a sum near 1 is rounded.",
        "Add one more term to the sum: p_rest · ln(p_rest / q_rest).",
    ),
    properties=(Property("KL is never negative", lambda inputs, v: bool(v > -1e-6)),),
    misconceptions=(
        Misconception(
            "the rest forgotten",
            _top_alone,
            "the rest is missing. The k terms alone are no divergence: they can be negative, and "
            "they are smallest when the student puts everything on the top k.",
        ),
        Misconception(
            "both scaled up to one",
            _scaled_up,
            "you compared the two among the top k only. The student may then put any amount on "
            "tokens that the teacher finds unlikely: nothing punishes it.",
        ),
        Misconception(
            "the teacher scaled up to one",
            _teacher_scaled_up,
            "you scaled the teacher's k probabilities up to a sum of 1. The student then learns "
            "that nothing else ever comes.",
        ),
        Misconception(
            "1 − a sum near 1",
            _rounded_rest,
            "the student put everything on the kept tokens, and 1 − Σ q was rounded to 0. Take the "
            "logsumexp of the others.",
        ),
        Misconception(
            "the first k tokens",
            _first_k,
            "you took the student's first k tokens. Which k the teacher kept, `tokens` says.",
        ),
    ),
)
