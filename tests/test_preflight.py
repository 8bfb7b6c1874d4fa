"""`course preflight`: named, mended where it can be, and no answer touched."""

import json

import nbformat
import pytest
from submitted import CHAPTER, NAMES, cell, code, grade_id_of, notebook, save

from course_lib.classroom.release import assignment
from course_lib.classroom.submissions.answers import find_answers
from course_lib.classroom.submissions.cells import parse_notebook
from course_lib.classroom.submissions.preflight import Finding, preflight
from course_lib.cli import main

SET = assignment("00")
FILE = f"{CHAPTER}.ipynb"
FIRST = "count_parameters"


def answers(path) -> dict[str, str]:
    return find_answers(SET, parse_notebook(path.read_bytes()))[0]


def texts(findings: list[Finding], mended: bool) -> list[str]:
    return [one.text for one in findings if one.mended is mended]


@pytest.fixture
def spoiled(tmp_path):
    """Writes a spoiled notebook, looks it through, makes sure that all is well then."""

    def run(spoil, left=()) -> list[str]:
        content = notebook()
        right = {name: "".join(cell(content, name)["source"]) for name in NAMES}
        content = spoil(content) or content
        path = save(content, tmp_path / FILE)
        before = path.read_bytes()
        found = preflight(path)
        assert texts(found, False) == list(left)
        (kept,) = tmp_path.glob("*.mine-*")
        assert kept.read_bytes() == before
        assert answers(path) == right, "not a letter of an answer was changed"
        nbformat.validate(nbformat.read(path, as_version=4))
        order = list(filter(None, map(grade_id_of, json.loads(path.read_text("utf-8"))["cells"])))
        expected = [name for one in NAMES for name in (one, f"check_{one}")]
        assert [name for name in order if name.removeprefix("check_") in NAMES] == expected
        assert sorted(order) == sorted(filter(None, map(grade_id_of, notebook()["cells"])))
        assert preflight(path) == [], "and a second look finds nothing"
        return texts(found, True)[:-1]

    return run


def test_a_notebook_in_order_is_left_alone(tmp_path):
    path = save(notebook(), tmp_path / FILE)
    before = path.stat().st_mtime_ns
    assert preflight(path) == []
    assert path.stat().st_mtime_ns == before and list(tmp_path.iterdir()) == [path]


def test_what_is_not_answered_yet_is_named(tmp_path):
    assert texts(preflight(save(notebook(False), tmp_path / FILE)), False) == [
        f"{name}: no answer yet" for name in NAMES
    ]


def split(content):
    first = cell(content, FIRST)
    lines = "".join(first["source"]).split("\n")
    second = json.loads(json.dumps(first)) | {"source": "\n".join(lines[2:])}
    first["source"] = "\n".join(lines[:2])
    content["cells"].insert(content["cells"].index(first) + 1, second)


def copied(content):
    first = cell(content, FIRST)
    first_text = json.loads(json.dumps(first))
    content["cells"].insert(0, first_text | {"source": "def f(:"})


def two_checks(content):
    content["cells"].append(json.loads(json.dumps(cell(content, f"check_{FIRST}"))) | {"id": "x"})


def moved_check(content):
    check = cell(content, f"check_{FIRST}")
    content["cells"].remove(check)
    content["cells"].insert(0, check)


def no_check(content):
    content["cells"].remove(cell(content, f"check_{FIRST}"))


def edited_check(content):
    cell(content, f"check_{FIRST}")["source"] = "print('passed')"


def more_points(content):
    cell(content, f"check_{FIRST}")["metadata"]["nbgrader"]["points"] = 100


def markdown_check(content):
    cell(content, f"check_{FIRST}")["cell_type"] = "markdown"


def lost_names(content):
    for one in content["cells"]:
        one["metadata"].pop("nbgrader", None)


def markdown(content):
    one = cell(content, FIRST)
    one["cell_type"] = "markdown"
    del one["outputs"], one["execution_count"]


def no_ids(content):
    content["cells"][0]["id"] = None
    del content["cells"][1]["id"]
    content["cells"][3]["id"] = content["cells"][2]["id"]


def other_metadata(content):
    cell(content, FIRST)["metadata"]["nbgrader"] |= {"solution": False, "grade": True, "points": 9}


SPOILED = {
    moved_check: [f"{FIRST}: its check stood before the answer; it is moved"],
    no_check: [f"{FIRST}: its check was gone; it is put back"],
    edited_check: [f"{FIRST}: its check was changed; it is restored"],
    more_points: [f"{FIRST}: its check was changed; it is restored"],
    markdown_check: [f"{FIRST}: its check was changed; it is restored"],
    markdown: [f"{FIRST}: its cell was no code; now it is"],
    other_metadata: [f"{FIRST}: its cell's metadata are set right"],
    two_checks: [f"{FIRST}: it had a second check; that is a plain cell now"],
    split: ["cells without an id of their own: 1", f"{FIRST}: 2 cells had its name; now one has"],
    copied: ["cells without an id of their own: 1", f"{FIRST}: 2 cells had its name; now one has"],
    no_ids: ["cells without an id of their own: 3"],
}


@pytest.mark.parametrize("spoil", SPOILED, ids=lambda spoil: spoil.__name__)
def test_what_is_wrong_is_named_and_mended(spoiled, spoil):
    assert spoiled(spoil) == SPOILED[spoil]


def test_lost_names_are_found_again(spoiled):
    mended = spoiled(lost_names)
    assert mended[:2] == [
        f"{FIRST}: its cell had lost its name; now it has it",
        f"{FIRST}: its check was gone; it is put back",
    ]


