"""`course check` in seconds: the answers and their checks alone, as a grader would judge them.

The answers run in a process of their own, without what else the notebook holds. It is the learner's
own code on the learner's own machine, so nothing shuts it in.
"""

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from course_lib.classroom.check import CellResult, NotANotebook
from course_lib.classroom.files import lesson_sources
from course_lib.classroom.grading.grade import Grade, grade
from course_lib.classroom.grading.grade_files import as_junit, write_whole
from course_lib.classroom.grading.sandbox import WEAK, Sandbox
from course_lib.classroom.release import CHECK, assignment, withheld
from course_lib.classroom.submissions.answers import find_answers
from course_lib.classroom.submissions.cells import Cell, Malformed, parse_notebook
from course_lib.classroom.submissions.submission import Submission
from course_lib.exercises.engine.catalogue import all_exercises, by_chapter
from course_lib.exercises.engine.judge import FAILED, NOT_ATTEMPTED, PASSED, Verdict
from course_lib.exercises.engine.progress import record as keep

SEED = 0  # the notebook's own


def check_answers(
    notebook: Path, junit: Path | None = None, record: bool = True
) -> list[CellResult]:
    """How each exercise of a notebook's chapter stands; the notebook is read, never written.

    Args:
        notebook: an .ipynb file.
        junit: file for JUnit XML.
        record: whether what passes counts as the learner's progress.

    Raises:
        NotANotebook: the file is none, or holds no exercise of the course.
    """
    try:
        cells = parse_notebook(notebook.read_bytes())
    except (OSError, Malformed) as error:
        raise NotANotebook(f"{notebook} cannot be read: {error}") from None
    what = assignment(_chapter(notebook, cells))
    answers, notes = find_answers(what, cells)
    submission = Submission(notebook.stem, answers, notes=tuple(notes))
    with ThreadPoolExecutor(1) as pool:
        starting = pool.submit(Sandbox, what.library, WEAK[0], withheld(what))
        all_exercises()  # meanwhile: either takes seconds
        with starting.result() as sandbox:
            made = grade(submission, what, SEED, sandbox.run)
    if junit:
        write_whole(junit, as_junit(made))
    if record:
        _record(made)
    return _results(notebook, cells, made)


def _chapter(notebook: Path, cells: list[Cell]) -> str:
    """The chapter of the file's name, else the one whose exercises and checks are in the cells."""
    if notebook.stem in {path.stem for path in lesson_sources()}:
        return notebook.stem
    names = {cell.grade_id.removeprefix(CHECK) for cell in cells}
    chapters = {name: {one.name for one in ones} for name, ones in by_chapter().items()}
    found = Counter({name: len(names & exercises) for name, exercises in chapters.items()})
    chapter, count = found.most_common(1)[0]
    if not count:
        raise NotANotebook(
            f"{notebook.name} holds no exercise of the course; --all runs the whole notebook"
        )
    return chapter


def _record(made: Grade) -> None:
    for one in made.results:
        status = one.status if one.status in (PASSED, NOT_ATTEMPTED) else FAILED
        keep(Verdict(one.exercise, status, one.passed, one.cases))


def _results(notebook: Path, cells: list[Cell], made: Grade) -> list[CellResult]:
    """The results as those of the checks' cells; −1 is the number of one that is gone."""
    code = [cell for cell in cells if cell.kind == "code"]
    places = {cell.grade_id: number for number, cell in reversed(list(enumerate(code)))}
    results = []
    for one in made.results:
        place = places.get(CHECK + one.exercise, -1)
        line = code[place].source.strip().partition("\n")[0] if place >= 0 else ""
        passed = one.status == PASSED
        text = "" if passed else one.words
        results.append(CellResult(str(notebook), place, one.exercise, line, passed, text))
    return results
