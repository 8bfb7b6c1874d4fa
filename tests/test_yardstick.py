"""The one held-out sample: unseen, and as hard as all that is unseen."""

import pytest

from course_lib.data.text import bible_chapters, split
from course_lib.measure.quality import quality
from course_lib.measure.yardstick import (
    held_out_sample,
    smollm2_quality,
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
