"""A pytest plugin beside nbval's: a line of JSON a cell, and no endless waiting.

nbval asks a kernel that died for its answer until the cell's time is over, and an answer that never
ends keeps it for ever. Here the first is noticed within a second, and the second ends the process.

With `--nbval-lax` no cell is excused and nothing stored is compared: a learner's saved outputs are
no reference, and a comment such as NBVAL_SKIP is no answer.
"""

import faulthandler
import json
import re
import sys
import time
from pathlib import Path
from queue import Empty

import pytest
from nbval.kernel import RunningKernel
from nbval.plugin import IPyNbFile

GRACE_SECONDS = 8  # above the cell's limit: nbval takes 5 to interrupt a cell
COLOURS = re.compile(r"\x1b\[[0-9;]*m")
_wait_for_message = RunningKernel.get_message


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add `--cells FILE`, to which a line of JSON is appended whenever a cell's state changes.

    And `--notebook FILE`: to pytest itself, brackets and `::` in a path mean something else.
    """
    parser.addoption("--cells")
    parser.addoption("--notebook", action="append", default=[])


def pytest_configure(config: pytest.Config) -> None:
    """Let nbval notice a dead kernel."""
    RunningKernel.get_message = _get_message


def pytest_collection(session: pytest.Session) -> bool:
    """Collect the cells of the notebooks, and nothing else."""
    session.items = []
    for path in session.config.option.notebook:
        notebook = IPyNbFile.from_parent(session, path=Path(path))
        session.items.extend(session.genitems(notebook))
    session.testscollected = len(session.items)
    found = {"session": session, "config": session.config, "items": session.items}
    session.config.hook.pytest_collection_modifyitems(**found)
    session.config.hook.pytest_collection_finish(session=session)
    return True


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Name every cell before the first is run."""
    for item in items:
        if config.option.nbval_lax:
            item.options.clear()
            item.cell.outputs = []
        _write(item, passed=False, text="not reached")


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_call(item: pytest.Item) -> None:
    """Give the cell its time; what goes on after that ends with this process."""
    seconds = item.config.option.nbval_cell_timeout + GRACE_SECONDS
    faulthandler.dump_traceback_later(seconds, exit=True, file=sys.__stderr__)
    _write(item, passed=False, text=f"no answer within {seconds:g} s; the kernel was given up")


def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo) -> None:
    """Write what became of the cell, or of the start of its kernel."""
    if call.when == "call" or call.when == "setup" and call.excinfo:
        error = call.excinfo.value if call.excinfo else ""
        text = str(error)
        if not text.startswith("Timeout"):  # of which the traceback says nothing
            text = getattr(error, "inner_traceback", None) or text
        _write(item, passed=not call.excinfo, text=COLOURS.sub("", text).strip())


def pytest_sessionfinish() -> None:
    """All cells are through."""
    faulthandler.cancel_dump_traceback_later()


def _write(item, passed: bool, text: str) -> None:
    metadata = item.cell.metadata.get("nbgrader", {})
    checked = metadata["grade_id"].removeprefix("check_") if metadata.get("grade") else ""
    line = {
        "notebook": str(item.path),
        "cell": item.cell_num,
        "exercise": checked,
        "first_line": item.cell.source.strip().partition("\n")[0],
        "passed": passed,
        "text": text,
    }
    with open(item.config.option.cells, "a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")


def _get_message(kernel, stream, timeout=None):
    """nbval's own, in slices of a second, between which it is made sure that the kernel lives."""
    end = time.monotonic() + timeout
    while True:
        left = end - time.monotonic()
        try:
            return _wait_for_message(kernel, stream, timeout=max(0, min(1, left)))
        except Empty:
            if not kernel.is_alive():
                raise RuntimeError("the kernel died") from None
            if left <= 1:
                raise
