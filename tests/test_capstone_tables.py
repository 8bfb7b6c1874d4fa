"""What chapter 12 stores: one command each makes it, and a part is made again here."""

import importlib.util
from functools import partial

import pytest
import torch
from stored_tables import stored_table

from benchmarks import front as fronts
from benchmarks import orders, other_models, sentences, speech, vision
from course_lib.challenge.picture import load_front
from course_lib.data.paragraphs import paragraph_halves
from course_lib.measure.retrieval import agreement
from course_lib.measure.size import size
from course_lib.measure.yardstick import tiny_quality
from course_lib.models.line_reader import has_line_reader, line_reader
from course_lib.models.minilm import has_minilm
from course_lib.models.onnx_weights import float_tensors, weight_kinds
from course_lib.models.voice_activity import has_voice_activity, lean, voice_activity
from course_lib.pipeline.run import run
from course_lib.pipeline.state import packed
from course_lib.pipeline.steps import tiny_given

stored = partial(stored_table, "12_capstone")
NAMES = {  # of the lesson -> of the benchmarks
    "k-means, 16 levels": "4-bit codebook",
    "low rank, 3/4 of the numbers": "75 % of the numbers, low rank",
}


@pytest.fixture(scope="module")
def given():
    return tiny_given()


@pytest.fixture(scope="module")
def front():
    return {(p.chapter, p.method): p for p in load_front().points}


def test_the_front_has_all_methods_and_no_other(given, front, tmp_path):
    assert front.keys() == fronts.makers(given, tmp_path).keys()
    assert len({key[0] for key in front}) >= 9


@pytest.mark.parametrize(
    "key",
    [
        ("00", "float16"),
        ("04", "4/5 of the units, refitted"),
        ("05", "3 bits, groups of 64"),
        ("06", "even levels, coded, 3 bits"),
        ("11", "half of the weights, SparseGPT"),
        ("11", "2 of 4, SparseGPT, 4 bits"),
    ],
    ids=" ".join,
)
def test_points_of_the_front(key, given, front, tmp_path):
    """Sums in another order choose another code now and then: that much is allowed."""
    count, loss = fronts.point(fronts.makers(given, tmp_path)[key], given)
    assert count == pytest.approx(front[key].bytes, rel=0.005)
    assert loss == pytest.approx(front[key].bits_per_byte, abs=0.01)


@pytest.mark.parametrize("name", ["prune, quantize", "quantize, prune", "quantize"])
def test_orders_without_training(name, given):
    count, *losses = stored("STORED_ORDERS")[name]
    state = run((orders.EMBEDDING, *orders.ORDERS[name]), given)
    assert size(packed(state)).bytes == pytest.approx(count, rel=0.005)
    found = tiny_quality(state.model, given.tokenizer).bits_per_byte
    assert losses == [pytest.approx(found, abs=0.01)] * 3


def test_the_orders_and_the_pasts_are_those_of_the_command():
    assert stored("STORED_ORDERS").keys() == orders.ORDERS.keys()
    assert stored("STORED_PASTS").keys() == orders.PASTS.keys()
    assert stored("STORED_BEST").keys() == orders.BEST.keys()


def test_a_pruned_model_before_it_is_healed(given):
    count, *losses = stored("STORED_PASTS")["pruned"]
    state = run(orders.PASTS["pruned"], given)
    assert size(packed(state)).bytes == count
    found = tiny_quality(state.model, given.tokenizer).bits_per_byte
    assert losses == [pytest.approx(found, abs=0.01)] * 3


@pytest.mark.skipif(
    not has_line_reader() or importlib.util.find_spec("onnx") is None, reason="a package is missing"
)
@pytest.mark.parametrize("name", ["8 bits, channel", "4 bits, tensor"])
def test_files_of_the_network_that_reads(name):
    reader = line_reader()
    file = other_models.BITS[name](
        float_tensors(reader.graph), list(weight_kinds(reader.graph)), {}
    )
    assert file.bytes == stored("STORED_READING")[name][0]
    assert len(vision.SEEDS) == 3


@pytest.mark.skipif(not has_minilm(), reason="the package is missing")
def test_the_network_that_compares():
    find = sentences.Retrieval()
    for name in ("8 bits, channel", "20 % pruned, each layer"):
        way = {**other_models.BITS, **other_models.OTHERS}[NAMES.get(name, name)]
        file = way(find.tensors, find.names, sentences.EIGHT)
        assert file.bytes == stored("STORED_SENTENCES")[name][0]
    found = agreement(find.similarities(file.tensors), find.reference)
    assert found == pytest.approx(stored("STORED_SENTENCES")[name][2], abs=0.005)
    assert torch.tensor([len(half) for half in paragraph_halves(100)]).tolist() == [100, 100]


@pytest.mark.skipif(not has_voice_activity(), reason="the package is missing")
def test_the_network_that_hears():
    small = lean(voice_activity())
    for name, granularity in (("8 bits, tensor", "tensor"), ("4 bits, channel", "channel")):
        packed_model = speech.packed_as(small, speech.linear(int(name[0]), granularity))
        count, wrong, like = stored("STORED_HEARING")[name]
        row = speech.measured(packed_model)
        assert row.bytes == count
        assert 100 * row.wrong[-1] == pytest.approx(wrong, abs=1)
        assert 100 * row.agreement[-1] == pytest.approx(like, abs=1)
