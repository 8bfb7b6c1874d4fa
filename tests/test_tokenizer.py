"""A long text's tokens, chapter by chapter, are those of the whole."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from course_lib.data.text import bible_chapters, split, wikipedia_articles
from course_lib.models import pretrained
from course_lib.models.tokenizer import tokens_of, train_tokenizer

PIECES = st.sampled_from(
    ["\n", "\n\n", " ", "\t", "a", "God's", "7", "…", "中", ".", "\r\n", "\u2003"]
)
SMALL = train_tokenizer("\n\n\n \n\n a God's 77 \r\n\r\n. \n\n" * 9, 290)


@given(st.lists(PIECES, max_size=20).map("".join))
def test_no_token_reaches_over_a_seam(text):
    assert tokens_of(SMALL, text).tolist() == SMALL.encode(text).ids


def test_tinylms_training_text(tiny):
    text = split(bible_chapters("kjv"))[0]
    assert tokens_of(tiny[1], text).tolist() == tiny[1].encode(text).ids


def test_smollm2s_articles(smollm2):
    text = "\n\n".join(list(wikipedia_articles().values())[::9])
    assert tokens_of(smollm2[1], text).tolist() == smollm2[1].encode(text).ids
    edges = " \n\nA\n\n\n\nB \n\n C\n\n7\n\n"
    assert tokens_of(smollm2[1], edges).tolist() == smollm2[1].encode(edges).ids


def test_what_is_remembered_stays():
    first = tokens_of(SMALL, "a God\n\na")
    first += 1
    assert torch.equal(tokens_of(SMALL, "a God\n\na") + 1, first)
    assert tokens_of(pretrained.tiny()[1], "a God\n\na").tolist() != (first - 1).tolist()
    assert tokens_of(SMALL, "").shape == (0,) and tokens_of(SMALL, "").dtype == torch.int64
