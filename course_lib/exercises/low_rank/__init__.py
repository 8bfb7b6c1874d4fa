"""Exercises of 09_low_rank, in the order of the lesson."""

from course_lib.exercises.low_rank.budgeting import RANKS_FOR_BUDGET
from course_lib.exercises.low_rank.factors import LOW_RANK_FACTORS, RANK_THAT_SAVES
from course_lib.exercises.low_rank.outputs import OUTPUT_AWARE_FACTORS
from course_lib.exercises.low_rank.ranges import RANGE_FINDER

CHAPTER = "09_low_rank"
EXERCISES = (
    RANK_THAT_SAVES,
    LOW_RANK_FACTORS,
    OUTPUT_AWARE_FACTORS,
    RANGE_FINDER,
    RANKS_FOR_BUDGET,
)
