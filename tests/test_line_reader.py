from itertools import groupby

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from course_lib.data.rendered_text import rendered_lines
from course_lib.measure.edits import character_error_rate
from course_lib.models.line_reader import (
    decode_ctc,
    has_line_reader,
    line_reader,
    read_lines,
    trim_characters,
)
from course_lib.models.onnx_weights import float_tensors, open_graph, weight_kinds, with_tensors

ASCII = "".join(map(chr, range(32, 127)))
needs_reader = pytest.mark.skipif(
    not has_line_reader(), reason="rapidocr, onnx or onnxruntime is not installed"
)


@given(st.lists(st.integers(0, 3)))
def test_decoding_is_its_definition(best):
    runs = [character for character, _ in groupby(best)]
    assert decode_ctc(best, "-abc") == "".join("-abc"[run] for run in runs if run)


def test_a_blank_divides_two_equal_letters():
    assert decode_ctc([1, 0, 1], ["", "a"]) == "aa" and decode_ctc([1, 1], ["", "a"]) == "a"
    assert decode_ctc([], ["", "a"]) == decode_ctc([0, 0], ["", "a"]) == ""


def test_trimming_keeps_the_order_and_says_what_is_wrong():
    tensors = {"w": torch.randn(4, 3), "b": torch.randn(4), "norm": torch.ones(3)}
    trimmed, kept = trim_characters(tensors, ["", "a", "b", "c"], keep="cab!c")
    assert kept == ["", "a", "b", "c"] and trimmed["w"].equal(tensors["w"])
    with pytest.raises(ValueError, match="5 rows"):
        trim_characters(tensors, ["", "a", "b", "c", "d"], keep="a")


@pytest.fixture(scope="module")
def reader():
    return line_reader()


@needs_reader
def test_it_is_the_network_that_the_lesson_describes(reader):
    tensors, kinds = float_tensors(reader.graph), weight_kinds(reader.graph)
    count = dict.fromkeys(kinds.values(), 0)
    for name, kind in kinds.items():
        count[kind] += tensors[name].numel()
    assert count == {
        "convolution": 51_984, "depthwise": 23_304, "pointwise": 2_681_856, "product": 2_475_600,
    }  # fmt: skip
    assert len(reader.characters) == 18_710 and set(ASCII) < set(reader.characters)
    assert tensors[list(kinds)[-1]].shape == (18_710, 120)


@needs_reader
def test_it_reads_clean_lines_and_stumbles_over_spoiled_ones(reader):
    session = open_graph(reader.graph)
    clean, spoiled = rendered_lines(6), rendered_lines(6, spoiled=1.0)
    read = read_lines(session, clean.images, reader.characters)
    assert character_error_rate(read, clean.texts) < 0.02  # 0.0005 of 100 lines
    read = read_lines(session, spoiled.images, reader.characters)
    assert 0.01 < character_error_rate(read, spoiled.texts) < 0.3  # 0.07 of 100 lines


@needs_reader
def test_without_the_characters_that_english_never_needs_it_reads_the_same(reader):
    images = rendered_lines(4, spoiled=0.6).images
    tensors, kept = trim_characters(float_tensors(reader.graph), reader.characters, ASCII)
    assert len(kept) == 96
    small = open_graph(with_tensors(reader.graph, tensors))
    whole = read_lines(open_graph(reader.graph), images, reader.characters)
    assert read_lines(small, images, kept) == whole
    with pytest.raises(ValueError, match="outputs, 96; got 18710"):
        read_lines(small, images, reader.characters)


@pytest.mark.parametrize("shape", [(1, 1, 48, 99), (1, 3, 32, 99), (3, 48, 99), (0, 3, 48, 99)])
def test_other_pictures_are_refused(shape):
    with pytest.raises(ValueError, match="images must have shape"):
        read_lines(None, torch.zeros(shape), ["", "a"])


def test_a_missing_package_is_named_with_its_remedy(monkeypatch):
    monkeypatch.setattr("course_lib.data.packages.find_spec", lambda name: None)
    with pytest.raises(FileNotFoundError, match="course data"):
        line_reader()
    monkeypatch.setattr("course_lib.models.line_reader.find_spec", lambda name: None)
    assert not has_line_reader()
