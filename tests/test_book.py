"""Every solved notebook prints what it printed, and the web books that are made of them.

nbval runs each solved notebook; on the way the states of its sliders are recorded. The instructor's
book is complete, searchable, folded, alive, and at peace without a network; the student's holds no
solution.
"""

import doctest
import re
import threading
from functools import partial
from html import unescape
from html.parser import HTMLParser
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from itertools import groupby
from pathlib import Path

import nbformat
import pytest
from book_page import book_module, book_page, build_book, commit_guesses, move_controls, weight
from jupyterlab import CHROMIUM, browser_page
from red_cells import red_cells
from sphinx.search.en import SearchEnglish

from course_lib.classroom.files import PAGES, ROOT, SOLUTIONS, lesson_sources
from course_lib.classroom.lesson import grade_id, is_collapsed, read_lesson
from course_lib.classroom.student import student_notebook
from course_lib.models import pretrained
from course_lib.plots.states import FOLDER

LESSONS = {path.stem: path for path in lesson_sources()}
BOOK_BYTES, PAGE_BYTES = 60_000_000, 3_000_000  # a page with all it loads, no slider touched

pytestmark = pytest.mark.timeout(1800)  # for a whole notebook, beside other tests
every_lesson = pytest.mark.parametrize("name", LESSONS)


@pytest.fixture(scope="module")
def states(tmp_path_factory):
    """Where the states of each lesson's sliders go while its solved notebook runs."""
    return tmp_path_factory.mktemp("states")


@pytest.fixture(scope="module")
def book(tmp_path_factory, states):
    """The instructor's book with the states that the first tests have recorded."""
    return build_book(tmp_path_factory.mktemp("site"), states)


@pytest.fixture(scope="module")
def student_book(tmp_path_factory, states):
    """The student's book."""
    return build_book(tmp_path_factory.mktemp("student_site"), states, "student")


def solved(name: str) -> Path:
    return SOLUTIONS / f"{name}.ipynb"


@every_lesson
def test_the_solved_notebook_prints_what_it_printed(states, monkeypatch, name):
    monkeypatch.setenv(FOLDER, str(states / name))
    if "smollm2" in LESSONS[name].read_text("utf-8") and not pretrained.has_smollm2():
        pytest.skip("SmolLM2 is not installed: course data")
    assert [(one.first_line, one.text) for one in red_cells(solved(name))] == []


def displays(name: str) -> list[int]:
    """Controls of each display in a solved notebook."""
    outputs = [o for c in nbformat.read(solved(name), 4).cells for o in c.get("outputs", [])]
    starts = [o.get("data", {}).get("text/plain", "")[:8] for o in outputs]
    groups = groupby(starts, lambda start: start in ("slider: ", "choose: "))
    return [len(list(group)) for is_control, group in groups if is_control]


@every_lesson
def test_every_control_of_the_web_book_moves_and_every_guess_reveals(book, states, name):
    """Opened as a file, with no kernel and no other host."""
    if not (states / name).exists():
        pytest.skip("its states are recorded while its solved notebook runs, above")
    counts = displays(name)
    assert sorted(int(one.name) for one in (states / name).iterdir()) == list(range(len(counts)))
    if not CHROMIUM:
        pytest.skip("no Chromium here: apt-get install chromium")
    with book_page(book / f"{name}.html", width=390) as page:
        assert page.evaluate("document.documentElement.scrollWidth") == 390
        assert weight(page) <= PAGE_BYTES
        icons = page.locator("svg.svg-inline--fa path").evaluate_all(
            "all => all.map(p => p.getAttribute('d').length)"
        )
        assert len(icons) > 5 and min(icons) > 9, "each icon that is asked for is drawn"
        assert len(move_controls(page)) == sum(counts) >= 1
        assert commit_guesses(page) >= 1


def test_the_web_book_is_small_enough(book):
    assert sum(f.stat().st_size for f in book.rglob("*") if f.is_file()) <= BOOK_BYTES


class Loads(HTMLParser):
    """What a page loads by itself: scripts, style sheets, images, frames."""

    def __init__(self):
        super().__init__()
        self.addresses: list[str] = []

    def handle_starttag(self, tag, attrs):
        names = {"link": ["href"], "a": []}.get(tag, ["src", "srcset", "data", "poster"])
        self.addresses += [value for name, value in attrs if name in names and value]


