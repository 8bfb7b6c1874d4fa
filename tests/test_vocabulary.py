"""Trimmed vocabularies: the texts keep their pieces, any other is given back, the loss is known."""

import json
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors
from torch import nn

from course_lib.data.text import bible_chapters, split
from course_lib.formats.gguf_model import write_gguf
from course_lib.low_rank.vocabulary import (
    new_ids,
    token_counts,
    trim_tokenizer,
    trim_vocabulary,
    used_tokens,
)
from course_lib.measure.quality import token_losses
from course_lib.measure.yardstick import held_out_sample, wikipedia_sample
from course_lib.models.llama import Llama, LlamaConfig, initialize
from course_lib.models.llama_file import load_llama, save_llama
from course_lib.models.pretrained import read_llama

BYTES = sorted(pre_tokenizers.ByteLevel.alphabet())
ODD_TEXTS = ("", " ", "\r\n\t\x00\x7f", "naïve Ωμέγα 中文 🙂\u200d", "12345 1 000", "ÿ<|end|>")


def bpe(merges, extra=(), alphabet=BYTES, **options) -> Tokenizer:
    """Byte-level BPE of just these merges; a product that several merges make is one token."""
    products = dict.fromkeys(left + right for left, right in merges)
    tokens = dict.fromkeys([*alphabet, *products, *extra])
    vocabulary = {token: number for number, token in enumerate(tokens)}
    tokenizer = Tokenizer(models.BPE(vocabulary, list(merges), **options))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def assert_same_pieces(before: Tokenizer, after: Tokenizer, ids: torch.Tensor, text: str) -> None:
    old, new = before.encode(text), after.encode(text)
    assert old.tokens == new.tokens
    assert ids[old.ids].tolist() == new.ids


@st.composite
def merge_lists(draw):
    """Up to 12 merges of "a", "b", "c": many products are made by several of them, in any order."""
    tokens, merges = ["a", "b", "c"], []
    for _ in range(draw(st.integers(1, 12))):
        pair = draw(st.sampled_from(tokens)), draw(st.sampled_from(tokens))
        if pair not in merges and len("".join(pair)) <= 6:
            merges.append(pair)
            tokens.append("".join(pair))
    return draw(st.permutations(merges))


words = st.text("abc ", max_size=25)
ids_of_products = st.sets(st.integers(250, 267))


@settings(max_examples=50)
@given(merge_lists(), st.lists(words, max_size=3), st.text("abc d1é", max_size=25), st.booleans())
def test_the_texts_keep_their_pieces_and_others_come_back(merges, texts, other, whole_words):
    before = bpe(merges, ignore_merges=whole_words)
    keep = used_tokens(before, texts)
    after, ids = trim_tokenizer(before, keep), new_ids(before, keep)
    for text in texts:
        assert_same_pieces(before, after, ids, text)
    assert after.decode(after.encode(other).ids) == other


@settings(max_examples=50)
@given(merge_lists(), ids_of_products, ids_of_products)
def test_what_is_kept_is_closed_minimal_and_in_order(merges, keep, more):
    before = bpe(merges)
    known = set(before.get_vocab().values())
    keep, more = keep & known, more & known
    ids = new_ids(before, keep)
    kept = {before.id_to_token(number) for number in (ids >= 0).nonzero().flatten().tolist()}
    by_hand = set(BYTES) | {before.id_to_token(number) for number in keep}
    while True:  # to the fixed point
        halves = {half for a, b in merges if a + b in by_hand for half in (a, b)}
        if halves <= by_hand:
            break
        by_hand |= halves
    assert kept == by_hand
    assert ids[ids >= 0].tolist() == list(range(len(kept)))
    assert ((new_ids(before, keep | more) >= 0) >= (ids >= 0)).all()  # more keeps more
    after = trim_tokenizer(before, keep)
    assert after.get_vocab() == {token: int(ids[before.token_to_id(token)]) for token in kept}
    fitting = [list(m) for m in merges if {*m, "".join(m)} <= kept]
    assert json.loads(after.to_str())["model"]["merges"] == fitting
    again = new_ids(after, ids[torch.tensor(sorted(keep), dtype=torch.int64)])
    assert again.tolist() == list(range(len(kept)))  # nothing is left to trim