def test_a_question_in_two_cells_is_joined_and_one_that_is_gone_comes_back(tmp_path):
    content = notebook()
    questions = [c for c in content["cells"] if c["metadata"].get("nbgrader", {}).get("task") is
                 False and c["cell_type"] == "markdown"]  # fmt: skip
    first, second = questions
    half = json.loads(json.dumps(first)) | {"source": "The other half.", "id": "half"}
    first["source"] = "One half."
    content["cells"].insert(content["cells"].index(first) + 1, half)
    content["cells"].remove(second)
    path = save(content, tmp_path / FILE)
    assert texts(preflight(path), True)[:2] == [
        f"{grade_id_of(first)}: 2 cells had its name; they are joined",
        f"{grade_id_of(second)}: its cell was gone; the question stands at the end again",
    ]
    mended = json.loads(path.read_text("utf-8"))
    assert cell(mended, grade_id_of(first))["source"] == "One half.\n\nThe other half."
    assert cell(mended, grade_id_of(second))["source"] == second["source"]
    assert preflight(path) == []


def test_a_cell_that_is_gone_comes_back_empty(tmp_path):
    content = notebook()
    content["cells"].remove(cell(content, FIRST))
    path = save(content, tmp_path / FILE)
    found = preflight(path)
    assert f"{FIRST}: its cell was gone; an empty one is put back" in texts(found, True)
    assert texts(found, False) == [f"{FIRST}: no answer yet"]
    assert texts(preflight(path), False) == [f"{FIRST}: no answer yet"]


def test_two_answers_in_one_cell_are_named_and_no_empty_cell_hides_one(tmp_path):
    content = notebook()
    one, other = cell(content, FIRST), cell(content, "packed_bytes")
    one["source"] = "".join(one["source"]) + "\n\n" + "".join(other["source"])
    content["cells"].remove(other)
    path = save(content, tmp_path / FILE)
    found = preflight(path)
    assert f"packed_bytes: its answer stands in the cell of {FIRST}; give it its own" in texts(
        found, False
    )
    assert tuple(answers(path)) == NAMES and not list(tmp_path.glob("*.mine-*"))


def test_a_helper_outside_and_a_magic_are_named(tmp_path):
    content = notebook()
    cell(content, FIRST)["source"] = "%%time\ndef count_parameters(model):\n    return mine(model)"
    content["cells"].insert(0, code("def mine(model):\n    return 0"))
    assert texts(preflight(save(content, tmp_path / FILE)), False) == [
        f"{FIRST}: left out: %%time",
        f"{FIRST}: uses `mine`, which is defined outside the answer's cell; move it in",
    ]


@pytest.mark.parametrize("name", ["my homework.ipynb", f"{CHAPTER} (1).ipynb", "0.ipynb"])
def test_a_renamed_notebook_gets_a_copy_of_its_name(tmp_path, name):
    path = save(notebook(), tmp_path / name)
    before = path.read_bytes()
    assert texts(preflight(path), True) == [f"it should be called {FILE}; a copy is, now"]
    assert path.read_bytes() == before and answers(tmp_path / FILE) == answers(path)
    assert texts(preflight(path), False) == [
        f"it should be called {FILE}; a file of that name is here"
    ]
    assert {one.name for one in tmp_path.iterdir()} == {name, FILE}


@pytest.mark.parametrize("coding", ["utf-8-sig", "utf-16"])
def test_a_byte_order_mark_is_taken_away(tmp_path, coding):
    path = tmp_path / FILE
    path.write_text(json.dumps(notebook(), ensure_ascii=False), coding)
    assert texts(preflight(path), True)[0].startswith("it was saved with a byte order mark")
    assert tuple(answers(path)) == NAMES and preflight(path) == []


def test_an_old_notebook_is_made_new(tmp_path):
    old = nbformat.convert(nbformat.from_dict(notebook()), 3)
    path = tmp_path / FILE
    path.write_text(json.dumps(old), "utf-8")
    found = preflight(path)
    assert texts(found, True)[0] == "it was of nbformat 3; now it is of nbformat 4"
    assert tuple(answers(path)) == NAMES and preflight(path) == []


@pytest.mark.parametrize(
    "data", [b"", b"{", b"[]", b'{"nbformat": 3, "worksheets": 7}', b"\xff\xfe{"]
)
def test_what_cannot_be_mended_is_named_and_left_alone(tmp_path, data):
    path = tmp_path / FILE
    path.write_bytes(data)
    (found,) = preflight(path)
    assert found.text.startswith("no notebook that can be graded: ") and not found.mended
    assert path.read_bytes() == data and list(tmp_path.iterdir()) == [path]


def test_a_notebook_of_no_chapter_is_named(tmp_path):
    (found,) = preflight(save({"nbformat": 4, "cells": [code("1")]}, tmp_path / "x.ipynb"))
    assert "it holds no exercise of the course" in found.text


def test_the_command_is_0_only_if_nothing_is_left(tmp_path, capsys):
    spoiled = notebook()
    no_check(spoiled)
    good, bad = save(spoiled, tmp_path / FILE), save(notebook(False), tmp_path / "b" / FILE)
    assert main(["preflight", str(good)]) == 0
    assert "mended: count_parameters: its check was gone" in capsys.readouterr().out
    assert main(["preflight", str(good), str(bad)]) == 1
    out = capsys.readouterr().out
    assert f"{good}: all is well" in out and "look: bits_per_byte: no answer yet" in out
    assert main(["preflight", "nothing.ipynb"]) == 2
