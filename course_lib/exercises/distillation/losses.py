"""Exercises of 08_distillation: softened answers, the loss, and the gradients of one step.

`kl` serves the chapter's other modules, too.

Axes: B batch, C classes.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from course_lib.distillation.losses import soft_target_loss
from course_lib.exercises.engine.seeded import Draw
from course_lib.exercises.engine.spec import Case, Exercise, Misconception, Property, labelled_cases


def kl(student: Tensor, teacher: Tensor, t_student: float, t_teacher: float) -> Tensor:
    """KL of each example, (B,)."""
    log_q = (student / t_student).log_softmax(dim=-1)
    log_p = (teacher / t_teacher).log_softmax(dim=-1)
    return (log_p.exp() * (log_p - log_q)).sum(dim=-1)


def pairs_of_logits(seed: int) -> dict[str, tuple[Tensor, Tensor]]:
    """Label -> (student, teacher), each (B, C): what every loss of the two has to get right.

    A row that is far from the others is so by a constant, which changes no probability.
    """
    draw = Draw(seed)

    def two(*shape: int) -> tuple[Tensor, Tensor]:
        return 2 * draw.normal(*shape), 2 * draw.normal(*shape)

    def certain() -> Tensor:
        return 1e4 * F.one_hot(draw.integers(0, 4, 3), 4)

    far = torch.tensor([[0.0], [512.0], [-512.0]])
    batch, wide, sharp = two(4, 5), two(2, 9), two(3, 4)
    return {
        "one example": (torch.tensor([[1.0, 2.0, 0.0]]), torch.tensor([[4.0, 1.0, 0.0]])),
        "a batch": batch,
        "more classes than examples": wide,
        "a sharp teacher": (sharp[0], 9 * sharp[1]),
        "a certain teacher": (2 * draw.normal(3, 4), certain()),
        "a certain student": (certain(), 2 * draw.normal(3, 4)),
        "one row far above the others, one far below": tuple(x + far for x in two(3, 4)),
        "in float64": tuple(x.double() + 1e6 for x in two(2, 3)),
    }


# --------------------------------------------------------------------------------- soften


def soften(logits: Tensor, temperature: float) -> Tensor:
    """softmax(logits / T) over the last axis, (…, C), in the logits' dtype."""
    return (logits / temperature).softmax(dim=-1)


def _some_logits(seed: int) -> list[Case]:
    draw = Draw(seed)
    far = torch.tensor([[0.0], [-512.0], [512.0]])
    cases = {
        "one example": (torch.tensor([4.0, 1.0, 0.0]), 1.0),
        "a high temperature": (2 * draw.normal(4), 4.0 + draw.number(0, 5)),
        "a low temperature": (draw.normal(3), 0.5),
        "a batch": (2 * draw.normal(3, 5), 2.0),
        "sequences": (2 * draw.normal(2, 3, 4), 3.0 + draw.number(0, 5)),
        "large logits": (torch.tensor([[900.0, 899.0, 100.0]]), 1.0),
        "one row far above the others, one far below": (draw.normal(3, 4) + far, 2.0),
        "a single class": (draw.normal(2, 1), 2.0),
        "in float64": (2 * draw.normal(2, 3).double() + 1e6, 2.0),
    }
    return labelled_cases(("logits", "temperature"), cases)


def _by_hand(logits, temperature):
    powers = (logits / temperature).exp()
    return powers / powers.sum(dim=-1, keepdim=True)


