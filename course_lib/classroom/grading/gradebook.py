"""Many submissions: graded side by side, each as soon as it comes, none twice and none lost.

A grade is stored under the hash of all that it depends on, before the next is begun. So a run that
was killed goes on where it stopped, and a second run grades only what has changed.
"""

import atexit
import hashlib
import json
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

from course_lib.classroom.grading.grade import Grade, as_json, from_json, grade
from course_lib.classroom.grading.grade_files import write_whole
from course_lib.classroom.grading.sandbox import (
    Job,
    Sandbox,
    SandboxError,
    pack_cases,
)
from course_lib.classroom.release import Assignment, withheld
from course_lib.classroom.submissions.submission import Submission
from course_lib.exercises.engine.spec import Case
from course_lib.places import CHECKOUT

STORE = ".graded"  # in the folder of the grades: KEY.json
AHEAD = 2  # submissions read for each one that is being graded


@dataclass(frozen=True)
class Terms:
    """All that a grade depends on but the submission and the course's version."""

    assignment: Assignment
    seed: int
    tier: str


def graded(submission: Submission, terms: Terms) -> Grade:
    """Grade one submission in a sandbox of this process, be it here or on a worker elsewhere."""
    with _sandbox(terms) as sandbox:
        made = grade(submission, terms.assignment, terms.seed, sandbox.run)
    return replace(made, tier=terms.tier, version=course_version())


def key(submission: Submission, terms: Terms) -> str:
    """The hash of all that a submission's grade depends on; not of the student."""
    depends = asdict(terms) | {"version": course_version(), "status": submission.status}
    depends |= {"answers": [submission.answers.get(name) for name in terms.assignment.points]}
    return hashlib.sha256(json.dumps(depends, sort_keys=True).encode()).hexdigest()


@cache
def course_version() -> str:
    """A hash of the course's sources: another version may grade otherwise."""
    digest = hashlib.sha256()
    for path in sorted((CHECKOUT / "course_lib").rglob("*.py")):
        text = path.read_bytes().replace(b"\r\n", b"\n")
        digest.update(f"{path.relative_to(CHECKOUT).as_posix()} {len(text)}\n".encode() + text)
    return digest.hexdigest()[:16]


def grade_all(
    submissions: Iterable[Submission],
    terms: Terms,
    out: Path,
    jobs: int,
    call: Callable[[Submission, Terms], Grade] = graded,
) -> Iterator[tuple[str, Grade | Exception]]:
    """Each student with the grade, or with the reason why there is none; in no fixed order.

    Args:
        submissions: read as they are needed, a few ahead of those that are being graded.
        terms: what else the grades depend on.
        out: the folder in which they are stored.
        jobs: how many are graded at a time.
        call: grades one.
    """
    store = out / STORE
    store.mkdir(parents=True, exist_ok=True)

    def one(submission: Submission) -> Grade:
        path = store / f"{key(submission, terms)}.json"
        made = _stored(path) or _keep(path, call(submission, terms))
        who = {name: getattr(submission, name) for name in ("student", "notes", "guesses")}
        return replace(made, **who)

    with ThreadPoolExecutor(jobs) as pool:
        try:
            for submission, future in _as_done(pool, one, submissions, AHEAD * jobs):
                error = future.exception()
                yield submission.student, error if error else future.result()
        except BaseException:  # whoever asked wants no more
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _as_done(pool, function, items: Iterable, most: int) -> Iterator[tuple[Any, Future]]:
    """The items, each with its future once that is done; at most so many are under way."""
    running: dict[Future, Any] = {}
    for item in items:
        running[pool.submit(function, item)] = item
        if len(running) >= most:
            yield from _done(running)
    while running:
        yield from _done(running)


def _done(running: dict) -> Iterator[tuple[Any, Future]]:
    for future in wait(running, return_when=FIRST_COMPLETED).done:
        yield running.pop(future), future


_keeping = threading.Lock()


def _keep(path: Path, made: Grade) -> Grade:
    """Store a grade, and give back what is stored: of two equal submissions the first one's."""
    with _keeping:
        if stored := _stored(path):
            return stored
        write_whole(path, as_json(replace(made, student="", notes=(), guesses=())))
    return made


def _stored(path: Path) -> Grade | None:
    try:
        return from_json(path.read_text("ascii"))
    except (OSError, ValueError):
        return None


@cache
def _free(*how: tuple[str, ...] | str) -> SimpleQueue:
    """The sandboxes of this process that are not in use; at its end all are closed."""
    free: SimpleQueue = SimpleQueue()
    atexit.register(_close, free)
    return free


def _close(free: SimpleQueue) -> None:
    while not free.empty():
        free.get().close()


@contextmanager
def _sandbox(terms: Terms) -> Iterator[Sandbox]:
    """A free sandbox, or a new one. One that failed itself is not used again."""
    how = terms.assignment.library, terms.tier, withheld(terms.assignment)
    free = _free(*how)
    try:
        sandbox = free.get_nowait()
    except Empty:
        sandbox = _proven(Sandbox(*how))
    try:
        yield sandbox
    except BaseException:
        sandbox.close()
        raise
    free.put(sandbox)


def _proven(sandbox: Sandbox) -> Sandbox:
    """A new sandbox that runs an answer as it should; else what it does wrong is nobody's answer.

    Raises:
        SandboxError: it does not; it is closed.
    """
    cases = pack_cases([Case("three", {"x": 3})])
    reply = sandbox.run(Job(("def double(x):\n    return 2 * x",), "double", cases, 60.0))
    if [one.value for one in reply.outcomes] != [6]:
        sandbox.close()
        raise SandboxError(f"a sandbox cannot run 2 * 3: {reply.status} {reply.printed[-300:]}")
    return sandbox
