"""The tables that chapter 04 stores: their commands make them, and a part is made again here."""

from functools import partial

import pytest
import torch
from stored_tables import stored_table

from benchmarks import structured
from course_lib.measure.yardstick import tiny_calibration, tiny_quality
from course_lib.models.layers import view_without_layers
from course_lib.pruning.decoder import shrink_mlps
from course_lib.pruning.depth import layers_off

stored = partial(stored_table, "04_structured_pruning")


@torch.no_grad()
def test_rows_of_the_scores_are_made_again(tiny):
    model, tokenizer = tiny
    text, table = tiny_calibration(tokenizer), stored("STORED_SCORES")
    masks = structured.unit_masks(model, text, 0.6)
    assert {(rule, keep) for rule in masks for keep in (0.8, 0.6, 0.4)} == table.keys()
    for rule in ("norm product", "one by one"):
        cut, refitted = table[rule, 0.6]
        found = tiny_quality(shrink_mlps(model, masks[rule]), tokenizer).bits_per_byte
        assert found == pytest.approx(cut, abs=0.004)
        found = tiny_quality(shrink_mlps(model, masks[rule], text), tokenizer).bits_per_byte
        assert found == pytest.approx(refitted, abs=0.004)


def test_healing_starts_from_what_is_stored_and_trains(tiny):
    table = structured.healing_table(steps=2, seeds=1, windows=16)
    before = {name: row[0] for name, row in stored("STORED_HEALING").items()}
    assert {name: row[0] for name, row in table.items()} == pytest.approx(before, abs=0.004)
    assert all(after < start for name, (start, after) in table.items() if "cut" in name)
    assert all(len(row) == 4 for row in stored("STORED_HEALING").values())


def test_files_of_2_of_4_weigh_what_is_stored():
    table, written = structured.n_of_m_table(windows=1), stored("STORED_N_OF_M")
    assert {n: row[0] for n, row in table.items()} == {n: row[0] for n, row in written.items()}
    for name in ("dense, float16", "dense, 4 bits", "dense, 3 bits", "2 of 4, float16"):
        assert table[name][1] == pytest.approx(written[name][1], abs=0.004)


def test_a_layer_alone_is_skipped_by_all_by_the_first_and_by_the_others(tiny, monkeypatch):
    model, tokenizer = tiny
    windows = tiny_calibration(tokenizer, 2)[:, :65]
    monkeypatch.setattr(structured, "smollm2", lambda: structured.tiny())
    monkeypatch.setattr(structured, "smollm2_calibration", lambda *_: windows)
    table = structured.alone_table()
    assert list(table) == [0, 1, 2, 3] and len(stored("STORED_ALONE")) == 30

    @torch.no_grad()
    def loss(some) -> float:
        logits = some(windows[:, :-1])[:, 8:].flatten(0, 1)
        return torch.nn.functional.cross_entropy(logits, windows[:, 9:].flatten()).item()

    for layer, (_, every, first, others) in table.items():
        rise = loss(view_without_layers(model, layers_off([layer], 4))) - loss(model)
        assert every == pytest.approx(rise, abs=0.05) and abs(first) < every and others > 0


def test_the_dropped_layers_begin_with_the_dense_model():
    table = stored("STORED_DROPPED")
    assert [len(row) for row in table.values()] == [structured.MOST + 1] * 3
    assert {row[0] for row in table.values()} == {23.70}
