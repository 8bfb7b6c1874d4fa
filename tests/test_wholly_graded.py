"""Right answers through the whole grader: every solved notebook earns all its points, and so does a
right answer that is written as people write in notebooks."""

import json

import pytest
from in_process import NOTEBOOK, OUTPUT
from test_answers import RIGHT

from course_lib.classroom.files import SOLUTIONS, lesson_sources
from course_lib.classroom.grading.grade import grade
from course_lib.classroom.grading.sandbox import Sandbox, best_tier
from course_lib.classroom.release import assignment, withheld
from course_lib.classroom.submissions.submission import read_submissions
from course_lib.exercises.engine.catalogue import by_chapter
from course_lib.exercises.engine.judge import FAILED, PASSED

SEED = 4711
CHAPTERS = [path.stem for path in lesson_sources()]
FIVE = "05_linear_quantization"
BODY = "return (weight * 255).round().to(torch.uint8)"
F = f"def to_uint8(weight):\n    {BODY}"
IMPORTS = "import copy, math, re\nimport torch.nn.functional as F\nfrom torch import Tensor, nn\n"


@pytest.fixture(scope="module")
def run():
    """Chapter -> its assignment and the `run` of its sandbox."""
    open_ones = {}

    def of(chapter: str):
        if chapter not in open_ones:
            what = assignment(chapter)
            open_ones[chapter] = what, Sandbox(what.library, best_tier(), withheld(what))
        what, sandbox = open_ones[chapter]
        return what, sandbox.run

    yield of
    for _, sandbox in open_ones.values():
        sandbox.close()


def graded(run, chapter: str, notebook: bytes, path) -> dict:
    """Exercise -> its result."""
    what, call = run(chapter)
    (path / f"{chapter}.ipynb").write_bytes(notebook)
    (submission,) = read_submissions(path, what)
    return {one.exercise: one for one in grade(submission, what, SEED, call).results}


def notebook(*cells: tuple[str, str]) -> bytes:
    """A notebook of (grade_id, source)."""
    made = [
        {"cell_type": "code", "source": source, "metadata": {"nbgrader": {"grade_id": name}}}
        | OUTPUT
        for name, source in cells
    ]
    return json.dumps(NOTEBOOK | {"cells": made}).encode()


@pytest.mark.slow
@pytest.mark.parametrize("chapter", CHAPTERS)
def test_the_solved_notebook_earns_all_its_points(run, chapter, tmp_path):
    results = graded(run, chapter, (SOLUTIONS / f"{chapter}.ipynb").read_bytes(), tmp_path)
    lost = {name: one.words for name, one in results.items() if one.status != PASSED}
    assert lost == {} and [*results] == [one.name for one in by_chapter()[chapter]]


def of_this_file_alone(code: str) -> bool:
    """Whether an answer stands on no exercise and no method, which a graded one does not have."""
    return "course_lib.exercises" not in code and "cross_validation" not in code


LISTED = [b for b in RIGHT if of_this_file_alone(b.values[2])]


@pytest.mark.slow
@pytest.mark.parametrize("chapter", ["02_l0_objective", "03_pruning", FIVE])
def test_every_listed_right_answer_passes_as_a_submission(run, chapter, tmp_path):
    exercises = {one.name for one in by_chapter()[chapter]}
    blocks = [block.values[1:] for block in LISTED if block.values[1] in exercises]
    assert len(blocks) > 20
    for name, code in blocks:
        made = graded(run, chapter, notebook((name, IMPORTS + code)), tmp_path)[name]
        assert made.status == PASSED, (name, code, made.words)


LIKE_PEOPLE = {
    "a helper in the cell": [f"def h(x):\n    return x\n{F.replace('weight *', 'h(weight) *')}"],
    "imports and a bar": [
        "import numpy as np\nfrom tqdm.auto import tqdm\n"
        f"def to_uint8(weight):\n    for _ in tqdm(range(2)): pass\n    {BODY}"
    ],
    "annotations of later": [f"from __future__ import annotations\n{F.replace('t):', 't: X):')}"],
    "a lambda": ["to_uint8 = lambda weight: (weight * 255).round().to(torch.uint8)"],
    "a class": [f"class Q:\n    def __call__(self, weight):\n        {BODY}\nto_uint8 = Q()"],
    "decorators": [f"import functools\n@functools.lru_cache\n@torch.no_grad()\n{F}"],
    "its check and a hint": [f"hint('to_uint8')\n{F}\ncheck(to_uint8)"],
    "yours": [f"other = yours('quantize_linear')\n{F}"],
    "display": [f"display('hello')\ndef to_uint8(weight):\n    display(weight)\n    {BODY}"],
    "a magic": [f"%%time\n{F}\n%timeit to_uint8(torch.rand(3))"],
    "help": [f"torch.round?\n?torch.abs\nhere = !ls\n{F}"],
    "an indented cell": [f"    def to_uint8(weight):\n        {BODY}"],
    "a console's prompts": [f">>> def to_uint8(weight):\n...     {BODY}"],
    "lines of Windows": [f"%%time\n{F}".replace("\n", "\r\n")],
    "names in other letters": [f"größe = 255\n{F.replace('255', 'größe')}"],
    "an import in another cell": [F.replace("255", "np.uint8(255)"), "import numpy as np"],
    "a helper and a number in other cells": [
        F.replace("weight * 255", "far(weight)"), "K = 255", "def far(x):\n    return x * K"
    ],
    "a default dtype": [f"torch.set_default_dtype(torch.float64)\n{F}"],
    "warnings as errors": [f"import warnings\nwarnings.simplefilter('error')\n{F}"],
    "a test that fails below": [f"{F}\nassert to_uint8(torch.ones(1)) == 7"],
    "an answer above the stub's line": [f"{F}\n    raise NotImplementedError()"],
}  # fmt: skip


@pytest.mark.parametrize("cells", LIKE_PEOPLE.values(), ids=LIKE_PEOPLE)
def test_a_right_answer_passes_however_it_is_written(run, cells, tmp_path):
    first, *others = cells
    made = notebook(("to_uint8", first), *(("", other) for other in others))
    result = graded(run, FIVE, made, tmp_path)["to_uint8"]
    assert result.status == PASSED, result.words


NEGATIVE_SQUARES = """
def better_than_minmax(weight):
    codes, scales = torch.zeros_like(weight), torch.zeros(len(weight), 1, dtype=torch.complex64)
    codes[:2, 0] = 1
    scales[0], scales[1] = 1000j * weight[1, 0], -1000j * weight[0, 0]
    return codes, scales
"""


def test_an_error_whose_square_is_negative_earns_nothing(run, tmp_path):
    made = graded(run, FIVE, notebook(("better_than_minmax", NEGATIVE_SQUARES)), tmp_path)
    result = made["better_than_minmax"]
    assert (result.status, result.points) == (FAILED, 0) and "every number is real" in result.words
