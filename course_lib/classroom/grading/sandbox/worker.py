"""Parent: one sandbox, and its jobs one after the other.

The parent opens what a job may write into: a file in memory for the message, another for what is
printed. It waits for the watcher's word, never for the job's, and reads no more than it wants.
"""

import contextlib
import json
import os
import pickle
import select
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import IO

from course_lib.classroom.grading.sandbox import job as names
from course_lib.classroom.grading.sandbox.answer import allowance
from course_lib.classroom.grading.sandbox.job import Job, Reply, Signature, signatures
from course_lib.classroom.grading.sandbox.library import build_library
from course_lib.classroom.grading.sandbox.tiers import TIERS, command, environment, forks
from course_lib.classroom.grading.sandbox.warm import MEMORY_CODE, READY
from course_lib.classroom.grading.sandbox.wire import MOST_BYTES, ProtocolError, decode
from course_lib.exercises.engine.run import Outcome, TimeLimit
from course_lib.exercises.engine.values import Opaque

START_SECONDS = 120  # a child imports PyTorch, on a machine that may be busy
SPARE_SECONDS = 10  # beyond its time, before a sandbox is given up
PRINTED = 4000  # characters that are kept
GONE = {"code": -9}  # as if SIGKILL had ended the job
NO_MEMORY = "DefaultCPUAllocator: can't allocate memory"


class SandboxError(RuntimeError):
    """The sandbox itself does not work; no submission causes it."""


class Sandbox:
    """One child that runs jobs, as a context; several may be used in several threads.

    Args:
        library: modules of course_lib that an answer may import.
        tier: "bubblewrap", "container" or "process"; `best_tier()` knows which one works here.
        withheld: functions of that library that raise when called: the chapter's exercises.

    Raises:
        ValueError: there is no such tier or module.
        SandboxError: no child could be started.

    >>> from course_lib.exercises.engine.spec import Case
    >>> cases = names.pack_cases([Case("three", {"x": 3})])
    >>> with Sandbox((), "process") as sandbox:
    ...     reply = sandbox.run(Job(("def double(x): return 2 * x",), "double", cases, 5.0))
    >>> reply.outcomes[0].value
    6
    """

    def __init__(self, library: tuple[str, ...], tier: str, withheld: tuple[str, ...] = ()):
        if tier not in TIERS:
            raise ValueError(f"tier must be one of {', '.join(TIERS)}; got {tier!r}")
        self.library, self.tier = tuple(library), tier
        self._folder = tempfile.TemporaryDirectory(prefix="course-")
        self._path = Path(self._folder.name)
        self._process: subprocess.Popen | None = None
        self._control: socket.socket | None = None
        try:
            os.chmod(self._path, 0o755)  # a root's child is somebody else
            build_library(self._path, self.library, withheld)
            if forks(tier):
                self._start()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> "Sandbox":
        return self

    def __exit__(self, *exception) -> None:
        self.close()

    def close(self) -> None:
        """End the child and all that it started."""
        self._end()
        self._folder.cleanup()

    def run(self, job: Job) -> Reply:
        """What became of a job; never raises for what a submission does.

        Raises:
            SandboxError: the sandbox itself does not work.
        """
        cases = signatures(job.cases)
        steps = len(job.blocks) + len(cases)
        task = {
            "blocks": tuple(job.blocks),
            "function": job.function,
            "cases": job.cases,
            "seconds": job.seconds,
            "steps": steps,
            "timed": job.timed,
        }
        longest = allowance(job.seconds) * (steps + 1) + SPARE_SECONDS
        with _scratch() as task_file:
            pickle.dump(task, task_file)
            task_file.flush()
            ended, message, printed = self._try(task_file, longest)
            if ended == GONE:  # the sandbox was ended, not the job: once more, in a new one
                ended, message, printed = self._try(task_file, longest)
        return _reply(ended, message, printed, cases)

    def _try(self, task: IO, longest: float) -> tuple[dict, bytes, str]:
        """How a job ended, its message and the beginning of what it printed.

        Both files are this try's alone: what an earlier one left may still write into its own.
        """
        how = self._served if forks(self.tier) else self._once
        with _scratch() as message, _scratch() as printed:
            ended = how(task, message, printed, longest)
            text = _beginning(printed, 4 * PRINTED).decode("utf-8", "replace")[:PRINTED]
            return ended, _beginning(message, MOST_BYTES + 1), text

    def _start(self) -> None:
        """Start the child and wait until it is ready."""
        ours, theirs = socket.socketpair()
        with theirs, tempfile.TemporaryFile() as errors:
            mode = "isolated" if self.tier == "bubblewrap" else "plain"
            self._process = subprocess.Popen(
                command(self.tier, self._path, mode, *self.library),
                stdin=theirs,
                stdout=errors,
                stderr=errors,
                env=environment(self._path),
                cwd="/",
                start_new_session=True,  # one group, to be ended together
            )
            theirs.close()
            self._control = ours
            ours.settimeout(START_SECONDS)
            with contextlib.suppress(OSError):
                if ours.recv(len(READY)) == READY:
                    ours.settimeout(None)
                    return
            self._end()
            told = _beginning(errors, 10**5).decode("utf-8", "replace").strip().splitlines()
        raise SandboxError(f"the sandbox ({self.tier}) did not start: {' / '.join(told[-3:])}")

    def _end(self) -> None:
        if self._control:
            self._control.close()
        if self._process:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        self._control = self._process = None

    def _served(self, task: IO, message: IO, printed: IO, longest: float) -> dict:
        """Hand the files to the warm process and wait for the watcher's word."""
        if self._process is None or self._process.poll() is not None:
            self._end()
            self._start()
        status, theirs = os.pipe()
        with open(status, "rb", buffering=0) as status_file:
            files = [_from_the_start(file) for file in (task, message, printed)] + [theirs]
            with contextlib.suppress(OSError):  # gone: nobody will write into status
                socket.send_fds(self._control, [b"j"], files)
            os.close(theirs)
            word = _read_until_closed(status_file, longest)
        if not word:  # the watcher is late, or was ended, as by a machine without memory
            self._end()
            return {"limit": names.TIMEOUT} if word is None else GONE
        return json.loads(word)

    def _once(self, task: IO, message: IO, printed: IO, longest: float) -> dict:
        """A child for this job alone."""
        longest, began = START_SECONDS + longest, time.monotonic()
        line = command(self.tier, self._path, "once", *self.library, seconds=longest)
        if os.name == "posix":  # neither file may grow for ever, whoever writes into it
            line = ["sh", "-c", f'ulimit -f {2 * MOST_BYTES // 512}; exec "$@"', "sh", *line]
        with subprocess.Popen(
            line,
            stdin=_from_the_start(task),
            stdout=message,
            stderr=printed,
            env=self._environment(),
        ) as child:
            try:
                code = child.wait(longest + SPARE_SECONDS)
            except subprocess.TimeoutExpired:
                child.kill()
        late = time.monotonic() - began > longest
        return {"limit": names.TIMEOUT} if late else {"code": code}

    def _environment(self) -> dict[str, str] | None:
        """A container's client needs our own variables; it does not hand them on."""
        return None if self.tier == "container" else environment(self._path)


