"""Exercises of 11_language_models, in the order of the lesson."""

from course_lib.exercises.language_models.choosing import SPARSEGPT_MASK, WANDA_MASK
from course_lib.exercises.language_models.inventing import COMPRESS_TINY
from course_lib.exercises.language_models.judging import FLIPS, MEAN_KL
from course_lib.exercises.language_models.moments import SECOND_MOMENTS
from course_lib.exercises.language_models.moving import FOLD_SCALE, SMOOTHING_SCALE
from course_lib.exercises.language_models.rounding import GPTQ, GPTQ_COLUMN
from course_lib.exercises.language_models.turning import ROTATE_PAIR

CHAPTER = "11_language_models"
EXERCISES = (
    SECOND_MOMENTS,
    WANDA_MASK,
    FOLD_SCALE,
    GPTQ_COLUMN,
    GPTQ,
    SPARSEGPT_MASK,
    SMOOTHING_SCALE,
    ROTATE_PAIR,
    MEAN_KL,
    FLIPS,
    COMPRESS_TINY,
)
