"""Exercises of 07_quantization_aware, in the order of the lesson."""

from course_lib.exercises.quantization_aware.assigning import ASSIGN_BITS
from course_lib.exercises.quantization_aware.folding import FOLD_AND_QUANTIZE
from course_lib.exercises.quantization_aware.inventing import TWO_BITS
from course_lib.exercises.quantization_aware.looping import TRAIN_ROUNDED

CHAPTER = "07_quantization_aware"
EXERCISES = (FOLD_AND_QUANTIZE, ASSIGN_BITS, TRAIN_ROUNDED, TWO_BITS)
