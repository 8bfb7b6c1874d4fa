"""`make student`: the course without model answers, as dist/student-edition.zip, from the commit.

It is a checkout without `solutions` and without `tests`. A folder `untouched` holds the notebooks
as a learner first opens them, so that `course start`, `course reset` and `make site` work. The
references of the checks stay in course_lib/exercises: a check on the learner's own machine needs
them.
"""

import subprocess
import sys
from pathlib import Path, PurePosixPath
from zipfile import ZIP_DEFLATED, ZipFile, ZipInfo

ROOT = Path(__file__).resolve().parent.parent
TOP = "removing-redundancy"
LEFT_OUT = {"solutions", "tests", "benchmarks", ".ci"}
WHEN = (2020, 1, 1, 0, 0, 0)  # the same bytes whenever it is made


def student_edition(target: Path, root: Path = ROOT) -> None:
    """Write the zip.

    Raises:
        subprocess.CalledProcessError: `root` is no git checkout.
    """
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=root, check=True, capture_output=True, text=True
    )
    names = [PurePosixPath(name) for name in listed.stdout.rstrip("\0").split("\0")]
    target.parent.mkdir(parents=True, exist_ok=True)
    with ZipFile(target, "w", ZIP_DEFLATED) as archive:
        for name in names:
            for place in _places(name):
                entry = ZipInfo(f"{TOP}/{place}", WHEN)
                entry.compress_type, entry.external_attr = ZIP_DEFLATED, 0o644 << 16
                archive.writestr(entry, _committed(name, root))


def _places(name: PurePosixPath) -> list[str]:
    """Where a file lies in the edition: nowhere, in its place, or in `untouched` as well."""
    room, last = name.parts[0], name.name
    if room == "solutions" and name.suffix == ".md":
        return [f"untouched/{last}"]
    if room in LEFT_OUT:
        return []
    again = [f"untouched/{last}"] if room == "notebooks" and name.suffix == ".ipynb" else []
    return [str(name), *again]


def _committed(name: PurePosixPath, root: Path) -> bytes:
    """What is committed, not what lies there: a learner's own work may lie in notebooks/."""
    shown = ["git", "show", f"HEAD:./{name}"]
    return subprocess.run(shown, cwd=root, check=True, capture_output=True).stdout


if __name__ == "__main__":
    made = ROOT / "dist" / "student-edition.zip"
    student_edition(made)
    print(f"{made.relative_to(ROOT)}: {made.stat().st_size / 1e6:.1f} MB")
    sys.exit()
