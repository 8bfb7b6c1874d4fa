"""How a child is started, strongest first: bubblewrap, a container, a plain process.

bubblewrap  Linux. The child sees the system's programs, Python and its packages, and the library,
            all read-only; no network, no other process, none of our variables. warm.py adds walls
            around every job.
container   a command that you configure, for one job each: COURSE_SANDBOX names it up to and with
            the image, such as "podman run --rm -i --network none --read-only --tmpfs /tmp
            --cap-drop all --pids-limit 64 --memory 3g -v {library}:{library}:ro my-image". Its
            image holds `python` with the course's packages, `env`, `timeout`; not the course.
process     anywhere. Keeps accidents apart, not attacks.
"""

import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from functools import cache
from pathlib import Path

from course_lib.classroom.grading.sandbox.library import COURSE, build_library
from course_lib.places import course_root

TIERS = ("bubblewrap", "container", "process")
WEAK = ("process",)
CONTAINER = "COURSE_SANDBOX"
SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/nix/store")
SYSTEM += ("/etc/ld.so.cache", "/etc/alternatives", "/sys/devices/system/cpu")
INSIDE = Path("/course")  # where bubblewrap's child finds the library
WARM = "course_lib.classroom.grading.sandbox.warm"
PROBE = "course_lib.classroom.grading.sandbox.isolate"
PROBE_SECONDS = 20


def forks(tier: str) -> bool:
    """Whether a child of this tier serves many jobs; else one is started for each.

    macOS can fork, but not safely once its own libraries are loaded.
    """
    return tier == "bubblewrap" or (tier == "process" and sys.platform == "linux")


def command(
    tier: str, folder: Path, *arguments: str, module: str = WARM, seconds: float = 0
) -> list[str]:
    """The command line of a child that runs `module`.

    Args:
        tier: one of TIERS.
        folder: where the library is.
        arguments: the module's.
        seconds: after which a container ends itself: ending its client would not.
    """
    python = [sys.executable, "-s", "-P", "-m", module, *arguments]
    if tier == "process":
        return python
    if tier == "container":
        words = shlex.split(os.environ[CONTAINER].format(library=folder))
        variables = [f"{name}={value}" for name, value in environment(folder).items()]
        words += ["env", *variables, "timeout", "-s", "KILL", f"{seconds:.0f}"]
        return [*words, "python", *python[1:]]
    return [*_bubblewrap(folder), *python]


def environment(folder: Path) -> dict[str, str]:
    """All variables of a child, none of them ours."""
    ours = {name: os.environ[name] for name in ("SYSTEMROOT",) if name in os.environ}  # Windows
    return ours | {
        "PATH": "/usr/bin:/bin",
        "HOME": tempfile.gettempdir() if os.name == "nt" else "/tmp",
        "LANG": "C.UTF-8",
        "PYTHONPATH": str(folder),
        "PYTHONUTF8": "1",
        "PYTHONHASHSEED": "0",  # the same submission, the same order of its sets
        "PYTHONDONTWRITEBYTECODE": "1",
        "OMP_NUM_THREADS": "1",
        "MKL_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
    }


def _bubblewrap(folder: Path) -> list[str]:
    """bubblewrap and all that is to be seen in it.

    Root needs no namespace of users, and must keep the right to become another one (isolate.py):
    that one's processes are counted, root's are not.
    """
    words = ["bwrap", "--unshare-ipc", "--unshare-pid", "--unshare-net", "--unshare-uts"]
    words += ["--unshare-cgroup-try", "--clearenv"]
    words += _as_root() if os.getuid() == 0 else ["--unshare-user"]
    for name, value in environment(INSIDE).items():
        words += ["--setenv", name, value]
    words += ["--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp"]
    words += ["--ro-bind", str(folder), str(INSIDE)]  # a job covers /tmp
    shut = ["/dev", "/"]
    for path, hidden in sorted(_seen().items()):  # folders before what lies in them
        for parent in [*reversed(path.parents)][1:]:
            words += ["--dir", str(parent)]  # left to itself, bwrap makes it root's alone
        if hidden:
            words += ["--tmpfs", str(path)]
            shut.append(str(path))
        elif path.is_symlink() and str(path) in SYSTEM:  # /bin is usr/bin
            words += ["--symlink", os.readlink(path), str(path)]
        else:
            words += ["--ro-bind", str(path), str(path)]
    for path in shut:
        words += ["--remount-ro", path]
    return [*words, "--chdir", "/", "--"]


def _as_root() -> list[str]:
    return ["--cap-drop", "ALL", "--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID"]


def _seen() -> dict[Path, bool]:
    """What the child sees, read-only -> whether it is covered, as the course itself is."""
    python = {Path(sys.prefix), Path(sys.base_prefix), Path(sys.executable).resolve().parent.parent}
    shown = [path for path in (*map(Path, SYSTEM), *sorted(python)) if path.exists()]
    hidden = [COURSE, course_root(), Path(sysconfig.get_path("purelib"), "course_lib")]
    inside = [p for p in hidden if p.is_dir() and any(map(p.is_relative_to, shown))]
    return dict.fromkeys(inside, True) | dict.fromkeys(shown, False)


def starts(tier: str) -> bool:
    """Whether a child of this tier can be started here, all its walls included."""
    if tier == "process":
        return True
    if tier == "container":
        return bool(os.environ.get(CONTAINER))
    if sys.platform != "linux" or shutil.which("bwrap") is None:
        return False
    with tempfile.TemporaryDirectory(prefix="course-") as name:
        folder = Path(name)
        build_library(folder, ())
        try:
            done = subprocess.run(
                command(tier, folder, module=PROBE), timeout=PROBE_SECONDS, capture_output=True
            )
        except (OSError, subprocess.TimeoutExpired):
            return False
    return done.returncode == 0


@cache
def best_tier() -> str:
    """The strongest tier that works here; tried once.

    >>> best_tier() in TIERS
    True
    """
    return next(tier for tier in TIERS if starts(tier))
