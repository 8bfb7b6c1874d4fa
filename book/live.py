"""Sliders and questions of a stored notebook, as HTML that `_static/live.js` makes live.

A slider's pictures are those that `course_lib.plots.states` recorded; they lie beside the page and
are loaded when they are asked for. Without JavaScript there is the first picture and a plain line.
"""

import json
import re
from collections.abc import Iterator
from html import escape, unescape
from itertools import count, groupby
from math import prod
from pathlib import Path

from nbformat import NotebookNode
from nbformat.v4 import new_output

CONTROLS = ("slider: ", "choose: ")  # how their plain lines begin
QUESTION = re.compile(
    r"<p>(?P<question>.*?) <i>(?P<choices>.*?)</i><br><b>Measured: (?P<measured>.*?)</b></p>"
    r"(?P<picture>.*)",
    re.DOTALL,
)


def make_live(notebook: NotebookNode, states: Path, address: str) -> None:
    """In place: each display with controls and each question becomes one output.

    Args:
        states: the notebook's folder of recorded states; a display that is not there stays.
        address: of that folder, seen from the page.

    Raises:
        ValueError: the states were recorded from another notebook.
    """
    displays, questions = count(), count()
    for cell in notebook.cells:
        if cell.cell_type == "code":
            shown = _with_displays(cell.outputs, states, address, displays)
            cell.outputs = [_question(output, questions) for output in shown]


def _with_displays(outputs: list, states: Path, address: str, numbers: Iterator[int]) -> list:
    """The outputs, where controls and what they control are one."""
    made = []
    grouped = groupby(outputs, lambda output: _plain(output).startswith(CONTROLS))
    groups = [(is_control, list(group)) for is_control, group in grouped]
    for place, (is_control, group) in enumerate(groups):
        if not is_control:
            made += group
            continue
        number = next(numbers)
        folder = states / str(number)
        if not (folder / "index.json").exists():
            made += group
            continue
        index = json.loads((folder / "index.json").read_text("utf-8"))
        texts = [_plain(output) for output in group]
        if [control["text"] for control in index["controls"]] != texts:
            raise ValueError(f"{folder} must be of the display {texts}; got {index['controls']}")
        groups[place + 1][1].pop(0)
        made.append(_html(display(index, folder, f"{address}/{number}", number)))
    return made


def display(index: dict, folder: Path, address: str, number: int) -> str:
    """One display: its controls, its first state, and where the others are."""
    controls = index["controls"]
    lengths = [len(control["labels"]) for control in controls]
    start = sum(one["start"] * prod(lengths[n + 1 :]) for n, one in enumerate(controls))
    file, alt = index["states"][start]
    tables = sorted(folder.glob("*.html"), key=lambda path: int(path.stem))
    if tables:
        shown = (folder / file).read_text("utf-8")
    else:
        width, height = index["size"]
        size = f'width="{width}" height="{height}"'
        shown = f'<img loading="lazy" src="{address}/{file}" alt="{escape(alt)}" {size}>'
    rows = "".join(_control(one, f"live-{number}-{n}") for n, one in enumerate(controls))
    lines = escape("\n".join(control["text"] for control in controls))
    parts = [
        f'<div class="live-controls" hidden>{rows}</div>',
        f"<noscript><pre>{lines}</pre></noscript>",
        f'<div class="live-state">{shown}</div>',
        '<p class="live-said" role="status" aria-live="polite"></p>',
        _data(
            {"labels": [one["labels"] for one in controls], "states": index["states"]}
            | _once([path.read_text("utf-8") for path in tables]),
            address,
        ),
    ]
    return f'<div class="live-display">{"".join(parts)}</div>'


def _once(tables: list[str]) -> dict:
    """The rows of all tables, each once, and for each table the numbers of its rows."""
    rows: dict[str, int] = {}
    numbers = [
        [rows.setdefault(row, len(rows)) for row in re.split("(?=<tr>|</tbody>)", table)]
        for table in tables
    ]
    return {"rows": list(rows), "tables": numbers} if tables else {}


def _control(control: dict, name: str) -> str:
    """A label, a native slider or list, and the value in words."""
    labels, start = control["labels"], control["start"]
    label = f'<label for="{name}">{escape(control["name"])}</label>'
    if control["kind"] == "select":
        options = "".join(
            f"<option{' selected' * (n == start)}>{escape(one)}</option>"
            for n, one in enumerate(labels)
        )
        return f'<div>{label}<select id="{name}" autocomplete="off">{options}</select></div>'
    value = escape(labels[start])
    slider = f'<input type="range" id="{name}" autocomplete="off" min="0" max="{len(labels) - 1}"'
    slider += f' step="1" value="{start}" aria-valuetext="{value}">'
    return f'<div>{label}{slider}<output for="{name}" aria-live="off">{value}</output></div>'


def _data(index: dict, address: str) -> str:
    text = json.dumps(index, ensure_ascii=False).replace("<", "\\u003c")
    return f'<script type="application/json" data-address="{address}">{text}</script>'


def _question(output: NotebookNode, numbers: Iterator[int]) -> NotebookNode:
    """A question whose answer is closed; any other output as it is."""
    if not _plain(output).startswith("Guess: "):
        return output
    found = QUESTION.fullmatch(output.data["text/html"])
    return _html(question(**found.groupdict(), number=next(numbers)))


def question(question: str, choices: str, measured: str, picture: str, number: int) -> str:
    """The question with a choice of guesses, and a folded answer; all texts are HTML."""
    name = f"guess-{number}"
    radios = "".join(
        f'<label><input type="radio" name="{name}" value="{one}">{one}</label>'
        for one in map(escape, unescape(choices).split(" / "))
    )
    return (
        f'<form class="live-question" autocomplete="off">'
        f"<fieldset><legend><b>Your guess first.</b> {question}</legend>{radios}</fieldset>"
        '<button type="submit" hidden disabled>Commit my guess</button>'
        '<p class="live-answer" role="status" aria-live="polite"></p>'
        f"<details><summary>Measured</summary><p>Measured: <b>{measured}</b></p>{picture}</details>"
        "</form>"
    )


def _plain(output: NotebookNode) -> str:
    return output.get("data", {}).get("text/plain", "")


def _html(text: str) -> NotebookNode:
    return new_output("display_data", {"text/html": text, "text/plain": "live"})
