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
        path = progress_file()
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            torn = b"" if _ends_a_line(handle) else b"\n"
            os.write(handle, torn + json.dumps(line).encode() + b"\n")
        finally:
            os.close(handle)
    except OSError:
        pass


def _ends_a_line(handle: int) -> bool:
    size = os.fstat(handle).st_size
    if size == 0:
        return True
    os.lseek(handle, size - 1, os.SEEK_SET)
    return os.read(handle, 1) == b"\n"


def latest() -> dict[str, str]:
    """Exercise -> "passed" once it ever passed, else its last status. Spoiled lines are skipped.

    The file is ASCII; zeros and byte order marks, which Windows' tools add, say nothing.
    """
    status: dict[str, str] = {}
    try:
        data = progress_file().read_bytes()
    except OSError:
        return status
    for mark in (b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff", b"\0"):
        data = data.replace(mark, b"")
    for line in data.splitlines():
        try:
            entry = json.loads(line)
            name, now = entry["exercise"], entry["status"]
            passed = status.get(name) == PASSED
        except (ValueError, KeyError, TypeError):
            continue
        if not passed:
            status[name] = now
    return status
