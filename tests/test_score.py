"""The score of a file: measured in another process, and on chapters that nobody could store."""

import json
import re
import sys
from dataclasses import asdict, replace

import pytest
import torch

from course_lib.challenge import score as scoring
from course_lib.challenge import worker
from course_lib.challenge.score import Score, plain, report_of, score_file, score_from_json
from course_lib.challenge.worker import measured, other_chapters, second_slice
from course_lib.data.text import bible_chapters, split
from course_lib.formats.linear import Format, Scheme
from course_lib.formats.model_file import every_linear, pack_model
from course_lib.measure.quality import Quality
from course_lib.measure.size import size
from course_lib.measure.yardstick import held_out_sample, tiny_quality
from course_lib.models.llama import Llama
from course_lib.models.pretrained import TINY, tiny
from course_lib.pipeline.compressed_file import save_compressed

SCORE = Score(
    name="mine.safetensors", sha256="0" * 64, bytes=1_000_000, share=0.25, bits_per_byte=1.2,
    second=1.3, dense_second=1.25, seed=7, recipe=[{"step": "round", "bits": 4}],
    date="2026-01-02T03:04:05+00:00", versions={"torch": "2.9.0"},
)  # fmt: skip


@pytest.fixture(scope="module")
def packed():
    model, _ = tiny()
    return pack_model(model, every_linear(model, Scheme(Format(6), 32)))


@pytest.fixture
def path(tmp_path, packed):
    save_compressed(tmp_path / "mine.safetensors", packed, TINY, recipe=[{"bits": 6}])
    return tmp_path / "mine.safetensors"


# ------------------------------------------------------------------ the second slice


def test_the_second_slice_has_nothing_of_what_is_shown_or_trained_on():
    train, held_out = split(bible_chapters("kjv"))
    shown = held_out_sample().split("\n\n")
    assert set(other_chapters()) | set(shown) == set(held_out.split("\n\n"))
    for seed in range(5):
        drawn = second_slice(seed).split("\n\n")
        assert len(drawn) == len(set(drawn)) == 6 and not set(drawn) & set(shown)
        assert [c for c in other_chapters() if c in drawn] == drawn
        assert not any(chapter in train for chapter in drawn)


def test_each_seed_draws_its_own_and_every_chapter_may_come():
    slices = [second_slice(seed) for seed in range(100)]
    assert len(set(slices)) > 95
    assert {chapter for one in slices for chapter in one.split("\n\n")} == set(other_chapters())


# ------------------------------------------------------------------ in this process


@pytest.fixture
def quick(monkeypatch):
    """Losses without a model: how long the text is, for the dense model and for others."""
    monkeypatch.setattr(
        worker, "quality", lambda model, tokenizer, text, length: Quality(float(length), 1, 500)
    )


def test_bytes_and_share_are_those_of_files(path, quick):
    found = measured(path, seed=7)
    half = {name: weight.half() for name, weight in tiny()[0].state_dict().items()}
    assert found["bytes"] == path.stat().st_size
    assert found["share"] == pytest.approx(path.stat().st_size / size(half).bytes)
    assert found["recipe"] == [{"bits": 6}] and found["seed"] == 7


@pytest.mark.parametrize(
    "change", [{"vocabulary": 2047}, {"vocabulary": 2049}, {"context": 255}], ids=str
)
def test_a_model_of_other_tokens_is_refused(change, tmp_path, quick):
    config = replace(TINY, **change)
    save_compressed(tmp_path / "x", pack_model(Llama(config), {}), config)
    with pytest.raises(ValueError, match="2048 tokens, 256 at a time or more"):
        measured(tmp_path / "x", 0)


def test_a_longer_context_buys_nothing(tmp_path, quick):
    """The windows are 256 tokens long, whatever the file says."""
    config = replace(TINY, context=8192)
    save_compressed(tmp_path / "x", pack_model(tiny()[0], {}), config)
    expected = Quality(256.0, 1, 500).bits_per_byte
    assert measured(tmp_path / "x", 0)["bits_per_byte"] == expected


def test_a_loss_that_is_no_number_is_refused(tmp_path, packed, monkeypatch):
    """Finite weights whose products are not."""
    monkeypatch.setattr(worker, "second_slice", lambda seed: "In the beginning")
    monkeypatch.setattr(worker, "held_out_sample", lambda: "In the beginning")
    huge = packed | {"norm.weight": torch.full((192,), 3e38)}
    save_compressed(tmp_path / "x", huge, TINY)
    with pytest.raises(ValueError, match="bits per byte must be above 0 and below 1000"):
        measured(tmp_path / "x", 0)


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("can't allocate memory: 9 bytes")])
def test_the_worker_says_that_memory_ended(error, monkeypatch, capsys):
    def fail(path, seed):
        raise error

    monkeypatch.setattr(worker, "measured", fail)
    monkeypatch.setattr(worker, "_limit_memory", lambda megabytes: None)
    assert worker.main(["x", "0", "123"]) == 0
    assert json.loads(capsys.readouterr().out) == {"error": "the file takes more than 123 MB of "
                                                   "memory"}  # fmt: skip


