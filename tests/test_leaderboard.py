"""The table of SmolLM2 that chapter 11 stores: its rows can be made, and some are made again."""

import ast
import math

import pytest
import torch

from benchmarks import leaderboard
from course_lib.classroom.files import SOLUTIONS
from course_lib.formats.model_file import pack_model, unpack_model
from course_lib.measure.quality import quality, token_losses
from course_lib.measure.size import size
from course_lib.measure.yardstick import (
    held_out_sample,
    smollm2_calibration,
    smollm2_quality,
    tiny_calibration,
)
from course_lib.models.pretrained import read_llama


def stored(name: str) -> dict:
    """A table that stands in the lesson."""
    tree = ast.parse((SOLUTIONS / "11_language_models.py").read_text("utf-8"))
    for node in tree.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == name:
            return ast.literal_eval(node.value)
    raise KeyError(name)


FEW = [  # one of each kind
    "dense, float16",
    "GPTQ act-order, first token × 64, 4 bits",
    "AWQ, 3 bits",
    "SparseGPT, 2:4",
    "W8A8 SmoothQuant, static",
    "W4A4 rotated, GPTQ act-order",
]


@pytest.mark.parametrize("name", FEW)
def test_a_row_is_measured_from_its_file(name, tiny, monkeypatch):
    model, tokenizer = tiny
    monkeypatch.setattr(leaderboard, "WINDOW", 64)
    monkeypatch.setattr(leaderboard.pretrained, "smollm2", lambda: tiny)
    monkeypatch.setattr(leaderboard, "smollm2_calibration", lambda t: tiny_calibration(t, 2))
    tokens = torch.tensor(tokenizer.encode(held_out_sample()).ids)[:129]
    with torch.no_grad():
        dense_logits = [logits for logits, _ in leaderboard.logits_of(model, tokens)]
        row = leaderboard.make_row(name, model, dense_logits, tokenizer, tokens)
        mean = token_losses(model, tokens, 64).mean().item()
    assert (
        len(row["losses"]) == len(row["divergences"]) == 128
        and row["kl"][0] >= 0
        and 0 <= row["flips"][0] <= 1
    )
    assert row["perplexity"] > 0.8 * math.exp(mean)
    assert 0.8e6 < row["bytes"] < 4.1e6


def test_of_w4a4_a_file_changes_nothing_but_the_embedding_and_the_head(tiny):
    """What a file of it loses is what 8 bits cost there: the codes come back as they were chosen.

    It is more than that costs a dense model. A code of 4 bits that falls to the other side of its
    tie changes a layer's input by a whole step; noise of 1e-4 in TinyLM's embedding moves its
    1.206 bits per byte to 1.208 ± 0.002, and 8 bits to 1.210.
    """
    model, tokenizer = tiny
    with torch.no_grad():
        row = leaderboard.ROWS["W4A4 rotated, GPTQ act-order"]
        made, codes = row(model, tiny_calibration(tokenizer, 2))
    exact = unpack_model(pack_model(made, codes), made)
    loaded = unpack_model(leaderboard.file_of(made, codes), made).state_dict()
    tokens = tiny_calibration(tokenizer, 1)[:, :64]
    assert exact(tokens).equal(made(tokens))
    changed = {name for name, tensor in made.state_dict().items() if not loaded[name].equal(tensor)}
    assert changed == {"embedding.weight", "head.weight"}


def test_the_gguf_file_is_measured_from_the_file(tiny, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(leaderboard.pretrained, "smollm2", lambda: tiny)
    monkeypatch.setattr(leaderboard, "smollm2_calibration", lambda t: tiny_calibration(t, 2))
    monkeypatch.setattr(
        leaderboard, "smollm2_quality", lambda *both: quality(*both, held_out_sample()[:2000])
    )
    path = tmp_path / "tiny.gguf"
    leaderboard.gguf_file(str(path))
    model, tokenizer = read_llama(path)
    shown = capsys.readouterr().out
    found = quality(model, tokenizer, held_out_sample()[:2000]).perplexity
    assert f"1.4 MB, perplexity {found:.2f} (dense" in shown and 1.3e6 < path.stat().st_size < 1.4e6
    assert not model.blocks[0].mlp.up.weight.equal(tiny[0].blocks[0].mlp.up.weight)


def test_what_one_model_reads_for_another_is_what_it_would_read_itself(tiny, monkeypatch):
    model, tokenizer = tiny
    monkeypatch.setattr(leaderboard, "WINDOW", 64)
    tokens = torch.tensor(tokenizer.encode(held_out_sample()).ids)[:129]
    losses = token_losses(model, tokens, 64).view(2, 64)[:, 8:]
    for count in (1, 8):
        found = leaderboard.read_by_two(model, model, tokens, count)
        torch.testing.assert_close(found, losses.flatten(), rtol=1e-4, atol=1e-4)


def test_beside_another_row_windows_are_what_is_drawn(monkeypatch):
    monkeypatch.setattr(leaderboard, "WINDOW", 2)
    found = leaderboard.beside([1.0, 3.0, 6.0, 6.0], [0.0, 0.0, 1.0, 1.0])  # windows: 2 and 5 more
    assert found.mean == pytest.approx(3.5) and found.error == pytest.approx(1.5)


def test_rows_of_the_stored_table_are_rows_that_can_be_made():
    assert stored("STORED").keys() <= leaderboard.ROWS.keys()
    assert stored("STORED_FIRST").keys() <= leaderboard.ROWS.keys()
    assert stored("STORED_BESIDE").keys() <= leaderboard.ROWS.keys()


@pytest.mark.slow
def test_a_stored_row_comes_out_again(smollm2):
    dense, tokenizer = smollm2
    count, perplexity, *_ = stored("STORED")["nearest, 4 bits"]
    with torch.no_grad():
        made = leaderboard.ROWS["nearest, 4 bits"](dense, smollm2_calibration(tokenizer, 1))
    assert size(leaderboard.file_of(*made)).bytes == count
    found = smollm2_quality(made[0], tokenizer).perplexity
    assert found == pytest.approx(perplexity, rel=2e-2)  # the embedding is exact here
