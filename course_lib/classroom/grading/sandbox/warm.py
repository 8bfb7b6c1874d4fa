"""Child: import PyTorch and the course's library once, then fork for every job. Runs no answer.

    parent --- warm process --- watcher --- job --- whatever the job starts

The warm process reads no job and no reply: it receives four open files, forks and forgets them. So
nothing of one submission is in memory when the next one's job is made.
The watcher (isolated: the first process of the job's namespace, whom nobody in it can see into or
end) holds the clock. It knows the job's memory from the sandbox's /proc, which the job has not.
When it ends, the kernel ends whatever the job started.
The job gets its own output and the way to its reply. It holds no other open file.

Where a process cannot fork, or must not (`once`): one job from standard input, the message to
standard output, and the end.
"""

import contextlib
import gc
import importlib
import importlib.abc
import json
import os
import pickle
import select
import signal
import socket
import sys
import time
import traceback
from collections.abc import Sequence
from importlib.machinery import PathFinder
from typing import NoReturn

import torch

from course_lib.classroom.grading.sandbox.answer import allowance, answer
from course_lib.classroom.grading.sandbox.job import pack_cases, unpack_cases
from course_lib.exercises.engine.run import run
from course_lib.exercises.engine.spec import Case

if sys.platform == "linux":
    from course_lib.classroom.grading.sandbox import isolate, seccomp

READY = b"ready"
POLL = 0.05  # seconds between two looks at the memory
REPLY, STEPS = 3, 4  # a job's open files, beside standard input, output and error
MEMORY_CODE = 86  # how a job ends that had no memory to say so


class _Library(importlib.abc.MetaPathFinder):
    """Asked first for a module: a part of the course comes from the library's folder, or not."""

    def __init__(self, library: Sequence[str]):
        self.library = library

    def find_spec(self, name, path=None, target=None):
        if name.startswith("course_lib.") and PathFinder.find_spec(name, path) is None:
            there = ", ".join(self.library) or "nothing of course_lib"
            raise ImportError(f"{name} is not there; graded answers may use {there}")


def prepare(library: Sequence[str]) -> None:
    """Import what answers use; nothing may start a thread here, for a fork has only one."""
    sys.meta_path.insert(0, _Library(library))
    cases = [Case("", {"x": torch.ones(2, 2)})]
    answer((), "f", unpack_cases(pack_cases(cases)), 60, lambda: None)
    run(torch.matmul, [Case("", {"x": torch.ones(2, 2), "y": torch.ones(2, 2)})], 60)
    for name in library:
        importlib.import_module(name)
    gc.freeze()  # a job's collector need not touch, and so copy, what is shared with us


def serve(isolated: bool) -> None:
    """Fork for every job that comes, until the parent hangs up."""
    if isolated:
        isolate.be_nobody()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel buries watchers
    control = socket.socket(fileno=os.dup(0))
    control.sendall(READY)
    while True:
        data, files, _, _ = socket.recv_fds(control, 1, 4)
        if not data:
            return
        if os.fork() == 0:
            control.close()
            _watch_over(*files, isolated)
        for file in files:
            os.close(file)


def _watch_over(job: int, reply: int, printed: int, status: int, isolated: bool) -> NoReturn:
    """Isolate, start the job, tell the parent how it ended; never returns."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    try:
        with open(job, "rb") as file:
            task = pickle.load(file)
        most = allowance(task["seconds"]) * (task["steps"] + 1)
        proc = _enter(most) if isolated else _adopt(most)
        ours = _processes(proc)
        steps, step = os.pipe()
        pid = os.fork()
        if pid == 0:
            _do(task, reply, printed, step, isolated)
        os.close(step)
        ended = _watch(pid, steps, task, proc, ours)
        if not isolated:
            _end_family(pid)
    except Exception as error:
        ended = {"error": f"{type(error).__name__}: {error}"}
    with contextlib.suppress(OSError):
        os.write(status, json.dumps(ended).encode())
    os._exit(0)


def _enter(seconds: float) -> int:
    """Into namespaces of our own, as their first process; an open folder: the sandbox's /proc."""
    proc = os.open("/proc", os.O_RDONLY | os.O_DIRECTORY)
    isolate.enter_namespaces()
    if os.fork():
        os._exit(0)
    isolate.limit(seconds)
    isolate.hide_files()
    isolate.drop_capabilities()
    return proc


