"""Exercises of 08_distillation, from softmax at a temperature to a student with few labels.

Axes: B batch, T tokens, C classes (or tokens of the vocabulary), D student's width, E teacher's
width, k tokens kept.
"""

import copy
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from course_lib.data.images import digits
from course_lib.distillation.losses import soft_target_loss
from course_lib.distillation.training import fit
from course_lib.exercises.engine.spec import Case, Exercise, Misconception, Property
from course_lib.models.digits_mlp import DigitsMLP, train_digits


def _logits(*shape: int, seed: int = 0) -> Tensor:
    return 2 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


# --------------------------------------------------------------------------------- soften


def soften(logits: Tensor, temperature: float) -> Tensor:
    """softmax(logits / T) over the last axis, (…, C)."""
    return (logits / temperature).softmax(dim=-1)


def _some_logits() -> list[Case]:
    one = torch.tensor([4.0, 1.0, 0.0])
    cases = {
        "one example": (one, 1.0),
        "a high temperature": (one, 4.0),
        "a low temperature": (one, 0.5),
        "a batch": (_logits(3, 5), 2.0),
        "sequences": (_logits(2, 3, 4), 8.0),
        "large logits": (torch.tensor([[900.0, 899.0, 100.0]]), 1.0),
    }
    return [Case(k, {"logits": x, "temperature": t}) for k, (x, t) in cases.items()]


def _by_hand(logits, temperature):
    powers = (logits / temperature).exp()
    return powers / powers.sum(dim=-1, keepdim=True)


SOFTEN = Exercise(
    reference=soften,
    cases=_some_logits,
    hints=(
        "The temperature changes the logits, before they become probabilities.",
        "Divide by it: at T = 4 the gaps between the logits are a quarter as large.",
        "(…).softmax(dim=-1) works on the last axis, however many there are.",
    ),
    properties=(
        Property(
            "the probabilities of an example sum to 1",
            lambda inputs, p: bool((p.sum(dim=-1) - 1).abs().max() < 1e-5),
        ),
    ),
    misconceptions=(
        Misconception(
            "multiplied by T",
            lambda x, t: (x * t).softmax(dim=-1),
            "you multiplied the logits by the temperature, so a high one makes the answer sharper. "
            "Heat blurs: divide.",
        ),
        Misconception(
            "probabilities divided",
            lambda x, t: x.softmax(dim=-1) / t,
            "you divided the probabilities. They no longer sum to 1, and their ratios are what "
            "they were. Divide the logits, before softmax.",
        ),
        Misconception(
            "divided and scaled up again",
            lambda x, t: x.softmax(dim=-1),
            "the temperature had no effect. (A division of the probabilities cancels as soon as "
            "they are scaled back to a sum of 1.)",
        ),
        Misconception(
            "softmax over the examples",
            lambda x, t: (x / t).softmax(dim=0),
            "softmax ran over the first axis: one class's probabilities over all examples sum to "
            "1. It has to be one example's over all classes.",
        ),
        Misconception(
            "exponentials by hand",
            _by_hand,
            "e to the power of 900 is more than a float can hold, and infinity / infinity is NaN. "
            "softmax subtracts the largest logit first, which changes no probability.",
        ),
    ),
)

# ---------------------------------------------------------------------- distillation_loss


