import json

import pytest
from ipywidgets import Dropdown
from PIL import Image

from course_lib.plots import claims, explore, states
from course_lib.plots.figure import Picture, new_figure

CHOICES = {"bits": ([2, 4, 8], 4), "kind": (["a", "b"], "a")}


def draw(bits, kind):
    """A bar of that height; its colour does not depend on the kind, the words do."""
    figure, (axes,) = new_figure(height=2)
    axes.bar([0], [bits])
    return Picture(figure, f"A bar of {bits}, {kind} <&>.")


@pytest.fixture
def shown(monkeypatch):
    """Displays go nowhere, and count from 0."""
    monkeypatch.setattr(explore, "display", lambda *_, **__: None)
    monkeypatch.setattr(states, "_number", iter(range(9)))


def index_of(folder):
    return json.loads((folder / "index.json").read_text("utf-8"))


def test_nothing_is_recorded_unless_the_environment_names_a_folder(shown, monkeypatch):
    monkeypatch.delenv(states.FOLDER, raising=False)
    drawn = []
    explore.explore(lambda bits: drawn.append(bits), bits=([2, 4], 4))
    assert drawn == [4]


def test_every_state_is_drawn_once_and_equal_pictures_are_kept_once(shown, monkeypatch, tmp_path):
    monkeypatch.setenv(states.FOLDER, str(tmp_path))
    calls = []
    explore.explore(lambda **state: calls.append(state) or draw(**state), **CHOICES)
    explore.explore(draw, bits=([1], 1), kind=(["a"], "a"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0", "1"]
    assert calls[0] == {"bits": 4, "kind": "a"}, "what the notebook shows"
    assert calls[1:] == [{"bits": b, "kind": k} for b in (2, 4, 8) for k in "ab"]
    index = index_of(tmp_path / "0")
    assert [file for file, _ in index["states"]] == [f"{n}.png" for n in (0, 0, 1, 1, 2, 2)]
    assert index["states"][3][1] == "A bar of 4, b <&>."
    assert index["size"] == [800, 200]
    assert index["controls"] == [
        {
            "name": "bits",
            "kind": "range",
            "text": "slider: bits = 2, 4, 8",
            "labels": ["2", "4", "8"],
            "start": 1,
        },
        {
            "name": "kind",
            "kind": "range",
            "text": "slider: kind = a, b",
            "labels": ["a", "b"],
            "start": 0,
        },
    ]


def test_tables_are_kept_as_html(shown, monkeypatch, tmp_path):
    monkeypatch.setenv(states.FOLDER, str(tmp_path))
    rows = [{"document": "S0", "verdict": "wrong"}, {"document": "S1", "verdict": "holds"}]
    claims.explore_table(rows, document=["S0", "S1"], verdict=["holds", "wrong"])
    index = index_of(tmp_path / "0")
    assert [one["kind"] for one in index["controls"]] == ["select"] * 2
    assert index["controls"][0]["labels"] == ["all", "S0", "S1"]
    assert len(index["states"]) == 9 and index["size"] == []
    assert index["states"][0] == ["0.html", "Table of 2 rows: document, verdict"]
    tables = [(tmp_path / "0" / file).read_text("utf-8") for file, _ in index["states"]]
    assert ">S1<" in tables[0] and ">S1<" not in tables[3]
    assert len(list((tmp_path / "0").glob("*.html"))) == 4, "all, S0 wrong, S1 holds, none"


def test_a_picture_becomes_smaller_and_looks_the_same():
    png = draw(4, "a").png
    small = states.smaller(png)
    assert len(small) < 0.6 * len(png)
    pairs = [Image.open(states.BytesIO(one)).convert("RGB") for one in (png, small)]
    before, after = (list(image.tobytes()) for image in pairs)
    assert max(abs(a - b) for a, b in zip(before, after, strict=True)) < 32


def test_too_many_pictures_are_an_error(tmp_path):
    controls = {"n": Dropdown(options=[str(n) for n in range(61)])}
    with pytest.raises(ValueError, match="at most 60 .* got 61"):
        states.record(tmp_path, controls, {"n": "choose: n"}, lambda n: draw(int(n), "a"))
