"""The table of SmolLM2 that chapter 11 stores: its rows can be made, and some are made again."""

import ast
import math

import pytest
import torch

from benchmarks import leaderboard
from course_lib.classroom.files import SOLUTIONS
from course_lib.measure.quality import token_losses
from course_lib.measure.size import size
from course_lib.measure.yardstick import (
    held_out_sample,
    smollm2_calibration,
    smollm2_quality,
    tiny_calibration,
)


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
    assert len(row["losses"]) == 128 and row["kl"][0] >= 0 and 0 <= row["flips"][0] <= 1
    assert row["perplexity"] > 0.8 * math.exp(mean)
    assert 0.8e6 < row["bytes"] < 4.1e6


def test_what_one_model_reads_for_another_is_what_it_would_read_itself(tiny, monkeypatch):
    model, tokenizer = tiny
    monkeypatch.setattr(leaderboard, "WINDOW", 64)
    tokens = torch.tensor(tokenizer.encode(held_out_sample()).ids)[:129]
    losses = token_losses(model, tokens, 64).view(2, 64)[:, 8:]
    for count in (1, 8):
        found = leaderboard.read_by_two(model, model, tokens, count)
        torch.testing.assert_close(found, losses.flatten(), rtol=1e-4, atol=1e-4)


def test_rows_of_the_stored_table_are_rows_that_can_be_made():
    assert stored("STORED").keys() <= leaderboard.ROWS.keys()
    assert {f"{name}, 4 bits" for name in stored("STORED_FIRST")} <= leaderboard.ROWS.keys()


@pytest.mark.slow
def test_a_stored_row_comes_out_again(smollm2):
    dense, tokenizer = smollm2
    count, perplexity, *_ = stored("STORED")["nearest, 4 bits"]
    with torch.no_grad():
        made = leaderboard.ROWS["nearest, 4 bits"](dense, smollm2_calibration(tokenizer, 1))
    assert size(leaderboard.file_of(*made)).bytes == count
    found = smollm2_quality(made[0], tokenizer).perplexity
    assert found == pytest.approx(perplexity, rel=2e-2)  # the embedding is exact here
