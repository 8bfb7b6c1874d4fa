"""`course release`: a chapter to hand out, in one folder that is an nbgrader course as well.

    DIR/release/CHAPTER/     what students get: the notebook and the pages that it links to
    DIR/CHAPTER.zip          the same, for a learning platform
    DIR/source/CHAPTER/      nbgrader's source: with solutions and, of a seed, with hidden tests
    DIR/CHAPTER.seed.json    the seed, for `course grade`; yours alone
    DIR/nbgrader_config.py, DIR/README.txt

`release` is what `nbgrader generate_assignment` makes of `source`. A check's cell imports what it
uses, so that a grader can run answers and checks alone.
"""

import io
import json
import zipfile
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import nbformat
from nbformat import NotebookNode

from course_lib.classroom.files import SOLUTIONS, find_source
from course_lib.classroom.lesson import EXERCISES, NAMED, Lesson, grade_id, read_lesson
from course_lib.classroom.pages import read_pages, reader_page
from course_lib.classroom.release import CHECK, check_seed
from course_lib.classroom.student import student_notebook

IMPORT = f"from {EXERCISES} import {', '.join(NAMED)}"
HIDDEN = """
### BEGIN HIDDEN TESTS
from course_lib.exercises.engine.notebook import check_unseen

check_unseen({name}, seed={seed})
### END HIDDEN TESTS"""
LONG_AGO = (1980, 1, 1, 0, 0, 0)  # a zip's date; so equal files make equal zips
CONFIG = """\
c = get_config()  # nbgrader runs this file
c.CourseDirectory.course_id = "removing-redundancy"
"""
README = """\
A chapter, released by `course release`. Chapters released to this folder lie side by side.

For students
  release/CHAPTER/       JupyterHub: copy this folder to wherever they open notebooks.
  CHAPTER.zip            the same folder, for a learning platform.
  Before they hand in:   course preflight CHAPTER.ipynb

For you alone
  submitted/             make it: what comes back, a folder, zip or notebook for each student.
                         course grade submitted --out ../graded --chapter CHAPTER
                         course report ../graded
  CHAPTER.seed.json      the seed: `course grade` finds it here, or is told by --seed N.
  source/CHAPTER/        nbgrader, for the questions that people grade; run it in this folder.
                         What comes back lies in submitted/STUDENT/CHAPTER/CHAPTER.ipynb.
                         nbgrader generate_assignment CHAPTER --force
                         nbgrader autograde CHAPTER
                         jupyter lab     then Nbgrader > Formgrader; see the course's README
                         It holds the solutions. With a seed, its checks try unseen inputs, too;
                         feedback shows these, so take a new seed for the next class.

nbgrader runs submissions unprotected: whoever reads course_lib can make it say anything.
`course grade` runs them in a sandbox and judges outside of it.
"""


def release(chapter: str, folder: Path, seed: int | None = None) -> list[Path]:
    """Write a chapter to hand out, and return the files of it.

    Args:
        chapter: "5", "05" or "05_linear_quantization".
        folder: made if it is missing; other chapters may be there.
        seed: of the unseen cases with which a grader checks; None for none.

    Raises:
        LookupError: there is no such chapter, or this is the edition for students.
        ValueError: the seed is not from 1 to 2**31 − 1.
        FileExistsError: a file of another content is there; nothing was written.
    """
    files = {folder / name: data for name, data in handout(chapter, seed).items()}
    other = [path for path, data in files.items() if path.exists() and path.read_bytes() != data]
    if other:
        raise FileExistsError(
            f"{other[0]} is there, with other contents: of another seed, or changed since. "
            "Nothing was written; delete it, or name another folder"
        )
    for path, data in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        if "release" not in path.parts and path.suffix in (".json", ".ipynb"):
            path.chmod(0o600)  # nobody else on a shared machine reads solutions and seeds
    return list(files)


def handout(chapter: str, seed: int | None = None) -> dict[str, bytes]:
    """The files of a released chapter: path in the folder -> contents. See `release`."""
    if seed is not None:
        check_seed(seed)
    if (path := find_source(chapter)).suffix != ".py":
        raise LookupError("this edition has no lessons' sources; release from the whole course")
    lesson = read_lesson(path)
    name, notebook = lesson.path.stem, f"{lesson.path.stem}.ipynb"
    pages = {page: reader_page(text, [lesson.path]) for page, text in read_pages(SOLUTIONS).items()}
    beside = {page: text.encode() for page, text in pages.items()}
    source = with_checks(lesson, seed)
    student = student_notebook(replace(lesson, notebook=with_checks(lesson, None)))
    students = {f"{name}/{file}": data for file, data in beside.items()}
    students[f"{name}/{notebook}"] = _bytes(student)
    files = {f"source/{name}/{file}": data for file, data in beside.items()}
    files[f"source/{name}/{notebook}"] = _bytes(source)
    files |= {f"release/{path}": data for path, data in students.items()}
    files |= {f"{name}.zip": _zip(students), "README.txt": README.encode()}
    files["nbgrader_config.py"] = CONFIG.encode()
    if seed is not None:
        files[f"{name}.seed.json"] = json.dumps({"chapter": name, "seed": seed}).encode() + b"\n"
    return files


def with_checks(lesson: Lesson, seed: int | None) -> NotebookNode:
    """The lesson, with checks that import what they use and, of a seed, try unseen inputs."""
    notebook = deepcopy(lesson.notebook)
    for cell in notebook.cells:
        if grade_id(cell).startswith(CHECK) and cell.metadata.nbgrader.grade:
            name = grade_id(cell).removeprefix(CHECK)
            cell.source = f"{IMPORT}\n\n{cell.source}"
            cell.source += HIDDEN.format(name=name, seed=seed) if seed is not None else ""
    return notebook


def _bytes(notebook: NotebookNode) -> bytes:
    return (nbformat.writes(notebook) + "\n").encode()


def _zip(files: dict[str, bytes]) -> bytes:
    """A zip of them; the same bytes for the same files."""
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in sorted(files):
            archive.writestr(zipfile.ZipInfo(name, LONG_AGO), files[name], zipfile.ZIP_DEFLATED)
    return data.getvalue()
