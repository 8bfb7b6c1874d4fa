"""Exercises of 10_acceleration, in the order of the lesson."""

from course_lib.exercises.acceleration.blocks import PACK_Q4_1
from course_lib.exercises.acceleration.bounds import CACHE_BYTES, LAYER_BOUND
from course_lib.exercises.acceleration.caching import QUANTIZE_CACHE
from course_lib.exercises.acceleration.decoding import FAST_DECODE
from course_lib.exercises.acceleration.folding import FOLD_BATCH_NORM, FOLD_GAINS
from course_lib.exercises.acceleration.parallel import TENSOR_PARALLEL_MLP
from course_lib.exercises.acceleration.rounds import VERIFY_DRAFTS
from course_lib.exercises.acceleration.speculation import ACCEPT_OR_RESAMPLE, SPECULATION_GAIN

CHAPTER = "10_acceleration"
EXERCISES = (
    LAYER_BOUND,
    FOLD_BATCH_NORM,
    FOLD_GAINS,
    CACHE_BYTES,
    QUANTIZE_CACHE,
    ACCEPT_OR_RESAMPLE,
    SPECULATION_GAIN,
    VERIFY_DRAFTS,
    TENSOR_PARALLEL_MLP,
    PACK_Q4_1,
    FAST_DECODE,
)
