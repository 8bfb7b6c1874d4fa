"""Exercises of 04_structured_pruning, in the order of the lesson."""

from course_lib.exercises.structured_pruning.coupled import REMOVE_CHANNELS, REMOVE_HEADS
from course_lib.exercises.structured_pruning.exiting import EXIT_LAYER
from course_lib.exercises.structured_pruning.narrowing import NARROW_TINY
from course_lib.exercises.structured_pruning.removal import FOLD_CONSTANTS, REMOVE_UNITS
from course_lib.exercises.structured_pruning.repair import REFIT_KEPT, REPAIR_ERROR
from course_lib.exercises.structured_pruning.two_of_four import TWO_OF_FOUR, TWO_OF_FOUR_BYTES

CHAPTER = "04_structured_pruning"
EXERCISES = (
    REMOVE_UNITS,
    FOLD_CONSTANTS,
    REMOVE_CHANNELS,
    REFIT_KEPT,
    REPAIR_ERROR,
    REMOVE_HEADS,
    TWO_OF_FOUR,
    TWO_OF_FOUR_BYTES,
    EXIT_LAYER,
    NARROW_TINY,
)