# ------------------------------------------------------------------ in a process of its own


def test_a_file_is_measured_as_the_yardstick_measures_it(path, packed):
    found = score_file(path, seed=3, name="ours")
    assert (found.name, found.seed, found.bytes) == ("ours", 3, path.stat().st_size)
    from course_lib.formats.model_file import unpack_model

    model, tokenizer = tiny()
    here = tiny_quality(unpack_model(packed, model), tokenizer).bits_per_byte
    assert found.bits_per_byte == pytest.approx(here, rel=1e-3)  # other threads, other sums
    assert 0.9 < found.second < 1.6 and 0.999 < found.relative < 1.05
    assert score_from_json(json.dumps(asdict(found))) == found


def test_what_is_wrong_is_told_in_one_line(tmp_path):
    (tmp_path / "x").write_bytes(b"\x80\x04K\x01.")
    with pytest.raises(ValueError, match="must be one of safetensors"):
        score_file(tmp_path / "x", 0)


@pytest.mark.skipif(sys.platform != "linux", reason="the limit is held on Linux alone")
def test_memory_is_limited(path):
    with pytest.raises((ValueError, RuntimeError), match=r"memory|without an answer"):
        score_file(path, 0, megabytes=100)


def test_time_is_limited(path):
    with pytest.raises(TimeoutError, match="took longer than 0.1 seconds"):
        score_file(path, 0, seconds=0.1)


@pytest.mark.parametrize("seed", [-1, 2**60])
def test_a_seed_out_of_range_is_told_before_anything_starts(seed, path):
    with pytest.raises(ValueError, match="seed must be from 0"):
        score_file(path, seed)


def test_a_file_that_is_not_there_is_told(tmp_path):
    with pytest.raises(FileNotFoundError):
        score_file(tmp_path / "none", 0)


def test_a_process_that_dies_is_told(path, monkeypatch):
    class Died:
        stdout, stderr, returncode = b"", b"Traceback\n\x1b[31mSegmentation fault", -11

    monkeypatch.setattr(scoring.subprocess, "run", lambda *args, **kwargs: Died())
    with pytest.raises(RuntimeError, match=re.escape(r"(-11): \x1b[31mSegmentation fault")):
        score_file(path, 0)


# ------------------------------------------------------------------ a score as a line


def test_a_line_comes_back():
    assert score_from_json(json.dumps(asdict(SCORE))) == SCORE
    assert SCORE.relative == pytest.approx(1.04)
    assert "+4.0%" in report_of(SCORE) and "25.0% of TinyLM" in report_of(SCORE)


BAD = {
    "name": ["", "x" * 61, 5, None],
    "sha256": ["", "0" * 63, "G" * 64, "0" * 64 + "\n", 0],
    "bytes": [0, -1, 1.5, True, 10**13, "9"],
    "share": [0, -1, True, "1", 1e7],
    "bits_per_byte": [0, -1.0, 1e4, None],
    "second": [0, [], {}],
    "dense_second": [0, "1.2"],
    "seed": [-1, 1.0, 2**60, False],
    "recipe": ["rm", [1], {}, None],
    "date": ["", "yesterday", "2026-01-02T03:04:05", "٢٠٢٦-01-02T03:04:05+00:00", 0],
    "versions": [[], {"a": 1}, {"a": "x" * 101}, {str(n): "" for n in range(21)}],
}


@pytest.mark.parametrize(("field", "value"), [(f, v) for f, values in BAD.items() for v in values])
def test_a_field_of_another_kind_is_refused(field, value):
    with pytest.raises(ValueError, match=f"a score's {field} is not one"):
        score_from_json(json.dumps(asdict(SCORE) | {field: value}))


@pytest.mark.parametrize(
    "line",
    ["", "nope", "[]", "5", "{}", '{"name": NaN}', "[" * 100_000, json.dumps({"a\x1b[2J": 1}),
     json.dumps(asdict(SCORE) | {"more": 1}), json.dumps(asdict(SCORE)).replace("1.2,", "NaN,"),
     json.dumps(asdict(SCORE)).replace("1.2,", "1e999,")],
)  # fmt: skip
def test_what_is_no_score_is_refused(line):
    with pytest.raises(ValueError, match=".") as caught:
        score_from_json(line)
    assert str(caught.value).isprintable() and len(str(caught.value)) < 300


@pytest.mark.parametrize(
    "name", ["\x1b]0;owned\x07", "a\rb", "\u202egnp.exe", "\ud800", "\x00", "tab\t", "\x9b2J"]
)
def test_control_characters_are_shown_and_not_obeyed(name):
    assert plain(name).isprintable() and plain(name)
    assert plain(report_of(replace(SCORE, name=name)), 999).count("\\") >= 1
    assert "\x1b" not in report_of(replace(SCORE, name=name))


def test_other_alphabets_stay_and_long_names_are_cut():
    assert plain("Ünïcødé 中文 😀") == "Ünïcødé 中文 😀"
    assert len(plain("x" * 1000)) == 60
