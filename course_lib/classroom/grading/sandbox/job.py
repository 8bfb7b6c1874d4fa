"""What goes into a sandbox and what comes out of it."""

import json
import pickle
import struct
from dataclasses import dataclass

import torch

from course_lib.exercises.engine.run import Outcome
from course_lib.exercises.engine.spec import Case

BAD_TYPE, PROTOCOL_ERROR, EXITED = "BAD_TYPE", "PROTOCOL_ERROR", "EXITED"
CRASHED, TIMEOUT, MEMORY = "CRASHED", "TIMEOUT", "MEMORY"
STATUSES = (BAD_TYPE, PROTOCOL_ERROR, EXITED, CRASHED, TIMEOUT, MEMORY)


@dataclass(frozen=True)
class Job:
    """One answer to be run on one exercise's cases.

    blocks: sources, executed one after the other in one namespace; one that fails stops no other.
    function: the function to call afterwards.
    cases: what `pack_cases` made.
    seconds: wall clock for one case, and for one block.
    timed: its CPU seconds will be judged, so in an isolated sandbox it may start no process and no
        thread: what would count elsewhere.
    """

    blocks: tuple[str, ...]
    function: str
    cases: bytes
    seconds: float
    timed: bool = False


@dataclass(frozen=True)
class Reply:
    """What came back: outcomes for the judge, or a status that says why there are none.

    With BAD_TYPE, TIMEOUT and MEMORY there may be outcomes, too, to look at; they earn nothing.

    status: "" or one of STATUSES.
    outcomes: one for each case, all plain data.
    text: what to tell: the exception of a block that failed, or the limit that was hit.
    printed: the beginning of what was printed, for a human; never to be parsed.
    seconds: of the CPU, blocks and cases together, as the watcher counts; where there is none, the
        cases alone, as the child says.
    """

    status: str
    outcomes: tuple[Outcome, ...] = ()
    text: str = ""
    printed: str = ""
    seconds: float = 0.0


@dataclass(frozen=True)
class Signature:
    """What the parent must know of a case to check an outcome's form."""

    inputs: tuple[str, ...]  # all of them
    leaves: tuple[str, ...]  # those by which the value is differentiated


def pack_cases(cases: list[Case]) -> bytes:
    """Cases as bytes for a Job: a head that the parent reads, and a pickle that only a child opens.

    A pickle is safe in this direction: the course makes it, and the child trusts the course.

    >>> signatures(pack_cases([Case("two", {"x": 2})]))
    (Signature(inputs=('x',), leaves=()),)
    """
    head = [
        [list(c.inputs), [k for k, x in c.inputs.items() if torch.is_tensor(x) and x.requires_grad]]
        for c in cases
    ]
    text = json.dumps(head).encode()
    return struct.pack("<I", len(text)) + text + pickle.dumps(cases, protocol=5)


def signatures(packed: bytes) -> tuple[Signature, ...]:
    """One for each case."""
    (length,) = struct.unpack_from("<I", packed)
    return tuple(Signature(*map(tuple, one)) for one in json.loads(packed[4 : 4 + length]))


def unpack_cases(packed: bytes) -> list[Case]:
    """The cases again; called in the child."""
    (length,) = struct.unpack_from("<I", packed)
    return pickle.loads(packed[4 + length :])