def distillation_loss(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """T² · KL(softmax(teacher / T) ‖ softmax(student / T)) of logits (B, C), mean over B."""
    log_q = (student / temperature).log_softmax(dim=1)
    log_p = (teacher / temperature).log_softmax(dim=1)
    divergence = (log_p.exp() * (log_p - log_q)).sum(dim=1)
    return temperature**2 * divergence.mean()


def _two_logits() -> list[Case]:
    t, s = torch.tensor([[4.0, 1.0, 0.0]]), torch.tensor([[1.0, 2.0, 0.0]])
    cases = {
        "one example": (s, t, 4.0),
        "temperature one": (s, t, 1.0),
        "a batch": (_logits(4, 5), _logits(4, 5, seed=1), 2.0),
        "more classes than examples": (_logits(2, 9, seed=2), _logits(2, 9, seed=3), 3.0),
        "a sharp teacher": (_logits(3, 4, seed=4), 9 * _logits(3, 4, seed=5), 4.0),
    }
    names = ("student", "teacher", "temperature")
    return [Case(k, dict(zip(names, v, strict=True))) for k, v in cases.items()]


def _kl(student: Tensor, teacher: Tensor, t_student: float, t_teacher: float) -> Tensor:
    """KL of each example, (B,)."""
    log_q = (student / t_student).log_softmax(dim=-1)
    log_p = (teacher / t_teacher).log_softmax(dim=-1)
    return (log_p.exp() * (log_p - log_q)).sum(dim=-1)


DISTILLATION_LOSS = Exercise(
    reference=distillation_loss,
    cases=_two_logits,
    hints=(
        "KL(p ‖ q) = Σ p (ln p − ln q), with the teacher's p in front.",
        "log_softmax gives ln p and ln q without ever taking the logarithm of 0.",
        "Sum over the classes, average over the examples, multiply by the square of T.",
    ),
    properties=(Property("KL is never negative", lambda inputs, v: bool(v > -1e-6)),),
    misconceptions=(
        Misconception(
            "without T²",
            lambda s, t, T: _kl(s, t, T, T).mean(),
            "the factor T² is missing. Without it the gradients shrink as 1 / T²: at T = 4 the "
            "teacher's voice is 16 times too quiet beside the labels'.",
        ),
        Misconception(
            "divided by the classes",
            lambda s, t, T: T**2 * _kl(s, t, T, T).mean() / s.shape[1],
            'you divided by the number of classes as well. PyTorch\'s reduction="mean" does that; '
            '"batchmean" is the mean over examples.',
        ),
        Misconception(
            "the wrong way round",
            lambda s, t, T: T**2 * _kl(t, s, T, T).mean(),
            "you computed KL(student ‖ teacher). The teacher's probabilities weigh the terms: what "
            "matters is what the teacher finds likely.",
        ),
        Misconception(
            "temperature for one of them",
            lambda s, t, T: T**2 * _kl(s, t, 1.0, T).mean(),
            "only the teacher was softened. Then a student that equals the teacher has a loss, and "
            "is pushed away from it. Both get the same temperature.",
        ),
        Misconception(
            "summed over the batch",
            lambda s, t, T: T**2 * _kl(s, t, T, T).sum(),
            "the examples were summed. Then the step grows with the batch; take their mean.",
        ),
        Misconception(
            "cross-entropy with the teacher",
            lambda s, t, T: (
                -(T**2) * ((t / T).softmax(1) * (s / T).log_softmax(1)).sum(dim=1).mean()
            ),
            "that is −Σ p ln q, larger than KL by the teacher's own entropy. Its gradient is "
            "right, but it does not tell how far apart the two are: equals should have 0.",
        ),
    ),
)

# -------------------------------------------------------------------------- hard_and_soft


def hard_and_soft(
    student: Tensor, teacher: Tensor, labels: Tensor, temperature: float, soft_share: float
) -> Tensor:
    """(1 − soft_share) · cross-entropy + soft_share · T² · KL at temperature T, logits (B, C)."""
    hard = F.cross_entropy(student, labels)
    log_q = (student / temperature).log_softmax(dim=1)
    p = (teacher / temperature).softmax(dim=1)
    soft = temperature**2 * F.kl_div(log_q, p, reduction="batchmean")
    return (1 - soft_share) * hard + soft_share * soft


def _with_labels() -> list[Case]:
    t, s = torch.tensor([[4.0, 1.0, 0.0]]), torch.tensor([[1.0, 2.0, 0.0]])
    batch = (_logits(4, 5), _logits(4, 5, seed=1), torch.tensor([0, 4, 2, 2]))
    cases = {
        "one example": (s, t, torch.tensor([0]), 4.0, 0.7),
        "a batch": (*batch, 2.0, 0.5),
        "mostly labels": (*batch, 3.0, 0.1),
        "labels alone": (*batch, 4.0, 0.0),
        "teacher alone": (*batch, 4.0, 1.0),
    }
    names = ("student", "teacher", "labels", "temperature", "soft_share")
    return [Case(k, dict(zip(names, v, strict=True))) for k, v in cases.items()]


def _mixed(s, t, y, T, a, hard_temperature=1.0, factor=None):
    hard = F.cross_entropy(s / hard_temperature, y)
    factor = T**2 if factor is None else factor
    return (1 - a) * hard + a * factor * _kl(s, t, T, T).mean()


HARD_AND_SOFT = Exercise(
    reference=hard_and_soft,
    cases=_with_labels,
    hints=(
        "Two losses of the same student logits: one with the labels, one with the teacher.",
        "F.cross_entropy takes logits as they are. The temperature is for the soft term only.",
        'F.kl_div(log_q, p, reduction="batchmean"): the student first, as logarithms.',
    ),
    misconceptions=(
        Misconception(
            "temperature on the labels' term",
            lambda s, t, y, T, a: _mixed(s, t, y, T, a, hard_temperature=T),
            "the labels' term was softened too. In use the student answers at T = 1, so that is "
            "where the labels have to judge it.",
        ),
        Misconception(
            "shares swapped",
            lambda s, t, y, T, a: _mixed(s, t, y, T, 1 - a),
            "the shares are swapped: soft_share belongs to the teacher's term.",
        ),
        Misconception(
            "without T²",
            lambda s, t, y, T, a: _mixed(s, t, y, T, a, factor=1),
            "the soft term lacks T². Then the mix is not what soft_share says: the higher T, the "
            "less the teacher counts.",
        ),
        Misconception(
            "T² on both",
            lambda s, t, y, T, a: T**2 * _mixed(s, t, y, T, a, factor=1),
            "T² stands before both terms. It makes up for what the temperature does to the soft "
            "one; the hard one has no temperature to make up for.",
        ),
        Misconception(
            "labels alone",
            lambda s, t, y, T, a: F.cross_entropy(s, y),
            "the teacher does not occur. That is the source's own mistake: its program asks the "
            "teacher and throws the answer away.",
        ),
        Misconception(
            "both in full",
            lambda s, t, y, T, a: F.cross_entropy(s, y) + a * T**2 * _kl(s, t, T, T).mean(),
            "the labels' term came in full. The shares sum to 1: what the teacher gets, the labels "
            "lose.",
        ),
    ),
)

# ---------------------------------------------------------------------- student_gradients


def student_gradients(
    student: nn.Module, teacher: nn.Module, images: Tensor, temperature: float
) -> tuple[Tensor, ...]:
    """Gradients of T² · KL(teacher ‖ student) for each of student.parameters(), in their order."""
    teacher.eval()
    with torch.no_grad():
        answers = teacher(images)
    loss = soft_target_loss(student(images), answers, temperature)
    return torch.autograd.grad(loss, student.parameters())


def _pairs() -> list[Case]:
    torch.manual_seed(0)
    images = torch.randn(6, 4)
    shared = nn.Linear(4, 5)
    student = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Dropout(0.5), nn.Linear(3, 3))
    dropout = nn.Sequential(nn.Linear(4, 9), nn.ReLU(), nn.Dropout(0.5), nn.Linear(9, 3))
    statistics = nn.Sequential(nn.Linear(4, 9), nn.BatchNorm1d(9), nn.Linear(9, 3))
    pairs = {
        "the student has dropout": (student, nn.Linear(4, 3)),
        "the teacher has dropout": (nn.Linear(4, 3), dropout),
        "the teacher has running statistics": (nn.Linear(4, 3), statistics),
        "they share their first layer": (
            nn.Sequential(shared, nn.ReLU(), nn.Linear(5, 3)),
            nn.Sequential(shared, nn.ReLU(), nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 3)),
        ),
    }
    names = ("student", "teacher", "images", "temperature")
    values = [(s, t, images, 2.0) for s, t in pairs.values()]
    return [Case(k, dict(zip(names, v, strict=True))) for k, v in zip(pairs, values, strict=True)]


