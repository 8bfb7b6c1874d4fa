"""Files that are made to harm, or came to harm: rows 32 to 39 of the table of hostile submissions.

Each lies between two good ones, which must be read as if it were not there.
"""

import json
import os
import stat
import sys
import tracemalloc
import zipfile
from unittest.mock import patch

import pytest
from submitted import CHAPTER, NAMES, cell, code, notebook, save

from course_lib.classroom.release import assignment
from course_lib.classroom.submissions.submission import (
    MALFORMED,
    REJECTED,
    Submission,
    read_submissions,
)

SET = assignment("00")
FILE = f"{CHAPTER}.ipynb"
GOOD = json.dumps(notebook())


@pytest.fixture
def folder(tmp_path):
    """What came back, with a good submission before and one behind the hostile one."""
    inbox = tmp_path / "inbox"
    for name in ("a good one", "z good one"):
        save(notebook(), inbox / name / FILE)
    return inbox


def hostile(folder) -> Submission:
    """The submission between the good ones; nothing was written anywhere."""
    before = sorted(folder.parent.rglob("*"))
    first, found, last = read_submissions(folder, SET)
    assert tuple(first.answers) == tuple(last.answers) == NAMES
    assert first.status == last.status == "" and first.notes == last.notes == ()
    assert sorted(folder.parent.rglob("*")) == before
    return found


def zipped(folder, members: dict, **attributes):
    with zipfile.ZipFile(folder / "m.zip", "w", zipfile.ZIP_DEFLATED) as file:
        for name, data in members.items():
            info = zipfile.ZipInfo(name)
            for key, value in attributes.items() if name != FILE else ():
                setattr(info, key, value)
            file.writestr(info, data, zipfile.ZIP_DEFLATED)


def rejected(folder) -> str:
    found = hostile(folder)
    assert (found.status, found.answers) == (REJECTED, {})
    (why,) = found.notes
    return why


@pytest.mark.parametrize(
    "path", ["../evil.py", "/tmp/evil.py", "../a good one-2/evil.py", "x/../../m/../evil.py",
             "..\\evil.py", "C:\\evil.py"],
)  # fmt: skip
def test_hostile_32_a_path_that_leads_out_rejects_the_whole_zip(folder, path):
    zipped(folder, {FILE: GOOD, path: "print(1)"})
    assert "leads out" in rejected(folder)


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR, stat.S_IFBLK])
def test_hostile_33_a_zip_with_a_link_fifo_or_device_is_rejected(folder, kind):
    zipped(folder, {FILE: GOOD, "x": "/etc/passwd"}, external_attr=(kind | 0o777) << 16)
    assert rejected(folder).startswith("x is a")


@pytest.mark.skipif(os.name != "posix", reason="Windows makes no such files")
@pytest.mark.parametrize("kind", ["a link to a file", "a link to a folder", "a FIFO"])
@pytest.mark.parametrize("name", [FILE, "beside"])
def test_hostile_33_a_folder_with_a_link_or_fifo_is_rejected(folder, kind, name, tmp_path):
    save(notebook(), tmp_path / "outside" / FILE)
    if name != FILE:
        save(notebook(), folder / "m" / FILE)
    (folder / "m").mkdir(exist_ok=True)
    path = folder / "m" / name
    if kind == "a FIFO":
        os.mkfifo(path)
    else:
        path.symlink_to(tmp_path / "outside" / (FILE if "file" in kind else ""))
    assert rejected(folder).startswith(f"{name} is a")


@pytest.mark.skipif(os.name != "posix", reason="Windows makes no such files")
def test_hostile_33_a_student_that_is_a_link_is_rejected(folder, tmp_path):
    save(notebook(), tmp_path / "outside" / FILE)
    (folder / "m").symlink_to(tmp_path / "outside")
    assert "symbolic link" in rejected(folder)


def test_hostile_34_a_zip_bomb_is_not_unpacked(folder):
    zipped(folder, {FILE: bytes(300_000_000)})
    tracemalloc.start()
    why = rejected(folder)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert "would grow more than 200 times" in why and peak < 50_000_000


def test_hostile_34_a_bomb_of_many_small_ones_is_not_unpacked(folder):
    noise = os.urandom(1000) + bytes(150_000)  # below the ratio, each
    with zipfile.ZipFile(folder / "m.zip", "w", zipfile.ZIP_DEFLATED) as file:
        for number in range(900):
            file.writestr(f"{number}.bin", noise)
    with patch("course_lib.classroom.submissions.archive.MOST_BYTES", 100_000_000):
        assert "unpacked it takes more than 100 MB" in rejected(folder)


