"""Every exercise of the course, found by its name."""

import difflib
import importlib
import pkgutil
from functools import cache

import course_lib.exercises as chapters
from course_lib.exercises.engine.spec import Exercise


@cache
def all_exercises() -> dict[str, Exercise]:
    """Name -> exercise, over the `EXERCISES` of every chapter module beside the engine."""
    found: dict[str, Exercise] = {}
    for module in pkgutil.iter_modules(chapters.__path__):
        if not module.ispkg:
            chapter = importlib.import_module(f"{chapters.__name__}.{module.name}")
            for exercise in chapter.EXERCISES:
                if exercise.name in found:
                    raise ValueError(f"two exercises are called {exercise.name}")
                found[exercise.name] = exercise
    return found


def find(name: str) -> Exercise:
    """The exercise called `name`.

    Raises:
        LookupError: there is none; the message names the nearest.
    """
    exercises = all_exercises()
    if name not in exercises:
        near = difflib.get_close_matches(str(name), exercises, n=1)
        advice = f"did you mean {near[0]}?" if near else f"there are {', '.join(exercises)}."
        raise LookupError(f"no exercise is called {name}; {advice}")
    return exercises[name]
