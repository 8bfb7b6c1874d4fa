"""Claims about teachers and students."""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from course_lib.sources.checks.registry import checks, normal


@checks("C92")
def fit_the_validation_set() -> str:
    """A student fitted to its teacher on 60 validation samples: the gap there and on fresh ones."""
    hidden = normal(50, 50) / np.sqrt(50)
    outgoing = normal(50, seed=1)

    def teacher(x: np.ndarray) -> np.ndarray:
        return np.tanh(x @ hidden) @ outgoing

    validation, fresh = normal(60, 50, seed=2), normal(2000, 50, seed=3)
    student = np.linalg.lstsq(validation, teacher(validation), rcond=None)[0]
    seen, unseen = (np.mean((x @ student - teacher(x)) ** 2) for x in (validation, fresh))
    assert unseen > 5 * seen
    return f"gap to the teacher {seen:.1f} on the validation set, {unseen:.1f} on fresh data"


@checks("C93")
def replace_the_teacher_in_the_loss() -> str:
    """The printed student loss under two teachers, and both losses for equal residuals."""
    residual = normal(50)
    teacher_parameters, student_parameters = 1000, 100
    losses = [np.sum(residual**2) / n for n in (teacher_parameters, student_parameters)]
    assert np.isclose(losses[0] / losses[1], 0.1)
    target, student = normal(50, seed=1), normal(50, seed=2)
    teachers = normal(50, seed=3), normal(50, seed=4)
    printed = {np.sum((target - student) ** 2) / student_parameters for _ in teachers}
    distilled = {np.mean((student - teacher) ** 2) for teacher in teachers}
    assert len(printed) == 1 and len(distilled) == 2
    return (
        f"equal errors, a teacher ten times as large: its loss is {losses[0] / losses[1]:.1f} "
        "of the student's"
    )


def _student(teacher_outputs: Tensor, use_them: bool) -> Tensor:
    """A student's weight after ten steps, from the labels alone as printed, or from the teacher."""
    generator = torch.Generator().manual_seed(0)
    x, labels = (torch.randn(100, n, generator=generator) for n in (20, 3))
    weight = torch.zeros(20, 3, requires_grad=True)
    optimizer = torch.optim.SGD([weight], lr=0.1)
    for _ in range(10):
        optimizer.zero_grad()
        F.mse_loss(x @ weight, teacher_outputs if use_them else labels).backward()
        optimizer.step()
    return weight.detach()


@checks("C98")
def replace_the_teacher() -> str:
    """Does the student change when the teacher's outputs are replaced?"""
    one, other = torch.ones(100, 3), 1e6 * torch.ones(100, 3)
    printed, repaired = (
        torch.equal(_student(one, use), _student(other, use)) for use in (False, True)
    )
    assert printed and not repaired
    return "another teacher, and every weight of the printed student stays the same, to the bit"


@checks("C99")
def count_teacher_and_student() -> str:
    """Parameters of the two printed models, and of a student with 16 hidden neurons."""

    def model(hidden: int) -> int:
        layers = nn.Linear(100, hidden), nn.Linear(hidden, 10)
        return sum(p.numel() for layer in layers for p in layer.parameters())

    assert (model(100), model(16)) == (11_110, 1_786)
    return f"teacher {model(100):,}, student {model(100):,}; with 16 hidden neurons {model(16):,}"


@checks("C101")
def learn_noise() -> str:
    """Test error of least squares fitted to noise, and of predicting zero; ten seeds."""
    fitted, zero = [], []
    for seed in range(10):
        x, y = normal(200, 50, seed=seed), normal(200, seed=100 + seed)
        fresh, fresh_y = normal(200, 50, seed=200 + seed), normal(200, seed=300 + seed)
        theta = np.linalg.lstsq(x, y, rcond=None)[0]
        fitted.append(np.mean((fresh @ theta - fresh_y) ** 2))
        zero.append(np.mean(fresh_y**2))
    assert np.mean(fitted) > 1.1 * np.mean(zero)
    return (
        f"targets of pure noise: test error {np.mean(fitted):.2f} fitted, {np.mean(zero):.2f} "
        "for always 0"
    )


@checks("C106")
def price_a_teacher() -> str:
    """Cost of a teacher's forward passes against the student's training."""
    extra = 2 * 4 / 6
    assert extra > 1
    return f"a teacher four times as large adds {extra:.0%} to the student's training, 0 to its use"
