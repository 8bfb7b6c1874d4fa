"""Values out, verdict elsewhere: submitted code runs here, in a child that holds no secret.

    job.py      Job, Reply: what goes in and what comes out
    wire.py     the message back, of which the parent trusts no byte
    library.py  the part of course_lib that a child may import, as a folder of its own
    isolate.py  Linux: a process gives up what it can reach, see and use
    seccomp.py  Linux: the kernel's calls that no answer needs
    answer.py   child: execute blocks, call the function on the cases
    warm.py     child: import PyTorch once, fork for every job, watch over it
    tiers.py    how a child is started: bubblewrap, a container, a plain process
    worker.py   parent: Sandbox, one child and its jobs

Not protected: a bug in the kernel; what can be read from times, temperatures or a shared cache; a
machine slowed down by as many processes as a job may have. What an answer says of its own
gradients and of altered inputs is believed. So are its seconds, but only where no watcher counts
them: where each job is a process of its own (a container; macOS, Windows). Public data sets' labels
are public. Tier "process" keeps accidents apart, not attacks: it can read and write what its user
can, and reach the network.
"""

from course_lib.classroom.grading.sandbox.job import (
    BAD_TYPE,
    CRASHED,
    EXITED,
    MEMORY,
    PROTOCOL_ERROR,
    STATUSES,
    TIMEOUT,
    Job,
    Reply,
    pack_cases,
)
from course_lib.classroom.grading.sandbox.tiers import WEAK, best_tier
from course_lib.classroom.grading.sandbox.worker import Sandbox, SandboxError

__all__ = [
    "BAD_TYPE",
    "CRASHED",
    "EXITED",
    "MEMORY",
    "PROTOCOL_ERROR",
    "STATUSES",
    "TIMEOUT",
    "WEAK",
    "Job",
    "Reply",
    "Sandbox",
    "SandboxError",
    "best_tier",
    "pack_cases",
]
