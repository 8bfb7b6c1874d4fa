"""Exercises of 01_redundancy, in the order of the lesson."""

from course_lib.exercises.redundancy.model import DEAD_UNITS, EFFECTIVE_RANK, MERGE_TWINS
from course_lib.exercises.redundancy.similar import (
    BAND_PROBABILITY,
    CHOOSE_BANDS,
    ESTIMATE_JACCARD,
    MINHASH_SIGNATURE,
)
from course_lib.exercises.redundancy.texts import INTERPOLATED_BIGRAM, KEEP_FIRST, SHINGLE_JACCARD

CHAPTER = "01_redundancy"
EXERCISES = (
    INTERPOLATED_BIGRAM,
    KEEP_FIRST,
    SHINGLE_JACCARD,
    MINHASH_SIGNATURE,
    ESTIMATE_JACCARD,
    BAND_PROBABILITY,
    CHOOSE_BANDS,
    EFFECTIVE_RANK,
    DEAD_UNITS,
    MERGE_TWINS,
)
