"""Every notebook as a learner sees it: JupyterLab in a real browser.

Screenshots are kept in artifacts/, which git ignores. Look at them.
"""

import re
import shutil

import nbformat
import pytest
from jupyterlab import CHROMIUM, Lab, browser_page, lab_server

from course_lib.classroom.files import NOTEBOOKS, ROOT, sources
from course_lib.classroom.lesson import grade_id, read_lesson

LESSONS = [path.stem for path in sources()]
SECONDS = 400  # for Run All, beside other tests
SCREENSHOTS = ROOT / "artifacts"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.skipif(not CHROMIUM, reason="no Chromium here: apt-get install chromium"),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Copies of the learner's notebooks."""
    folder = tmp_path_factory.mktemp("lab")
    for name in LESSONS:
        shutil.copy(NOTEBOOKS / f"{name}.ipynb", folder)
    shutil.copy(NOTEBOOKS / "GLOSSARY.md", folder)
    SCREENSHOTS.mkdir(exist_ok=True)
    return folder


@pytest.fixture(scope="module")
def address(folder, tmp_path_factory):
    """A JupyterLab that serves them."""
    with lab_server(folder, tmp_path_factory.mktemp("home")) as address:
        yield address


@pytest.mark.parametrize("name", LESSONS)
def test_run_all_reaches_the_last_cell_and_only_exercises_are_red(folder, address, name):
    with browser_page() as page:
        lab = Lab(page, address)
        lab.open(f"{name}.ipynb")
        lab.run_all(SECONDS)
        lab.save()
        screenshots(lab, name)
        assert sliders_change_their_figures(lab) == []
        assert lab.console_errors == [] and lab.outside_requests == []
    run = [c for c in nbformat.read(folder / f"{name}.ipynb", 4).cells if c.cell_type == "code"]
    assert [cell.execution_count for cell in run] == list(range(1, len(run) + 1))
    red = [grade_id(c) for c in run if any(o.output_type == "error" for o in c.outputs)]
    assert red == [grade_id(c) for c in run if c.metadata.get("nbgrader", {}).get("grade")]


def screenshots(lab: Lab, name: str) -> None:
    """The whole notebook, screen by screen, as wide as a laptop's screen and half of it."""
    for width in (1280, 800):
        lab.page.set_viewport_size({"width": width, "height": 900})
        shots = SCREENSHOTS / f"{name}-{width}"
        shutil.rmtree(shots, ignore_errors=True)
        shots.mkdir()
        for number in lab.screens():
            lab.page.screenshot(path=shots / f"{number:02}.png")


def sliders_change_their_figures(lab: Lab) -> list[str]:
    """Move each slider by keyboard; the names of those that change nothing."""
    idle = []
    for cell in lab.cells("explore(").all():
        for slider in cell.locator(".noUi-handle").all():
            before = cell.locator("img").last.get_attribute("src")
            slider.focus()
            moved = any(
                lab.press(key) and cell.locator("img").last.get_attribute("src") != before
                for key in ("ArrowRight", "ArrowLeft", "ArrowLeft")
            )
            idle += [] if moved else [cell.inner_text()[:80]]
    return idle


def test_a_wrong_answer_a_hint_the_right_answer_and_progress(address):
    lesson = read_lesson(sources()[0])
    answer = next(c.source for c in lesson.notebook.cells if grade_id(c) == "count_parameters")
    with browser_page() as page:
        lab = Lab(page, address)
        lab.open(f"{LESSONS[0]}.ipynb")
        lab.run(lab.cell("from course_lib.exercises import"))
        exercise, check = lab.cell("def count_parameters("), lab.cell("check(count_parameters)")
        wrong = "def count_parameters(model):\n    return len(list(model.parameters()))"
        lab.replace(exercise, f'{wrong}\n\nhint("count_parameters")')
        assert "Hint 1 of 3" in lab.output(exercise)
        diagnosis = lab.run(check)
        assert "✘ count_parameters" in diagnosis and "you counted tensors" in diagnosis
        assert "Traceback" not in diagnosis
        page.screenshot(path=SCREENSHOTS / "wrong-answer.png")
        lab.replace(exercise, answer)
        assert lab.run(check).startswith("✔ count_parameters")
        assert "✔ count_parameters" in lab.run(lab.cell("progress()"))


def test_a_term_leads_to_its_entry_in_the_glossary(address):
    with browser_page() as page:
        lab = Lab(page, address)
        lab.open(f"{LESSONS[0]}.ipynb")
        page.locator("a[href*='GLOSSARY.md'][href$='#token']").first.click()
        entry = page.locator(".jp-MarkdownViewer h2", has_text=re.compile("^token"))
        entry.wait_for()
        page.wait_for_timeout(1000)
        lab.page.screenshot(path=SCREENSHOTS / "glossary.png")
        assert 0 <= entry.bounding_box()["y"] < 900
        assert lab.console_errors == [] and lab.outside_requests == []
