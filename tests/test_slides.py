"""The slides of a lecture: complete, readable, with answers that wait, and without a network."""

from functools import cache

import jupytext
import nbformat
import pytest
from jupyterlab import CHROMIUM, browser_page

from book import points, slides
from course_lib.classroom.files import lesson_sources

LESSONS = {path.stem: path for path in lesson_sources()}
deck_of = cache(slides.deck)
each_chapter = pytest.mark.parametrize("name", LESSONS)


@each_chapter
def test_a_deck_has_15_to_25_slides_from_the_question_to_the_numbers(name):
    deck = deck_of(LESSONS[name])
    assert 15 <= len(deck) <= 25
    assert deck[0].title.startswith(f"{name[:2]} · ") and "?" in deck[0].body
    assert any("in numbers" in one.title.lower() for one in deck[-2:])
    assert all(one.notes for one in deck[:2]) and sum(bool(one.notes) for one in deck) >= 12
    assert sum("<img" in one.body + one.answer for one in deck) >= 2
    assert name == "13_reading_sources" or sum(r"\[" in one.body for one in deck) >= 1


@each_chapter
def test_every_prediction_is_there_and_its_measurement_only_in_the_answer(name):
    cells = nbformat.read(LESSONS[name].with_suffix(".ipynb"), 4).cells
    outputs = [out for cell in cells for out in cell.get("outputs", [])]
    asked = [pair for one in outputs for pair in slides.predictions([one])]
    deck = {one.question: one for one in deck_of(LESSONS[name]) if one.question}
    for question, choices, measured in asked:
        assert deck[question].body == choices
        assert measured in deck[question].answer
        assert measured not in question + choices


LESSON = """\
# %% [markdown]
# # 05 · A toy
# **Which one?**

# %% [markdown]{prose}
# ## First
# Long ago. An even step between two levels that lie side by side is
# $$s = 1$$
# a number. It has no meaning here.
#
# **Guess:** what does the next cell print, and why is it that and nothing else?

# %%{code}
print("17")

# %% [markdown]
# Seventeen, **as it should be**. Nobody is surprised.
"""


def toy_deck(folder, prose="", code=""):
    path = folder / "05_toy.py"
    text = LESSON.format(prose=prose and f" slide={prose}", code=code and f" slide={code}")
    path.write_text(text, "utf-8")
    notebook = jupytext.reads(text, fmt="py:percent")
    if "17" in text:
        notebook.cells[2].outputs = [nbformat.v4.new_output("stream", name="stdout", text="17\n")]
    nbformat.write(notebook, path.with_suffix(".ipynb"))
    return slides.deck(path)


def test_a_tag_makes_a_slide_and_nothing_else_does(tmp_path):
    (title,) = toy_deck(tmp_path)
    assert title.title == "05 · A toy" and "Which one?" in title.body
    _, prose, code = toy_deck(tmp_path, '"First"', "True")
    assert prose.title == "First" and r"\[s = 1\]" in prose.body
    assert "An even step" in prose.body and "a number." in prose.body
    assert "Guess" not in prose.body and "Nobody" not in prose.body and "meaning" in prose.notes
    assert code.question.startswith("<p>What does the next cell print")
    assert "17" in code.answer and "17" not in code.body + code.question
    assert "as it should be" in code.answer and "Nobody is surprised" in code.notes
    assert toy_deck(tmp_path, code='"A headline"')[1].title == "A headline"


def test_a_tag_that_names_nothing_is_told(tmp_path):
    with pytest.raises(ValueError, match=r"05_toy.py: no heading 'Second'"):
        toy_deck(tmp_path, '"Second"')
    with pytest.raises(ValueError, match=r"05_toy.py: .* shows nothing"):
        path = tmp_path / "05_toy.py"
        toy_deck(tmp_path, code="True")
        notebook = nbformat.read(path.with_suffix(".ipynb"), 4)
        notebook.cells[2].outputs = []
        nbformat.write(notebook, path.with_suffix(".ipynb"))
        slides.deck(path)


def test_sentences_keep_what_is_bold_together_and_leave_brackets_out():
    text = "One (Li et al. 2016) came. **Two. Three.** (An aside. And more.) `Four` $x$."
    assert points.sentences(text) == [
        "One (Li et al. 2016) came.", "**Two. Three.**", "`Four` $x$."
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "question"),
    [
        ("No question.", ""),
        ("**Guess before you run:** how many of the sixteen levels does a weight of this row use?",
         "How many of the sixteen levels does a weight of this row use?"),
        ("Two rules are tried.\n\n**Guess which of them wins.**",
         "Two rules are tried. Guess which of them wins."),
        ("It works. **Guess:** how?", "It works. How?"),
        ("Codes differ. **Guess now**, before you look.",
         "Codes differ. Guess now, before you look."),
    ],
)  # fmt: skip
def test_a_prose_guess_becomes_a_question(text, question):
    assert points.question_of(text) == question


def test_of_many_formulas_three_stay_and_a_reading_is_short():
    text = "\n\n".join(f"A sentence that says what formula {n} is:\n\n$$f_{n}$$" for n in range(6))
    kept = points.key_points(text)
    assert [one for one in kept if "$$" in one] == ["$$f_0$$", "$$f_1$$", "$$f_2$$"]
    assert len(points.finding("A long reading goes on. " * 50)) < points.LONGEST


LOOK = """() => {
    const found = []
    const over = box =>
        box.scrollHeight > box.clientHeight + 1 || box.scrollWidth > box.clientWidth + 1
    for (const [n, section] of document.querySelectorAll('.slides > section').entries()) {
        const tell = (wrong, what) => wrong && found.push(`slide ${n + 1}: ${what}`)
        const answer = section.querySelector('.answer')
        const shows = () => getComputedStyle(answer).opacity
        Reveal.slide(n, 0, -1)
        tell(answer && shows() !== '0', 'the answer shows')
        if (answer) Reveal.nextFragment()
        tell(answer && shows() !== '1', 'the answer stays hidden')
        for (const box of [section, ...section.querySelectorAll('.body, .question')])
            tell(over(box), `${box.className} is too full`)
        for (const image of section.querySelectorAll('img'))
            tell(image.clientHeight < 150 || !image.alt, 'a small or nameless picture')
        for (const table of section.querySelectorAll('pre, table'))
            tell(parseFloat(getComputedStyle(table).fontSize) < 14, 'small type')
        tell(/\\\\[([]/.test(section.textContent), 'a formula was not set')
    }
    Reveal.slide(0)
    return found
}"""


@pytest.mark.skipif(not CHROMIUM, reason="no Chromium here: apt-get install chromium")
@pytest.mark.slow
def test_in_a_browser_no_slide_is_too_full_and_answers_wait(tmp_path):
    assert slides.main(tmp_path) == 0
    said, asked = [], []
    with browser_page(1280, 720) as page:
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        for name in LESSONS:
            page.goto((tmp_path / f"{name}.html").as_uri())
            page.wait_for_selector("body[data-ready]")
            assert page.evaluate(LOOK) == [], name
            assert page.locator("mjx-merror, .notes merror").count() == 0
        with page.context.expect_page() as opened:
            page.keyboard.press("s")
        notes = opened.value.locator(".speaker-controls-notes")
        notes.get_by_text("How do you read a source").first.wait_for()
        page.goto((tmp_path / "index.html").as_uri())
        links = page.locator("a").evaluate_all("all => all.map(a => a.getAttribute('href'))")
    assert links == [f"{name}.html" for name in LESSONS]
    assert said == []
    assert [url for url in asked if not url.startswith((tmp_path.as_uri(), "data:"))] == []
