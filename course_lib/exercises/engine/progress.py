"""Which exercises were passed: one small file that is only ever appended to.

A line is one JSON object, written in one call, so that a crash or a second kernel can spoil at most
a line and never the file. Two files are merged by joining them; deleting the file starts afresh.
"""

import json
import os
from datetime import UTC, datetime
from pathlib import Path

from course_lib.exercises.engine.judge import PASSED, Verdict
from course_lib.places import data_folder


def progress_file() -> Path:
    """Where progress is kept."""
    return data_folder() / "progress.jsonl"


def record(verdict: Verdict) -> None:
    """Append a verdict. A folder that cannot be written costs the record, not the lesson."""
    line = {
        "exercise": verdict.exercise,
        "status": verdict.status,
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    try:
        progress_file().parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(progress_file(), os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            os.write(handle, (json.dumps(line) + "\n").encode())
        finally:
            os.close(handle)
    except OSError:
        pass


def latest() -> dict[str, str]:
    """Exercise -> "passed" once it ever passed, else its last status. Spoiled lines are skipped."""
    status: dict[str, str] = {}
    try:
        lines = progress_file().read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return status
    for line in lines:
        try:
            entry = json.loads(line)
            name, now = entry["exercise"], entry["status"]
        except (ValueError, KeyError, TypeError):
            continue
        if status.get(name) != PASSED:
            status[name] = now
    return status