def test_a_token_that_two_merges_make_keeps_the_halves_of_both():
    before = bpe([("a", "b"), ("b", "c"), ("a", "bc"), ("ab", "c")])
    assert before.encode("abc").tokens == ["abc"]  # by ("ab", "c")
    after = trim_tokenizer(before, [before.token_to_id("abc")])
    assert {"ab", "bc"} <= after.get_vocab().keys()


def test_without_a_merge_a_text_may_take_fewer_tokens():
    """So "other text takes more tokens" is a rule with exceptions, and no theorem."""
    before = bpe([("b", "c"), ("a", "b"), ("c", "d"), ("ab", "cd")])
    after = trim_tokenizer(before, [before.token_to_id("abcd")])
    assert before.encode("abcd").tokens == ["a", "bc", "d"]
    assert after.encode("abcd").tokens == ["abcd"]


def test_whole_words_count_where_merges_are_ignored():
    before = bpe([("a", "b")], extra=["abba"], ignore_merges=True)
    assert before.encode("abba").tokens == ["abba"]  # no merge makes it
    used = used_tokens(before, ["abba"])
    after = trim_tokenizer(before, used)
    assert_same_pieces(before, after, new_ids(before, used), "abba")
    assert after.token_to_id("ab") is None
    assert trim_tokenizer(before, []).encode("abba").tokens == list("abba")


def test_added_tokens_stay_and_are_renumbered():
    before = bpe([("a", "b"), ("b", "c")], extra=["<|end|>"])
    before.add_special_tokens([AddedToken("<|end|>", normalized=False), "<|beyond|>"])
    before.add_tokens([AddedToken("ba", lstrip=True)])
    keep = used_tokens(before, ["bc"])
    after, ids = trim_tokenizer(before, keep), new_ids(before, keep)
    assert ids[before.token_to_id("ab")] == -1 and after.get_vocab_size() == 256 + 1 + 3
    for text in ("bc<|end|>bc", "<|beyond|>", "bc ba bc"):
        assert_same_pieces(before, after, ids, text)
    old, new = (t.get_added_tokens_decoder() for t in (before, after))
    assert {int(ids[i]): str(token) for i, token in old.items()} == {
        i: str(token) for i, token in new.items()
    }
    assert after.decode(after.encode("a<|end|>b").ids) == "ab"  # special tokens are not read


def test_bytes_that_a_tokenizer_lacks_are_lost_after_as_before():
    """SmolLM2's lacks 21 of the 256: what it cannot say before, it cannot say after."""
    for options in ({}, {"unk_token": "<unk>"}, {"unk_token": "<unk>", "fuse_unk": True}):
        extra = list(options.values())[:1]
        before = bpe([("a", "b"), ("b", "c")], extra, [b for b in BYTES if b != "z"], **options)
        keep = used_tokens(before, ["bc"])
        after, ids = trim_tokenizer(before, keep), new_ids(before, keep)
        assert_same_pieces(before, after, ids, "bczzbcz")
        assert after.get_vocab_size() == 255 + 1 + len(extra)


def test_none_kept_leaves_the_bytes_and_all_kept_leaves_all(tiny):
    _, before = tiny
    after = trim_tokenizer(before, [])
    assert after.get_vocab_size() == 256
    for text in ODD_TEXTS:
        assert len(after.encode(text)) == len(text.encode())
        assert after.decode(after.encode(text).ids) == text
    assert new_ids(before, range(2048)).equal(torch.arange(2048))
    assert json.loads(trim_tokenizer(before, range(2048)).to_str()) == json.loads(before.to_str())


