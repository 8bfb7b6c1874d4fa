"""Exercises of 06_codebooks, in the order of the lesson."""

from course_lib.exercises.codebooks.blocks import MX_BLOCK
from course_lib.exercises.codebooks.coding import CODE_LENGTHS, DECODE_CANONICAL
from course_lib.exercises.codebooks.layer import LAYER_BYTES
from course_lib.exercises.codebooks.squeezing import SQUEEZE

CHAPTER = "06_codebooks"
EXERCISES = (
    MX_BLOCK,
    CODE_LENGTHS,
    DECODE_CANONICAL,
    LAYER_BYTES,
    SQUEEZE,
)
