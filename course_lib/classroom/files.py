"""Where the lessons lie, and how a learner may name one."""

from pathlib import Path

ROOT = Path(__file__).parents[2]
SOLUTIONS, NOTEBOOKS = ROOT / "solutions", ROOT / "notebooks"
PAGES = ("GLOSSARY.md", "SOURCES.md", "BIBLIOGRAPHY.md")  # beside the lessons' notebooks


def sources(folder: Path = SOLUTIONS) -> list[Path]:
    """The lessons' sources, in the order of the course."""
    return sorted(folder.glob("[0-9][0-9]_*.py"))


def find_source(name: str, folder: Path = SOLUTIONS) -> Path:
    """The source of a lesson by its number ("0", "00"), its name or any of its files.

    Raises:
        LookupError: there is no such lesson; the message lists those there are.
    """
    stem = Path(name).stem
    for path in sources(folder):
        if stem == path.stem or stem.isdigit() and int(stem) == int(path.stem[:2]):
            return path
    there_are = ", ".join(path.stem for path in sources(folder))
    raise LookupError(f"there is no lesson {name}; there are: {there_are}")


def find_notebook(name: str, notebooks: Path = NOTEBOOKS, folder: Path = SOLUTIONS) -> Path:
    """A notebook by its path, or the learner's notebook of the lesson so named.

    Raises:
        LookupError: there is no such file and no such lesson, or the lesson's notebook is missing.
    """
    if Path(name).suffix == ".ipynb" and Path(name).is_file():
        return Path(name)
    notebook = notebooks / f"{find_source(name, folder).stem}.ipynb"
    if not notebook.is_file():
        raise LookupError(f"{notebook.name} is missing; `course reset {name}` restores it")
    return notebook