def test_tinylm_on_a_text_gives_the_logits_it_gave_less_those_that_are_gone(tiny):
    (model, before), text = tiny, held_out_sample()
    keep = used_tokens(before, [text])
    small, after = trim_vocabulary(model, before, keep)
    ids = new_ids(before, keep)
    assert_same_pieces(before, after, ids, text)
    kept = (ids >= 0).nonzero().flatten()
    assert small.config == replace(model.config, vocabulary=len(kept))
    assert not hasattr(small, "head") and model.embedding.weight.shape == (2048, 192)
    old, new = (torch.tensor(t.encode(text).ids)[:256] for t in (before, after))
    logits = model(old[None])[0]
    # The same sums of 192 products, perhaps in another order: float32's 1.2e-7 times their size.
    torch.testing.assert_close(small(new[None])[0], logits[:, kept], rtol=1e-5, atol=1e-4)
    share = logits.softmax(-1)[:-1, kept].sum(-1)
    fall = token_losses(model, old) - token_losses(small, new)
    torch.testing.assert_close(fall, -share.log(), rtol=1e-4, atol=1e-5)
    assert fall.min() > -1e-5  # it never rises


def test_the_same_words_in_another_order_keep_their_pieces(tiny):
    _, before = tiny
    words = "\n".join(bible_chapters("kjv")[:3]).split()
    texts = [" " + " ".join(order) for order in (words, words[::-1], sorted(words), words[::2])]
    keep = used_tokens(before, texts[:1])
    after, ids = trim_tokenizer(before, keep), new_ids(before, keep)
    for text in texts:
        assert_same_pieces(before, after, ids, text)


def test_few_uses_are_too_few(tiny):
    _, before = tiny
    texts = bible_chapters("kjv")[:20]
    counts = token_counts(before, texts)
    assert counts.sum() == sum(len(before.encode(text)) for text in texts)
    for least in (1, 5, 100):
        assert used_tokens(before, texts, least) == [
            number for number, count in enumerate(counts.tolist()) if count >= least
        ]
    assert token_counts(before, []).sum() == 0 and used_tokens(before, iter(())) == []


def test_other_texts_come_back_from_tinylm(tiny):
    _, before = tiny
    after = trim_tokenizer(before, used_tokens(before, [split(bible_chapters("kjv"))[1]], least=20))
    assert after.get_vocab_size() < 1000
    for text in (*ODD_TEXTS, wikipedia_sample()):
        assert after.decode(after.encode(text).ids) == text


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_head_of_its_own_is_trimmed_alike(tied, dtype):
    config = LlamaConfig(
        vocabulary=300,
        width=8,
        layers=1,
        heads=2,
        kv_heads=1,
        mlp_width=4,
        context=9,
        tied=tied,
    )
    model = Llama(config)
    initialize(model)
    model = model.to(dtype).eval()
    before = bpe([("a", "b"), ("b", "c"), ("ab", "c")])  # 259 tokens for 300 rows
    keep = used_tokens(before, ["abc"])
    small, after = trim_vocabulary(model, before, keep)
    kept = (new_ids(before, keep) >= 0).nonzero().flatten()
    assert len(kept) == after.get_vocab_size() == small.config.vocabulary == 258
    assert small.embedding.weight.equal(model.embedding.weight[kept])
    assert small.embedding.num_embeddings == 258 and small.config.tied == tied
    assert ("head.weight" in small.state_dict()) is not tied
    if not tied:
        assert small.head.weight.equal(model.head.weight[kept]) and small.head.out_features == 258
    assert all(p.requires_grad and p.dtype == dtype for p in small.parameters())
    assert not small.training and model.embedding.num_embeddings == 300
    old, new = (torch.tensor([t.encode("abcaab").ids]) for t in (before, after))
    torch.testing.assert_close(small(new), model(old)[..., kept])
    frozen, _ = trim_vocabulary(model.requires_grad_(False), before, keep)
    assert not any(p.requires_grad for p in frozen.parameters())
    small.blocks[0].mlp.up.weight.data.zero_()
    assert model.blocks[0].mlp.up.weight.any()  # nothing is shared


def test_files_give_back_what_was_trim_tokenizer(tiny, tmp_path):
    model, before = tiny
    small, after = trim_vocabulary(model, before, used_tokens(before, [held_out_sample()], 3))
    tokens = torch.tensor([after.encode("In the beginning").ids])
    save_llama(small, tmp_path / "small.safetensors")
    after.save(str(tmp_path / "small.json"))
    back = load_llama(tmp_path / "small.safetensors")
    assert back.config == small.config and back(tokens).equal(small(tokens))
    read = Tokenizer.from_file(str(tmp_path / "small.json"))
    write_gguf(tmp_path / "small.gguf", small, after, {})
    from_gguf, named = read_llama(tmp_path / "small.gguf")
    torch.testing.assert_close(from_gguf(tokens), small(tokens))
    for other in (read, named):
        assert other.get_vocab() == after.get_vocab()
        assert other.encode(wikipedia_sample()).ids == after.encode(wikipedia_sample()).ids


