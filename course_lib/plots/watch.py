"""A progress bar for long work that leaves nothing behind in a saved notebook."""

from collections.abc import Iterable, Iterator
from typing import TypeVar

from IPython.display import display
from tqdm import tqdm

T = TypeVar("T")


def watch(items: Iterable[T], what: str) -> Iterator[T]:
    """Go through `items` while a bar shows how many are done; in the end the bar is gone.

    An error or an interrupt in the loop removes the bar as well.
    """
    line = _Line()
    try:
        yield from tqdm(items, desc=what, file=line, leave=False, ncols=72, mininterval=0.3)
    finally:
        line.show("")


class _Line:
    """A file for tqdm: the last thing written is one line of the cell's output."""

    def __init__(self) -> None:
        self._shown = display({"text/plain": ""}, raw=True, display_id=True)

    def show(self, text: str) -> None:
        if self._shown:  # None outside IPython
            self._shown.update({"text/plain": text}, raw=True)

    def write(self, text: str) -> None:
        if text.strip():
            self.show(text.strip())

    def flush(self) -> None:
        pass
