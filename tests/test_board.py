"""The scoreboard, and the picture of it: nothing is lost, and nothing is obeyed."""

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_score import SCORE

from course_lib.challenge.board import append_score, byte_class, merge, ranked, table, write_board
from course_lib.challenge.picture import Front, FrontPoint, load_front, save_picture, stored_front
from course_lib.cli import main
from course_lib.plots.figure import new_figure
from course_lib.plots.front import draw_front

HOSTILE = ["\x1b[2J\x1b]0;owned\x07", "$\\frac{1}{", "_hidden", "<script>alert(1)</script>&",
           "a\nb | c", "\u202egnp", "=cmd|' C'!A0", "中文 😀", "%s {x} \\", "\ud800"]  # fmt: skip


def a_score(number: int, **changes) -> object:
    return replace(SCORE, sha256=f"{number:064x}", **changes)


# ------------------------------------------------------------------ append, merge


def test_what_is_appended_is_read_back(tmp_path):
    board = tmp_path / "board.jsonl"
    written = [a_score(n, name=name) for n, name in enumerate(HOSTILE)]
    for score in written:
        append_score(board, score)
    assert merge([board]) == (written, [])
    assert board.read_bytes().isascii() and len(board.read_bytes().splitlines()) == len(HOSTILE)


def test_two_at_once_lose_nothing(tmp_path):
    board = tmp_path / "board.jsonl"
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: append_score(board, a_score(n)), range(200)))
    found, refused = merge([board])
    assert len(found) == 200 and not refused


APPEND = """
import sys
from pathlib import Path
from course_lib.journal import append_line
for n in range(300):
    append_line(Path(sys.argv[1]), sys.argv[2] * 5000)
"""


def test_two_processes_at_once_spoil_no_line(tmp_path):
    command = [sys.executable, "-c", APPEND, str(tmp_path / "board")]
    both = [subprocess.Popen([*command, letter]) for letter in "ab"]
    assert [one.wait() for one in both] == [0, 0]
    lines = (tmp_path / "board").read_text().splitlines()
    assert sorted(lines) == ["a" * 5000] * 300 + ["b" * 5000] * 300


def test_a_line_that_was_cut_off_costs_no_other(tmp_path):
    board = tmp_path / "board.jsonl"
    append_score(board, a_score(1))
    board.write_bytes(board.read_bytes()[:-30])
    append_score(board, a_score(2))
    found, refused = merge([board])
    assert found == [a_score(2)] and len(refused) == 1 and "line 1:" in refused[0]


LINES = {
    "words": b"hello",
    "Latin-1": b"\xff\xfe",
    "a list": b"[]",
    "deep": b"[" * 100_000,
    "a field less": json.dumps({k: v for k, v in asdict(SCORE).items() if k != "name"}).encode(),
    "a loss of NaN": json.dumps(asdict(SCORE)).replace("1.2,", "NaN,").encode(),
    "a loss of 0": json.dumps(asdict(SCORE) | {"second": 0}).encode(),
    "two in a line": json.dumps(asdict(SCORE)).encode() * 2,
    "ANSI": b'{"\\u001b[2J": 1}',
}


@pytest.mark.parametrize("kind", LINES)
def test_what_is_no_score_is_left_out_with_its_line(kind, tmp_path):
    board = tmp_path / "board.jsonl"
    append_score(board, a_score(1))
    with open(board, "ab") as file:
        file.write(b"\n" + LINES[kind] + b"\r\n\n")
    append_score(board, a_score(2))
    found, (why,) = merge([board])
    assert found == [a_score(1), a_score(2)]
    assert why.startswith(f"{board}, line 3: ") and why.isprintable() and len(why) < 500


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 2), st.integers(0, 9))), st.randoms())
def test_merging_is_a_union_in_any_order(tmp_path_factory, keys, order):
    folder = tmp_path_factory.mktemp("boards")
    scores = [a_score(n, seed=seed, date=f"2026-01-0{1 + d % 9}T00:00:00+00:00")
              for n, seed, d in keys]  # fmt: skip
    write_board(folder / "all", scores)
    order.shuffle(scores)
    half = len(scores) // 2
    write_board(folder / "a", scores[:half])
    write_board(folder / "b", scores[half:])
    found, _ = merge([folder / "b", folder / "a", folder / "b"])
    assert found == merge([folder / "all"])[0]
    assert {(s.sha256, s.seed) for s in found} == {(s.sha256, s.seed) for s in scores}
    for one in found:
        same = [s.date for s in scores if (s.sha256, s.seed) == (one.sha256, one.seed)]
        assert one.date == min(same), "the first measurement counts"
    write_board(folder / "a", found)
    assert merge([folder / "a"])[0] == found
    assert {p.name for p in folder.iterdir()} == {"all", "a", "b"}


