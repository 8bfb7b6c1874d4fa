"""Which cells are an answer, and which statements it needs to run alone."""

import pytest
from hypothesis import given
from hypothesis import strategies as some

from course_lib.classroom.files import SOLUTIONS, lesson_sources
from course_lib.classroom.learner import untouched
from course_lib.classroom.release import Assignment, assignment
from course_lib.classroom.submissions.answers import (
    LONGEST,
    blocks,
    find_answers,
    is_blank,
    names,
    without_magics,
)
from course_lib.classroom.submissions.cells import Cell, parse_notebook

LESSONS = [path.stem for path in lesson_sources()]
GIVEN = (
    "import math",
    "import torch",
    "def half(x):\n    return x / TWO",
    "TWO = 2",
    "TWO = 3",
    "from course_lib.exercises import check, hint",
)
SET = Assignment("00_toy", {"f": 1, "g": 2}, GIVEN, ())
STUB = "def f(x):\n    'What it is.'\n    # YOUR CODE HERE\n    raise NotImplementedError()"
F = "def f(x):\n    return x"


def cells(*sources, kind="code"):
    """Cells from (grade_id, source) or source."""
    pairs = [one if isinstance(one, tuple) else ("", one) for one in sources]
    return [Cell(kind, source, {"grade_id": name} if name else {}) for name, source in pairs]


def solved(name: str) -> list[Cell]:
    return parse_notebook((SOLUTIONS / f"{name}.ipynb").read_bytes())


def answer(*sources) -> tuple[str, list[str]]:
    found, notes = find_answers(SET, cells(*sources, ("g", "def g(x):\n    return 1")))
    return found.get("f", ""), notes


@pytest.mark.parametrize("name", LESSONS)
def test_all_answers_are_found_in_the_solved_notebook_and_none_in_the_untouched(name):
    set_ = assignment(name)
    found, notes = find_answers(set_, solved(name))
    assert list(found) == list(set_.points) and notes == []
    fresh = untouched(SOLUTIONS / f"{name}.py").cells
    blank = [Cell(one.cell_type, one.source, one.metadata.get("nbgrader", {})) for one in fresh]
    assert find_answers(set_, blank) == ({}, [])


@pytest.mark.parametrize(
    "source",
    [
        "",
        "# nothing",
        STUB,
        "import math\n\n\n" + STUB,
        STUB.replace("NotImplementedError()", "NotImplementedError"),
        F + "\n\n" + STUB,
    ],
)
def test_an_untouched_cell_is_no_answer(source):
    assert answer(("f", source)) == ("", [])


@pytest.mark.parametrize(
    "source",
    [
        "def f(x):\n    pass",
        "def f(x):\n    'text'",
        "def f(x):\n    raise NotImplementedError('not for this dtype')",
        "def f(x):\n    y = x\n    raise NotImplementedError()",
        "def f(x:\n    return",
        STUB + "\n\n" + F,
        "f = lambda x: x",
        "f = torch.sum",
    ],
)
def test_what_somebody_wrote_is_an_answer(source):
    assert answer(("f", source)) == (source, [])


def test_a_cell_without_its_name_is_found_by_its_function():
    assert answer("x = 1", F) == (F, ["f: found in another cell than its own"])


def test_the_last_function_of_that_name_counts():
    assert answer(F, F + " + 1", STUB)[0] == F + " + 1"


def test_an_answer_beside_its_untouched_cell_is_found():
    assert answer(("f", STUB), F) == (F, ["f: found in another cell than its own"])


def test_the_named_cell_counts_before_another():
    assert answer(("f", F), F + " + 1") == (F, [])


def test_a_nested_function_or_a_method_of_that_name_is_none():
    found, notes = answer(
        "def other():\n    def f(x):\n        return x\nclass A:\n    def f(x): 1"
    )
    assert found == "" and notes == ["f: there is no cell of that name"]


def test_a_renamed_function_is_named():
    found, notes = answer(("f", "def f2(x):\n    return x"))
    assert found == "" and notes == ["f: its cell defines no function of that name"]


def test_an_answer_turned_to_markdown_is_named():
    found, notes = find_answers(SET, cells(("f", F), kind="markdown"))
    assert found == {} and notes[0] == "f: its cell is markdown, not code"


SPLIT = [
    # (cells of one name, the answer)
    (["import math", F], "import math\n" + F),
    (["def f(x):", "    return x"], F),
    ([F, F + " + 1"], F + "\n" + F + " + 1"),
    ([STUB, F], F),
    ([F, STUB], F),
    ([F, ""], F),
    ([F, "    return y\nx = ("], F),
    (["def f(x:", F], F),
]


@pytest.mark.parametrize("sources, whole", SPLIT)
def test_cells_of_one_name_are_joined_in_their_order(sources, whole):
    found, notes = answer(*(("f", source) for source in sources))
    assert found == whole
    assert len(notes) == 1 and notes[0].startswith("f: 2 cells have its name; ")


def test_an_untouched_cell_that_was_split_stays_untouched():
    head, tail = STUB.split("\n    # YOUR")
    assert answer(("f", head), ("f", "    # YOUR" + tail))[0] == ""


