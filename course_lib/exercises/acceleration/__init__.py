"""Exercises of 10_acceleration, in the order of the lesson."""

from course_lib.exercises.acceleration.bounds import CACHE_BYTES, LAYER_BOUND
from course_lib.exercises.acceleration.caching import QUANTIZE_CACHE
from course_lib.exercises.acceleration.folding import FOLD_BATCH_NORM, FOLD_GAINS

CHAPTER = "10_acceleration"
EXERCISES = (
    LAYER_BOUND,
    FOLD_BATCH_NORM,
    FOLD_GAINS,
    CACHE_BYTES,
    QUANTIZE_CACHE,
)