# ------------------------------------------------------------------ the table


def test_seeds_stand_apart_and_classes_of_bytes_are_ranked():
    scores = [
        a_score(1, name="small", bytes=400, share=0.10, second=1.50),
        a_score(2, name="better", bytes=900, share=0.24, second=1.30),
        a_score(3, name="worse", bytes=800, share=0.21, second=1.40),
        a_score(4, name="beaten", bytes=950, share=0.25, second=1.60),
        a_score(5, name="other", seed=8, second=1.10),
    ]
    text = table(scores[::-1])
    assert text.count("not to be compared with other seeds") == 2
    first, second = text.split("\n\n")
    names = [line.split()[1] for line in first.splitlines() if line[:4].strip().isdigit()]
    assert names == ["small", "better", "worse", "beaten"]
    marked = [line.split()[1] for line in text.splitlines() if line.endswith("✔")]
    assert marked == ["small", "better", "worse", "other"], "the other seed has its own front"
    assert "up to 12.5 %" in first and "up to 25 %" in first and "+4.0%" in first
    assert "other" in second


def test_equal_losses_share_a_place():
    scores = [a_score(1), a_score(2), a_score(3, second=1.5), a_score(4, second=1.1)]
    assert [rank for rank, _ in ranked(scores)] == [1, 2, 2, 4]


@pytest.mark.parametrize(
    ("share", "number"), [(1e-9, 0), (0.125, 0), (0.126, 1), (0.5, 2), (1.0, 3), (1.01, 4)]
)
def test_a_class_holds_its_upper_end(share, number):
    assert byte_class(share) == number


@pytest.mark.parametrize("name", HOSTILE)
def test_a_name_stays_in_its_cell(name):
    text = table([a_score(1, name=name)])
    assert len(text.splitlines()) == 4
    assert all(line.isprintable() for line in text.splitlines())


# ------------------------------------------------------------------ the picture

POINTS = [
    {"chapter": "05", "method": "4 bits", "bytes": 1_200_000, "bits_per_byte": 1.19},
    {"chapter": "06", "method": "3 bits", "bytes": 900_000, "bits_per_byte": 1.25},
    {"chapter": "03", "method": "half pruned", "bytes": 2_000_000, "bits_per_byte": 1.30},
]
STORED = {"measured": "2026-01-01", "machine": "two cores", "command": "make front"}


def a_front() -> Front:
    return Front(**STORED, points=tuple(FrontPoint(**point) for point in POINTS))


@pytest.mark.parametrize("ending", [".svg", ".png"])
def test_every_name_can_be_drawn(ending, tmp_path):
    scores = [a_score(n, name=name, bytes=10**6 + n) for n, name in enumerate(HOSTILE * 4)]
    path = tmp_path / f"board{ending}"
    save_picture(path, scores, a_front())
    data = path.read_bytes()
    assert data[:4] == (b"\x89PNG" if ending == ".png" else b"<?xm")
    if ending == ".svg":
        tags = {element.tag.rpartition("}")[2] for element in ElementTree.fromstring(data).iter()}
        assert not tags & {"script", "foreignObject", "a", "image"}


@pytest.mark.parametrize("front", [None, a_front()], ids=["alone", "on the front"])
def test_a_picture_of_one_file(front, tmp_path):
    save_picture(tmp_path / "x.PNG", [SCORE], front)
    assert (tmp_path / "x.PNG").stat().st_size > 1000