def test_every_lesson_and_the_search_are_there(book):
    for name in LESSONS:
        page = (book / f"{name}.html").read_text("utf-8")
        assert f"{name[:2]} · " in page and f"_static/pictures/{name}/0.png" in page
    index = (book / "searchindex.js").read_text("utf-8")
    others = [*(Path(page).stem for page in PAGES), "other_libraries"]
    assert all(f'"{name}"' in index for name in [*LESSONS, *others])
    assert '"perplex"' in index


def test_no_page_loads_anything_from_elsewhere(book):
    for page in book.rglob("*.html"):
        loads = Loads()
        loads.feed(page.read_text("utf-8"))
        assert [a for a in loads.addresses if re.match(r"(https?:)?//", a)] == [], page.name
    for sheet in book.rglob("*.css"):
        text = sheet.read_text("utf-8")
        assert not re.search(r"(@import|url\()\s*[\"']?(https?:)?//", text), sheet.name


@every_lesson
def test_solutions_and_side_work_are_folded_and_checks_are_one_line(book, name):
    page = (book / f"{name}.html").read_text("utf-8")
    text = words(book / f"{name}.html")
    cells = read_lesson(ROOT / "solutions" / f"{name}.py").notebook.cells
    ids = [grade_id(cell) for cell in cells if grade_id(cell) and cell.cell_type == "code"]
    answers = [one for one in ids if not one.startswith("check_")]
    questions = [cell for cell in cells if grade_id(cell) and cell.cell_type == "markdown"]
    assert page.count("<summary>A good answer</summary>") == len(questions)
    assert page.count("Show a solution") == len(answers)
    assert page.count("Show the code") == sum(map(is_collapsed, cells))
    assert page.count("tag_hide-input") == len(answers) + sum(map(is_collapsed, cells))
    assert page.count("NotImplementedError") >= len(answers)
    assert "BEGIN SOLUTION" not in page
    for one in answers:
        assert f"✔ {one} · " in page
        assert f"check({one})" not in text


@every_lesson
def test_a_question_keeps_its_answer_closed(book, name):
    """And its choices are those of the lesson, where they stand there."""
    page = (book / f"{name}.html").read_text("utf-8")
    cells = nbformat.read(ROOT / "solutions" / f"{name}.ipynb", 4).cells
    texts = [o.get("data", {}).get("text/plain", "") for c in cells for o in c.get("outputs", [])]
    forms = re.findall(r'<form class="live-question".*?</form>', page, re.DOTALL)
    assert len(forms) == sum(text.startswith("Guess: ") for text in texts) >= 1
    for form in forms:
        before, _, after = form.partition("<details><summary>Measured</summary>")
        assert 'type="radio"' in before and "Measured: <b>" not in before
        assert "Measured: <b>" in after


def words(page: Path) -> str:
    """The words of a page, with single spaces."""
    return " ".join(unescape(re.sub(r"<[^>]+>", "", page.read_text("utf-8"))).split())


SOLUTION = re.compile(r"(?:### |<!-- )BEGIN SOLUTION(.*?)(?:### |<!-- )END SOLUTION", re.DOTALL)


def test_the_students_book_holds_no_line_of_a_solution_and_no_word_of_it_can_be_searched(
    book, student_book
):
    lessons = [read_lesson(ROOT / "solutions" / f"{name}.py") for name in LESSONS]
    cells = [cell for lesson in lessons for cell in student_notebook(lesson).cells]
    given = " ".join(" ".join(cell.source.split()) for cell in cells)
    pages = [words(page) for page in student_book.rglob("*.html")]
    text, index = "\n".join(pages), (student_book / "searchindex.js").read_text("utf-8")
    low, whole = text.lower(), "\n".join(words(page) for page in book.glob("*.html"))
    searchable = (book / "searchindex.js").read_text("utf-8")
    held, found, stem = 0, 0, SearchEnglish({}).stem
    for name in LESSONS:
        for solution in SOLUTION.findall((ROOT / "solutions" / f"{name}.py").read_text("utf-8")):
            lines = [" ".join(line.strip("# ").split()) for line in solution.splitlines()]
            own = [one for one in lines if len(one) > 25 and one not in given]
            assert [one for one in own if one in text] == [], name
            held += sum(one in whole for one in own)
            only = {name.lower() for name in re.findall(r"[A-Za-z]+_\w+", solution)}
            only = {stem(w) for w in only if w not in low}
            assert [w for w in only if f'"{w}":' in index] == [], name
            found += sum(f'"{w}":' in searchable for w in only)
    assert held > 100 and found > 10, "the instructor's book has them"


