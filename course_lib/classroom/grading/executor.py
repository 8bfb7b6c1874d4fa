"""Where submissions are graded: in threads here, or on the workers of a Dask cluster."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from course_lib.classroom.grading.grade import Grade
from course_lib.classroom.grading.gradebook import Terms, course_version, graded
from course_lib.classroom.grading.sandbox import WEAK, best_tier
from course_lib.classroom.submissions.submission import Submission


class WeakSandbox(Exception):
    """This machine cannot shut submitted code in; the message says what to do."""


@contextmanager
def executor(jobs: int, address: str, weak_too: bool) -> Iterator[tuple[str, int, Callable]]:
    """The sandbox's tier, how many are graded at a time, and the `call` that grades one.

    Args:
        jobs: how many at a time; 0 for as many as there are processors.
        address: of a Dask scheduler, as in tcp://127.0.0.1:8786; empty for this machine.
        weak_too: whether a sandbox that shuts nothing in is allowed.

    Raises:
        WeakSandbox: there is no other, here or on one of the workers, and it is not allowed.
        LookupError: no scheduler answers there, or it has no worker.
        ValueError: a worker has another version of the course.
        ImportError: there is no `distributed`.
    """
    if not address:
        yield _allowed({best_tier()}, weak_too), jobs or _cpus(), graded
        return
    from distributed import Client

    try:
        client = Client(address, timeout="10s", set_as_default=False)
    except OSError as error:
        raise LookupError(f"no Dask scheduler answers at {address}: {error}") from None
    with client:
        versions = client.run(course_version)
        if not versions:
            raise LookupError(f"the scheduler at {address} has no worker")
        other = [worker for worker, one in versions.items() if one != course_version()]
        if other:
            raise ValueError(f"not this version of the course: {', '.join(other)}")
        tier = _allowed(set(client.run(best_tier).values()), weak_too)

        def call(submission: Submission, terms: Terms) -> Grade:
            # Its result, not its status: a worker may be lost between the two.
            return client.submit(graded, submission, terms, pure=False).result()

        yield tier, jobs or sum(client.nthreads().values()), call


def _allowed(tiers: set[str], weak_too: bool) -> str:
    weak = tiers & set(WEAK)
    if weak and not weak_too:
        raise WeakSandbox(
            "Submitted code would run as a plain process, with your files in reach: bubblewrap "
            "(the package of that name, Linux) is missing or not allowed here.\n"
            "--allow-weak-sandbox grades nevertheless; every report will say so."
        )
    return sorted(weak or tiers)[0]


def _cpus() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
