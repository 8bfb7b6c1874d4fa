"""The tables that chapter 06 stores: their commands make them, and a part is made again here."""

import ast

import pytest
import torch

from benchmarks import coding
from course_lib.classroom.files import SOLUTIONS
from course_lib.data.images import digits
from course_lib.deep_compression import Recipe
from course_lib.formats.even_coded import EvenCoded, step_for
from course_lib.formats.linear import Scheme
from course_lib.formats.model_file import pack_model, unpack_model
from course_lib.measure.size import size
from course_lib.measure.yardstick import tiny_quality
from course_lib.models.parts import matrices
from course_lib.quantization.calibration import mse_range
from course_lib.quantization.linear import Format


def stored(name: str) -> dict:
    """A table that stands in the lesson."""
    tree = ast.parse((SOLUTIONS / "06_codebooks.py").read_text("utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == name:
            return ast.literal_eval(node.value)
    raise KeyError(name)


@torch.no_grad()
def test_two_rows_of_tinylm_are_made_again(tiny):
    model, tokenizer = tiny
    weights = {name: weight.detach() for name, weight in matrices(model).items()}
    made = {
        "even levels, fixed length, row": dict.fromkeys(
            weights, Scheme(Format(3), "channel", mse_range)
        ),
        "even levels, Huffman, a step for each": {
            name: EvenCoded(step_for([weight], 3)) for name, weight in weights.items()
        },
    }
    for name, schemes in made.items():
        loss, count = stored("STORED_LOSS")[name][3]
        packed = pack_model(model, schemes)
        assert size(packed).bytes == pytest.approx(count, rel=1e-3)
        found = tiny_quality(unpack_model(packed, model), tokenizer).bits_per_byte
        assert found == pytest.approx(loss, abs=0.005)


def test_the_stored_forms_are_those_of_the_command():
    some = {"x": torch.randn(64, 64, generator=torch.Generator().manual_seed(0))}
    assert stored("STORED_LOSS").keys() <= coding.schemes_at(3, some).keys()


def test_a_seed_of_the_digits_is_made_again():
    runs = stored("STORED_DIGITS")
    assert [len(row) for row in runs.values()] == [5, 5] and Recipe().density in runs
    before, after, full, small = coding.digits_seed(digits(), Recipe(), 0)
    points, count = runs[Recipe().density][0]
    assert full == 202_872 and small == pytest.approx(count, rel=0.04)
    assert after - before == pytest.approx(points, abs=0.6)
