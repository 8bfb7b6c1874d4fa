"""Exercises of 02_l0_objective, in the order of the lesson."""

from course_lib.exercises.l0_objective.choosing import (
    KEPT_BY_MEAN,
    RELATIVE_MAGNITUDE,
    VALIDATION_ERRORS,
)
from course_lib.exercises.l0_objective.networks import (
    EXPECTED_OPEN_GATES,
    MASKED_MOMENTUM_STEP,
    SPARSIFY_DIGITS,
)
from course_lib.exercises.l0_objective.penalties import (
    HARD_THRESHOLD,
    IHT_STEP,
    KEEP_LARGEST,
    MINIMISE_L1,
    RIDGE_CLOSED_FORM,
)

CHAPTER = "02_l0_objective"
EXERCISES = (
    RIDGE_CLOSED_FORM,
    MINIMISE_L1,
    HARD_THRESHOLD,
    KEEP_LARGEST,
    IHT_STEP,
    VALIDATION_ERRORS,
    RELATIVE_MAGNITUDE,
    KEPT_BY_MEAN,
    MASKED_MOMENTUM_STEP,
    EXPECTED_OPEN_GATES,
    SPARSIFY_DIGITS,
)
