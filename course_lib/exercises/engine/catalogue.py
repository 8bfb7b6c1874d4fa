"""Every exercise of the course, found by its name."""

import difflib
import importlib
import itertools
import pkgutil
from functools import cache

import course_lib.exercises as exercises
from course_lib.exercises.engine.spec import Exercise


class NoSuchExercise(LookupError):
    """No exercise has that name; in a notebook it shows as its text alone."""

    def _render_traceback_(self) -> list[str]:
        return [str(self)]


@cache
def by_chapter() -> dict[str, list[Exercise]]:
    """Chapter -> its exercises, of the modules and folders here that name a CHAPTER."""
    names = [info.name for info in pkgutil.iter_modules(exercises.__path__)]
    modules = [importlib.import_module(f"{exercises.__name__}.{name}") for name in names]
    found = {m.CHAPTER: list(m.EXERCISES) for m in modules if hasattr(m, "CHAPTER")}
    return dict(sorted(found.items()))


@cache
def all_exercises() -> dict[str, Exercise]:
    """Name -> exercise, in the order of the course."""
    found: dict[str, Exercise] = {}
    for exercise in itertools.chain(*by_chapter().values()):
        if exercise.name in found:
            raise ValueError(f"two exercises are called {exercise.name}")
        found[exercise.name] = exercise
    return found


def find(name: str) -> Exercise:
    """The exercise called `name`.

    Raises:
        NoSuchExercise: there is none; the message names the nearest.
    """
    known = all_exercises()
    if name not in known:
        near = difflib.get_close_matches(str(name), known, n=1)
        advice = f"did you mean {near[0]}?" if near else "progress() lists their names."
        raise NoSuchExercise(
            f"no exercise is called {name}; {advice}\n"
            "A check goes by the function's name: give the function its first name again."
        )
    return known[name]
