"""Where the course lies on this machine, and where it may keep things for whoever uses it."""

import tempfile
from collections.abc import Callable
from functools import cache
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path

from platformdirs import user_cache_path, user_data_path

NAME = "removing-redundancy"
CHECKOUT = Path(__file__).resolve().parent.parent


@cache
def course_root() -> Path:
    """The folder of `solutions`, `notebooks` and the locks: the checkout, or what pip installed."""
    if (CHECKOUT / "pyproject.toml").is_file():
        return CHECKOUT
    try:
        found = [file.locate() for file in files(NAME) or () if file.name == "data.lock"]
    except PackageNotFoundError:
        found = []
    return Path(found[0]).resolve().parent if found else CHECKOUT


def is_checkout() -> bool:
    """Whether this is a checkout, in which people write, or an installed package."""
    return course_root() == CHECKOUT


def data_folder() -> Path:
    """Where progress is kept."""
    return _at_home(user_data_path)


def cache_folder() -> Path:
    """Where long computations are kept."""
    return _at_home(user_cache_path)


def _at_home(folder_for: Callable[[str], Path]) -> Path:
    """The course's folder below the user's home; for users without one a temporary folder."""
    try:
        folder = folder_for(NAME)
    except RuntimeError:  # neither HOME nor an entry among the users, as in some containers
        folder = Path()
    return folder if folder.is_absolute() else Path(tempfile.gettempdir(), NAME)
