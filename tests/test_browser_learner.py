"""What a learner does in JupyterLab: answers, breaks things, reads in the dark, looks a term up."""

import re

import nbformat
from jupyterlab import IN_A_BROWSER, SCREENSHOTS, Lab, browser_page, lab_server

from course_lib.classroom.files import lesson_sources
from course_lib.classroom.learner import write
from course_lib.classroom.lesson import grade_id, read_lesson
from course_lib.classroom.student import student_notebook
from course_lib.plots.predict import GUESS

FIRST = lesson_sources()[0]
IMPORTS = "# Imports"  # the first line of its folded cell

pytestmark = IN_A_BROWSER


def test_a_wrong_answer_a_hint_the_right_answer_and_progress(lab_address):
    lesson = read_lesson(FIRST)
    answer = next(c.source for c in lesson.notebook.cells if grade_id(c) == "count_parameters")
    with browser_page() as page:
        lab = Lab(page, lab_address)
        lab.open(f"{FIRST.stem}.ipynb")
        lab.run(lab.cell(IMPORTS))
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


def test_what_a_learner_may_break_ends_in_a_sentence(lab_folder, lab_address):
    write(lab_folder / "my homework.ipynb", student_notebook(read_lesson(FIRST)))
    with browser_page() as page:
        lab = Lab(page, lab_address)
        lab.open("my homework.ipynb")
        lab.run(lab.cell(IMPORTS))
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


def test_a_dark_theme_stays_readable(lab_folder, tmp_path):
    with (
        lab_server(lab_folder, tmp_path, theme="JupyterLab Dark") as address,
        browser_page() as page,
    ):
        lab = Lab(page, address)
        lab.open(f"{FIRST.stem}.ipynb")
        lab.run(lab.cell(IMPORTS))
        asks = 'predict("How many bits?", [2, 4], 4, Picture(new_figure()[0], "nothing"))'
        lab.replace(lab.cell("def count_parameters("), asks)
        page.screenshot(path=SCREENSHOTS / "dark.png")
        texts = (".widget-html-content", ".widget-radio-box label", ".jp-RenderedMarkdown p")
        assert {text: lab.contrast(text) for text in texts if lab.contrast(text) < CONTRAST} == {}


def test_a_guess_stands_in_the_saved_notebook_only_if_its_reader_said_so(lab_folder, lab_address):
    write(lab_folder / "guesses.ipynb", student_notebook(read_lesson(FIRST)))
    with browser_page() as page:
        lab = Lab(page, lab_address)
        lab.open("guesses.ipynb")
        lab.run(lab.cell(IMPORTS))
        asks = "\n".join(f'predict("How many {what}?", [2, 4], 4)' for what in ("bits", "bytes"))
        lab.replace(lab.cell("def count_parameters("), asks)
        page.locator("input[type=radio]").nth(1).check()
        page.get_by_text("keep my guess in this notebook").nth(0).click()
        page.locator("input[type=radio]").nth(2).check()
        for number in (0, 1):
            page.locator("button", has_text="Commit my guess").nth(number).click()
            page.get_by_text("You guessed").nth(number).wait_for()
        lab.save()
        saved = nbformat.read(lab_folder / "guesses.ipynb", 4)
        shown = [output for cell in saved.cells for output in cell.get("outputs", [])]
        kept = [output.data[GUESS] for output in shown if GUESS in output.get("data", {})]
        guess = {"question": "How many bits?", "choices": ["2", "4"], "guess": "4", "measured": "4"}
        assert kept == [guess]
        assert lab.console_errors == []


def test_a_term_leads_to_its_entry_in_the_glossary(lab_address):
    with browser_page() as page:
        lab = Lab(page, lab_address)
        lab.open(f"{FIRST.stem}.ipynb")
        page.locator("a[href*='GLOSSARY.md'][href$='#token']").first.click()
        entry = page.locator(".jp-MarkdownViewer h2", has_text=re.compile("^token"))
        entry.wait_for()
        page.wait_for_timeout(1000)
        lab.page.screenshot(path=SCREENSHOTS / "glossary.png")
        assert 0 <= entry.bounding_box()["y"] < 900
        assert lab.console_errors == [] and lab.outside_requests == []


def test_folded_cells_unfold_and_the_graders_menus_are_not_there(lab_address):
    with browser_page() as page:
        lab = Lab(page, lab_address)
        lab.open(f"{FIRST.stem}.ipynb")
        folded = lab.cell(IMPORTS)
        assert not folded.locator(".cm-content").is_visible()
        folded.locator(".jp-PlaceholderText").click()
        assert "import torch" in folded.locator(".cm-content").inner_text()
        for word in ("Nbgrader", "Validate", "Create Assignment"):
            assert page.get_by_text(word, exact=True).count() == 0, word
