"""The tables that chapter 06 stores: their commands make them, and a part is made again here."""

from functools import partial

import pytest
import torch
from stored_tables import stored_table

from benchmarks import coding, coding_controls
from course_lib.data.images import digits
from course_lib.deep_compression import Recipe, teacher_loss
from course_lib.formats.even_coded import EvenCoded, step_for
from course_lib.formats.linear import Scheme
from course_lib.formats.model_file import pack_model, unpack_model
from course_lib.measure.size import size
from course_lib.measure.yardstick import tiny_quality
from course_lib.models.digits_mlp import DigitsMLP, train_digits
from course_lib.models.parts import matrices
from course_lib.quantization.calibration import mse_range
from course_lib.quantization.linear import Format

stored = partial(stored_table, "06_codebooks")


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


def test_the_last_layer_of_28_is_measured_again(tiny):
    kept = stored("STORED_LAYERS")
    found = coding_controls.of_matrix(tiny[0].blocks[3].mlp.down.weight.detach())
    assert found.keys() == kept.keys()
    for name, value in found.items():
        assert kept[name][0] - 0.03 < value < kept[name][3] + 0.03
    for name in ("8 levels, k-means over even ones", "Huffman over the best levels, 4 bits"):
        assert found[name] == pytest.approx(kept[name][3], abs=0.03)  # here it is the first of all


def test_levels_made_for_the_code_at_two_bits_are_made_again(tiny):
    x = tiny[0].blocks[3].mlp.down.weight.detach().flatten().double()
    assert coding_controls.clever_row(x, 2) == pytest.approx(stored("STORED_CLEVER")[2], abs=0.03)


def test_the_stored_pairs_of_losses_are_those_of_the_command():
    assert (*stored("STORED_TEXT"),) == coding_controls.PAIRS


def test_a_paired_difference_by_hand():
    one, other, weight = (torch.tensor(x) for x in ([3.0, 5.0], [2.0, 3.0], [1.0, 1.0]))
    assert coding_controls.paired(one, other, weight) == pytest.approx((1.5, 0.5))


def test_a_small_dense_network_is_trained_again():
    data = digits()
    torch.manual_seed(0)
    dense = DigitsMLP()
    train_digits(dense, data, seed=0)
    small, count = coding_controls.small_dense(101, 4, data, teacher_loss(dense), 0)
    points, kept = stored("STORED_CONTROLS")["64-101-10, 4 bits"][0]
    assert count == pytest.approx(kept, rel=0.02)
    found = coding.accuracy(small, data) - coding.accuracy(dense, data)
    assert found == pytest.approx(points, abs=0.8)
