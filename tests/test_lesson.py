"""A lesson's source: what is refused, and with which line; and what makes a rebuild the same."""

import re

import pytest
from toy_lesson import SOURCE, write_lesson

from course_lib.classroom.files import find_notebook, find_source
from course_lib.classroom.lesson import LessonError, grade_id, read_lesson, read_lessons
from course_lib.classroom.student import student_notebook

BEGIN, END = "    ### BEGIN SOLUTION\n", "    ### END SOLUTION\n"
ANSWER, CHECK = '# %% exercise="bits_per_byte"\n', '# %% check="bits_per_byte" points=3\n'


def line_of(text: str) -> int:
    return SOURCE[: SOURCE.index(text)].count("\n") + 1


CHECK_1 = '# %% check="count_parameters"'
BEGIN_2 = BEGIN + "    return losses"
FIRST, SECOND = line_of(BEGIN), line_of(BEGIN_2)


@pytest.mark.parametrize(
    ("old", "new", "line", "message"),
    [
        (END, "", FIRST, "BEGIN SOLUTION without END SOLUTION"),
        (BEGIN, "", FIRST + 1, "END SOLUTION without BEGIN SOLUTION"),
        (BEGIN, 2 * BEGIN, FIRST + 1, f"BEGIN SOLUTION within the one of line {FIRST}"),
        (ANSWER, "# %%\n", SECOND, 'BEGIN SOLUTION in a cell without exercise="..."'),
        (ANSWER, "# %% exercize=1\n", line_of(ANSWER), "unknown cell option exercize"),
        (ANSWER, '# %% exercise="bit_per_byte"\n', line_of(ANSWER), "did you mean bits_per_byte"),
        ("def bits_per_byte", "def bits", line_of(ANSWER), "defines no function of that name"),
        ("def bits_per_byte", "def", line_of("def bits_per_byte"), "is not Python"),
        (
            BEGIN_2,
            "    return losses",
            line_of(ANSWER),
            "exercise bits_per_byte has no BEGIN SOLUTION",
        ),
        (CHECK, "# %%\n", line_of(ANSWER), "exercise bits_per_byte has no check"),
        (ANSWER, "# %%\n", line_of(CHECK), "a check without an exercise bits_per_byte above it"),
        (" points=3", "", line_of(CHECK), "needs points=1 or more"),
        ("check(bits_per_byte)", "check(1)", line_of(CHECK), "does not call check(bits_per_byte)"),
        (ANSWER, ANSWER[:-1] + ' tags=["collapsed"]\n', line_of(ANSWER), "can be collapsed"),
        (CHECK, CHECK[:-1] + ' tags=["collapsed"]\n', line_of(CHECK), "can be collapsed"),
        ("# %% [markdown]", '# %% [markdown] tags=["collapsed"]', 1, "can be collapsed"),
        ("import check, hint", "import check", line_of(CHECK_1), "import check, hint`, on one"),
        ("import check, hint", "import yours", line_of(CHECK_1), "a lesson with checks needs"),
        ("import check, hint", "import check, hint as h", line_of(CHECK_1), "a lesson with checks"),
        ("# %% [markdown]", "import torch\n# %% [markdown]", 1, "text before the first `# %%`"),
    ],
)
def test_a_malformed_lesson_is_refused_with_its_line(tmp_path, old, new, line, message):
    assert old in SOURCE
    path = write_lesson(tmp_path, SOURCE.replace(old, new, 1))
    with pytest.raises(LessonError) as caught:
        read_lesson(path)
    problems = str(caught.value).split("\n")
    place = f"solutions/00_toy.py:{line}: "
    assert any(p.startswith(place) and message in p for p in problems), problems


def test_all_problems_are_told_at_once(tmp_path):
    path = write_lesson(tmp_path, SOURCE.replace(END, "").replace(" points=3", ""))
    with pytest.raises(LessonError) as caught:
        read_lesson(path)
    assert len(str(caught.value).split("\n")) == 3


def test_an_exercise_has_one_place_in_the_course(tmp_path):
    write_lesson(tmp_path)
    write_lesson(tmp_path, "# %%\nx = 1\n" + SOURCE, "01_again")
    line = line_of('# %% exercise="count_parameters"')
    message = f"solutions/01_again.py:{line + 2}: count_parameters .*solutions/00_toy.py:{line} "
    with pytest.raises(LessonError, match=message):
        read_lessons(tmp_path / "solutions")


def test_an_exercise_stands_once_in_a_lesson(tmp_path):
    first = SOURCE[SOURCE.index('# %% exercise="count') : SOURCE.index('# %% exercise="bits')]
    write_lesson(tmp_path, SOURCE + "\n" + first)
    with pytest.raises(LessonError, match="count_parameters stands at"):
        read_lessons(tmp_path / "solutions")


