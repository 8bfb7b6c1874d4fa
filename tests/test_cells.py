"""Any file is a notebook of format 4 or a named reason why not; never another exception."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as some
from submitted import notebook

from course_lib.classroom.submissions.cells import LARGEST, MOST_CODE, Malformed, parse_notebook


def with_cells(*cells) -> bytes:
    return json.dumps({"nbformat": 4, "cells": cells}).encode()


CODE = {"cell_type": "code", "source": "1"}
BROKEN = {
    "0 bytes": (b"", "is empty"),
    "spaces": (b" \n", "is empty"),
    "truncated": (json.dumps(notebook()).encode()[:-1000], "not JSON"),
    "nbformat 3": (b'{"nbformat": 3, "worksheets": []}', "nbformat 4 is read; this says 3"),
    "nbformat true": (b'{"nbformat": true, "cells": []}', "nbformat 4"),
    "UTF-16": (json.dumps(notebook()).encode("utf-16"), "UTF-8"),
    "byte order mark": (b"\xef\xbb\xbf" + with_cells(), "BOM"),
    "binary": (bytes(range(256)), "UTF-8"),
    "deep lists": (b'{"nbformat": 4, "cells": ' + b"[" * 100_000, "nested too deeply"),
    "deep metadata": (
        b'{"nbformat": 4, "cells": [], "x": ' + b'{"a":' * 50_000 + b"1" + b"}" * 50_001,
        "nested too deeply",
    ),
    "a long number": (b'{"nbformat": ' + b"9" * 5000 + b"}", "not JSON"),
    "a list": (b"[]", "this is a list"),
    "null": (b"null", "this is a NoneType"),
    "no cells": (b'{"nbformat": 4}', "no list of cells"),
    "cells as a dictionary": (b'{"nbformat": 4, "cells": {}}', "no list of cells"),
    "a cell that is a number": (with_cells(7), "cell 1 is a int"),
    "a cell of no type": (with_cells(CODE, {"source": ""}), "cell 2 has no type"),
    "a type that is a list": (with_cells({"cell_type": [], "source": ""}), "no type"),
    "a source that is a number": (with_cells({**CODE, "source": 1}), "source of cell 1"),
    "a source of numbers": (with_cells({**CODE, "source": [1]}), "source of cell 1"),
    "no source": (with_cells({"cell_type": "code"}), "source of cell 1"),
    "id null": (with_cells({**CODE, "id": None}), "the id of cell 1"),
    "half a character": (with_cells({**CODE, "source": "\ud800"}), "half a character"),
    "gigantic": (b" " * LARGEST + b"{}", "larger than 20 MB"),
    "much code": (with_cells({**CODE, "source": "x" * (MOST_CODE + 1)}), "more than 1,000,000"),
}


@pytest.mark.parametrize("data, reason", BROKEN.values(), ids=BROKEN)
def test_what_is_no_notebook_is_named(data, reason):
    with pytest.raises(Malformed, match=reason):
        parse_notebook(data)


json_values = some.recursive(
    some.none() | some.booleans() | some.integers() | some.floats() | some.text(),
    lambda inner: some.lists(inner) | some.dictionaries(some.text(), inner),
    max_leaves=10,
)
KEYS = ("cell_type", "source", "metadata", "id", "outputs")
odd_cells = some.dictionaries(some.sampled_from(KEYS), json_values | some.just("code"))


@given(some.binary())
def test_no_bytes_raise_anything_else(data):
    with pytest.raises(Malformed):
        parse_notebook(data)


@given(some.lists(odd_cells | json_values))
def test_no_cells_raise_anything_else(cells):
    try:
        found = parse_notebook(json.dumps({"nbformat": 4, "cells": cells}).encode())
    except Malformed:
        return
    assert all(isinstance(cell.source + cell.grade_id, str) for cell in found)


def test_metadata_may_be_anything():
    for metadata in (None, 3, [], {"nbgrader": 3}, {"nbgrader": {"grade_id": []}}):
        (cell,) = parse_notebook(with_cells({**CODE, "metadata": metadata}))
        assert cell.grade_id == ""
