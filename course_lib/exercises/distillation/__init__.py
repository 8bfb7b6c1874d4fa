"""Exercises of 08_distillation, in the order of the lesson."""

from course_lib.exercises.distillation.answers import (
    CACHED_KL,
    FEATURE_LOSS,
    REPAIRED_TRAINING,
    REVERSE_KL,
    TOKEN_DISTILLATION,
)
from course_lib.exercises.distillation.few_labels import TAUGHT_BY_FEW
from course_lib.exercises.distillation.losses import (
    DISTILLATION_LOSS,
    HARD_AND_SOFT,
    SOFTEN,
    STUDENT_GRADIENTS,
)

CHAPTER = "08_distillation"
EXERCISES = (
    SOFTEN,
    DISTILLATION_LOSS,
    HARD_AND_SOFT,
    STUDENT_GRADIENTS,
    REPAIRED_TRAINING,
    CACHED_KL,
    TOKEN_DISTILLATION,
    REVERSE_KL,
    FEATURE_LOSS,
    TAUGHT_BY_FEW,
)