def _teacher_in_training_mode(student, teacher, images, temperature):
    with torch.no_grad():
        answers = teacher.train()(images)
    loss = soft_target_loss(student(images), answers, temperature)
    return torch.autograd.grad(loss, student.parameters())


def _through_the_teacher(student, teacher, images, temperature):
    loss = soft_target_loss(student(images), teacher.eval()(images), temperature)
    return torch.autograd.grad(loss, student.parameters())


def _student_in_eval_mode(student, teacher, images, temperature):
    return student_gradients(student.eval(), teacher, images, temperature)


def _from_the_winner(student, teacher, images, temperature):
    winner = teacher.eval()(images).argmax(dim=1)
    return torch.autograd.grad(F.cross_entropy(student(images), winner), student.parameters())


STUDENT_GRADIENTS = Exercise(
    reference=student_gradients,
    cases=_pairs,
    hints=(
        "The teacher only answers. In which mode should its dropout and its norms be?",
        "No gradient should flow into the teacher, and none through it: with torch.no_grad().",
        "torch.autograd.grad(loss, student.parameters()) gives the gradients. The loss is "
        "soft_target_loss(student's logits, teacher's logits, temperature).",
    ),
    misconceptions=(
        Misconception(
            "teacher in training mode",
            _teacher_in_training_mode,
            "the teacher was in training mode. Its dropout made its answers random, and its norms "
            "used this batch and changed their running statistics: teacher.eval() first.",
        ),
        Misconception(
            "gradient through the teacher",
            _through_the_teacher,
            "gradients flowed through the teacher. Where the two share a layer, it was also told "
            "to make the teacher's answers easier to match. Ask under torch.no_grad().",
        ),
        Misconception(
            "student in eval mode",
            _student_in_eval_mode,
            "the student was put into eval mode as well. It is learning: its dropout stays on.",
        ),
        Misconception(
            "the teacher's winner as a label",
            _from_the_winner,
            "you trained on the class the teacher likes best. All that it says about the other "
            "classes is lost, and that is what it knows more than a label.",
        ),
    ),
)

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
    """A copy of the student after `steps` steps of SGD on its mean square from the teacher."""
    student = copy.deepcopy(student)
    optimizer = torch.optim.SGD(student.parameters(), lr=rate)
    with torch.no_grad():
        answers = teacher(x_train)
    for _ in range(steps):
        loss = F.mse_loss(student(x_train), answers)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return student


