"""The table of claims in a real browser: filtered by keyboard."""

from jupyterlab import IN_A_BROWSER, Lab, browser_page, lab_server

from course_lib.classroom.files import find_source
from course_lib.classroom.learner import write
from course_lib.classroom.lesson import read_lesson
from course_lib.classroom.student import student_notebook

NOTEBOOK = "13_reading_sources.ipynb"

pytestmark = IN_A_BROWSER


def test_choosing_a_document_and_a_verdict_filters_the_claims(tmp_path):
    folder = tmp_path / "lab"
    folder.mkdir()
    write(folder / NOTEBOOK, student_notebook(read_lesson(find_source(NOTEBOOK))))
    with lab_server(folder, tmp_path / "home") as address, browser_page() as page:
        lab = Lab(page, address)
        lab.open(NOTEBOOK)
        lab.run(lab.cell("# Imports"))
        cell = lab.cell("# All claims as a table")
        lab.run(cell)
        document, _, verdict = cell.locator("select").all()
        shown = cell.locator("p", has_text="claims")
        assert shown.inner_text() == "129 claims"
        document.focus()
        page.keyboard.type("S1")
        shown.filter(has_text="26 claims").wait_for()
        verdict.focus()
        for key in ("Space", "ArrowDown", "Enter"):  # an arrow alone moves on to the next cell
            lab.press(key)
        shown.filter(has_text="2 claims").wait_for()
        page.wait_for_function("document.querySelectorAll('.jp-OutputArea tbody tr').length == 2")
        assert lab.console_errors == []
