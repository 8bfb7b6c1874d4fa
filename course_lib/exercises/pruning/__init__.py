"""Exercises of 03_pruning, in the order of the lesson."""

from course_lib.exercises.pruning.activations import AVERAGE_ZEROS, SPARSIFY, TOP_K_CODES
from course_lib.exercises.pruning.digits_pruned import PRUNE_DIGITS
from course_lib.exercises.pruning.removal import OBS_STEP, SPLIT_BUDGET
from course_lib.exercises.pruning.rounds import KEPT_AT_ROUNDS, NEXT_MASKS
from course_lib.exercises.pruning.scores import HUTCHINSON_DIAGONAL, OBD_SALIENCY, TAYLOR_SCORE
from course_lib.exercises.pruning.ticket import REWIND

CHAPTER = "03_pruning"
EXERCISES = (
    TAYLOR_SCORE,
    OBD_SALIENCY,
    HUTCHINSON_DIAGONAL,
    OBS_STEP,
    SPLIT_BUDGET,
    NEXT_MASKS,
    KEPT_AT_ROUNDS,
    REWIND,
    SPARSIFY,
    AVERAGE_ZEROS,
    TOP_K_CODES,
    PRUNE_DIGITS,
)
