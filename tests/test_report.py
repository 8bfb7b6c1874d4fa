"""A file measured, and its card; what tokens are."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from course_lib.measure.divergence import Estimate
from course_lib.measure.kinds import KINDS, by_class, frequencies_of, kinds_of, token_kind
from course_lib.measure.yardstick import held_out_sample, tiny_quality
from course_lib.pipeline.compressed_file import save_compressed
from course_lib.pipeline.report import float16_bytes, model_card, report
from course_lib.pipeline.run import run, to_dicts
from course_lib.pipeline.state import packed
from course_lib.pipeline.steps import DropLayers, Quantize, tiny_given


@pytest.fixture(scope="module")
def tiny():
    return tiny_given()


@pytest.fixture(scope="module")
def made(tiny, tmp_path_factory):
    def measure(*recipe):
        state = run(recipe, tiny)
        path = tmp_path_factory.mktemp("file") / "model.safetensors"
        save_compressed(path, packed(state), state.model.config, recipe=to_dicts(recipe))
        return report(path, tiny, repeats=1)

    return measure


def test_the_dense_model_is_as_good_as_itself(made, tiny):
    found = made()
    assert found.share == pytest.approx(1, abs=0.002) and abs(found.loss) < 1e-3
    assert found.kl.mean < 1e-4 and found.flips.mean < 0.01
    assert found.dense_bytes == float16_bytes(tiny.dense)
    assert "Nothing was done to it." in model_card("dense", found)


def test_a_small_one(made, tiny):
    found = made(DropLayers(1), Quantize(4))
    state = run((DropLayers(1), Quantize(4)), tiny)
    expected = tiny_quality(state.model, tiny.tokenizer).bits_per_byte
    assert found.bits_per_byte == pytest.approx(expected, abs=1e-3) and found.loss > 0.05
    assert found.decode > 0 and found.prefill > 0
    assert [step["do"] for step in found.recipe] == ["DropLayers", "Quantize"]
    for classes in (found.by_kind, found.by_frequency):
        tokens = sum(count for _, count in classes.values())
        mean = sum(flips.mean * count for flips, count in classes.values()) / tokens
        assert mean == pytest.approx(found.flips.mean, abs=1e-6)
        assert tokens == len(tiny.tokenizer.encode(held_out_sample()).ids) - 1
    card = model_card("small | one", found)
    for text in ("1. DropLayers count 1", "2. Quantize bits 4", f"{found.bytes:,}", KINDS[1]):
        assert text in card
    assert card.startswith("# small")


def test_kinds_of_tokens(tiny):
    tokens = tiny.tokenizer.encode("And Moses said unto them, Behold.\n").ids
    text = [tiny.tokenizer.id_to_token(i) for i in tokens]
    kinds = dict(zip(text, kinds_of(tiny.tokenizer, torch.tensor(tokens)), strict=True))
    assert kinds["And"] == kinds["ĠMoses"] == KINDS[0] and kinds["Ġsaid"] == KINDS[1]
    assert kinds[","] == kinds["Ċ"] == KINDS[3]
    assert token_kind("") == token_kind("Ġ") == KINDS[3] and token_kind("7") == KINDS[2]


@given(st.lists(st.integers(0, 9), min_size=1), st.lists(st.integers(0, 9)))
def test_frequencies_are_counts(tokens, text):
    found = frequencies_of(torch.tensor(tokens), torch.tensor(text, dtype=torch.int64), (1, 3))
    names = ["less than 1 times", "1 to 2 times", "3 times or more"]
    expected = [names[sum(text.count(token) >= edge for edge in (1, 3))] for token in tokens]
    assert found == expected


def test_classes():
    found = by_class(torch.tensor([1.0, 3.0, 5.0]), ["b", "b", "a"], ["c", "b", "a"])
    assert list(found) == ["b", "a"] and found["b"] == (Estimate(2.0, 1.0), 2)
    assert found["a"][0].mean == 5 and math.isnan(found["a"][0].error)
    with pytest.raises(ValueError, match="1 and 2"):
        by_class(torch.tensor([1.0]), ["a", "b"], ["a", "b"])
    with pytest.raises(ValueError, match=r"lacks \['b'\]"):
        by_class(torch.tensor([1.0, 2.0]), ["a", "b"], ["a"])
