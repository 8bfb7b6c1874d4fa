"""What `make test QUICK=1` runs: what a change reaches directly, a few minutes' worth.

What changed is what differs from where the branch left the main one, and what is not committed yet.

* A test file that changed, or that imports a module that changed; and that module's doctests.
* Of a chapter whose lesson, exercises or answers changed: its exercises, its answers, its solved
  notebook.
* Always: the rules of the architecture, and of a lesson's form.

`python tests/quick.py` prints pytest's arguments. Slow tests are left out, but for the notebooks.
"""

import ast
import re
import subprocess
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TESTS, EXERCISES = "tests", "course_lib/exercises"
BY_EXERCISE = ("test_exercises.py", "test_answers.py")
BY_LESSON = ("test_notebooks.py", "test_book.py")
MADE = {"book", "student_book"}  # fixtures that take a minute and more
ALWAYS = ("test_architecture.py", "test_lesson.py")
MAIN = ("origin/HEAD", "origin/main", "main", "HEAD")


def changed_files(root: Path = ROOT) -> list[str]:
    """Paths below `root` that differ from the main branch, or that git does not know yet."""

    def git(*words: str) -> list[str]:
        done = subprocess.run(["git", *words], cwd=root, capture_output=True, text=True)
        return done.stdout.splitlines() if done.returncode == 0 else []

    base = next(found[0] for name in MAIN if (found := git("merge-base", "HEAD", name)))
    return sorted({*git("diff", "--name-only", base), *git("ls-files", "-o", "--exclude-standard")})


def changed_chapters(files: Iterable[str], root: Path = ROOT) -> set[str]:
    """The numbers of the chapters whose lesson, exercises or answers are among the files."""
    files = list(files)
    numbers = {
        found[1]
        for one in files
        if (found := re.match(r"(?:solutions|notebooks|tests/answers)/(\d\d)_", one))
    }
    rooms = {Path(one).parent for one in files if one.startswith(f"{EXERCISES}/")}
    for room in rooms:
        text = "".join(path.read_text("utf-8") for path in (root / room).glob("*.py"))
        names = set(re.findall(r"\breference=(\w+)", text))
        for lesson in (root / "solutions").glob("[0-9][0-9]_*.py"):
            numbers |= {lesson.stem[:2]} if names & exercises_in(lesson) else set()
    return numbers


def exercises_of(chapters: Iterable[str], root: Path = ROOT) -> set[str]:
    """The names of all exercises of these chapters."""
    lessons = [path for n in chapters for path in (root / "solutions").glob(f"{n}_*.py")]
    return set().union(*map(exercises_in, lessons))


def exercises_in(lesson: Path) -> set[str]:
    """The names of a lesson's exercises."""
    return set(re.findall(r'exercise="(\w+)"', lesson.read_text("utf-8")))


def imported(path: Path) -> set[str]:
    """Every module that a file imports, by its dotted name; of `from a import b` a and a.b."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


def arguments(files: Iterable[str], root: Path = ROOT) -> list[str]:
    """The files that pytest is to go through, for the files that changed."""
    files = [one for one in files if one.endswith(".py") and (root / one).exists()]
    modules = [one for one in files if one.startswith(("course_lib/", "tools/", "benchmarks/"))]
    names = {".".join(Path(one).with_suffix("").parts) for one in modules}
    names |= {Path(one).stem for one in files if Path(one).parent.name in (TESTS, "tools")}
    tests = {
        path.name
        for path in (root / TESTS).glob("test_*.py")
        if f"{TESTS}/{path.name}" in files or imported(path) & names
    }
    tests |= {*ALWAYS, *BY_EXERCISE, *BY_LESSON}
    return [
        *(one for one in modules if not one.startswith("benchmarks/")),
        *(f"{TESTS}/{name}" for name in sorted(tests)),
    ]


def is_wanted(item, chapters: set[str], exercises: set[str]) -> bool:
    """Whether one test is run: by its parameters, where it is about one exercise or one lesson."""
    values = getattr(item, "callspec", None) and item.callspec.params or {}
    if item.path.name in BY_LESSON:
        return str(values.get("name", ""))[:2] in chapters and MADE.isdisjoint(item.fixturenames)
    if item.path.name in BY_EXERCISE:
        one = values.get("exercise") or values.get("name")
        return getattr(one, "name", one) in exercises
    return item.get_closest_marker("slow") is None


if __name__ == "__main__":
    print(*arguments(changed_files()))
