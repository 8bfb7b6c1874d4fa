"""`course report`: what a class got wrong, counted.

No student is named, for the page made of this is there to be shown. Who gave which answer stands in
grades.csv.
"""

import ast
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from course_lib.classroom.grading.grade import Grade, Result, from_json
from course_lib.classroom.grading.sandbox import BAD_TYPE
from course_lib.classroom.reports.grade_pages import guesses
from course_lib.exercises.engine.catalogue import NoSuchExercise, find
from course_lib.exercises.engine.judge import FAILED, NOT_ATTEMPTED, PASSED

GROUPS = ("known", "unknown", "stopped")  # kinds of wrong answers, as a Tally has them


@dataclass(frozen=True)
class Group:
    """Equal answers to one exercise: how many, and one of them."""

    name: str  # the misconception, or what came out
    count: int
    explanation: str = ""  # of a misconception
    status: str = FAILED
    example: str = ""  # the shortest of their answers, without comments


@dataclass(frozen=True)
class Tally:
    """How one exercise went. Groups are sorted, the largest first."""

    exercise: str
    students: int
    passed: int
    blank: int
    known: tuple[Group, ...]  # misconceptions
    unknown: tuple[Group, ...]  # other wrong values, equal ones together
    stopped: tuple[Group, ...]  # answers that gave no value: too slow, crashed, …

    @property
    def share(self) -> float:
        """Of those who passed."""
        return self.passed / self.students


@dataclass(frozen=True)
class Guessed:
    """What a class guessed before it saw the measurement."""

    question: str
    measured: str
    counts: tuple[tuple[str, int], ...]  # numbers in their order, words by how often


def read_grades(folder: Path) -> list[Grade]:
    """The grades that `course grade` left in a folder, of one chapter.

    Raises:
        LookupError: there are none, or those of several chapters.
        ValueError: a file holds no grade.
    """
    paths = sorted(folder.glob("*/grade.json"))
    if not paths:
        raise LookupError(
            f"{folder} holds no STUDENT/grade.json. course grade SUBMISSIONS --out {folder} "
            "makes them"
        )
    grades = [from_json(path.read_text("ascii")) for path in paths]
    chapters = sorted({grade.chapter for grade in grades})
    if len(chapters) > 1:
        raise LookupError(f"{folder} holds grades of several chapters: {', '.join(chapters)}")
    return grades


def readable(grades: Iterable[Grade]) -> list[Grade]:
    """The grades of submissions that could be read."""
    return [grade for grade in grades if not grade.status and grade.results]


def tally(grades: Sequence[Grade]) -> list[Tally]:
    """How each exercise went, the hardest first.

    >>> one = Grade("Ada", "05_x", (Result("f", 0, 2, FAILED, value="3"),))
    >>> [(group.name, group.count) for group in tally([one])[0].unknown]
    [('3', 1)]
    """
    by_exercise: dict[str, list[Result]] = {}
    for result in (result for grade in readable(grades) for result in grade.results):
        by_exercise.setdefault(result.exercise, []).append(result)
    tallies = [_tally(*both) for both in by_exercise.items()]
    return sorted(tallies, key=lambda one: one.share)


def worst(tallies: Iterable[Tally], most: int = 5) -> list[tuple[str, Group]]:
    """(exercise, wrong answers) of more than one student, the most frequent first."""
    groups = [(one.exercise, group) for one in tallies for group in one.known + one.unknown]
    several = [both for both in groups if both[1].count > 1]
    return sorted(several, key=lambda both: -both[1].count)[:most]


def guessed(grades: Iterable[Grade]) -> list[Guessed]:
    """What was guessed, question by question; a question that only one student has is left out."""
    answers: dict[str, list[tuple[str, str]]] = {}
    for grade in grades:
        own = {question: (guess, measured) for question, guess, measured in guesses(grade)}
        for question, answer in own.items():
            answers.setdefault(question, []).append(answer)
    return [_guessed(*both) for both in answers.items() if len(both[1]) > 1]


def _tally(exercise: str, results: list[Result]) -> Tally:
    wrong = [one for one in results if one.status not in (PASSED, NOT_ATTEMPTED)]
    failed = [one for one in wrong if one.status in (FAILED, BAD_TYPE)]
    known = [one for one in failed if one.misconception]
    return Tally(
        exercise,
        len(results),
        sum(one.status == PASSED for one in results),
        sum(one.status == NOT_ATTEMPTED for one in results),
        _groups(known, lambda one: one.misconception),
        _groups([one for one in failed if one not in known], lambda one: one.value),
        _groups([one for one in wrong if one not in failed], lambda one: (one.status, one.value)),
    )


def _groups(results: list[Result], key: Callable[[Result], Hashable]) -> tuple[Group, ...]:
    members: dict[Hashable, list[Result]] = {}
    for result in results:
        members.setdefault(key(result), []).append(result)
    groups = [_group(equal) for equal in members.values()]
    return tuple(sorted(groups, key=lambda group: (-group.count, group.name)))


def _group(equal: list[Result]) -> Group:
    one = equal[0]
    shortest = min((result.answer for result in equal), key=lambda answer: (len(answer), answer))
    return Group(
        one.misconception or one.value.removeprefix(one.status).strip(" ·"),
        len(equal),
        _explanation(one),
        one.status,
        bare_source(shortest),
    )


def _explanation(result: Result) -> str:
    """What the exercise says of a misconception; nothing where this version does not know it."""
    try:
        known = find(result.exercise).misconceptions
    except NoSuchExercise:
        return ""
    return next((one.explanation for one in known if one.name == result.misconception), "")


def bare_source(source: str) -> str:
    """Python without comments and docstrings, in which a name might stand.

    >>> bare_source("def f(x):  # Ada's\\n    return x")
    'def f(x):\\n    return x'
    """
    try:
        tree = ast.parse(source)
        for node in ast.walk(tree):
            if isinstance(body := getattr(node, "body", None), list):
                kept = [one for one in body if not _is_text(one)]
                node.body = kept or [ast.Expr(ast.Constant(...))]
        return ast.unparse(tree)
    except (
        SyntaxError,
        ValueError,
        RecursionError,
        MemoryError,
    ):  # it is no Python: shown as it is
        return source


def _is_text(statement: ast.stmt) -> bool:
    value = getattr(statement, "value", None)
    return isinstance(statement, ast.Expr) and isinstance(getattr(value, "value", None), str)


def _guessed(question: str, answers: list[tuple[str, str]]) -> Guessed:
    counts = Counter(guess for guess, _ in answers)
    measured = Counter(measured for _, measured in answers).most_common(1)[0][0]
    try:
        ordered = sorted(counts.items(), key=lambda pair: float(pair[0].rstrip(" %×")))
    except ValueError:
        ordered = counts.most_common()
    return Guessed(question, measured, tuple(ordered))
