"""`course check`: runs nbval on a notebook and says how each exercise stands.

The notebook is read, never written. The verdicts are nbval's and the checks' own words.
"""

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

from course_lib.exercises.engine.catalogue import by_chapter

CELL_SECONDS = 50  # with nbval's grace, a kernel that hangs is given up within a minute


@dataclass(frozen=True)
class CellResult:
    """What became of one code cell; `exercise` is empty where it is no check."""

    notebook: str
    cell: int
    exercise: str
    first_line: str
    passed: bool
    text: str

    @property
    def verdict(self) -> str:
        """ "passed", "not attempted", "4 of 6 cases" or, where the check itself failed, "error"."""
        if self.passed:
            return "passed"
        headline = self.text.partition("\n")[0]
        return headline.rpartition(" · ")[2] if headline[:1] in ("✘", "○") else "error"

    @property
    def diagnosis(self) -> str:
        """The first line that helps: the likely cause, else what the verdict or the error says."""
        lines = [line.strip() for line in self.text.split("\n") if line.strip()] or [""]
        if self.verdict == "error":
            return lines[-1]
        likely = [line for line in lines if line.startswith("Likely cause")]
        return (likely or lines[1:] or lines)[0]


class NotANotebook(Exception):
    """nbval could not even collect the cells; the message is the end of what it printed."""


def run_nbval(
    notebooks: list[Path],
    compare: bool = False,
    seconds: float = CELL_SECONDS,
    junit: Path | None = None,
    record: bool = True,
) -> list[CellResult]:
    """Run every code cell of the notebooks, each notebook in a new kernel and in its own folder.

    Args:
        notebooks: .ipynb files.
        compare: also compare the outputs with the stored ones.
        seconds: limit for one cell.
        junit: file for pytest's JUnit XML.
        record: whether what passes counts as the learner's progress.

    Raises:
        NotANotebook: a file holds no code cell, or is no notebook.
    """
    paths = [path.resolve() for path in notebooks]
    environment = {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTEST_ADDOPTS": ""}
    environment |= {"PYTHONUTF8": "1", "PYTHONIOENCODING": "utf-8"}  # whatever the locale
    with tempfile.TemporaryDirectory() as folder:
        environment |= {} if record else {"XDG_DATA_HOME": folder}
        lines = Path(folder, "cells.jsonl")
        lines.touch()
        done = subprocess.run(
            _pytest(lines, compare, seconds, junit) + [f"--notebook={path}" for path in paths],
            env=environment,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
        )
        results = [CellResult(**json.loads(line)) for line in lines.read_text("utf-8").splitlines()]
    last = {(result.notebook, result.cell): result for result in results}
    if {notebook for notebook, _ in last} != {str(path) for path in paths}:
        raise NotANotebook("\n".join((done.stdout + done.stderr).splitlines()[-15:]))
    return list(last.values())


def _pytest(lines: Path, compare: bool, seconds: float, junit: Path | None) -> list[str | Path]:
    """pytest with nbval and our plugin, and with nothing that stands around the notebook."""
    settings = lines.with_name("pytest.ini")
    settings.write_text("[pytest]\n", "utf-8")
    figures = lines.with_name("figures")  # a pixel may differ between processors; the text may not
    figures.write_text('regex: data:image/png;base64,[^"]+\nreplace: a figure\n', "utf-8")
    command = [sys.executable, "-m", "pytest", "-q", "-c", settings, f"--rootdir={settings.parent}"]
    command += ["-p", "course_lib.classroom.nbval_plugin", "-p", "nbval.plugin"]
    command += ["-p", "no:cacheprovider", "--noconftest", f"--cells={lines}"]
    command += ["--nbval-current-env"]
    command += ["--nbval" if compare else "--nbval-lax", f"--nbval-cell-timeout={seconds}"]
    command += [f"--nbval-sanitize-with={figures}"]
    command += [f"--junitxml={junit.resolve()}"] if junit else []
    return [*command, "--nbval-kernel-startup-timeout=30"]


def missing_checks(results: list[CellResult], notebook: Path) -> list[CellResult]:
    """A failed result for each exercise of the notebook's chapter whose check cell is gone.

    The chapter is told by the checks that are left, or else by the notebook's name.
    """
    found = {result.exercise for result in results}
    chapters = {
        chapter: [exercise.name for exercise in exercises]
        for chapter, exercises in by_chapter().items()
    }
    own = [names for names in chapters.values() if found & set(names)]
    own = own or [chapters.get(notebook.stem, [])]
    advice = (
        "Its check cell is gone. `course reset` restores the notebook and keeps yours beside it."
    )
    return [
        CellResult(str(notebook), -1, name, "", False, f"○ {name} · check cell missing\n{advice}")
        for names in own
        for name in names
        if name not in found
    ]


def table(results: list[CellResult]) -> str:
    """The exercises with verdict and diagnosis, the other cells that failed, and a count.

    A cell is named by its number after "Run All" and by its first line.
    """
    checks = [result for result in results if result.exercise]
    others = [result for result in results if not result.exercise and not result.passed]
    rows = [("exercise", "verdict", "diagnosis")]
    rows += [(one.exercise, one.verdict, one.diagnosis) for one in checks]
    rows += [(f"[{one.cell + 1}] {one.first_line[:40]}", "error", one.diagnosis) for one in others]
    first, second = (max(len(row[column]) for row in rows) for column in (0, 1))
    lines = [f"{a:<{first}}  {b:<{second}}  {c}".rstrip() for a, b, c in rows]
    passed = sum(one.passed for one in checks)
    return "\n".join([*lines, f"{passed} of {len(checks)} exercises passed"])


def as_json(results: list[CellResult]) -> str:
    """All checks, and the other cells that failed, as JSON in ASCII: it passes any console."""
    shown = [asdict(one) | {"verdict": one.verdict} for one in results]
    shown = [one for one in shown if one["exercise"] or not one["passed"]]
    passed = all(one.passed for one in results)
    return json.dumps({"passed": passed, "cells": shown}, indent=1)
