"""The one held-out sample: unseen, and as hard as all that is unseen."""

import pytest
import torch

from course_lib.data.text import bible_chapters, split
from course_lib.measure.quality import quality
from course_lib.measure.yardstick import (
    held_out_sample,
    smollm2_calibration,
    smollm2_quality,
    spread_windows,
    tiny_calibration,
    tiny_quality,
    wikipedia_sample,
)


def test_the_sample_is_whole_held_out_chapters():
    train, held_out = split(bible_chapters("kjv"))
    chapters = held_out_sample().split("\n\n")
    assert len(chapters) == 4
    assert all(chapter in held_out and chapter not in train for chapter in chapters)


@pytest.mark.slow
def test_tinylm_stands_on_it_where_it_stands_on_all_of_them(tiny):
    _, held_out = split(bible_chapters("kjv"))
    whole = quality(*tiny, held_out).bits_per_byte
    assert tiny_quality(*tiny).bits_per_byte == pytest.approx(whole, abs=0.005)


@pytest.mark.slow
def test_smollm2s_sample_holds_four_thousand_tokens(smollm2):
    found = smollm2_quality(*smollm2)
    assert 4090 < found.tokens < 4100 and found.perplexity == pytest.approx(23.6, rel=0.01)
    assert len(wikipedia_sample()) == 19_712


def test_calibration_text_is_not_what_is_measured(tiny):
    """Held-out chapters, the first article: no window of them among what is calibrated with."""
    _, tokenizer = tiny
    windows = tiny_calibration(tokenizer, 200)
    assert windows.shape == (200, 256)
    train, _ = split(bible_chapters("kjv"))
    assert all(tokenizer.decode(window[5:50].tolist()) in train for window in windows[::20])


@pytest.mark.slow
def test_smollm2_is_calibrated_on_other_articles(smollm2):
    _, tokenizer = smollm2
    windows = smollm2_calibration(tokenizer, 3)
    assert windows.shape == (3, 512)
    text = wikipedia_sample()
    assert not any(tokenizer.decode(window[5:50].tolist()) in text for window in windows)


def test_windows_are_spread_from_the_start_to_the_end(tiny):
    _, tokenizer = tiny
    tokens = torch.tensor(tokenizer.encode(held_out_sample()).ids)
    windows = spread_windows(tokenizer, held_out_sample(), 5, 7)
    assert torch.equal(windows[0], tokens[:7]) and torch.equal(windows[-1], tokens[-7:])
    for wrong in ((1, 0), (0, 5), (1, len(tokens) + 1)):
        with pytest.raises(ValueError, match="must hold windows"):
            spread_windows(tokenizer, held_out_sample(), *wrong)
