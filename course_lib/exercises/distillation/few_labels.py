"""Exercises of 08_distillation: a student with few labels."""

import copy
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from course_lib.data.images import digits
from course_lib.distillation.losses import soft_target_loss
from course_lib.exercises.engine.spec import Case, Exercise, Misconception, Property
from course_lib.models.digits_mlp import DigitsMLP, small_student, train_digits
from course_lib.models.training import fit

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


def _few_digits(seed: int) -> list[Case]:
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
