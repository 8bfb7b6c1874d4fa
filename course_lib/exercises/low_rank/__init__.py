"""Exercises of 09_low_rank, in the order of the lesson."""

from course_lib.exercises.low_rank.adapting import LORA_LINEAR, MERGE_ADAPTER
from course_lib.exercises.low_rank.budgeting import RANKS_FOR_BUDGET
from course_lib.exercises.low_rank.factors import LOW_RANK_FACTORS, RANK_THAT_SAVES
from course_lib.exercises.low_rank.inventing import FACTOR_TINY
from course_lib.exercises.low_rank.outputs import OUTPUT_AWARE_FACTORS
from course_lib.exercises.low_rank.ranges import RANGE_FINDER
from course_lib.exercises.low_rank.starting import ADAPTER_START
from course_lib.exercises.low_rank.training_adapters import TRAIN_ADAPTERS
from course_lib.exercises.low_rank.trimming import TRIM_VOCABULARY

CHAPTER = "09_low_rank"
EXERCISES = (
    RANK_THAT_SAVES,
    LOW_RANK_FACTORS,
    OUTPUT_AWARE_FACTORS,
    RANGE_FINDER,
    RANKS_FOR_BUDGET,
    LORA_LINEAR,
    MERGE_ADAPTER,
    TRAIN_ADAPTERS,
    ADAPTER_START,
    TRIM_VOCABULARY,
    FACTOR_TINY,
)