def test_smollm2s_tokenizer_goes_on_working(smollm2):
    _, before = smollm2
    texts = [wikipedia_sample(), "In 1984: <|im_start|>user 0x7f<|im_end|>"]
    keep = used_tokens(before, texts)
    after, ids = trim_tokenizer(before, keep), new_ids(before, keep)
    for text in texts:
        assert_same_pieces(before, after, ids, text)
    assert ids[:17].tolist() == list(range(17)) and after.token_to_id("<|im_end|>") == 2
    assert after.get_vocab_size() < 4000
    for text in (*ODD_TEXTS, held_out_sample(), "é\x04b\x13"):
        old, new = (t.decode(t.encode(text).ids) for t in (before, after))
        assert old == new
    assert before.decode(before.encode("b\x04b").ids) == "bb"  # it never knew this byte


def with_(tokenizer: Tokenizer, **parts) -> Tokenizer:
    for name, part in parts.items():
        setattr(tokenizer, name, part)
    return tokenizer


def padded(tokenizer: Tokenizer) -> Tokenizer:
    tokenizer.enable_padding()
    return tokenizer


MERGES = [("a", "b")]
REFUSED = {
    "'the model': 'WordLevel'": Tokenizer(models.WordLevel({"a": 0}, "a")),
    "'dropout': 0.5": bpe(MERGES, dropout=0.5),
    "'continuing_subword_prefix': '#'": bpe(
        [("a", "#b")], ["ab", "#b"], continuing_subword_prefix="#"
    ),
    "'end_of_word_suffix': '/'": bpe(MERGES, end_of_word_suffix="/"),
    "'pre_tokenizer': 'not of bytes'": with_(
        bpe(MERGES), pre_tokenizer=pre_tokenizers.Whitespace()
    ),
    "'post_processor': 'TemplateProcessing'": with_(
        bpe(MERGES), post_processor=processors.TemplateProcessing("a $0", None, [("a", 3)])
    ),
    "'padding': ": padded(bpe(MERGES)),
}


@pytest.mark.parametrize("seen", REFUSED)
def test_tokenizers_of_other_kinds_are_refused(seen):
    with pytest.raises(ValueError, match="tokenizer must be byte-level BPE, without") as error:
        new_ids(REFUSED[seen], [0])
    assert seen in str(error.value)


def test_bad_input_is_refused(tiny):
    model, tokenizer = tiny
    for wrong, seen in ((True, "True"), (1.0, "1.0"), ("the", "'the'")):
        with pytest.raises(TypeError, match=f"keep must hold numbers of tokens, .* got {seen}"):
            new_ids(tokenizer, [wrong])
    with pytest.raises(TypeError, match="got True"):
        new_ids(tokenizer, torch.ones(2048, dtype=torch.bool))
    with pytest.raises(TypeError, match=r"got \[1\]"):
        new_ids(tokenizer, torch.ones(1, 1, dtype=torch.int64))
    for wrong in (-1, 2048):
        with pytest.raises(ValueError, match=f"of the tokenizer's tokens; got {wrong}"):
            new_ids(tokenizer, [wrong])
    with pytest.raises(TypeError, match="texts must be several strings"):
        used_tokens(tokenizer, "one text")
    with pytest.raises(TypeError):
        used_tokens(tokenizer, [b"bytes"])
    with pytest.raises(ValueError, match="least must be at least 1; got 0"):
        used_tokens(tokenizer, ["text"], least=0)
    small = Llama(replace(model.config, vocabulary=2000))
    with pytest.raises(ValueError, match="at most the model's 2000 tokens; got 2048"):
        trim_vocabulary(small, tokenizer, [5])
    small = Llama(replace(model.config, tied=False))
    small.head = nn.Sequential(small.head)
    with pytest.raises(ValueError, match="a plain Linear as its head; got Sequential"):
        trim_vocabulary(small, tokenizer, [5])
