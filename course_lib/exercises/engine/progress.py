"""Which exercises were passed, as the learner's journal tells."""

from course_lib import journal
from course_lib.exercises.engine.judge import PASSED, Verdict


def record(verdict: Verdict) -> None:
    """Put a verdict into the journal."""
    journal.append({"exercise": verdict.exercise, "status": verdict.status})


def latest() -> dict[str, str]:
    """Exercise -> "passed" once it ever passed, else its last status."""
    status: dict[str, str] = {}
    for entry in journal.entries():
        name, now = entry.get("exercise"), entry.get("status")
        if isinstance(name, str) and isinstance(now, str) and status.get(name) != PASSED:
            status[name] = now
    return status