def test_hostile_34_a_hundred_thousand_files_are_not_listed(folder):
    with zipfile.ZipFile(folder / "m.zip", "w") as file:
        for number in range(100_000):
            file.writestr(f"{number}", b"")
    assert "its list of files is longer than 4 MB" in rejected(folder)


def test_hostile_34_two_thousand_files_are_too_many(folder):
    zipped(folder, {FILE: GOOD} | dict.fromkeys(map(str, range(2000)), b""))
    assert rejected(folder) == "it holds more than 1,000 files"


def test_hostile_34_a_zip_within_the_zip_is_not_opened(folder):
    zipped(folder, {FILE: GOOD})
    inner = (folder / "m.zip").read_bytes()
    zipped(folder, {"inner.zip": inner})
    found = hostile(folder)
    assert found.answers == {} and found.notes[0].endswith("there is: inner.zip")


def test_hostile_34_overlapping_members_unpack_nothing_twice(folder):
    """Many entries of the list that share one member's bytes."""
    zipped(folder, {FILE: GOOD})
    data = (folder / "m.zip").read_bytes()
    at, end = data.index(b"PK\1\2"), data.index(b"PK\5\6")
    entry, count = data[at:end], 500
    entries = [entry.replace(FILE.encode(), f"{n:0>{len(FILE)}}".encode()) for n in range(count)]
    sizes = (len(entry) * count).to_bytes(4, "little") + at.to_bytes(4, "little") + b"\0\0"
    total = count.to_bytes(2, "little")
    tail = b"PK\5\6\0\0\0\0" + total + total + sizes
    (folder / "m.zip").write_bytes(data[:at] + b"".join(entries) + tail)
    found = hostile(folder)
    assert found.answers == {}


def test_hostile_35_edited_points_and_locks_change_nothing(folder):
    edited = notebook()
    for one in edited["cells"]:
        if nbgrader := one["metadata"].get("nbgrader"):
            nbgrader |= {"points": 1000, "locked": False, "grade": True, "schema_version": "x"}
    save(edited, folder / "m" / FILE)
    assert hostile(folder).answers == hostile_free(folder).answers
    assert dict(SET.points) == dict.fromkeys(NAMES, 1), "what is set knows no submission"


def hostile_free(folder) -> Submission:
    return next(read_submissions(folder, SET))


@pytest.mark.parametrize("name", ["", "check_count_parameters", "packed_bytes", "x" * 10_000, None])
def test_hostile_35_an_edited_grade_id_is_found_by_its_function(folder, name):
    edited = notebook()
    cell(edited, "count_parameters")["metadata"]["nbgrader"]["grade_id"] = name
    save(edited, folder / "m" / FILE)
    found = hostile(folder)
    assert found.answers["count_parameters"] == hostile_free(folder).answers["count_parameters"]
    assert tuple(found.answers) == NAMES
    assert "count_parameters: found in another cell than its own" in found.notes


def test_hostile_35_swapped_grade_ids_are_found_by_their_functions(folder):
    edited = notebook()
    one, other = cell(edited, "count_parameters"), cell(edited, "packed_bytes")
    one["source"], other["source"] = other["source"], one["source"]
    save(edited, folder / "m" / FILE)
    assert hostile(folder).answers == hostile_free(folder).answers


def test_hostile_36_two_cells_of_one_grade_id_are_joined_and_told(folder):
    """JupyterLab's "Split Cell" in the middle of a function."""
    edited = notebook()
    first = cell(edited, "packed_bytes")
    lines = "".join(first["source"]).split("\n")
    second = json.loads(json.dumps(first)) | {"id": "second", "source": "\n".join(lines[7:])}
    first["source"] = "\n".join(lines[:7])
    edited["cells"].insert(edited["cells"].index(first) + 1, second)
    save(edited, folder / "m" / FILE)
    found = hostile(folder)
    assert found.answers == hostile_free(folder).answers
    assert found.notes == ("packed_bytes: 2 cells have its name; joined in their order",)


@pytest.mark.parametrize("how", ["missing", "markdown", "raw"])
def test_hostile_37_a_cell_that_is_gone_costs_its_exercise_only(folder, how):
    edited = notebook()
    one = cell(edited, "packed_bytes")
    if how == "missing":
        edited["cells"].remove(one)
    else:
        one["cell_type"] = how
    save(edited, folder / "m" / FILE)
    found = hostile(folder)
    assert list(found.answers) == ["count_parameters", "bits_per_byte"] and found.status == ""
    why = "there is no cell of that name" if how == "missing" else f"its cell is {how}, not code"
    assert found.notes == (f"packed_bytes: {why}",)


