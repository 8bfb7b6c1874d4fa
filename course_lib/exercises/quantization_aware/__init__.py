"""Exercises of 07_quantization_aware, in the order of the lesson."""

from course_lib.exercises.quantization_aware.assigning import ASSIGN_BITS
from course_lib.exercises.quantization_aware.folding import FOLD_AND_QUANTIZE
from course_lib.exercises.quantization_aware.inventing import TWO_BITS
from course_lib.exercises.quantization_aware.looping import TRAIN_ROUNDED
from course_lib.exercises.quantization_aware.packing import PACK_TRITS
from course_lib.exercises.quantization_aware.stepping import LEARNED_STEP
from course_lib.exercises.quantization_aware.straight import STRAIGHT_THROUGH
from course_lib.exercises.quantization_aware.ternary import BEST_TERNARY

CHAPTER = "07_quantization_aware"
EXERCISES = (
    STRAIGHT_THROUGH,
    LEARNED_STEP,
    TRAIN_ROUNDED,
    BEST_TERNARY,
    PACK_TRITS,
    FOLD_AND_QUANTIZE,
    ASSIGN_BITS,
    TWO_BITS,
)