def test_two_answers_in_one_cell_count_both():
    both = F + "\n\ndef g(x):\n    return 2"
    found, _ = find_answers(SET, cells(("f", both)))
    assert found == {"f": both, "g": both}


@pytest.mark.parametrize(
    "source, cleaned, remarks",
    [
        ("%%time\n" + F, "\n" + F, 1),
        ("%matplotlib inline\n!pip install x\n" + F, "\n\n" + F, 2),
        ("def f(x):\n    %time x\n    return x", "def f(x):\n    pass\n    return x", 1),
        ("x = '''\n%time\n'''\n" + F, "x = '''\n%time\n'''\n" + F, 0),
        ("y = (5\n%x)\n" + F, "y = (5\n%x)\n" + F, 0),
    ],
)
def test_magics_are_left_out_and_named(source, cleaned, remarks):
    found, notes = answer(("f", source))
    assert found == cleaned and len(notes) == remarks
    assert all("left out: " in note for note in notes)
    assert without_magics(source)[0].count("\n") == source.count("\n")


def test_a_helper_in_a_cell_of_the_learners_own_is_named():
    uses = "def f(x):\n    return helper(half(x)) + math.pi + len(x) + nowhere"
    found, notes = answer(("f", uses), "import os\ndef helper(x):\n    return x")
    assert found == uses
    assert notes == ["f: uses `helper`, which is defined outside the answer's cell; move it in"]


def test_an_answer_that_is_too_long_is_not_read():
    found, notes = answer(("f", F + "\n" + "x = 1\n" * (LONGEST // 6)))
    assert found == "" and notes[0] == "f: its cell is longer than 100,000 characters; not read"


HARD_TO_PARSE = {
    "a deep attribute": "a" + ".b" * 45_000,
    "a deep sum": "x" + "+1" * 45_000,
    "deep negation": "-" * 99_000 + "1",
    "deep brackets": "(" * 99_000,
    "deep lists": "[" * 150 + "]" * 150,
    "deep lambdas": "lambda:" * 14_000 + "1",
    "a null byte": "f = 1\x00",
    "half a string": "'''",
    "a form feed": "\x0cdef f(x):\n  return x",
    "return outside": "return 1",
    "nonlocal": "nonlocal x",
    "other indents": "if x:\n\ty = 1\n        z = 2",
}


@pytest.mark.parametrize("source", HARD_TO_PARSE.values(), ids=HARD_TO_PARSE)
def test_no_source_stops_the_reader(source):
    found, notes = answer(("f", source))
    blocks(SET, {"f": source}, "f")
    assert isinstance(found, str) and isinstance(notes, list)


@given(some.text(max_size=60), some.text(max_size=60))
def test_no_text_stops_the_reader(one, other):
    found, _ = find_answers(SET, cells(("f", one), ("f", other), other))
    for exercise in found:
        blocks(SET, found, exercise)


def test_an_answer_gets_what_it_needs_and_nothing_else():
    answers = {"f": "def f(x):\n    return half(math.pi)", "g": "def g(x):\n    return f(x)"}
    needed = (GIVEN[0], GIVEN[2], GIVEN[3])
    assert blocks(SET, answers, "f") == (*needed, answers["f"])
    assert blocks(SET, answers, "g") == (*needed, answers["f"], answers["g"])
    assert blocks(SET, {}, "f") == ()


def test_another_answers_import_is_not_taken_from_it_where_the_lesson_has_it():
    answers = {"f": "import math\nwhile True: pass", "g": "def g(x):\n    return math.pi"}
    assert blocks(SET, answers, "g") == ("import math", answers["g"])


def test_a_helper_in_another_answers_cell_is_there():
    answers = {"f": F + "\ndef help_(x): return x", "g": "def g(x):\n    return help_(x)"}
    assert blocks(SET, answers, "g") == (answers["f"], answers["g"])


def test_answers_that_call_each_other_end():
    answers = {"f": "def f(x):\n    return g(x)", "g": "def g(x):\n    return f(x)"}
    assert blocks(SET, answers, "g") == tuple(answers.values())


def test_names_sees_what_is_bound_and_free_at_any_depth():
    found = names(
        "import a.b as c\nfrom d import e\n@deco\ndef f(x: T = v) -> R:\n    global made\n"
        "    made = 1\n    return [y for y in x if q(y)] + inner()\n"
        "class K(Base):\n    z = w\n(t := 1)\nfor i in range(3): pass"
    )
    assert found.bound == {"c", "e", "f", "made", "K", "t", "i"}
    assert found.free == {"deco", "T", "v", "R", "q", "inner", "Base", "w"}
    assert names("def f(:") is None and is_blank("f", "def f(:") is False


@pytest.mark.parametrize("name", LESSONS)
def test_each_model_answer_is_defined_by_its_blocks_alone(name):
    """In a namespace of its own, without a notebook."""
    set_ = assignment(name)
    found, _ = find_answers(set_, solved(name))
    for exercise in found:
        space = {"__name__": "answers"}
        for block in blocks(set_, found, exercise):
            exec(block, space)
        missing = names(found[exercise]).free - set(space)
        assert callable(space[exercise]) and not missing