def test_the_students_book_has_tasks_and_the_other_outputs_but_no_code_of_the_library(
    student_book,
):
    assert not (student_book / "_modules").exists()
    library = (student_book / "library" / "quantization.html").read_text("utf-8")
    assert 'id="course_lib.quantization.linear.fit_symmetric"' in library
    for name in LESSONS:
        page = (student_book / f"{name}.html").read_text("utf-8")
        assert "NotImplementedError" in page and f"_static/pictures/{name}/0.png" in page
        assert "YOUR ANSWER HERE" in page and not re.search(r"✔ \w+ · ", page)
        assert "<summary>A good answer" not in page and "Show a solution" not in page
    assert "folded" not in words(student_book / "index.html")


def test_the_reference_has_functions_with_formulas_and_examples(book):
    page = (book / "library" / "quantization.html").read_text("utf-8")
    assert 'id="course_lib.quantization.linear.fit_symmetric"' in page
    text = re.sub(r"<[^>]+>", "", page)
    assert "&gt;&gt;&gt; grid = fit_symmetric(" in text
    assert "s = m / (2ⁿ⁻¹ − 1)      z = 0" in text


def test_every_public_room_is_in_the_reference(book):
    rooms = {
        path.name for path in (ROOT / "course_lib").iterdir() if (path / "__init__.py").exists()
    }
    assert rooms <= {page.stem for page in (book / "library").glob("*.html")}


@pytest.mark.parametrize(("page", "fewest"), list(zip(PAGES, (10, 1, 1), strict=True)))
def test_links_into_a_page_lead_to_a_heading(book, page, fewest):
    target = Path(page).with_suffix(".html").name
    headings = (book / target).read_text("utf-8")
    for name in LESSONS:
        anchors = re.findall(
            rf'href="{re.escape(target)}#([^"]+)"', (book / f"{name}.html").read_text("utf-8")
        )
        assert len(anchors) >= fewest
        assert [one for one in anchors if f'id="{one}"' not in headings] == []


def test_docstrings_become_restructured_text():
    module = book_module("docstrings")
    assert doctest.testmod(module) == doctest.TestResults(failed=0, attempted=3)
    for text, wanted in {
        "f_* and |x| and a_": r"f\_\* and \|x\| and a\_",
        "2`x`y": r"2\ :py:obj:`x`\ y",
    }.items():
        assert module.prose(text) == wanted


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.mark.skipif(not CHROMIUM, reason="no Chromium here: apt-get install chromium")
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_in_a_browser_mathematics_is_set_and_nothing_is_asked_of_other_hosts(book, scheme):
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=book))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    home = f"http://127.0.0.1:{server.server_port}"
    errors, requests = [], []
    with browser_page() as page:
        page.emulate_media(color_scheme=scheme)
        page.on("console", lambda message: message.type == "error" and errors.append(message.text))
        page.on("request", lambda request: requests.append(request.url))
        page.goto(f"{home}/05_linear_quantization.html")
        page.wait_for_selector("mjx-container")
        assert page.locator("mjx-container").count() > 20
        assert page.locator("mjx-merror").count() == 0
        assert page.evaluate("document.documentElement.dataset.theme") == scheme
        folded = page.locator("details.hide", has_text="Show a solution").first
        assert folded.locator("pre").is_hidden()
        folded.locator("summary").press("Enter")
        assert folded.locator("pre").is_visible()
        for word in ("perplexity", "零点"):
            page.goto(f"{home}/search.html?q={word}")
            page.wait_for_selector("#search-results li a")
    server.shutdown()
    assert errors == []
    assert [url for url in requests if not url.startswith((home, "data:"))] == []
