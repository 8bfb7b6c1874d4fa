"""What the web book makes of a display with controls and of a question; live in a browser."""

import os
import re
import shutil
from pathlib import Path

import pytest
from book_page import book_module, book_page, commit_guesses, move_controls
from ipywidgets import SelectionSlider
from jupyterlab import IN_A_BROWSER, browser_page
from nbformat.v4 import new_code_cell, new_notebook, new_output

from course_lib.classroom.files import ROOT
from course_lib.plots import claims, explore, predict, states
from course_lib.plots.figure import Picture, new_figure

live = book_module("live")
STATIC = ROOT / "book" / "_static"


def draw(bits, kind):
    """A bar of that height in one of two colours."""
    figure, (axes,) = new_figure(height=2)
    axes.bar([0], [bits], color=kind)
    return Picture(figure, f"A {kind} bar of {bits}, </script> & all.")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A page's folder: a display with two sliders, a table to filter, a question."""
    outputs = []

    def display(item, raw=False, **_):
        if not raw:
            shown = {"text/plain": repr(item)}
            if not isinstance(item, Picture):
                shown["text/html"] = item._repr_html_()
            item = shown if "text/html" in shown else item._repr_mimebundle_()
        outputs.append(new_output("display_data", {k: v for k, v in item.items() if "text" in k}))

    monkeypatch.setenv(states.FOLDER, str(tmp_path / "states"))
    monkeypatch.setattr(states, "_number", iter(range(9)))
    for module in (explore, predict):
        monkeypatch.setattr(module, "display", display)
    explore.explore(draw, bits=([2, 4, 8], 4), kind=(["blue", "red"], "red"))
    rows = [{"document": "S0", "says": "a"}, {"document": "S1", "says": "b"}]
    claims.explore_table(rows, document=["S0", "S1"])
    predict.predict("Is 2 < 3?", ["yes & always", "no"], "yes,\ntwice", draw(2, "blue"))
    notebook = new_notebook(cells=[new_code_cell("explore(…)", outputs=outputs)])
    live.make_live(notebook, tmp_path / "states", "states")
    html = "".join(one.data["text/html"] for one in notebook.cells[0].outputs)
    head = (
        '<!doctype html><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
    )
    head += '<link rel="stylesheet" href="book.css"><script src="live.js" defer></script>'
    for file in ("book.css", "live.js"):
        shutil.copy(STATIC / file, tmp_path)
    body = f'<div class="cell_output"><div class="text_html">{html}</div></div>'
    (tmp_path / "page.html").write_text(head + body, "utf-8")
    return tmp_path


def test_controls_and_what_they_control_become_one_output(folder):
    html = (folder / "page.html").read_text("utf-8")
    assert html.count('class="live-display"') == 2 and html.count('class="live-question"') == 1
    assert '<img loading="lazy" src="states/0/3.png" alt="A red bar of 4, &lt;/script&gt;' in html
    assert (
        "<noscript><pre>slider: bits = 2, 4, 8\nslider: kind = blue, red</pre></noscript>" in html
    )
    assert html.count("</script>") == 3, "the words of a state end no script"
    assert html.count("base64") == 1, "the question's picture"
    assert html.count(r">b\u003c/td>") == 1, "a row of three tables is kept once"


def test_without_states_a_display_stays_as_it_was_stored(tmp_path):
    control = new_output("display_data", {"text/plain": "slider: n = 1, 2"})
    shown = new_output("display_data", {"text/plain": "[Figure: one]", "text/html": "<img>"})
    notebook = new_notebook(cells=[new_code_cell(outputs=[control, shown])])
    live.make_live(notebook, tmp_path, "states")
    assert notebook.cells[0].outputs == [control, shown]


def test_states_of_another_notebook_are_an_error(tmp_path):
    slider = SelectionSlider(options=["1", "2"], description="n")
    states.record(
        tmp_path / "0", {"n": slider}, {"n": "slider: n = 1, 2"}, lambda n: draw(1, "red")
    )
    control = new_output("display_data", {"text/plain": "slider: m = 1, 2"})
    notebook = new_notebook(cells=[new_code_cell(outputs=[control])])
    with pytest.raises(ValueError, match="must be of the display"):
        live.make_live(notebook, tmp_path, "states")