def _adopt(seconds: float) -> None:
    """Without namespaces: limits, and whoever loses its parent becomes our child."""
    isolate.limit(seconds, tasks=None)
    isolate.adopt_orphans()


def _do(task: dict, reply: int, printed: int, step: int, isolated: bool) -> NoReturn:
    """The job itself; never returns."""
    code = 1
    try:
        _keep(os.open(os.devnull, os.O_RDONLY), printed, printed, reply, step)
        if isolated:
            if task["timed"]:
                isolate.be_alone()
            seccomp.refuse()
        else:
            os.setpgid(0, 0)
        message = _answer(task, lambda: os.write(STEPS, b"."))
        while message:
            message = message[os.write(REPLY, message) :]
        code = 0
    except MemoryError:
        code = MEMORY_CODE
    except BaseException:
        traceback.print_exc()
    finally:
        _flush()
        os._exit(code)


def _keep(*files: int) -> None:
    """Number the open files 0, 1, 2, …, and close all others."""
    for place, file in enumerate([os.dup2(file, 20 + place) for place, file in enumerate(files)]):
        os.dup2(file, place)
    os.closerange(len(files), 2**16)
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(encoding="utf-8", errors="replace", line_buffering=True)


def _answer(task: dict, step) -> bytes:
    cases = unpack_cases(task["cases"])
    return answer(task["blocks"], task["function"], cases, task["seconds"], step)


def _flush() -> None:
    with contextlib.suppress(BaseException):
        sys.stdout.flush()
    with contextlib.suppress(BaseException):
        sys.stderr.flush()


def _watch(pid: int, steps: int, task: dict, proc: int | None, ours: set[str]) -> dict:
    """Wait for a job's first process; how it ended.

    Each step has its time. A job that claims more steps than it has gets no more time for them.
    """
    process, left = os.pidfd_open(pid), task["steps"]
    time_for_one = allowance(task["seconds"])
    deadline, most = time.monotonic() + time_for_one, _memory(proc, {"self"}) + isolate.MEMORY
    watched = [process, steps]
    while True:
        ready, _, _ = select.select(watched, [], [], POLL)
        if process in ready:
            _, status, used = os.wait4(pid, 0)
            seconds = used.ru_utime + used.ru_stime
            return {"code": os.waitstatus_to_exitcode(status), "seconds": seconds}
        if steps in ready:
            begun = len(os.read(steps, 4096))
            if not begun:
                watched.remove(steps)
            elif left > 0:
                left, deadline = left - begun, time.monotonic() + time_for_one
        if time.monotonic() > deadline:
            return {"limit": "TIMEOUT"}
        if _memory(proc, _processes(proc) - ours) > most:
            return {"limit": "MEMORY"}


def _processes(proc: int | None) -> set[str]:
    return set() if proc is None else {name for name in os.listdir(proc) if name.isdigit()}


def _memory(proc: int | None, processes: set[str]) -> int:
    """Bytes of memory that these processes hold and that belong to no file."""
    total = 0
    for name in processes if proc is not None else ():
        with contextlib.suppress(OSError):  # gone meanwhile
            file = os.open(f"{name}/status", os.O_RDONLY, dir_fd=proc)
            with open(file) as lines:
                words = [line.split() for line in lines]
            total += sum(int(w[1]) for w in words if w and w[0] in ("RssAnon:", "RssShmem:"))
    return total * 1024


def _end_family(pid: int) -> None:
    """Without namespaces: end what the job left, daemons included."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)
    with contextlib.suppress(ChildProcessError):
        while True:
            with open(f"/proc/self/task/{os.getpid()}/children") as children:
                for child in children.read().split():
                    os.kill(int(child), signal.SIGKILL)
            os.waitpid(-1, 0)


def once() -> None:
    """One job: from standard input; the message to standard output, what is printed to error."""
    task = pickle.load(sys.stdin.buffer)
    reply = os.dup(1)
    os.dup2(2, 1)
    message = _answer(task, lambda: None)
    _flush()
    with open(reply, "wb") as file:
        file.write(message)
    os._exit(0)


if __name__ == "__main__":
    mode, *library = sys.argv[1:]
    prepare(library)
    once() if mode == "once" else serve(isolated=mode == "isolated")
