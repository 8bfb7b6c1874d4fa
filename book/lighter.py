"""Less for a page of the book to load: pictures with a palette, and only icons that are shown."""

import re
from base64 import b64decode, b64encode
from pathlib import Path

from nbformat import NotebookNode

from course_lib.plots.states import smaller

INLINE = re.compile(r"(?<=data:image/png;base64,)[A-Za-z0-9+/=]+")
ICON_NAME = re.compile(r"\bfa-([\w-]+)")
# Of the theme's script: its name, its width and height, its other names, its letter, its paths.
ICON = re.compile(
    r'"?(?P<name>[\w-]+)"?:\[\d+,\d+,\[(?P<others>[^\]]*)\],"\w+",(?:"[^"]*"|\[[^\]]*\])\],?'
)


def lighten_pictures(notebook: NotebookNode) -> None:
    """In place: the pictures in the cells' outputs take about a third of the bytes."""
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            if "text/html" in data:
                data["text/html"] = INLINE.sub(_smaller, data["text/html"])


def _smaller(found: re.Match) -> str:
    return b64encode(smaller(b64decode(found[0]))).decode()


def keep_shown_icons(html: Path) -> None:
    """In place: the theme's script has 2,100 icons in 1.5 MB; those stay that a file names."""
    script = html / "_static" / "scripts" / "fontawesome.js"
    files = [one for kind in ("html", "js", "css") for one in html.rglob(f"*.{kind}")]
    mathjax = html / "_static" / "mathjax"
    shown = set()
    for file in files:
        if file != script and mathjax not in file.parents:
            shown.update(ICON_NAME.findall(file.read_text("utf-8")))

    def kept(icon: re.Match) -> str:
        names = {icon["name"], *re.findall(r'"([\w-]+)"', icon["others"])}
        return icon[0] if names & shown else ""

    script.write_text(ICON.sub(kept, script.read_text("utf-8")), "utf-8")