def _scratch() -> IO:
    """A file that is gone when closed; where the system can, one in memory."""
    if sys.platform == "linux":
        return open(os.memfd_create("course"), "w+b")
    return tempfile.TemporaryFile()


def _from_the_start(file: IO) -> int:
    """The file's number, its place at the beginning."""
    file.seek(0)
    return file.fileno()


def _beginning(file: IO, most: int) -> bytes:
    """At most so many bytes from its start; another process may have moved the place in it."""
    file.seek(0)
    return file.read(most)


def _read_until_closed(file: IO, seconds: float) -> bytes | None:
    """What was written; None where its writer is still there after so many seconds."""
    deadline, read = time.monotonic() + seconds, b""
    while select.select([file], [], [], max(0.0, deadline - time.monotonic()))[0]:
        part = file.read(2**16)
        if not part:
            return read
        read += part
    return None


def _reply(ended: dict, message: bytes, printed: str, cases: tuple[Signature, ...]) -> Reply:
    """The watcher's word and the job's message together."""
    if "error" in ended:
        raise SandboxError(f"the sandbox does not work: {ended['error']}")
    if ended.get("limit") == names.TIMEOUT:
        return Reply(names.TIMEOUT, text="it had to be ended: no answer in time", printed=printed)
    if ended.get("limit") == names.MEMORY or ended["code"] == MEMORY_CODE:
        return Reply(names.MEMORY, text="it took too much memory", printed=printed)
    if ended["code"]:
        return Reply(names.CRASHED, text=_how(ended["code"]), printed=printed)
    if not message:
        return Reply(names.CRASHED, text="it ended before it had answered", printed=printed)
    try:
        outcomes, text, last = decode(message, cases)
    except ProtocolError as error:
        return Reply(names.PROTOCOL_ERROR, text=str(error), printed=printed)
    if last:
        status = {"SystemExit": names.EXITED, "MemoryError": names.MEMORY}.get(last, names.CRASHED)
        return Reply(status, text=text, printed=printed)
    status, why = _judged_at_once(outcomes)
    seconds = ended.get("seconds", sum(one.seconds for one in outcomes))
    return Reply(status, outcomes, why or text, printed, seconds)


def _how(code: int) -> str:
    if code >= 0:
        return f"it ended with code {code}"
    with contextlib.suppress(ValueError):
        return f"it was ended by {signal.Signals(-code).name}"
    return f"it was ended by signal {-code}"


def _judged_at_once(outcomes: tuple[Outcome, ...]) -> tuple[str, str]:
    """The status that outcomes show by themselves, and what to tell."""
    for one in outcomes:
        if one.error == TimeLimit.__name__:
            return names.TIMEOUT, f"{one.message}; is there a loop that never ends?"
        if one.error == "MemoryError" or NO_MEMORY in one.message:
            return names.MEMORY, "it took too much memory"
        if (opaque := _opaque(one.value)) or (opaque := _opaque(one.gradients)):
            return names.BAD_TYPE, f"it returned a value of type {opaque.type_name}"
    return "", ""


def _opaque(value) -> Opaque | None:
    """The first thing in a value that no exercise asks for."""
    if isinstance(value, Opaque):
        return value
    items = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return next((found for item in items if (found := _opaque(item))), None)
