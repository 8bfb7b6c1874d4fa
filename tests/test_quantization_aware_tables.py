"""The tables that chapter 07 stores: their commands make them, and a part is made again here."""

from functools import partial

import pytest
import torch
from stored_tables import stored_table

from benchmarks import quantization_aware as aware
from benchmarks import rounded_layers
from course_lib.formats.linear import nearest_codes
from course_lib.measure.yardstick import tiny_calibration, tiny_quality
from course_lib.models import pretrained
from course_lib.models.parts import linear_weights
from course_lib.quantization.aware import aware_model

stored = partial(stored_table, "07_quantization_aware")


@pytest.mark.parametrize("ours, theirs", [
    ("3 bits, learned step", "3 bits, learned step"),
    ("2 bits, learned step", "2 bits, learned step"),
    ("three values, the best", "ternary, best signs"),
    ("three values, absmean", "ternary, absmean"),
])  # fmt: skip
@torch.no_grad()
def test_the_file_of_a_model_that_was_not_trained(ours, theirs):
    model, tokenizer = pretrained.tiny()
    rate, bits, before, *_ = stored("STORED_AWARE")[ours]
    quantizer, its_rate = aware.QUANTIZERS[theirs]
    file, width, _ = aware.from_file(aware_model(model, quantizer), model)
    assert rate == its_rate and width == pytest.approx(bits, abs=0.002)
    assert tiny_quality(file, tokenizer).bits_per_byte == pytest.approx(before, abs=0.01)


def test_ten_steps_go_a_part_of_the_way_to_the_table():
    model, tokenizer = pretrained.tiny()
    _, _, before, after, _ = stored("STORED_AWARE")["2 bits, learned step"]
    quantizer, rate = aware.QUANTIZERS["2 bits, learned step"]
    batches = aware.drawn_batches(aware.text_tokens(), seed=0, steps=10)
    trained = aware.trained(aware_model(model, quantizer), batches, rate)
    with torch.no_grad():
        found = tiny_quality(trained, tokenizer).bits_per_byte
    assert before - 0.08 > found > after[0]


@torch.no_grad()
def test_what_a_layer_costs_alone():
    model, tokenizer = pretrained.tiny()
    windows, name = tiny_calibration(tokenizer, rounded_layers.TEXT), "blocks.0.attention.value"
    expected = stored("STORED_COSTS")[2]
    weight = linear_weights(model)[f"{name}.weight"].clone()
    dense = rounded_layers.window_losses(model, windows).mean()
    for bits, cost in zip((2, 3, 4), expected, strict=True):
        model.get_submodule(name).weight.copy_(
            nearest_codes(weight, rounded_layers.scheme(bits)).weight
        )
        found = 1000 * (rounded_layers.window_losses(model, windows).mean() - dense)
        assert found.item() == pytest.approx(cost, rel=0.05, abs=0.3)
