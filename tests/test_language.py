"""Three ways to teach TinyLM's student see the same windows and all learn."""

import pytest
import torch

from course_lib.data.batches import consecutive_windows
from course_lib.distillation.cache import ask_teacher
from course_lib.distillation.language import new_student, train_student


@pytest.fixture(scope="module")
def windows():
    return consecutive_windows(torch.arange(24 * 8 + 1) % 50, 8)


def test_a_student_depends_on_its_seed_alone_and_leaves_the_global_one():
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    first, second = new_student(1), new_student(1)
    assert torch.rand(1) == expected
    assert first.embedding.weight.equal(second.embedding.weight)
    assert not first.embedding.weight.equal(new_student(2).embedding.weight)


def test_all_three_ways_learn(tiny, windows):
    teacher, _ = tiny
    kept = ask_teacher(teacher, windows[0], 4)
    for options in ({}, {"teacher": teacher}, {"kept": kept}):
        losses = train_student(new_student(), windows, 8, **options)
        assert losses[-1] < losses[0]


def test_equal_seeds_give_equal_students(windows):
    students = [new_student() for _ in range(3)]
    for student, seed in zip(students, (0, 0, 1), strict=True):
        train_student(student, windows, 2, seed=seed)
    weights = [student.embedding.weight for student in students]
    assert weights[0].equal(weights[1]) and not weights[0].equal(weights[2])