@cache
def _load_optimizers() -> None:
    """PyTorch's first optimizer imports much; not within the time that an answer has."""
    torch.optim.SGD([nn.Parameter(torch.zeros(1))])


def _document_pairs() -> list[Case]:
    torch.manual_seed(0)
    deep = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))
    small = nn.Sequential(nn.Linear(6, 2), nn.ReLU(), nn.Linear(2, 3))
    names = ("student", "teacher", "x_train", "y_train", "x_validation", "steps", "rate")
    _load_optimizers()

    def case(label, student, teacher, steps, rate):
        data = torch.randn(12, 6), torch.randn(12, 3), torch.randn(12, 6)
        return Case(label, dict(zip(names, (student, teacher, *data, steps, rate), strict=True)))

    return [
        case("a linear student", nn.Linear(6, 3), deep, 5, 0.1),
        case("a small network", small, deep, 8, 0.2),
        case("a single step", nn.Linear(6, 3), nn.Linear(6, 3), 1, 0.05),
    ]


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
    """KL(teacher ‖ student) of logits (B, T, C), mean over all tokens whose target is not −100."""
    log_q, log_p = student.log_softmax(dim=2), teacher.log_softmax(dim=2)
    divergence = (log_p.exp() * (log_p - log_q)).sum(dim=2)
    real = targets != -100
    return divergence.where(real, 0).sum() / real.sum()


def _padded() -> list[Case]:
    def case(label, *rows, seed=0, broken=None):
        targets = torch.tensor(rows)
        student, teacher = (_logits(*targets.shape, 6, seed=seed + i) for i in range(2))
        if broken is not None:
            teacher[targets == -100] = broken
        return Case(label, {"student": student, "teacher": teacher, "targets": targets})

    return [
        case("no padding", [1, 2, 0], [3, 5, 4]),
        case("sequences of different length", [1, 2, 3, 4], [5, -100, -100, -100], seed=2),
        case("padding in front", [-100, -100, 1], [-100, 2, 3], [0, 0, 1], seed=4),
        case("padding that holds NaN", [1, 2, -100], [3, -100, -100], seed=6, broken=torch.nan),
    ]


