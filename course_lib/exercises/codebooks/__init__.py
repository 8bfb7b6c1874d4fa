"""Exercises of 06_codebooks, in the order of the lesson."""

from course_lib.exercises.codebooks.exact import BEST_LEVELS
from course_lib.exercises.codebooks.floats import NORMAL_FLOAT_LEVELS, ROUND_TO_FLOAT
from course_lib.exercises.codebooks.levels import LLOYD_STEP, NEAREST_LEVEL

CHAPTER = "06_codebooks"
EXERCISES = (
    NEAREST_LEVEL,
    LLOYD_STEP,
    BEST_LEVELS,
    NORMAL_FLOAT_LEVELS,
    ROUND_TO_FLOAT,
)
