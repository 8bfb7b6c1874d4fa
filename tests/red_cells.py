"""A notebook run anew by nbval, beside other tests and apart from anybody's progress."""

from pathlib import Path

from course_lib.classroom.check import CellResult, run_nbval

CELL_SECONDS = 120  # CI runs other tests beside this one


def red_cells(notebook: Path) -> list[CellResult]:
    """The cells that fail or print something else than is stored."""
    results = run_nbval([notebook], compare=True, seconds=CELL_SECONDS, record=False)
    return [one for one in results if not one.passed]
