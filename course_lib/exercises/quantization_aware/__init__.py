"""Exercises of 07_quantization_aware, in the order of the lesson."""

from course_lib.exercises.quantization_aware.packing import PACK_TRITS
from course_lib.exercises.quantization_aware.stepping import LEARNED_STEP
from course_lib.exercises.quantization_aware.straight import STRAIGHT_THROUGH
from course_lib.exercises.quantization_aware.ternary import BEST_TERNARY

CHAPTER = "07_quantization_aware"
EXERCISES = (
    STRAIGHT_THROUGH,
    LEARNED_STEP,
    BEST_TERNARY,
    PACK_TRITS,
)
