"""What exercises of chapter 12 say of files, beside the library that writes them."""

import math

import pytest
import torch
from on_accelerator import run_on_accelerator

from course_lib.exercises.capstone.counting import RECIPE_BYTES, recipe_bytes
from course_lib.exercises.capstone.fitting import meet_budget
from course_lib.exercises.capstone.front import PARETO_FRONT
from course_lib.exercises.capstone.reading import CHARACTER_ERROR_RATE
from course_lib.formats.linear import Format, Scheme
from course_lib.formats.model_file import pack_tensors
from course_lib.formats.sparse import Sparse
from course_lib.measure.edits import character_error_rate
from course_lib.measure.pareto import pareto_front
from course_lib.measure.size import size
from course_lib.models.parts import first_names


def written_bytes(shapes: dict, tied: dict, recipe: dict) -> int:
    """What `pack_tensors` makes of real tensors; tied ones are one tensor."""
    draw = torch.Generator().manual_seed(0)
    tensors = {name: torch.randn(shape, generator=draw) for name, shape in shapes.items()}
    tensors |= {name: tensors[first] for name, first in tied.items()}
    schemes = dict.fromkeys(tensors, torch.float16)
    for name in tensors:
        first, shape = tied.get(name, name), shapes[name]
        entries = [entry for text, entry in recipe.items() if text in first]
        if entries and len(shape) > 1:
            bits, group = entries[0]
            schemes[name] = Scheme(Format(bits), min(group, math.prod(shape[1:])))
    packed = pack_tensors(tensors, schemes)
    once = set(first_names(packed).values())
    return sum(packed[name].nbytes for name in once)


def whole_groups(shapes: dict, tied: dict, recipe: dict) -> bool:
    """The library's groups fill their row, or are the row."""
    inputs = [math.prod(shape[1:]) for shape in shapes.values() if len(shape) > 1]
    return all(i % min(group, i) == 0 for i in inputs for _, group in recipe.values())


@pytest.mark.parametrize("seed", range(3))
def test_a_recipe_takes_what_pack_tensors_writes(seed):
    cases = [case for case in RECIPE_BYTES.cases(seed) if whole_groups(**case.inputs)]
    assert len(cases) >= 12
    for case in cases:
        assert recipe_bytes(**case.inputs) == written_bytes(**case.inputs), case.label


def test_a_row_that_is_filled_up_takes_the_bytes_of_its_shorter_group_and_of_the_filling():
    """5 rows of 20 in groups of 8, beside rows of 24: 20 codes of 4 bits fewer, no group fewer."""
    ragged, filled = (recipe_bytes({"up": (5, inputs)}, {}, {"up": (4, 8)}) for inputs in (20, 24))
    assert filled == written_bytes({"up": (5, 24)}, {}, {"up": (4, 8)})
    assert filled - ragged == 4 * (15 - 13)  # ⌈120/8⌉ and ⌈100/8⌉ times eight codes of 4 bits


def test_no_number_more_would_fit_the_budget():
    """Every count of a small matrix, written: the answer's is one that fits, its next does not."""
    draw = torch.Generator().manual_seed(0)
    tensors = {"a": torch.randn(9, 12, generator=draw), "b": torch.randn(5, generator=draw)}
    places = tensors["a"].abs().flatten().argsort(descending=True).argsort().view(9, 12)
    sizes = []
    for count in range(109):
        kept = tensors["a"].where(places < count, 0).half()
        sizes.append(
            size(pack_tensors({"a": kept, "b": tensors["b"].half()}, {"a": Sparse()})).bytes
        )
    for budget in range(sizes[0], sizes[-1], 7):
        packed = meet_budget(tensors, budget)
        kept = size(packed).bytes
        count = next(k for k in range(109) if sizes[k] <= budget < sizes[k + 1])
        assert kept <= budget
        assert kept == sizes[count] or budget - kept <= 32


@pytest.mark.parametrize(
    ("exercise", "function"),
    [(PARETO_FRONT, pareto_front), (CHARACTER_ERROR_RATE, character_error_rate)],
    ids=["pareto_front", "character_error_rate"],
)
def test_the_library_gives_the_same(exercise, function):
    for case in exercise.cases(1):
        outcomes = []
        for one in (exercise.reference, function):
            try:
                outcomes.append(one(*case.inputs.values()))
            except ValueError:
                outcomes.append(None)
        assert outcomes[0] == pytest.approx(outcomes[1]), case.label


def test_references_make_tensors_where_their_inputs_are():
    run_on_accelerator(
        "from fake_accelerator import accelerator, failures\n"
        "from course_lib.exercises.engine.catalogue import by_chapter\n"
        "calls = [(e.name, e.reference, e.cases()) for e in by_chapter()['12_capstone']]\n"
        "with accelerator() as put:\n"
        "    found = [f'{n}: {f}' for n, r, c in calls for f in failures(r, c, put)]\n"
        "assert not found, found\n"
    )