@pytest.fixture
def recorder(tmp_path, monkeypatch):
    """The recorder of one toy lesson, and what ran."""
    module, ran = book_module("recorded"), []

    def run(lesson):
        ran.append(lesson)
        if "broken" in lesson.read_text():
            raise RuntimeError("broken")
        folder = Path(os.environ[states.FOLDER])
        assert list(folder.iterdir()) == []
        (folder / "0").mkdir()

    monkeypatch.delenv(states.FOLDER, raising=False)
    monkeypatch.setattr(module, "read_lesson", lambda path: path)
    monkeypatch.setattr(module, "run_lesson", run)
    monkeypatch.setattr(module, "lesson_sources", lambda: [tmp_path / "00_toy.py"])
    return module, ran


def test_a_lesson_is_run_for_its_states_once_and_again_when_it_has_changed(recorder, tmp_path):
    module, ran = recorder
    source, kept = tmp_path / "00_toy.py", tmp_path / "kept"
    source.write_text("1")
    for _ in range(2):
        assert module.recorded_states(kept) == kept
        assert (kept / "00_toy" / "0").is_dir() and len(ran) == 1
    source.write_text("broken")
    for runs in (2, 3):
        with pytest.raises(RuntimeError):
            module.recorded_states(kept)
        assert len(ran) == runs, "what was interrupted is recorded again"
    source.write_text("1")
    module.recorded_states(kept)
    assert len(ran) == 4 and states.FOLDER not in os.environ


def test_the_script_is_short_and_needs_nothing():
    text = (STATIC / "live.js").read_text("utf-8")
    assert len(text.splitlines()) <= 150
    assert not re.search(r"import|require|fetch|XMLHttp|https?:", text)


@pytest.fixture(params=[1280, 390])
def page(request, folder):
    with book_page(folder / "page.html", width=request.param) as page:
        assert page.evaluate("document.documentElement.scrollWidth") == request.param
        yield page


class TestInABrowser:
    pytestmark = IN_A_BROWSER

    def test_every_control_changes_what_is_shown_by_keyboard(self, page):
        assert move_controls(page) == [3, 2, 3]

    def test_a_slider_is_moved_by_mouse_too(self, page):
        slider, image = page.locator("input[type=range]").first, page.locator(".live-state img")
        page.wait_for_function("document.querySelector('.live-state img').complete")
        assert len([file for file in page.files() if file.suffix == ".png"]) == 1, "the first alone"
        box = slider.bounding_box()
        page.mouse.click(box["x"] + box["width"] - 2, box["y"] + box["height"] / 2)
        assert image.get_attribute("src") == "states/0/5.png"
        said = page.locator(".live-said").first.text_content()
        assert said == image.get_attribute("alt") == "A red bar of 8, </script> & all."

    def test_a_table_shows_the_chosen_rows(self, page):
        page.get_by_label("document").select_option("S1")
        assert page.locator(".live-state td").all_inner_texts() == ["S1", "b"]
        assert page.locator(".live-said").last.text_content() == "Table of 1 row: document, says"

    def test_an_answer_is_closed_until_a_guess_is_committed(self, page):
        assert not page.get_by_text("twice").is_visible()
        assert commit_guesses(page) == 1
        answer = page.locator(".live-answer").text_content()
        assert answer == "You guessed yes & always. Measured: yes,\ntwice"
        assert page.locator(".live-question input").first.is_disabled()

    def test_without_javascript_there_is_a_picture_a_line_and_a_closed_answer(self, folder):
        with browser_page() as page:
            page = page.context.browser.new_context(java_script_enabled=False).new_page()
            page.goto((folder / "page.html").as_uri())
            assert page.locator("noscript pre").first.is_visible()
            assert page.locator(".live-state img").is_visible()
            assert page.get_by_role("slider").count() == 0
            answer = page.get_by_text("twice")
            assert not answer.is_visible() and not page.get_by_role("button").count()
            page.get_by_text("Measured", exact=True).click()
            assert answer.is_visible()
