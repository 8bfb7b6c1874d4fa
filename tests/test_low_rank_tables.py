"""The tables that chapter 09 stores: their commands make them, and a part is made again here."""

from functools import partial

import pytest
import torch
from stored_tables import stored_table

from benchmarks import adapters, smollm2_factors
from course_lib.low_rank.adapters import trainable
from course_lib.models import pretrained

stored = partial(stored_table, "09_low_rank")


def test_what_is_learned_starts_where_the_table_says():
    new, old = adapters.new_and_old(pretrained.tiny()[0], "wikipedia")
    assert (new, old) == pytest.approx(stored("STORED_CHANGE")[0], abs=0.004)


@pytest.mark.parametrize("method", ["linear layers", "LoRA 8", "QLoRA 8", "last matrix, norms"])
def test_who_learns_trains_as_many_numbers_as_the_table_says(method):
    learner = adapters.learner(method, seed=0)
    _, count, new, *_ = stored("STORED_LEARNED_WIKIPEDIA")[method]
    assert sum(parameter.numel() for parameter in trainable(learner).values()) == count
    assert new == pytest.approx(
        min(n for n, _ in stored("STORED_RATES_WIKIPEDIA")[method].values()), abs=0.03
    )


def test_a_few_steps_learn_the_new_text_and_forget_the_old():
    start = stored("STORED_CHANGE")[0]
    model = adapters.learner("LoRA 8", seed=0)
    adapters.fine_tune(model, "wikipedia", 1e-2, seed=0, steps=10)
    new, old = adapters.new_and_old(model, "wikipedia")
    assert new < start[0] - 0.3 and old > start[1] + 0.02


@pytest.mark.skipif(not pretrained.has_smollm2(), reason="SmolLM2 is not installed")
@torch.no_grad()
def test_the_values_alone_break_smollm2_and_one_direction_mends_them():
    from course_lib.measure.yardstick import smollm2_calibration, wikipedia_sample

    model, tokenizer = pretrained.smollm2()
    page = torch.tensor(tokenizer.encode(wikipedia_sample()).ids[:513])
    tokens = smollm2_calibration(tokenizer, 2)
    found = smollm2_factors.broken_table(model, page, tokens, kinds=("value",))
    table = stored("STORED_BROKEN")
    assert found["none"] == pytest.approx(table["none"], abs=0.2)
    cut, mended, _, first = found["value"]
    assert cut == pytest.approx(table["value"][0], rel=0.3)
    assert mended == pytest.approx(table["value"][1], abs=1)
    assert first == pytest.approx(table["value"][3], rel=0.3)
