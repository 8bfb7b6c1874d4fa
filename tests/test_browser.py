"""A notebook as a learner sees it: JupyterLab in a real browser.

The first chapter and the quickest; `make test ARGS=--every-notebook` opens all. What an untouched
notebook shares with the solved one is run there, in test_book.py, which also moves all sliders in
the web book; that no such cell needs an answer is seen to in test_notebooks.py.
`make test ARGS=--screenshots` keeps pictures in artifacts/, which git ignores. Look at them.
"""

import shutil
from collections import Counter

import nbformat
import pytest
from jupyterlab import IN_A_BROWSER, SCREENSHOTS, Lab, browser_page

from course_lib.classroom.files import lesson_sources
from course_lib.classroom.lesson import grade_id

LESSONS = [path.stem for path in lesson_sources()]
FIRST, *_, QUICK = LESSONS  # QUICK takes the least time
SECONDS = 400  # for Run All, beside other tests
TALL = 1800  # pixels: fewer screens to scroll through

pytestmark = IN_A_BROWSER


@pytest.mark.parametrize("name", LESSONS)
def test_run_all_reaches_the_last_cell_and_only_exercises_are_red(
    lab_folder, lab_address, name, pytestconfig
):
    if name not in (FIRST, QUICK) and not pytestconfig.getoption("every_notebook"):
        pytest.skip("its cells run in test_book.py; --every-notebook opens it here")
    with browser_page(height=TALL) as page:
        lab = Lab(page, lab_address)
        lab.open(f"{name}.ipynb")
        lab.run_all(SECONDS)
        lab.save()
        run = [
            c for c in nbformat.read(lab_folder / f"{name}.ipynb", 4).cells if c.cell_type == "code"
        ]
        if pytestconfig.getoption("screenshots"):
            screenshots(lab, name)
        sliders, guesses = Counter(), Counter()
        for _ in lab.screens():
            sliders.update(move_sliders(lab, sliders))
            guesses.update(commit_guesses(lab, guesses))
        assert sliders.total() == outputs(run, "slider: ")
        assert guesses.total() == outputs(run, "Guess: ")
        assert guesses.total() >= 1, "a chapter lets its reader predict"
        assert lab.console_errors == [] and lab.outside_requests == []
    assert [cell.execution_count for cell in run] == list(range(1, len(run) + 1))
    red = [grade_id(c) for c in run if any(o.output_type == "error" for o in c.outputs)]
    assert red == [grade_id(c) for c in run if c.metadata.get("nbgrader", {}).get("grade")]


def screenshots(lab: Lab, name: str) -> None:
    """The whole notebook, as wide as a laptop's screen, and as half of it with no file list."""
    for width in (1280, 800):
        lab.page.set_viewport_size({"width": width, "height": TALL})
        if width < 1000:
            lab.page.keyboard.press("Control+b")
        shots = SCREENSHOTS / f"{name}-{width}"
        shutil.rmtree(shots, ignore_errors=True)
        shots.mkdir()
        for number in lab.screens():
            lab.page.screenshot(path=shots / f"{number:02}.png")


def outputs(cells: list, start: str) -> int:
    """How many outputs have a plain text that begins so."""
    texts = [output.get("data", {}).get("text/plain", "") for c in cells for output in c.outputs]
    return sum(text.startswith(start) for text in texts)


# JupyterLab detaches the cells that are far from the screen, so widgets are looked for screen by
# screen, and each cell's widgets are tried once.


def move_sliders(lab: Lab, done: Counter) -> Counter:
    """Move each new slider on the screen by keyboard until its figure changes; cell -> sliders."""
    moved = Counter()
    for cell in lab.cells_with(".noUi-handle"):
        if (place := lab.place(cell)) in done:
            continue
        for slider in cell.locator(".noUi-handle").all():
            before = cell.locator("img").last.get_attribute("src")
            slider.focus()
            for key in ("ArrowRight", "ArrowLeft", "ArrowLeft"):
                lab.press(key)
                if cell.locator("img").last.get_attribute("src") != before:
                    break
            else:
                pytest.fail(f"a slider changes nothing in cell {place}")
            moved[place] += 1
    return moved


def commit_guesses(lab: Lab, done: Counter) -> Counter:
    """Guess by keyboard at each new question on the screen, and see both numbers; cell -> 1."""
    committed = Counter()
    for cell in lab.cells_with(".widget-radio"):
        if (place := lab.place(cell)) in done:
            continue
        assert "Measured" not in lab.output(cell), "revealed before a guess"
        for number in range(cell.locator(".widget-radio").count()):
            button = cell.locator("button", has_text="Commit my guess").nth(number)
            assert button.is_disabled()
            choices = cell.locator(".widget-radio").nth(number).locator("input[type=radio]")
            choices.first.focus()
            lab.press("Space")
            button.focus()
            lab.press("Enter")
            assert lab.output(cell).count("You guessed") == number + 1
            committed[place] += 1
    return committed
