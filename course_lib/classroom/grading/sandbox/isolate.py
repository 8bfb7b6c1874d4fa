"""Linux: what a process can reach, see and use, given up for good before submitted code runs.

- namespaces of its own: users, processes, mounts, network, IPC, host name. The job's processes see
  no other process, and when their first one ends, the kernel kills the rest, daemons included;
- /proc is covered, /tmp and /dev/shm are small, new and empty; all else is read-only;
- no capabilities, and no way to gain any;
- limits: address space, file size, open files, processes and threads. The kernel counts the latter
  by user namespace, but not for root: so a root's child becomes another user first;
- the kernel's calls that no answer needs are refused (seccomp.py).

This module imports no PyTorch. `python -m course_lib.classroom.grading.sandbox.isolate` tries all
of it in a tenth of a second, and best_tier asks that.
"""

import ctypes
import os
import resource

from course_lib.classroom.grading.sandbox import seccomp

NOBODY = 65534
NAMESPACES = 0x20000 | 0x2000000 | 0x4000000 | 0x8000000 | 0x10000000 | 0x20000000 | 0x40000000
READ_ONLY, NO_SUID, NO_DEVICES, NO_PROGRAMS = 1, 2, 4, 8
SET_DUMPABLE, DROP_CAPABILITY, ADOPT, NO_NEW_PRIVILEGES = 4, 24, 36, 38
CAPABILITIES_3 = 0x20080522  # the form of capset's arguments

MEMORY = 2 * 2**30  # bytes that a job may take beyond what PyTorch takes
FILE = 64 * 2**20  # bytes of one file, the message back included
FILES = 256
TASKS = 16  # processes and threads

_libc = ctypes.CDLL(None, use_errno=True)


def _call(name: str, *arguments) -> None:
    """One of the C library's functions; raises OSError where it fails."""
    if getattr(_libc, name)(*arguments):
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")


def be_nobody() -> None:
    """Root becomes another user, and keeps no group and no capability; others stay who they are."""
    if os.getuid() == 0:
        os.setgroups([])
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, NOBODY)
    _call("prctl", NO_NEW_PRIVILEGES, 1, 0, 0, 0)
    _call("prctl", SET_DUMPABLE, 0, 0, 0, 0)  # no process of this user may look into it


def enter_namespaces() -> None:
    """New namespaces; of the processes', the caller's next child is the first.

    The caller must have one thread only, and a /proc.
    """
    user, group = os.getuid(), os.getgid()
    _call("prctl", SET_DUMPABLE, 1, 0, 0, 0)  # else its own /proc/self belongs to root
    _call("unshare", NAMESPACES)
    for name, text in (
        ("setgroups", "deny"),
        ("uid_map", f"{user} {user} 1"),
        ("gid_map", f"{group} {group} 1"),
    ):
        with open(f"/proc/self/{name}", "w") as file:
            file.write(text)
    _call("prctl", SET_DUMPABLE, 0, 0, 0, 0)


def hide_files() -> None:
    """Cover /proc; new, small and empty /tmp and /dev/shm."""
    safe = NO_SUID | NO_DEVICES
    for place, flags, options in (
        ("/proc", safe | NO_PROGRAMS | READ_ONLY, "size=4k,nr_inodes=1"),
        ("/tmp", safe, "size=64m,nr_inodes=4k,mode=1777"),
        ("/dev/shm", safe | NO_PROGRAMS, "size=16m,nr_inodes=1k,mode=1777"),
    ):
        _call("mount", b"tmpfs", place.encode(), b"tmpfs", flags, options.encode())
    os.chdir("/tmp")


def limit(seconds: float, tasks: int | None = TASKS) -> None:
    """The limits; `seconds` of CPU for one process."""
    space = MEMORY + _address_space()
    most = {
        "RLIMIT_AS": space,
        "RLIMIT_FSIZE": FILE,
        "RLIMIT_NOFILE": FILES,
        "RLIMIT_CORE": 0,
        "RLIMIT_CPU": int(seconds) + 1,
    }
    most |= {"RLIMIT_NPROC": tasks, "RLIMIT_MSGQUEUE": 0} if tasks else {}
    for name, value in most.items():
        number = getattr(resource, name)
        hard = resource.getrlimit(number)[1]
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(number, (value, value))


def be_alone() -> None:
    """No process and no thread more, for good: what this process takes is all that it takes."""
    resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))


def _address_space() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[0]) * resource.getpagesize()


def drop_capabilities() -> None:
    """None of them, now or ever."""
    for number in range(64):
        _libc.prctl(DROP_CAPABILITY, number, 0, 0, 0)  # fails beyond the last: no matter
    head = (ctypes.c_uint32 * 2)(CAPABILITIES_3, 0)
    _call("capset", head, (ctypes.c_uint32 * 6)())
    _call("prctl", NO_NEW_PRIVILEGES, 1, 0, 0, 0)


def adopt_orphans() -> None:
    """Processes below this one that lose their parent become this one's children."""
    _call("prctl", ADOPT, 1, 0, 0, 0)


def _try() -> None:
    """What every job does, without a job."""
    be_nobody()
    enter_namespaces()
    child = os.fork()
    if child == 0:
        limit(60)
        hide_files()
        drop_capabilities()
        seccomp.refuse()
        os._exit(0)
    raise SystemExit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))


if __name__ == "__main__":
    _try()
