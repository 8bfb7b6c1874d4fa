"""Exercises of 06_codebooks, in the order of the lesson."""

from course_lib.exercises.codebooks.blocks import MX_BLOCK
from course_lib.exercises.codebooks.coding import CODE_LENGTHS, DECODE_CANONICAL
from course_lib.exercises.codebooks.exact import BEST_LEVELS
from course_lib.exercises.codebooks.floats import NORMAL_FLOAT_LEVELS, ROUND_TO_FLOAT
from course_lib.exercises.codebooks.layer import LAYER_BYTES
from course_lib.exercises.codebooks.levels import LLOYD_STEP, NEAREST_LEVEL
from course_lib.exercises.codebooks.squeezing import SQUEEZE

CHAPTER = "06_codebooks"
EXERCISES = (
    NEAREST_LEVEL,
    LLOYD_STEP,
    BEST_LEVELS,
    NORMAL_FLOAT_LEVELS,
    ROUND_TO_FLOAT,
    MX_BLOCK,
    CODE_LENGTHS,
    DECODE_CANONICAL,
    LAYER_BYTES,
    SQUEEZE,
)
