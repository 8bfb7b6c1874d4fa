"""Exercises of 08_distillation: a student with few labels."""

import copy
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from course_lib.data.images import digits
from course_lib.distillation.losses import soft_target_loss
from course_lib.exercises.engine.seeded import Draw
from course_lib.exercises.engine.spec import Case, Exercise, Misconception, Property
from course_lib.models.digits_mlp import DigitsMLP, small_student, train_digits
from course_lib.models.training import fit

# -------------------------------------------------------------------------- taught_by_few


FEW, GOAL = 200, 0.94  # labelled images; labels alone reach about 0.91, see the chapter
STEPS = 80  # of the reference: 40 are enough, but only just
KNOWN = 0.7  # accuracy on images that lie as in the lesson; others' students have less than half
APART = 0.002  # total variation of two students' answers; of independent ones above 0.01
ALIKE = 0.9  # cosine of two students' first weights; of independent ones below 0.5


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
    All images, those of the test too, are turned or mirrored alike: learn from these alone.
    """
    trained = [copy.deepcopy(student) for student in students]
    for student in trained:
        fit(student, lambda model: soft_target_loss(model(unlabelled), teacher_logits), STEPS)
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


def _turned(images: Tensor, way: int) -> Tensor:
    """The images (N, 64) in one of the eight ways in which a square can lie; 0 is as they are."""
    square = images.view(-1, 8, 8).rot90(way % 4, (1, 2))
    return (square.flip(2) if way >= 4 else square).flatten(1)


def _few_digits(seed: int) -> list[Case]:
    data, draw = digits(), Draw(seed)
    images, order = _turned(data.train_images, draw.number(1, 8)), draw.order(1257)
    few, rest = order[:FEW], order[FEW:]
    inputs = {
        "students": [small_student(start) for start in range(5)],
        "images": images[few],
        "labels": data.train_labels[few],
        "unlabelled": images[rest],
        "teacher_logits": _taught()[rest],
    }
    return [Case("five students, 200 labels", inputs)]


def _way(inputs: dict) -> int:
    """In which way the images of a case lie."""
    first, images = inputs["images"][0].cpu(), digits().train_images
    return next(w for w in range(8) if (_turned(images, w) == first).all(dim=1).any())


def _answers(value: list[dict[str, Tensor]], way: int) -> Tensor:
    """Five students' logits for the test images, (5, 540, 10)."""
    images, answers = _turned(digits().test_images, way), []
    for w in value:
        hidden = F.linear(images, w["0.weight"], w["0.bias"]).relu()
        answers.append(F.linear(hidden, w["2.weight"], w["2.bias"]))
    return torch.stack(answers)


def _median_accuracy(value: list[dict[str, Tensor]], way: int) -> float:
    right = _answers(value, way).argmax(dim=2) == digits().test_labels
    return float(right.double().mean(dim=1).median())


def _reached(inputs: dict, value: list[dict[str, Tensor]]) -> str:
    accuracy = 100 * _median_accuracy(value, _way(inputs))
    return f"median accuracy {accuracy:.1f} % on the test images (asked: {100 * GOAL:.0f} %)"


def _are_the_students(inputs: dict, value: list[dict[str, Tensor]]) -> bool:
    shapes = [{k: t.shape for k, t in s.state_dict().items()} for s in inputs["students"]]
    return isinstance(value, list) and [{k: t.shape for k, t in w.items()} for w in value] == shapes


def _are_five(inputs: dict, value: list[dict[str, Tensor]]) -> bool:
    """Whether no two are alike: neither in their answers nor in their weights."""
    p = _answers(value, _way(inputs)).softmax(dim=2)
    apart = (p[:, None] - p).abs().sum(dim=3).mean(dim=2) / 2  # total variation
    weights = F.normalize(torch.stack([w["0.weight"].flatten() for w in value]), dim=1)
    pairs = ~torch.eye(len(value), dtype=torch.bool)
    return bool(apart[pairs].min() > APART and (weights @ weights.T)[pairs].max() < ALIKE)


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
    reached=_reached,
    seconds=60.0,
    hints=(
        "1057 images have no label. Somebody has an opinion on each of them.",
        "fit(student, loss) trains a student in place; loss takes the model and gives its loss.",
        "A soft loss on the unlabelled images alone gets you there. Try what the labels add, and "
        "what the temperature changes.",
    ),
    properties=(
        Property("five students of the same shapes come back", _are_the_students, form=True),
        Property(
            "the median accuracy on the test images is at least 94 %",
            lambda inputs, value: _median_accuracy(value, _way(inputs)) >= GOAL,
        ),
        Property("the five are no copies of one another: train each from its own start", _are_five),
        Property(
            "nothing is learned from images that were not given, such as the lesson's test images",
            lambda inputs, value: _median_accuracy(value, way=0) < KNOWN,
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
