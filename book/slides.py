"""`make slides`: a deck for each chapter, made of the cells that its source tags with `slide=…`.

    # %% [markdown] slide="A heading"  the part under it: formulas, lists, tables, key sentences
    # %% slide=True                    what the cell shows: its picture, or else what it printed

A list of headings makes as many slides; `slide="A headline"` shows a cell under that headline.

A prediction, or a prose "**Guess …:**" before the cell, stands alone until the lecturer goes on.
The prose becomes the speaker's notes. Pictures and numbers are those stored in the solved
notebooks; nothing is run. Open build/slides/index.html: no server and no network is needed.
"""

import re
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from html import escape
from importlib.util import find_spec
from pathlib import Path
from textwrap import fill

import jupytext
import nbformat
from jinja2 import Environment, FileSystemLoader
from markdown_it import MarkdownIt
from mdit_py_plugins.dollarmath import dollarmath_plugin
from nbformat import NotebookNode

from book.points import HEADING, finding, key_points, plain, question_of, sections
from course_lib.classroom.files import LESSON, ROOT, SOLUTIONS

HERE = Path(__file__).resolve().parent / "deck"
REVEAL = ("dist/reset.css", "dist/reveal.css", "dist/reveal.js", "plugin/notes/notes.js", "LICENSE")
MATHJAX = ("tex-chtml.js", "output/chtml/fonts", "input/tex/extensions")
COLUMNS = re.compile(r"\S {2,}\S.* {2}")  # a row of a table
WIDEST = 88  # letters in another printed line


@dataclass(frozen=True)
class Slide:
    """A slide's parts, all HTML but the title; after a question `answer` takes `body`'s place."""

    title: str
    body: str
    notes: str = ""
    question: str = ""
    answer: str = ""


def main(folder: Path = ROOT / "build" / "slides") -> int:
    """Write every deck and the page that lists them; 1 where there are no solutions."""
    lessons = sorted(SOLUTIONS.glob(f"{LESSON}.py"))
    if not lessons:
        print("slides are made of solutions/, which a student edition does not have")
        return 1
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    lay_out(folder)
    templates = Environment(loader=FileSystemLoader(HERE), autoescape=False)
    decks = []
    for path in lessons:
        slides = deck(path)
        page = templates.get_template("deck.html").render(slides=slides)
        (folder / f"{path.stem}.html").write_text(page, "utf-8")
        decks.append((path.stem, slides[0].title, slides[0].body, len(slides)))
    index = templates.get_template("index.html").render(decks=decks)
    (folder / "index.html").write_text(index, "utf-8")
    print(f"{len(decks)} decks: {folder / 'index.html'}")
    return 0


def lay_out(folder: Path) -> None:
    """Copy what the pages load."""
    reveal = Path(find_spec("sphinx_revealjs").origin).parent / "_static" / "revealjs"
    mathjax = Path(find_spec("sphinx-mathjax-offline").origin).parent / "static" / "mathjax"
    files = {f"reveal/{Path(name).name}": reveal / name for name in REVEAL}
    files |= {f"mathjax/{name}": mathjax / name for name in MATHJAX}
    files |= {name: HERE / name for name in ("slides.css", "slides.js")}
    for target, source in files.items():
        (folder / target).parent.mkdir(parents=True, exist_ok=True)
        (shutil.copytree if source.is_dir() else shutil.copy)(source, folder / target)


def deck(path: Path) -> list[Slide]:
    """The slides of a lesson, its title first.

    Raises:
        ValueError: a tag names a heading that is not there, or a cell that shows nothing.
    """
    cells = jupytext.reads(path.read_text("utf-8"), fmt="py:percent").cells
    run = nbformat.read(path.with_suffix(".ipynb"), as_version=4).cells
    slides, heading, before, last = [title_slide(cells[0].source)], "", "", ("", "")
    for index, (cell, done) in enumerate(zip(cells, run, strict=True)):
        tag = cell.metadata.get("slide")
        if cell.metadata.get("question"):
            continue
        if cell.cell_type == "markdown":
            parts = sections(cell.source, heading)
            slides += prose_slides(parts, tag, path)
            before, last = parts[-1][1], ("", "")
            heading = next((n for n, _ in reversed(parts) if not n.startswith("Exercise")), heading)
        elif tag:
            asked, shows = predictions(done.outputs), shown(done.outputs)
            if asked and not shows and last[0]:
                (shows, before), _ = last, slides.pop()
            if not asked and not shows:
                raise ValueError(f"{path.name}: slide={tag!r} is a cell that shows nothing")
            title = tag if isinstance(tag, str) else plain(heading)
            after, has_slide = reading(cells[index + 1 :], plain(heading))
            below = to_html("" if has_slide else finding(after))
            notes = to_html(f"{before}\n\n{after}")
            slides += output_slides(asked, shows, title, question_of(before), below, notes)
            last, before = ("" if asked else shows, before), ""
    return slides