def test_metadata_is_nbgraders_and_nothing_else(tmp_path):
    source = SOURCE.replace("# %%\nprint", '# %% tags=["nbval-ignore-output"]\nprint', 1)
    notebook = read_lesson(write_lesson(tmp_path, source)).notebook
    cells = {grade_id(cell): cell for cell in notebook.cells}
    common = {"schema_version": 3, "task": False}
    assert cells["bits_per_byte"].metadata.nbgrader == common | {
        "grade_id": "bits_per_byte", "solution": True, "grade": False, "locked": False,
    }  # fmt: skip
    assert cells["check_bits_per_byte"].metadata.nbgrader == common | {
        "grade_id": "check_bits_per_byte", "solution": False, "grade": True, "locked": True,
        "points": 3,
    }  # fmt: skip
    assert [cell.metadata for cell in notebook.cells if not grade_id(cell) and cell.metadata] == [
        {"tags": ["nbval-ignore-output"]}
    ]
    assert set(notebook.metadata) == {"kernelspec", "language_info"}


def test_a_slides_tag_changes_no_notebook(tmp_path):
    tagged = SOURCE.replace("# %%\nprint", "# %% slide=True\nprint", 1)
    assert tagged != SOURCE
    before, after = (read_lesson(write_lesson(tmp_path, text)) for text in (SOURCE, tagged))
    assert after.notebook == before.notebook


def test_a_collapsed_cell_opens_folded_in_both_notebooks(tmp_path):
    source = SOURCE.replace("# %%\nprint", '# %% tags=["collapsed", "x"]\nprint', 1)
    lesson = read_lesson(write_lesson(tmp_path, source))
    for notebook in (lesson.notebook, student_notebook(lesson)):
        folded = [c for c in notebook.cells if c.metadata.get("jupyter")]
        assert [c.source for c in folded] == ['print("two lines\\nof text")']
        assert folded[0].metadata == {
            "tags": ["collapsed", "x"], "jupyter": {"source_hidden": True},
        }  # fmt: skip


def test_ids_come_from_the_cells_own_source(tmp_path):
    ids = [cell.id for cell in read_lesson(write_lesson(tmp_path)).notebook.cells]
    assert ids == [cell.id for cell in read_lesson(write_lesson(tmp_path)).notebook.cells]
    assert len(set(ids)) == len(ids)
    assert {"count_parameters", "check_count_parameters"} < set(ids)
    edited = SOURCE.replace("A toy lesson", "A longer toy lesson")
    others = [cell.id for cell in read_lesson(write_lesson(tmp_path, edited)).notebook.cells]
    assert others[0] != ids[0] and others[1:] == ids[1:]


@pytest.mark.parametrize(
    "name", ["3", "03", "03_pruning", "solutions/03_pruning.py", "03_pruning.ipynb"]
)
def test_a_lesson_is_found_by_number_name_or_file(tmp_path, name):
    for lesson in ("00_start_here", "03_pruning", "13_reading_sources"):
        write_lesson(tmp_path, name=lesson)
    notebooks, folder = tmp_path / "notebooks", tmp_path / "solutions"
    assert find_source(name, folder).name == "03_pruning.py"
    with pytest.raises(LookupError, match="03_pruning.ipynb is missing; `course reset"):
        find_notebook(name, notebooks, folder)
    (notebooks / "03_pruning.ipynb").touch()
    assert find_notebook(name, notebooks, folder).name == "03_pruning.ipynb"


def test_an_unknown_lesson_is_told_those_there_are(tmp_path):
    write_lesson(tmp_path)
    with pytest.raises(LookupError, match="there is no lesson 07; there are: 00_toy"):
        find_source("07", tmp_path / "solutions")


QUESTION = """
# %% [markdown] question="why" points=2
# **Question.** Why bits per byte?
#
# <!-- BEGIN SOLUTION -->
# Tokenizers differ.
# <!-- END SOLUTION -->
"""


def test_a_question_is_graded_by_hand_and_its_good_answer_taken_out(tmp_path):
    lesson = read_lesson(write_lesson(tmp_path, SOURCE + QUESTION))
    solved, untouched = lesson.notebook.cells[-1], student_notebook(lesson).cells[-1]
    assert solved.metadata["nbgrader"]["grade"] and solved.metadata["nbgrader"]["solution"]
    assert (grade_id(solved), solved.metadata["nbgrader"]["points"]) == ("why", 2)
    assert "Tokenizers" in solved.source and "Tokenizers" not in untouched.source
    assert untouched.source.endswith("Why bits per byte?\n\nYOUR ANSWER HERE")


@pytest.mark.parametrize(
    "old, new, message",
    [
        (" points=2", "", "question why needs points=1 or more"),
        ("[markdown] ", "", "question why is no [markdown] cell"),
        ("<!-- BEGIN SOLUTION -->", "", "question why has no <!-- BEGIN SOLUTION -->"),
        ('question="why" ', "", "BEGIN SOLUTION in a cell without"),
    ],
)
def test_what_is_wrong_with_a_question_is_said(tmp_path, old, new, message):
    with pytest.raises(LessonError, match=re.escape(message)):
        read_lesson(write_lesson(tmp_path, SOURCE + QUESTION.replace(old, new)))
