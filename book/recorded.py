"""The states of every lesson's sliders, kept in build/states and recorded again when one is old.

A lesson's states are old when its source or anything in course_lib has changed. They are recorded
by running the solved lesson in a kernel of its own.
"""

import hashlib
import os
import shutil
from pathlib import Path

from course_lib.classroom.build import run_lesson
from course_lib.classroom.files import ROOT, SOLUTIONS, lesson_sources
from course_lib.classroom.lesson import read_lesson
from course_lib.plots.states import FOLDER

KEPT = ROOT / "build" / "states"
MADE_OF = "made_of"  # written last: a lesson that was interrupted is recorded again


def recorded_states(kept: Path = KEPT) -> Path:
    """The folder that holds a folder of states for each lesson, after recording what is missing.

    Raises:
        LessonError: a lesson does not run cleanly.
    """
    sources = lesson_sources() if SOLUTIONS.exists() else []  # a student edition was never run
    library = _digest(ROOT / "course_lib")
    hashes = {path: _digest(path) + library for path in sources}
    old = [path for path in sources if not _is_current(kept / path.stem, hashes[path])]
    if old:
        print(f"recording the sliders of {len(old)} lessons, which are run: minutes, once")
    for path in old:
        folder = kept / path.stem
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        print(path.stem, flush=True)
        os.environ[FOLDER] = str(folder)
        try:
            run_lesson(read_lesson(path))
        finally:
            del os.environ[FOLDER]
        (folder / MADE_OF).write_text(hashes[path])
    return kept


def _is_current(folder: Path, made_of: str) -> bool:
    there = folder / MADE_OF
    return there.exists() and there.read_text() == made_of


def _digest(place: Path) -> str:
    """A hash of a file, or of a folder's files and their names."""
    digest = hashlib.sha256()
    for path in sorted(place.rglob("*")) if place.is_dir() else [place]:
        if path.is_file() and "__pycache__" not in path.parts:
            digest.update(path.name.encode() + hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()[:16]
