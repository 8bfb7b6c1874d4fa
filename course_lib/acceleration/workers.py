"""Worker processes that can talk to each other: started once, given tasks, gone when you are.

They meet through a file in a folder of their own, so that no port has to be free, and talk over
this machine's loopback (gloo). You hand each one its task through a pipe and get its answer there.
A worker ends when its parent closes it, ends or is killed; if one fails, or takes too long, all end
and you are told why.
"""

import contextlib
import os
import pickle
import socket
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from multiprocessing import connection, get_context, parent_process
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
import torch.distributed as dist

from course_lib.acceleration.parallel_worker import Wire

HINT = "(a script must start workers under `if __name__ == '__main__':`)"


class Workers:
    """Some processes with one thread each, to be used in a `with` block.

    >>> with Workers(2) as workers:  # doctest: +SKIP
    ...     workers.run(task, [(first_argument,), (another,)])
    """

    def __init__(self, count: int = 2, timeout: float = 120.0):
        """Start them, and wait until they have met.

        Args:
            count: at least 1.
            timeout: seconds that they may take, to start and for each task.

        Raises:
            ValueError: count or timeout is out of range.
            RuntimeError: a worker failed.
            TimeoutError: they took too long.
        """
        if count < 1 or not timeout > 0:
            raise ValueError(f"count and timeout must be positive; got {count} and {timeout}")
        self.timeout = timeout
        self._folder = TemporaryDirectory(prefix="workers-", ignore_cleanup_errors=True)
        self._pipes, self.processes = [], []
        context = get_context("spawn")
        meeting = str(Path(self._folder.name, "meeting"))
        try:
            for rank in range(count):
                mine, theirs = context.Pipe()
                given = (rank, count, meeting, timeout, theirs)
                process = context.Process(target=_serve, args=given, daemon=True)
                process.start()
                theirs.close()
                self._pipes.append(mine)
                self.processes.append(process)
            self._answers()
        except BaseException:
            self.close()
            raise

    def __len__(self) -> int:
        return len(self.processes)

    def __enter__(self) -> "Workers":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def run(self, task: Callable[..., Any], arguments: Sequence[tuple]) -> list[Any]:
        """task(wire, *arguments[w]) in each worker w, all at once; their results.

        Args:
            task: a function of a module that can be imported.
            arguments: for each worker its own.

        Raises:
            ValueError: there are not as many arguments as workers, or the workers are gone; the
                task stands in a notebook, where no other process can find it.
            RuntimeError: the task failed in a worker; the message is that worker's.
            TimeoutError: it took too long.
        """
        if len(arguments) != len(self):
            raise ValueError(
                f"arguments must be those of {len(self)} workers; got {len(arguments)}"
            )
        in_main = getattr(task, "__module__", None) == "__main__"
        if in_main and not hasattr(sys.modules["__main__"], "__file__"):
            raise ValueError(f"task must be a function of a module; got {task} of a notebook")
        messages = [pickle.dumps((task, own)) for own in arguments]
        try:
            for pipe, message in zip(self._pipes, messages, strict=True):
                with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # told below
                    pipe.send_bytes(message)
            return self._answers()
        except BaseException:  # an interrupt, too: half a task cannot be taken up again
            self.close()
            raise

    def close(self) -> None:
        """End all workers; what they were doing is lost."""
        for process in self.processes:
            process.kill()
        for process in self.processes:
            process.join()
        for pipe in self._pipes:
            pipe.close()
        self._pipes, self.processes = [], []
        self._folder.cleanup()

    def _answers(self) -> list[Any]:
        """One from each worker; the first error ends the waiting."""
        missing = dict(enumerate(self._pipes))
        answers: list[Any] = [None] * len(missing)
        while missing:
            ready = connection.wait(missing.values(), self.timeout)
            if not ready:
                raise TimeoutError(f"workers {list(missing)} took over {self.timeout} seconds")
            for rank in [rank for rank, pipe in missing.items() if pipe in ready]:
                answers[rank] = _answer(rank, missing.pop(rank))
        return answers


def _answer(rank: int, pipe: connection.Connection) -> Any:
    try:
        good, answer = pickle.loads(pipe.recv_bytes())
    except (EOFError, ConnectionResetError):
        raise RuntimeError(f"worker {rank} ended without an answer {HINT}") from None
    if not good:
        raise RuntimeError(f"worker {rank} failed:\n{answer}")
    return answer


def _serve(
    rank: int, count: int, meeting: str, timeout: float, pipe: connection.Connection
) -> None:
    """A worker's life: meet the others, then task after task until the pipe is closed."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(1)
    try:
        with _quiet():
            _meet(rank, count, meeting, timeout)
        answer = (True, None)
        while True:
            pipe.send_bytes(pickle.dumps(answer))
            task, own = pickle.loads(pipe.recv_bytes())
            answer = (True, task(Wire(rank, count), *own))
    except EOFError:
        return
    except Exception:
        pipe.send_bytes(pickle.dumps((False, traceback.format_exc())))


def _meet(rank: int, count: int, meeting: str, timeout: float) -> None:
    """Join the group, by loopback: the name of this machine may lead nowhere."""
    if sys.platform != "win32":
        loopback = [name for _, name in socket.if_nameindex() if name.startswith("lo")]
        os.environ["GLOO_SOCKET_IFNAME"] = loopback[0]
    store = dist.FileStore(meeting, count)
    wait = timedelta(seconds=timeout)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=count, timeout=wait)


def _end_with_parent() -> None:
    """A killed parent closes no worker, and a worker may be waiting for another one."""
    parent_process().join()
    os._exit(1)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """gloo says on standard output and error that it has connected."""
    kept = [os.dup(1), os.dup(2)]
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        for number in (1, 2):
            os.dup2(nowhere, number)
        yield
    finally:
        for number, old in zip((1, 2), kept, strict=True):
            os.dup2(old, number)
            os.close(old)
        os.close(nowhere)
