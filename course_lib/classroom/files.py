"""Where the lessons lie, and how a learner may name one."""

from pathlib import Path

from course_lib.places import course_root, is_checkout

ROOT = course_root()
SOLUTIONS, NOTEBOOKS = ROOT / "solutions", ROOT / "notebooks"
# What `course start` and `course reset` give where there are no solutions.
UNTOUCHED = ROOT / "untouched" if is_checkout() else NOTEBOOKS
LESSON = "[0-9][0-9]_*"
PAGES = ("GLOSSARY.md", "SOURCES.md", "BIBLIOGRAPHY.md")  # beside the lessons' notebooks


def lesson_sources(folder: Path = SOLUTIONS) -> list[Path]:
    """The lessons' sources, in the order of the course; in a student edition its notebooks."""
    without = UNTOUCHED.glob(f"{LESSON}.ipynb") if folder == SOLUTIONS else ()
    return sorted(folder.glob(f"{LESSON}.py")) or sorted(without)


def learner_folder(folder: Path = SOLUTIONS) -> Path:
    """The current folder if it holds notebooks of the course, else the checkout's `notebooks`.

    Raises:
        LookupError: neither is there; the message says how to make such a folder.
    """
    here = Path.cwd()
    notebooks = [here / f"{path.stem}.ipynb" for path in lesson_sources(folder)]
    if any(path.is_file() for path in notebooks) and not lesson_sources(
        here
    ):  # beside them: the solved
        return here
    if is_checkout():
        return NOTEBOOKS
    raise LookupError("there is no notebook of the course here; `course start FOLDER` makes some")


def find_source(name: str, folder: Path = SOLUTIONS) -> Path:
    """The source of a lesson by its number ("0", "00"), its name or any of its files.

    Raises:
        LookupError: there is no such lesson; the message lists those there are.
    """
    stem = Path(name).stem
    for path in lesson_sources(folder):
        if stem == path.stem or stem.isdigit() and int(stem) == int(path.stem[:2]):
            return path
    there_are = ", ".join(path.stem for path in lesson_sources(folder))
    raise LookupError(f"there is no lesson {name}; there are: {there_are}")


def notebook_to_reset(name: str) -> Path:
    """The learner's notebook of a lesson, whether it is there or not; a path counts as it stands.

    Raises:
        LookupError: there is no such lesson, or no folder with notebooks.
    """
    given, lesson = Path(name), find_source(name).stem
    if given.suffix == ".ipynb" and given.is_file() and not lesson_sources(given.parent):
        return given
    return learner_folder() / f"{lesson}.ipynb"


def is_solved(notebook: Path) -> bool:
    """Whether a notebook lies among the model answers, so that it says nothing about a learner."""
    return notebook.resolve().is_relative_to(SOLUTIONS)


def find_notebook(name: str, notebooks: Path | None = None, folder: Path = SOLUTIONS) -> Path:
    """A notebook by its path, or the learner's notebook of the lesson so named.

    Raises:
        LookupError: there is no such file and no such lesson, or the lesson's notebook is missing.
    """
    if Path(name).suffix == ".ipynb" and Path(name).is_file():
        return Path(name)
    source = find_source(name, folder)
    notebook = (notebooks or learner_folder(folder)) / f"{source.stem}.ipynb"
    if not notebook.is_file():
        raise LookupError(f"{notebook.name} is missing; `course reset {name}` restores it")
    return notebook
