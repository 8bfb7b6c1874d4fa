"""The web book built for tests, and a page of it in a real browser, opened as a file."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from urllib.parse import unquote, urlparse

from jupyterlab import browser_page
from playwright.sync_api import Page

from course_lib.classroom.files import ROOT

BOOK = ROOT / "book"
BUILD = "import sys; from pathlib import Path; from build import main; "
BUILD += "sys.exit(main(sys.argv[1], *map(Path, sys.argv[2:])))"
LOADED = "image => image.complete && image.naturalWidth > 0"


def build_book(folder: Path, states: Path, book: str = "instructor") -> Path:
    """Build a book below a folder with these states, and return the folder of its pages."""
    command = [sys.executable, "-c", BUILD, book, str(folder), str(states)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=BOOK)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return folder / "html"


def book_module(name: str) -> ModuleType:
    """A module of book/, which is no package."""
    spec = spec_from_file_location(name, BOOK / f"{name}.py")
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@contextmanager
def book_page(file: Path, width: int = 1280, scheme: str = "light") -> Iterator[Page]:
    """The page, all of it loaded; it asks for files beside it and says nothing on the console.

    `page.files` are the files that were asked for so far.
    """
    errors, addresses = [], []
    with browser_page(width=width) as page:
        page.emulate_media(color_scheme=scheme)
        page.on("console", lambda message: message.type == "error" and errors.append(message.text))
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("request", lambda request: addresses.append(request.url))
        page.goto(file.as_uri())
        page.wait_for_load_state("load")
        page.files = lambda: {
            Path(unquote(urlparse(one).path)) for one in addresses if one.startswith("file:")
        }
        yield page
    assert errors == []
    assert [one for one in addresses if not one.startswith(("file:", "data:"))] == []


def weight(page: Page) -> int:
    """Bytes of everything that was loaded."""
    return sum(file.stat().st_size for file in page.files())


def move_controls(page: Page) -> list[int]:
    """Move each control through all its values, by keyboard; its states, at least two a control.

    Each value is shown, its picture is there, and its alternative text is announced.
    """
    counts = []
    for display in page.locator(".live-display").all():
        shown, said = display.locator(".live-state"), display.locator(".live-said")
        for control in display.locator("input, select").all():
            is_slider = control.get_attribute("type") == "range"
            steps = control.evaluate("c => c.options ? c.options.length : Number(c.max) + 1")
            control.focus()
            page.keyboard.press("Home")
            states, words = {shown.inner_html()}, set()
            for _ in range(steps - 1):
                page.keyboard.press("ArrowRight" if is_slider else "ArrowDown")
                states.add(shown.inner_html())
                words.add(said.text_content())
                if is_slider:
                    image = shown.locator("img")
                    page.wait_for_function(LOADED, arg=image.element_handle())
                    assert image.get_attribute("alt") == said.text_content() != ""
                    value = control.locator("~ output").text_content()
                    assert value == control.get_attribute("aria-valuetext")
            assert len(states) > 1 and "" not in words, control.get_attribute("id")
            counts.append(len(states))
    return counts


def commit_guesses(page: Page) -> int:
    """Guess at each question, by keyboard; nothing shows before, everything after."""
    forms = page.locator(".live-question").all()
    for form in forms:
        button, answer = form.locator("button"), form.locator(".live-answer")
        details = form.locator("details")
        assert button.is_disabled() and details.is_hidden() and answer.text_content() == ""
        first = form.locator("input").first
        first.focus()
        page.keyboard.press("Space")
        button.focus()
        page.keyboard.press("Enter")
        assert f"You guessed {first.get_attribute('value')}. Measured: " in answer.text_content()
        assert details.is_visible() or not details.locator("img").count()
        assert all(image.is_visible() for image in details.locator("img").all())
    return len(forms)
