"""Every notebook as a learner sees it: JupyterLab in a real browser.

Screenshots are kept in artifacts/, which git ignores. Look at them.
"""

import re
import shutil
from collections import Counter

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
        run = [c for c in nbformat.read(folder / f"{name}.ipynb", 4).cells if c.cell_type == "code"]
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
        lab.page.set_viewport_size({"width": width, "height": 1800})
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
        button = cell.locator("button", has_text="Commit my guess")
        assert button.is_disabled()
        cell.locator("input[type=radio]").first.focus()
        lab.press("Space")
        button.focus()
        lab.press("Enter")
        assert "You guessed" in lab.output(cell) and "Measured: " in lab.output(cell)
        committed[place] += 1
    return committed


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


def test_what_a_learner_may_break_ends_in_a_sentence(folder, address):
    shutil.copy(NOTEBOOKS / f"{LESSONS[0]}.ipynb", folder / "my homework.ipynb")
    with browser_page() as page:
        lab = Lab(page, address)
        lab.open("my homework.ipynb")
        lab.run(lab.cell("from course_lib.exercises import"))
        exercise, check = lab.cell("def count_parameters("), lab.cell("check(count_parameters)")
        renamed = "def count_params(model):  # def count_parameters(\n    return 0\n\n"
        lab.replace(exercise, f"{renamed}check(count_params)")
        said = lab.output(exercise)
        assert said.startswith("no exercise is called count_params; did you mean count_parameters?")
        assert "Traceback" not in said and "course_lib" not in said
        lab.replace(exercise, "def count_parameters(model):\n    while True:\n        pass")
        assert "no answer within" in lab.run(check)
        lab.restart_kernel()
        said = lab.run(check)
        assert "NameError: name 'check' is not defined" in said and "course_lib" not in said
        assert lab.console_errors == []


# The smallest contrast of text that WCAG 2.2 asks for (success criterion 1.4.3, level AA).
CONTRAST = 4.5


def test_a_dark_theme_stays_readable(folder, tmp_path):
    with lab_server(folder, tmp_path, theme="JupyterLab Dark") as address, browser_page() as page:
        lab = Lab(page, address)
        lab.open(f"{LESSONS[0]}.ipynb")
        lab.run(lab.cell("from course_lib.exercises import"))
        asks = 'predict("How many bits?", [2, 4], 4, Picture(new_figure()[0], "nothing"))'
        lab.replace(lab.cell("def count_parameters("), asks)
        page.screenshot(path=SCREENSHOTS / "dark.png")
        texts = (".widget-html-content", ".widget-radio-box label", ".jp-RenderedMarkdown p")
        assert {text: lab.contrast(text) for text in texts if lab.contrast(text) < CONTRAST} == {}


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
