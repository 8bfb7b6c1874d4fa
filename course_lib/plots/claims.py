"""Claims and their verdicts: bars that count them, and a table to filter."""

from collections.abc import Mapping, Sequence
from html import escape

from ipywidgets import Dropdown
from matplotlib.axes import Axes

from course_lib.plots.explore import show_controls
from course_lib.plots.figure import GREEN, ORANGE, RED, SKY

COLOURS = (GREEN, SKY, ORANGE, RED)
ALL = "all"


def draw_verdicts(axes: Axes, counts: Mapping[str, Mapping[str, int]]) -> None:
    """One bar a document, cut by verdict.

    Args:
        counts: document -> verdict -> number of claims, the verdicts from best to worst.
    """
    documents = list(counts)[::-1]  # the first on top
    left = dict.fromkeys(documents, 0)
    for verdict, colour in zip(next(iter(counts.values())), COLOURS, strict=True):
        numbers = [counts[document][verdict] for document in documents]
        axes.barh(documents, numbers, left=list(left.values()), color=colour, label=verdict)
        for row, (document, number) in enumerate(zip(documents, numbers, strict=True)):
            if number:
                axes.text(left[document] + number / 2, row, number, ha="center", va="center")
            left[document] += number
    axes.set_xlabel("claims")
    axes.grid(False)
    axes.figure.legend(loc="outside lower center", ncols=len(COLOURS), frameon=False)


class Table:
    """Rows as an HTML table in a box that scrolls, or, as plain text, how many they are.

    >>> Table([{"id": "C51", "verdict": "wrong"}])
    Table of 1 row: id, verdict
    """

    def __init__(self, rows: Sequence[Mapping[str, str]]):
        self.rows = rows

    def __repr__(self) -> str:
        columns = ", ".join(self.rows[0]) if self.rows else "no columns"
        return f"Table of {len(self.rows)} row{'s' * (len(self.rows) != 1)}: {columns}"

    def _repr_html_(self) -> str:
        head = "".join(f'<th style="text-align:left">{escape(name)}</th>' for name in self._columns)
        cells = "".join(
            "<tr>" + "".join(f"{_CELL}{escape(value)}</td>" for value in row.values()) + "</tr>"
            for row in self.rows
        )
        return (
            f"<p>{len(self.rows)} claims</p>"
            '<div style="max-height:26em;overflow:auto" tabindex="0" role="region" '
            f'aria-label="claims"><table><thead><tr>{head}</tr></thead>'
            f"<tbody>{cells}</tbody></table></div>"
        )

    @property
    def _columns(self) -> list[str]:
        return list(self.rows[0]) if self.rows else []


_CELL = '<td style="text-align:left;vertical-align:top">'


def explore_table(rows: Sequence[Mapping[str, str]], **filters: Sequence[str]) -> None:
    """Show rows, and a list of values to choose from for some columns.

    The whole table stands in a saved notebook, and wherever widgets do not run.

    Args:
        rows: column -> value, the same columns each. A value such as "S0, S1" is both.
        filters: column=(its values in order).
    """
    choices = {column: _dropdown(column, values) for column, values in filters.items()}
    texts = {
        column: f"choose: {column} = {', '.join(dropdown.options)}"
        for column, dropdown in choices.items()
    }
    show_controls(choices, texts, lambda **wanted: Table(select(rows, wanted)))


def select(rows: Sequence[Mapping[str, str]], wanted: Mapping[str, str]) -> list:
    """The rows that have every wanted value; `all` wants nothing.

    >>> select([{"document": "S0, S1"}, {"document": "S2"}], {"document": "S1"})
    [{'document': 'S0, S1'}]
    """
    return [
        row
        for row in rows
        if all(value in (ALL, *row[column].split(", ")) for column, value in wanted.items())
    ]


def _dropdown(column: str, values: Sequence[str]) -> Dropdown:
    return Dropdown(
        options=[ALL, *values], description=column, style={"description_width": "initial"}
    )
