"""Every state of a slider, drawn once and kept in files: the web book has no kernel.

Only where COURSE_STATES names a folder, as `make site` and the tests do; never at a learner's. The
n-th display of a notebook goes into the folder's folder n, counted from 0:

    index.json   {"controls": [{"name", "kind", "text", "labels", "start"}, …],
                  "states": [[file, alternative text], …], "size": [width, height]}
    0.png        a state's picture, or 0.html, its table; equal ones are there once

The states come in the order of `itertools.product`: the last control changes fastest.
"""

import json
import os
from collections.abc import Callable, Mapping
from io import BytesIO
from itertools import count, product
from math import prod
from pathlib import Path

from ipywidgets import Dropdown, ValueWidget
from PIL import Image

from course_lib.plots.figure import Picture

FOLDER = "COURSE_STATES"
MOST = 60  # pictures of one display
COLOURS = 128  # of a picture in the book; more cannot be told apart
_number = count()


def record_if_asked(
    controls: Mapping[str, ValueWidget], texts: Mapping[str, str], draw: Callable[..., object]
) -> None:
    """Record the next display of this notebook, if the environment names a folder."""
    if folder := os.environ.get(FOLDER):
        record(Path(folder) / str(next(_number)), controls, texts, draw)


def record(
    folder: Path,
    controls: Mapping[str, ValueWidget],
    texts: Mapping[str, str],
    draw: Callable[..., object],
) -> None:
    """Draw every state of the controls and write it into the folder, the index last.

    Args:
        folder: made if it is not there.
        controls: item of the state -> a widget with options.
        texts: item -> its plain line in the notebook.
        draw: makes the picture or the table of one state.

    Raises:
        ValueError: more than 60 states, and they are pictures.
    """
    folder.mkdir(parents=True, exist_ok=True)
    options = {name: _options(control) for name, control in controls.items()}
    files: dict[bytes, str] = {}
    states, size = [], []
    for values in product(*options.values()):
        drawn = draw(**{name: value for name, (_, value) in zip(options, values, strict=True)})
        ending, content, alt = _content(drawn)
        if ending == "png" and (number := prod(map(len, options.values()))) > MOST:
            raise ValueError(f"choices must make at most {MOST} states for the book; got {number}")
        if content not in files:
            files[content] = f"{len(files)}.{ending}"
            (folder / files[content]).write_bytes(content)
            size = list(Image.open(BytesIO(content)).size) if ending == "png" else []
        states.append([files[content], alt])
    described = [_described(controls[name], texts[name], options[name]) for name in controls]
    index = {"controls": described, "states": states, "size": size}
    (folder / "index.json").write_text(json.dumps(index), "utf-8")


def smaller(png: bytes) -> bytes:
    """A PNG with a palette: a third of the bytes, and no difference that an eye sees."""
    buffer = BytesIO()
    image = Image.open(BytesIO(png)).convert("RGB")
    image.quantize(COLOURS, dither=Image.Dither.NONE).save(buffer, "PNG", optimize=True)
    return min(png, buffer.getvalue(), key=len)


def _content(drawn: object) -> tuple[str, bytes, str]:
    """What a state is kept as: a file's ending, its bytes, the state in words."""
    if isinstance(drawn, Picture):
        return "png", smaller(drawn.png), drawn.alt
    return "html", drawn._repr_html_().encode(), repr(drawn)


def _options(control: ValueWidget) -> list[tuple[str, object]]:
    """(label, value) of everything that can be chosen."""
    pairs = [one if isinstance(one, tuple) else (one, one) for one in control.options]
    return [(str(label), value) for label, value in pairs]


def _described(control: ValueWidget, text: str, options: list[tuple[str, object]]) -> dict:
    return {
        "name": control.description,
        "kind": "select" if isinstance(control, Dropdown) else "range",
        "text": text,
        "labels": [label for label, _ in options],
        "start": [value for _, value in options].index(control.value),
    }