SOFTEN = Exercise(
    reference=soften,
    cases=_some_logits,
    differentiable=("logits",),
    relative_tolerance=1e-4,  # exponentials of differences of logits near 1000, in float32
    absolute_tolerance=1e-4,
    hints=(
        "The temperature changes the logits, before they become probabilities.",
        "Divide by it: at T = 4 the gaps between the logits are a quarter as large.",
        "(…).softmax(dim=-1) works on the last axis, however many there are.",
    ),
    properties=(
        Property(
            "the probabilities of an example sum to 1",
            lambda inputs, p: bool((p.sum(dim=-1) - 1).abs().max() < 1e-4),
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
    """T² · KL(softmax(teacher / T) ‖ softmax(student / T)) of logits (B, C), mean over B.

    In the logits' dtype; finite even where one of the two is certain (a probability of 0).
    """
    log_q = (student / temperature).log_softmax(dim=1)
    log_p = (teacher / temperature).log_softmax(dim=1)
    divergence = (log_p.exp() * (log_p - log_q)).sum(dim=1)
    return temperature**2 * divergence.mean()


def _two_logits(seed: int) -> list[Case]:
    pairs, draw = pairs_of_logits(seed), Draw(seed)
    at = dict.fromkeys(pairs, 2.0) | {"one example": 4.0, "a batch": 3.0 + draw.number(0, 3)}
    cases = {label: (*pair, at[label]) for label, pair in pairs.items()}
    cases["temperature one"] = (2 * draw.normal(3, 4), 2 * draw.normal(3, 4), 1.0)
    return labelled_cases(("student", "teacher", "temperature"), cases)


DISTILLATION_LOSS = Exercise(
    reference=distillation_loss,
    cases=_two_logits,
    differentiable=("student",),
    relative_tolerance=1e-4,
    absolute_tolerance=1e-4,
    hints=(
        "KL(p ‖ q) = Σ p (ln p − ln q), with the teacher's p in front.",
        "log_softmax gives ln p and ln q without ever taking the logarithm of 0.",
        "Sum over the classes, average over the examples, multiply by the square of T.",
    ),
    properties=(Property("KL is never negative", lambda inputs, v: bool(v > -1e-6)),),
    misconceptions=(
        Misconception(
            "without T²",
            lambda s, t, T: kl(s, t, T, T).mean(),
            "the factor T² is missing. Without it the gradients shrink as 1 / T²: at T = 4 the "
            "teacher's voice is 16 times too quiet beside the labels'.",
        ),
        Misconception(
            "divided by the classes",
            lambda s, t, T: T**2 * kl(s, t, T, T).mean() / s.shape[1],
            'you divided by the number of classes as well. PyTorch\'s reduction="mean" does that; '
            '"batchmean" is the mean over examples.',
        ),
        Misconception(
            "the wrong way round",
            lambda s, t, T: T**2 * kl(t, s, T, T).mean(),
            "you computed KL(student ‖ teacher). The teacher's probabilities weigh the terms: what "
            "matters is what the teacher finds likely.",
        ),
        Misconception(
            "temperature for one of them",
            lambda s, t, T: T**2 * kl(s, t, 1.0, T).mean(),
            "only the teacher was softened. Then a student that equals the teacher has a loss, and "
            "is pushed away from it. Both get the same temperature.",
        ),
        Misconception(
            "summed over the batch",
            lambda s, t, T: T**2 * kl(s, t, T, T).sum(),
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
    """(1 − soft_share) · cross-entropy + soft_share · T² · KL at temperature T, logits (B, C).

    KL(teacher ‖ student) as in distillation_loss, both terms a mean over B, in the logits' dtype.
    """
    hard = F.cross_entropy(student, labels)
    log_q = (student / temperature).log_softmax(dim=1)
    p = (teacher / temperature).softmax(dim=1)
    soft = temperature**2 * F.kl_div(log_q, p, reduction="batchmean")
    return (1 - soft_share) * hard + soft_share * soft


def _with_labels(seed: int) -> list[Case]:
    pairs, draw = pairs_of_logits(seed), Draw(seed)
    names = ("student", "teacher", "labels", "temperature", "soft_share")

    def labelled(label: str, *rest: float) -> tuple:
        student, teacher = pairs[label]
        return (student, teacher, draw.integers(0, student.shape[1], len(student)), *rest)

    cases = {
        "one example": (*pairs["one example"], torch.tensor([0]), 4.0, 0.7),
        "a batch": labelled("a batch", 2.0, (2 + draw.number(0, 3)) / 10),
        "mostly labels": labelled("more classes than examples", 2.0 + draw.number(0, 3), 0.1),
        "labels alone": labelled("a sharp teacher", 4.0, 0.0),
        "teacher alone": labelled("a batch", 4.0, 1.0),
        "in float64": labelled("in float64", 3.0, 0.6),
    }
    certain = ("a certain teacher", "a certain student")
    cases |= {label: labelled(label, 2.0, (6 + draw.number(0, 3)) / 10) for label in certain}
    return labelled_cases(names, cases)


def _mixed(s, t, y, T, a, hard_temperature=1.0, factor=None):
    hard = F.cross_entropy(s / hard_temperature, y)
    factor = T**2 if factor is None else factor
    return (1 - a) * hard + a * factor * kl(s, t, T, T).mean()


HARD_AND_SOFT = Exercise(
    reference=hard_and_soft,
    cases=_with_labels,
    differentiable=("student",),
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
            lambda s, t, y, T, a: F.cross_entropy(s, y) + a * T**2 * kl(s, t, T, T).mean(),
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


def _pairs(seed: int) -> list[Case]:
    draw = Draw(seed)
    classes = draw.number(3, 6)

    def linear(inputs: int = 4, outputs: int = classes) -> nn.Module:
        return draw.module(lambda: nn.Linear(inputs, outputs))

    def deep(width: int, *between: nn.Module) -> nn.Module:
        return nn.Sequential(linear(4, width), *between, linear(width))

    shared, relu, far = linear(4, 5), nn.ReLU(), linear()
    with torch.no_grad():
        far.weight *= 20  # gradients longer than 1: nothing is clipped here
    pairs = {
        "the student has dropout": (deep(3, relu, nn.Dropout(0.5)), linear()),
        "the teacher has dropout": (linear(), deep(9, relu, nn.Dropout(0.5))),
        "the teacher has running statistics": (linear(), deep(9, nn.BatchNorm1d(9))),
        "they share their first layer": (
            nn.Sequential(shared, relu, linear(5)),
            nn.Sequential(shared, relu, linear(5, 8), relu, linear(8)),
        ),
        "a teacher far away": (linear(), far),
        "in float64": (linear().double(), linear().double()),
    }
    cases = {}
    for label, (student, teacher) in pairs.items():
        images = draw.normal(6, 4).to(next(student.parameters()).dtype)
        cases[label] = (student, teacher, images, 2.0 + draw.number(0, 4))
    return labelled_cases(("student", "teacher", "images", "temperature"), cases)


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
