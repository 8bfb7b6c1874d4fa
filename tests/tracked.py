"""What git tracks of the derived files, since a learner's own work may lie in notebooks/.

Where git or its index is absent, as in a source archive, it is what lies there.
"""

import re
import subprocess
import warnings
from pathlib import Path

from course_lib.classroom.files import ROOT

DERIVED = re.compile(r"\d\d_\w+\.ipynb")  # how a build names a notebook


def to_compare(path: Path, made: bytes) -> bytes:
    """A derived file's bytes, to be compared with what its source makes.

    As it lies there, if that is right or nobody changed it; else as git tracks it, with a warning.
    So neither a notebook that was run makes a test fail, nor does a forgotten build pass one.
    """
    here = path.read_bytes() if path.exists() else b""
    kept = _git("show", f":./{path.name}", folder=path.parent)
    if kept is None or here in (made, kept):
        return here
    name = path.relative_to(ROOT) if path.is_relative_to(ROOT) else path.name
    warnings.warn(f"{name} was changed by hand; tested is what git tracks", stacklevel=2)
    return kept


def notebooks_in(folder: Path) -> list[str]:
    """The names of a folder's notebooks, those that a learner added left out."""
    listed = _git("ls-files", "-z", "--", "*.ipynb", folder=folder)
    if listed:
        return sorted(listed.decode().rstrip("\0").split("\0"))
    return sorted(p.name for p in folder.glob("*.ipynb") if DERIVED.fullmatch(p.name))


def _git(*words: str, folder: Path) -> bytes | None:
    try:
        done = subprocess.run(["git", *words], cwd=folder, capture_output=True)
    except FileNotFoundError:
        return None
    return done.stdout if done.returncode == 0 else None