def _per_sequence(s, t, y):
    real = y != -100
    divergence = _kl(s, t, 1, 1).where(real, 0)
    return (divergence.sum(dim=1) / real.sum(dim=1)).mean()


TOKEN_DISTILLATION = Exercise(
    reference=token_distillation,
    cases=_padded,
    hints=(
        "First KL for each token, (B, T): a sum over the vocabulary.",
        "targets != -100 says which tokens are real. Set the others to 0 with `where`: 0 · NaN is "
        "still NaN.",
        "Divide the sum by the number of real tokens, not of positions, and not of sequences.",
    ),
    misconceptions=(
        Misconception(
            "padding counted",
            lambda s, t, y: _kl(s, t, 1, 1).mean(),
            "padding was counted like text. The student is then trained to imitate what the "
            "teacher says about nothing.",
        ),
        Misconception(
            "divided by all positions",
            lambda s, t, y: _kl(s, t, 1, 1).where(y != -100, 0).mean(),
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
            lambda s, t, y: _kl(s, t, 1, 1).where(y != -100, 0).sum() / len(s),
            'you divided by the number of sequences. That is what reduction="batchmean" does with '
            "(B, T, C): it knows the first axis only.",
        ),
        Misconception(
            "multiplied by the mask",
            lambda s, t, y: (_kl(s, t, 1, 1) * (y != -100)).sum() / (y != -100).sum(),
            "you multiplied by a mask of zeros and ones. Where the logits of padding are NaN, "
            "0 · NaN is NaN; choose with `where`.",
        ),
        Misconception(
            "divided by the vocabulary",
            lambda s, t, y: _kl(s, t, 1, 1).where(y != -100, 0).sum() / (y != -100).sum() / 6,
            "you divided by the size of the vocabulary too. KL is a sum over the vocabulary.",
        ),
    ),
)

# --------------------------------------------------------------------------- feature_loss


def feature_loss(student: Tensor, teacher: Tensor, projection: Tensor) -> Tensor:
    """Mean squared difference of the projected student (B, T, D) and the teacher (B, T, E).

    projection: (E, D), the weight of an nn.Linear(D, E, bias=False).
    """
    return (student @ projection.T - teacher).square().mean()


def _features() -> list[Case]:
    def case(label, d, e, seed):
        inputs = _logits(2, 3, d, seed=seed), _logits(2, 3, e, seed=seed + 1)
        projection = _logits(e, d, seed=seed + 2)
        return Case(label, {"student": inputs[0], "teacher": inputs[1], "projection": projection})

    return [
        case("a wide teacher", 4, 7, 0),
        case("a teacher twice as wide", 3, 6, 3),
        case("equal widths", 5, 5, 6),
    ]


