"""The table of claims and the bars of verdicts."""

import pytest
from IPython.display import DisplayHandle

from course_lib.plots import claims, explore
from course_lib.plots.claims import Table, draw_verdicts, explore_table, select
from course_lib.plots.figure import new_figure

ROWS = [
    {"id": "C01", "document": "S0", "verdict": "wrong", "claim": "|w| < t & more"},
    {"id": "C02", "document": "S0, S1", "verdict": "holds", "claim": "none"},
    {"id": "C03", "document": "S10", "verdict": "wrong", "claim": "none"},
]


def ids(rows) -> list[str]:
    return [row["id"] for row in rows]


def test_select_takes_whole_values_of_a_list():
    assert ids(select(ROWS, {"document": "S1", "verdict": "all"})) == ["C02"]
    assert ids(select(ROWS, {"document": "S0", "verdict": "wrong"})) == ["C01"]
    assert select(ROWS, {}) == ROWS


def test_the_table_is_safe_html_with_a_row_for_each_claim():
    html = Table(ROWS)._repr_html_()
    assert html.count("<tr>") == 1 + len(ROWS)
    assert "|w| &lt; t &amp; more" in html and "3 claims" in html
    assert repr(Table([])) == "Table of 0 rows: no columns"


def test_choosing_filters_the_table_in_place(monkeypatch):
    shown, updates, dropdowns = [], [], []

    class Handle(DisplayHandle):
        def update(self, obj, **_):
            updates.append(ids(obj.rows))

    def display(value, display_id=None, **_):
        shown.append(value)
        return Handle() if display_id else None

    def dropdown(column, values, make=claims._dropdown):
        dropdowns.append(make(column, values))
        return dropdowns[-1]

    monkeypatch.setattr(explore, "display", display)
    monkeypatch.setattr(claims, "_dropdown", dropdown)
    explore_table(ROWS, document=("S0", "S1"), verdict=("holds", "wrong"))
    assert [bundle["text/plain"] for bundle in shown[:2]] == [
        "choose: document = all, S0, S1",
        "choose: verdict = all, holds, wrong",
    ]
    assert ids(shown[2].rows) == ["C01", "C02", "C03"]
    dropdowns[0].value = "S0"
    dropdowns[1].value = "holds"
    assert updates == [["C01", "C02"], ["C02"]]


def test_bars_carry_their_numbers_and_skip_zeros():
    figure, (axes,) = new_figure()
    draw_verdicts(axes, {"S0": {"holds": 1, "holds if": 0, "imprecise": 2, "wrong": 3}})
    assert [text.get_text() for text in axes.texts] == ["1", "2", "3"]
    assert sum(bar.get_width() for bar in axes.patches) == pytest.approx(6)
