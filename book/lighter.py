"""Less for a page of the book to load; its reader sees no difference."""

import re
from base64 import b64decode
from io import BytesIO
from itertools import count
from pathlib import Path

from nbformat import NotebookNode
from PIL import Image

from course_lib.plots.states import smaller

INLINE = re.compile(r'src="data:image/png;base64,([A-Za-z0-9+/=]+)"')
COLOURLESS = re.compile(r'<span class="[npw]">([^<]*)</span>')  # names, punctuation, white space
ICON_NAME = re.compile(r"\bfa-([\w-]+)")
# Of the theme's script: its name, its width and height, its other names, its letter, its paths.
ICON = re.compile(
    r'"?(?P<name>[\w-]+)"?:\[\d+,\d+,\[(?P<others>[^\]]*)\],"\w+",(?:"[^"]*"|\[[^\]]*\])\],?'
)


def file_pictures(notebook: NotebookNode, folder: Path, address: str) -> None:
    """In place: the pictures in the cells' outputs become small files, loaded when they are near.

    Args:
        folder: where they are written.
        address: of that folder, seen from the page.
    """
    numbers = count()

    def filed(found: re.Match) -> str:
        png, name = smaller(b64decode(found[1])), f"{next(numbers)}.png"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(png)
        width, height = Image.open(BytesIO(png)).size
        return f'loading="lazy" src="{address}/{name}" width="{width}" height="{height}"'

    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            if "text/html" in data:
                data["text/html"] = INLINE.sub(filed, data["text/html"])


def lighten_pages(html: Path) -> None:
    """In place: a book that Sphinx made.

    Of code, only what has a colour of its own is wrapped: a third of a page. The theme's script has
    2,100 icons in 1.5 MB; those stay that a page names.
    """
    shown: set[str] = set()
    for page in html.rglob("*.html"):
        text = page.read_text("utf-8")
        page.write_text(COLOURLESS.sub(r"\1", text), "utf-8")
        shown.update(ICON_NAME.findall(text))
    for script in (html / "_static" / "scripts").glob("*theme.js"):
        shown.update(ICON_NAME.findall(script.read_text("utf-8")))

    def kept(icon: re.Match) -> str:
        names = {icon["name"], *re.findall(r'"([\w-]+)"', icon["others"])}
        return icon[0] if names & shown else ""

    icons = html / "_static" / "scripts" / "fontawesome.js"
    icons.write_text(ICON.sub(kept, icons.read_text("utf-8")), "utf-8")