FEATURE_LOSS = Exercise(
    reference=feature_loss,
    cases=_features,
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
    """KL(student ‖ teacher) of logits (B, C) at T = 1, mean over B: the student weighs."""
    log_q, log_p = student.log_softmax(dim=1), teacher.log_softmax(dim=1)
    return (log_q.exp() * (log_q - log_p)).sum(dim=1).mean()


def _two_without_temperature() -> list[Case]:
    return [
        Case(case.label, {name: case.inputs[name] for name in ("student", "teacher")})
        for case in _two_logits()
        if case.label != "temperature one"
    ]


REVERSE_KL = Exercise(
    reference=reverse_kl,
    cases=_two_without_temperature,
    hints=(
        "Swap the roles: whose probabilities stand in front of the logarithm?",
        "Σ q (ln q − ln p), with q the student's.",
    ),
    properties=(Property("KL is never negative", lambda inputs, v: bool(v > -1e-6)),),
    misconceptions=(
        Misconception(
            "forward KL",
            lambda s, t: _kl(s, t, 1, 1).mean(),
            "that is KL(teacher ‖ student), the usual one. Reverse KL weighs by the student's own "
            "probabilities: it pays for saying what the teacher would not.",
        ),
        Misconception(
            "only the sign changed",
            lambda s, t: -_kl(s, t, 1, 1).mean(),
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
            lambda s, t: (_kl(s, t, 1, 1) + _kl(t, s, 1, 1)).mean() / 2,
            "you averaged both directions. Asked is one of them.",
        ),
        Misconception(
            "divided by the classes",
            lambda s, t: _kl(t, s, 1, 1).mean() / s.shape[1],
            "you divided by the number of classes. Sum over the classes, average over examples.",
        ),
    ),
)

# ------------------------------------------------------------------------------ cached_kl


def cached_kl(student: Tensor, log_probabilities: Tensor, tokens: Tensor) -> Tensor:
    """KL over k + 1 outcomes, the teacher's top k and "something else", mean over B.

    student: logits (B, C).
    log_probabilities, tokens: ln p of the teacher's k likeliest tokens, and which; (B, k).
    """
    log_q = student.log_softmax(dim=1).gather(1, tokens)
    p, q = log_probabilities.exp(), log_q.exp()
    p_rest, q_rest = 1 - p.sum(dim=1), 1 - q.sum(dim=1)
    top = (p * (log_probabilities - log_q)).sum(dim=1)
    return (top + p_rest * (p_rest / q_rest).log()).mean()


def _stored() -> list[Case]:
    def case(label, batch, classes, k, seed):
        log_p = _logits(batch, classes, seed=seed + 1).log_softmax(dim=1)
        values, tokens = log_p.topk(k, dim=1)
        names = ("student", "log_probabilities", "tokens")
        answers = (_logits(batch, classes, seed=seed), values, tokens)
        return Case(label, dict(zip(names, answers, strict=True)))

    return [
        case("two of five", 1, 5, 2, 0),
        case("three of eight", 4, 8, 3, 2),
        case("one of six", 3, 6, 1, 4),
    ]


def _top_alone(s, log_p, i):
    return (log_p.exp() * (log_p - s.log_softmax(1).gather(1, i))).sum(dim=1).mean()


def _scaled_up(s, log_p, i):
    return _kl(s.gather(1, i), log_p, 1, 1).mean()


def _teacher_scaled_up(s, log_p, i):
    log_p = log_p.log_softmax(dim=1)
    return _top_alone(s, log_p, i)


def _first_k(s, log_p, i):
    return cached_kl(s, log_p, torch.arange(i.shape[1], device=i.device).expand_as(i))


CACHED_KL = Exercise(
    reference=cached_kl,
    cases=_stored,
    hints=(
        "The student's ln q comes from all its logits; gather(1, tokens) then picks the k.",
        "What is left for all other tokens together? 1 − the sum of the k, for p and for q.",
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
            "the first k tokens",
            _first_k,
            "you took the student's first k tokens. Which k the teacher kept, `tokens` says.",
        ),
    ),
)

# -------------------------------------------------------------------------- taught_by_few


FEW, GOAL = 200, 0.94  # labelled images; labels alone reach about 0.91, see the chapter


def taught_by_few(
    students: list[nn.Module],
    images: Tensor,
    labels: Tensor,
    unlabelled: Tensor,
    teacher_logits: Tensor,
) -> list[nn.Module]:
    """Trained copies of the five students, whose median accuracy on the test images is 94 %.

    images, labels: 200 digits, (200, 64) and (200,).
    unlabelled, teacher_logits: 1057 more digits, and a teacher's logits for them, (1057, 10).
    """
    trained = [copy.deepcopy(student) for student in students]
    for student in trained:
        fit(student, lambda model: soft_target_loss(model(unlabelled), teacher_logits))
    return trained


@cache
def _taught() -> Tensor:
    """A teacher's logits on all training images."""
    data = digits()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        teacher = DigitsMLP()
        train_digits(teacher, data, epochs=8)
    with torch.no_grad():
        return teacher(data.train_images)