def title_slide(source: str) -> Slide:
    """The chapter's name and its question."""
    (heading, text), *_ = sections(source, "")
    question = re.search(r"\*\*(.+?)\*\*", text, flags=re.S)[1]
    return Slide(heading, to_html(question), notes=to_html(text))


def prose_slides(
    parts: list[tuple[str, str]], tag: str | list[str] | None, path: Path
) -> Iterator[Slide]:
    """A slide for each heading that the tag names."""
    for wanted in [tag] if isinstance(tag, str) else tag or []:
        found = [(name, text) for name, text in parts if plain(name).startswith(wanted)]
        if not found:
            raise ValueError(f"{path.name}: no heading {wanted!r} for slide=… in its cell")
        name, text = found[0]
        body = to_html("\n\n".join(key_points(text)))
        yield Slide(plain(name), body, notes=to_html(text))


def reading(later: list[NotebookNode], heading: str) -> tuple[str, bool]:
    """What prose says of an output, unless a slide stands between; and is that a slide, too?"""
    for cell in later:
        tag = cell.metadata.get("slide", [])
        if cell.cell_type == "markdown":
            wanted = [tag] if isinstance(tag, str) else tag
            return HEADING.split(cell.source)[0].strip(), any(map(heading.startswith, wanted))
        if tag:
            break
    return "", False


def predictions(outputs: list) -> list[tuple[str, str, str]]:
    """(question, choices, what was measured) of each prediction, HTML."""
    found = []
    for data in (out.data for out in outputs if "data" in out):
        if data["text/plain"].startswith("Guess: "):
            html = re.sub(r"`(.+?)`", r"<code>\1</code>", data["text/html"])
            parts = r"<p>(.*?) <i>(.*?)</i><br><b>(.*?)</b></p>"
            question, options, measured = re.match(parts, html, flags=re.S).groups()
            choices = "".join(f"<li>{option}</li>" for option in options.split(" / "))
            found.append((f"<p>{question}</p>", f"<ul>{choices}</ul>", measured))
    return found


def shown(outputs: list) -> str:
    """A cell's last picture, else what it printed; HTML."""
    html = [out.data.get("text/html", "") for out in outputs if "data" in out]
    pictures = re.findall(r"<img [^>]*>", " ".join(html))
    printed = "".join(out.text for out in outputs if out.get("name") == "stdout")
    lines = [line.rstrip() for line in printed.split("\n") if not line.startswith("using yours:")]
    text = "\n".join(line if COLUMNS.search(line) else fill(line, WIDEST) for line in lines)
    text = text.strip("\n")
    return pictures[-1] if pictures else f"<pre>{escape(text)}</pre>" if text else ""


def output_slides(
    asked: list[tuple[str, str, str]], shows: str, title: str, guess: str, below: str, notes: str
) -> Iterator[Slide]:
    """A slide for each prediction, the picture with the last; else one, after a guess if any."""
    seen = shows + (f"<div class=finding>{below}</div>" if below else "")
    for number, (question, choices, measured) in enumerate(asked, 1):
        answer = f"<p class=measured>{measured}</p>" + seen * (number == len(asked))
        yield Slide(title, choices, notes, question, answer)
    if guess and not asked:
        yield Slide(title, "<p>?</p>", notes, to_html(guess), seen)
    elif not asked:
        yield Slide(title, seen, notes)


def to_html(text: str) -> str:
    """Markdown as HTML, formulas as MathJax reads them."""
    return _MARKDOWN.render(re.sub(r"<!--.*?-->", "", text, flags=re.S))


def _formula(content: str, options: dict) -> str:
    return escape(rf"\[{content}\]" if options["display_mode"] else rf"\({content}\)")


_MARKDOWN = MarkdownIt("commonmark").enable("table").use(dollarmath_plugin, renderer=_formula)

if __name__ == "__main__":
    sys.exit(main(*map(Path, sys.argv[1:])))