def test_what_cannot_be_drawn_is_told(tmp_path):
    with pytest.raises(ValueError, match=r"must end in .svg or .png; got x.exe"):
        save_picture(tmp_path / "x.exe", [SCORE])
    with pytest.raises(ValueError, match="both are empty"):
        save_picture(tmp_path / "x.png", [])


def test_the_front_is_a_line_through_what_nothing_beats():
    _, (axes,) = new_figure()
    draw_front(axes, [(p["method"], p["bytes"], p["bits_per_byte"]) for p in POINTS])
    line = next(line for line in axes.get_lines() if line.get_label() == "its front")
    assert line.get_xydata().tolist() == [[0.9, 1.25], [1.2, 1.19]]


def test_a_stored_front_is_read(tmp_path):
    (tmp_path / "front.json").write_text(json.dumps(STORED | {"points": POINTS}), "utf-8")
    assert load_front(tmp_path / "front.json") == a_front()


def test_the_course_s_own_front_is_one():
    front = stored_front()
    assert front is None or len(front.points) > 1


@pytest.mark.parametrize(
    "found",
    [[], {}, STORED, STORED | {"points": []}, STORED | {"points": [1]},
     STORED | {"points": POINTS, "more": 1}, STORED | {"points": POINTS, "command": ""},
     *(STORED | {"points": [POINTS[0] | change]}
       for change in ({"bytes": 0}, {"bytes": 1.5}, {"bits_per_byte": "1"}, {"bits_per_byte": -1.0},
                      {"chapter": 5}, {"x": 1}))],
)  # fmt: skip
def test_what_is_no_front_is_refused(found, tmp_path):
    (tmp_path / "front.json").write_text(json.dumps(found), "utf-8")
    with pytest.raises(ValueError, match="must"):
        load_front(tmp_path / "front.json")


# ------------------------------------------------------------------ the commands


def test_scores_of_two_boards_are_merged(tmp_path, capsys):
    one, other, merged = (tmp_path / name for name in ("one", "other", "merged"))
    for board, number in ((one, 1), (one, 2), (other, 2), (other, 3)):
        append_score(board, a_score(number, name=f"file {number}"))
    assert main(["scores", str(one), str(other), "--output", str(merged)]) == 0
    assert capsys.readouterr().out.count("file ") == 3
    assert merge([merged])[0] == [a_score(n, name=f"file {n}") for n in (1, 2, 3)]


def test_scores_says_what_it_left_out(tmp_path, capsys):
    (tmp_path / "board").write_bytes(b"hello\n")
    assert main(["scores", str(tmp_path / "board")]) == 1
    said = capsys.readouterr()
    assert said.out == "no scores yet\n" and "line 1" in said.err
    assert main(["scores", str(tmp_path / "none")]) == 2
    assert "none cannot be read" in capsys.readouterr().err


def test_score_adds_to_a_board_and_draws_it(tmp_path, capsys, monkeypatch):
    asked = []

    def found(path, seed, name):
        asked.append((path.name, seed, name))
        return SCORE

    monkeypatch.setattr("course_lib.challenge.score.score_file", found)
    monkeypatch.chdir(tmp_path)
    words = ["score", "mine.safetensors", "--seed", "7", "--picture", "mine.svg"]
    assert main(words) == 0
    assert asked == [("mine.safetensors", 7, "")]
    assert merge([tmp_path / "scoreboard.jsonl"])[0] == [SCORE]
    assert (tmp_path / "mine.svg").exists()
    said = capsys.readouterr().out
    assert "25.0% of TinyLM" in said and "added to scoreboard.jsonl" in said
    assert main(["score", "mine.safetensors", "--picture", "mine.gif"]) == 2
    assert len(asked) == 1, "a wrong ending is told before the file is measured"


@pytest.mark.parametrize("error", [ValueError("a bad file"), TimeoutError("too long")])
def test_score_says_in_a_line_what_is_wrong(error, tmp_path, capsys, monkeypatch):
    def found(path, seed, name):
        raise error

    monkeypatch.setattr("course_lib.challenge.score.score_file", found)
    monkeypatch.chdir(tmp_path)
    assert main(["score", "x"]) == 2
    assert capsys.readouterr().err == f"{error}\n" and not list(tmp_path.iterdir())