def small_student(seed: int) -> nn.Module:
    """A network 64-12-10 of 910 parameters: 2 % of its teacher's."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(64, 12), nn.ReLU(), nn.Linear(12, 10))


def _few_digits() -> list[Case]:
    data = digits()
    inputs = {
        "students": [small_student(seed) for seed in range(5)],
        "images": data.train_images[:FEW],
        "labels": data.train_labels[:FEW],
        "unlabelled": data.train_images[FEW:],
        "teacher_logits": _taught()[FEW:].clone(),
    }
    return [Case("five students, 200 labels", inputs)]


def _median_accuracy(value: list[dict[str, Tensor]]) -> float:
    data = digits()
    right = []
    for w in value:
        hidden = F.linear(data.test_images, w["0.weight"], w["0.bias"]).relu()
        logits = F.linear(hidden, w["2.weight"], w["2.bias"])
        right.append((logits.argmax(dim=1) == data.test_labels).float().mean())
    return float(torch.stack(right).median())


def _are_the_students(inputs: dict, value: list[dict[str, Tensor]]) -> bool:
    shapes = [{k: t.shape for k, t in s.state_dict().items()} for s in inputs["students"]]
    return [{k: t.shape for k, t in w.items()} for w in value] == shapes


def _fitted(students, loss):
    trained = [copy.deepcopy(student) for student in students]
    for student in trained:
        fit(student, loss)
    return trained


def _by_labels(students, images, labels, unlabelled, teacher_logits):
    return _fitted(students, lambda model: F.cross_entropy(model(images), labels))


def _by_itself(students, images, labels, unlabelled, teacher_logits):
    trained = _by_labels(students, images, labels, unlabelled, teacher_logits)
    for student in trained:
        guesses = student(unlabelled).argmax(dim=1)
        fit(student, lambda m, guesses=guesses: F.cross_entropy(m(unlabelled), guesses), steps=20)
    return trained


def _by_logits(students, images, labels, unlabelled, teacher_logits):
    return _fitted(students, lambda model: F.mse_loss(model(unlabelled), teacher_logits))


def _the_wrong_images(students, images, labels, unlabelled, teacher_logits):
    wrong = teacher_logits[: len(images)]
    return _fitted(students, lambda model: soft_target_loss(model(images), wrong))


TAUGHT_BY_FEW = Exercise(
    reference=taught_by_few,
    cases=_few_digits,
    compare=False,
    seconds=20.0,
    hints=(
        "1057 images have no label. Somebody has an opinion on each of them.",
        "fit(student, loss) trains a student in place; loss takes the model and gives its loss.",
        "A soft loss on the unlabelled images alone gets you there. Try what the labels add, and "
        "what the temperature changes.",
    ),
    properties=(
        Property("five students of the same shapes come back", _are_the_students),
        Property(
            "the median accuracy on the test images is at least 94 %",
            lambda inputs, value: _median_accuracy(value) >= GOAL,
        ),
    ),
    misconceptions=(
        Misconception(
            "labels alone",
            _by_labels,
            "your students learned from the 200 labels alone. The teacher has answered 1057 more "
            "images; that is five times as much to learn from.",
        ),
        Misconception(
            "taught by themselves",
            _by_itself,
            "your students labelled the unlabelled images themselves and learned from that: they "
            "confirmed their own mistakes. Use the teacher's answers.",
        ),
        Misconception(
            "mean square of the logits",
            _by_logits,
            "your students had to hit every logit, the hopeless classes' too, and their 12 hidden "
            "units have no room for that. A softmax at a moderate temperature cares about the "
            "likely classes.",
        ),
        Misconception(
            "answers to other images",
            _the_wrong_images,
            "the teacher's answers were paired with images that it was not asked about: row i of "
            "teacher_logits belongs to row i of unlabelled.",
        ),
    ),
)

CHAPTER = "08_distillation"
EXERCISES = (
    SOFTEN,
    DISTILLATION_LOSS,
    HARD_AND_SOFT,
    STUDENT_GRADIENTS,
    REPAIRED_TRAINING,
    TOKEN_DISTILLATION,
    FEATURE_LOSS,
    REVERSE_KL,
    CACHED_KL,
    TAUGHT_BY_FEW,
)
