"""The tables that chapter 10 stores: their commands make them, and a part is made again here."""

from functools import partial

import pytest
from stored_tables import stored_table

from benchmarks import decoding
from course_lib.acceleration.export.executorch import KINDS
from course_lib.acceleration.export.llama_cpp import has_llama_cpp
from course_lib.measure.yardstick import tiny_quality
from course_lib.models.pretrained import tiny as pretrained_tiny

NEEDS_LLAMA_CPP = pytest.mark.skipif(not has_llama_cpp(), reason="xllamacpp is not installed")


stored = partial(stored_table, "10_acceleration")


@pytest.fixture
def small(monkeypatch):
    """The tables of SmolLM2, made of TinyLM."""
    monkeypatch.setattr(decoding, "smollm2", pretrained_tiny)
    monkeypatch.setattr(decoding, "smollm2_quality", tiny_quality)


@NEEDS_LLAMA_CPP
def test_files_for_llama_cpp_weigh_and_err_as_stored():
    found, table = decoding.llama_cpp_table(count=2, repeats=1), stored("STORED_LLAMA_CPP")
    assert found.keys() == table.keys()
    for kind, (size, _, error) in found.items():
        assert size == table[kind][0]
        assert error == pytest.approx(table[kind][2], abs=0.1)


def test_forms_of_a_model_weigh_less_and_less(small):
    table = decoding.smollm2_table(repeats=1)
    assert table.keys() == stored("STORED_SMOLLM2").keys()
    for rows in (table, stored("STORED_SMOLLM2")):
        sizes = [row[0] for row in rows.values()]
        assert sizes == sorted(sizes, reverse=True) and all(len(row) == 5 for row in rows.values())


def test_a_long_cache_weighs_what_is_stored(small):
    table, written = (
        decoding.contexts_table(contexts=(64, 200), repeats=1),
        stored("STORED_CONTEXTS"),
    )
    assert set(table) == {(1, 64), (1, 200), (8, 64), (8, 200)}
    assert all(
        math_bytes(readers, seen) == round(row[0]) for (readers, seen), row in written.items()
    )


def test_passes_over_more_tokens_cost_more_where_codes_are_unpacked(small):
    table, written = decoding.passes_table(repeats=1), stored("STORED_PASSES")
    assert table.keys() == written.keys()
    assert all(len(row) == 4 for rows in (table, written) for row in rows.values())
    assert written["4-bit weights"] == tuple(sorted(written["4-bit weights"]))


def test_keys_have_stripes_and_values_have_not(small):
    table, written = decoding.stripes_table(), stored("STORED_STRIPES")
    assert table.keys() == written.keys()
    assert table["key"][0] > 2 * table["value"][0] and written["key"] > 2 * written["value"]


def math_bytes(readers: int, seen: int) -> int:
    """MB of SmolLM2's cache in float32: 30 layers, 3 heads of 64, keys and values."""
    return round(2 * 30 * 3 * 64 * 4 * readers * seen / 1e6)


def test_a_cache_of_few_bits_is_measured_both_ways(small):
    table, written = decoding.caches_table(bits=(2,)), stored("STORED_CACHES")
    assert set(table) <= set(written)
    for rows in (table, written):
        assert rows["float32"] < rows["2 bits, by channel"] < rows["2 bits, naive"]


def test_sinks_are_measured(small):
    table = decoding.sinks_table(limit=64, length=256)
    assert len(table) == 3 and min(table.values()) > 1
    all_tokens, latest, with_first = stored("STORED_SINKS").values()
    assert all_tokens < with_first < latest


def test_texts_by_look_up(small):
    table, written = decoding.look_up_table(count=8, repeats=1), stored("STORED_LOOK_UP")
    assert table.keys() == written.keys()
    assert all(
        0 <= row[0] <= 1 and row[1] >= 1 for rows in (table, written) for row in rows.values()
    )


def test_engines_and_what_was_compiled_are_named():
    assert tuple(stored("STORED_EXECUTORCH")) == KINDS
    assert list(stored("STORED_COMPILED")) == ["relu(2x + 1)", "TinyLM, 64 tokens"]
