"""The course's exercises: one or more modules a chapter, and the engine that checks answers."""

from course_lib.exercises.engine.notebook import CheckFailed, check, hint, progress, yours

__all__ = ["CheckFailed", "check", "hint", "progress", "yours"]