def test_hostile_37_without_its_check_an_answer_counts_all_the_same(folder):
    edited = notebook()
    edited["cells"].remove(cell(edited, "check_packed_bytes"))
    save(edited, folder / "m" / FILE)
    assert tuple(hostile(folder).answers) == NAMES


ID_NULL = notebook()
ID_NULL["cells"][3]["id"] = None
BROKEN = {
    "truncated": GOOD[:-500].encode(),
    "nbformat 3": b'{"nbformat": 3, "nbformat_minor": 0, "metadata": {}, "worksheets": []}',
    "id null": json.dumps(ID_NULL).encode(),
    "0 bytes": b"",
    "UTF-16": GOOD.encode("utf-16"),
    "byte order mark": GOOD.encode("utf-8-sig"),
    "deep nesting": b'{"nbformat": 4, "cells": ' + b"[" * 500_000 + b"]" * 500_000 + b"}",
    "gigantic": GOOD.encode() + b" " * 30_000_000,
    "cells as text": b'{"nbformat": 4, "cells": "none"}',
    "cells of numbers": b'{"nbformat": 4, "cells": [1, 2]}',
    "not a number": b'{"nbformat": NaN}',
}


@pytest.mark.parametrize("form", ["folder", "zip", "single"])
@pytest.mark.parametrize("data", BROKEN.values(), ids=BROKEN)
def test_hostile_38_what_is_no_notebook_is_malformed(folder, data, form):
    if form == "zip":
        zipped(folder, {FILE: data + b" " + os.urandom(0)})
    else:
        path = folder / "m" / FILE if form == "folder" else folder / "m.ipynb"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(data)
    found = hostile(folder)
    assert found.answers == {} and found.notes
    assert found.status in ((MALFORMED, REJECTED) if form == "zip" else (MALFORMED,))


def test_hostile_39_another_kernel_and_another_name_are_matched(folder):
    edited = notebook()
    edited["metadata"] = {"kernelspec": {"name": "ir", "language": "R", "display_name": "R"}}
    save(edited, folder / "m" / "my homework (final) v2.ipynb")
    found = hostile(folder)
    assert found.answers == hostile_free(folder).answers
    assert found.notes == ("read from my homework (final) v2.ipynb",)


def test_hostile_39_a_notebook_of_nothing_is_named(folder):
    save({"nbformat": 4, "cells": [code("x <- 1")]}, folder / "m" / "r.ipynb")
    found = hostile(folder)
    assert found.status == "MISSING" and "there is: r.ipynb" in found.notes[0]


# Beyond the table.


def test_hostile_code_is_never_run_by_reading_it(folder, tmp_path):
    edited = notebook()
    for one in edited["cells"]:
        if one["cell_type"] == "code":
            one["source"] = f"open({str(tmp_path / 'owned')!r}, 'w')\n" + "".join(one["source"])
    save(edited, folder / "m" / FILE)
    hostile(folder)
    assert not (tmp_path / "owned").exists()


def test_hostile_a_hundred_notebooks_are_not_all_read(folder):
    for number in range(100):
        save(notebook(False), folder / "m" / f"{number}.ipynb")
    with patch(
        "course_lib.classroom.submissions.submission.parse_notebook", return_value=[]
    ) as read:
        list(read_submissions(folder, SET))
    assert read.call_count == 20 + 2


def test_hostile_an_answer_that_no_parser_survives_costs_its_exercise_only(folder):
    edited = notebook()
    cell(edited, "packed_bytes")["source"] = "x = " + "-" * 90_000 + "1"
    save(edited, folder / "m" / FILE)
    found = hostile(folder)
    assert tuple(found.answers) == NAMES, "it is for the sandbox to say that it is no Python"


def test_hostile_names_in_many_alphabets_stay_apart(folder):
    names = ["m=cmd|' C calc'!A0", "m-Ω", "m\u202eipnyb", "m'\"<script>", "m\nnew line"]
    if sys.platform == "win32":
        names = names[1:2]
    for name in names:
        save(notebook(), folder / name / FILE)
    found = [one.student for one in read_submissions(folder, SET)]
    assert found == sorted(["a good one", "z good one", *names])
