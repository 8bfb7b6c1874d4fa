"""Exercises of 12_capstone, in the order of the lesson."""

from course_lib.exercises.capstone.counting import RECIPE_BYTES
from course_lib.exercises.capstone.fitting import MEET_BUDGET
from course_lib.exercises.capstone.front import PARETO_FRONT
from course_lib.exercises.capstone.inventing import SMALL_FILE
from course_lib.exercises.capstone.ordering import ORDER_THAT_LOSES
from course_lib.exercises.capstone.rare_words import FLIPS_BY_FREQUENCY
from course_lib.exercises.capstone.reading import CHARACTER_ERROR_RATE

CHAPTER = "12_capstone"
EXERCISES = (
    PARETO_FRONT,
    RECIPE_BYTES,
    MEET_BUDGET,
    ORDER_THAT_LOSES,
    FLIPS_BY_FREQUENCY,
    CHARACTER_ERROR_RATE,
    SMALL_FILE,
)
