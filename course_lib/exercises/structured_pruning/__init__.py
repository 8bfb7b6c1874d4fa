"""Exercises of 04_structured_pruning, in the order of the lesson."""

from course_lib.exercises.structured_pruning.exiting import EXIT_LAYER
from course_lib.exercises.structured_pruning.narrowing import NARROW_TINY
from course_lib.exercises.structured_pruning.two_of_four import TWO_OF_FOUR, TWO_OF_FOUR_BYTES

CHAPTER = "04_structured_pruning"
EXERCISES = (TWO_OF_FOUR, TWO_OF_FOUR_BYTES, EXIT_LAYER, NARROW_TINY)
