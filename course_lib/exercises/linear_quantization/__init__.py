"""Exercises of 05_linear_quantization, in the order of the lesson."""

from course_lib.exercises.linear_quantization.formula import (
    DEQUANTIZE_LINEAR,
    FIT_AFFINE,
    FIT_SYMMETRIC,
    QUANTIZE_LINEAR,
    TO_UINT8,
)
from course_lib.exercises.linear_quantization.granularity import (
    QUANTIZE_PER_CHANNEL,
    QUANTIZE_PER_GROUP,
    SEARCH_CLIP,
)
from course_lib.exercises.linear_quantization.packing import PACK_INT4, UNPACK_INT4
from course_lib.exercises.linear_quantization.use import (
    BETTER_THAN_MINMAX,
    DETECT_GRID,
    INTEGER_LINEAR,
)

CHAPTER = "05_linear_quantization"
EXERCISES = (
    QUANTIZE_LINEAR,
    DEQUANTIZE_LINEAR,
    TO_UINT8,
    FIT_AFFINE,
    FIT_SYMMETRIC,
    QUANTIZE_PER_CHANNEL,
    QUANTIZE_PER_GROUP,
    SEARCH_CLIP,
    PACK_INT4,
    UNPACK_INT4,
    DETECT_GRID,
    INTEGER_LINEAR,
    BETTER_THAN_MINMAX,
)
