"""MiniLM beside the library transformers, and what its vectors mean."""

import pytest
import torch
from safetensors.torch import load_file
from transformers import BertConfig, BertModel

from course_lib.data.packages import package_file
from course_lib.data.paragraphs import paragraph_halves
from course_lib.measure.retrieval import top_one
from course_lib.measure.size import count_parameters
from course_lib.models.minilm import PACKAGE, embed_sentences, has_minilm, minilm

needs_minilm = pytest.mark.skipif(not has_minilm(), reason="MiniLM's package is not installed")
TEXTS = [
    "A man is eating food.",
    "A man eats something.",
    "The stock market fell.",
    "",
    "No. " * 99,
]


@pytest.fixture(scope="module")
def model_and_tokenizer():
    return minilm()


@pytest.fixture(scope="module")
def peer() -> BertModel:
    """The Bert of the library transformers with the file's weights: an independent peer."""
    config = BertConfig(
        hidden_size=384, num_hidden_layers=6, num_attention_heads=12, intermediate_size=1536
    )
    bert = BertModel(config).eval()
    weights = load_file(package_file(PACKAGE, "model/model.safetensors"))
    missing, unexpected = bert.load_state_dict(weights, strict=False)
    assert not missing and set(unexpected) <= {"embeddings.position_ids"}
    return bert


@needs_minilm
@torch.no_grad()
def test_vectors_agree_with_another_implementation(model_and_tokenizer, peer):
    model, tokenizer = model_and_tokenizer
    found = embed_sentences(model, tokenizer, TEXTS)
    for vector, text in zip(found, TEXTS, strict=True):  # one by one: no padding
        ids = torch.tensor([tokenizer.encode(text).ids])
        mean = peer(ids).last_hidden_state.mean(dim=1)[0]
        assert (vector - mean / mean.norm()).abs().max() < 1e-4  # components are about 0.05


@needs_minilm
def test_like_sentences_lie_close_and_all_on_the_sphere(model_and_tokenizer):
    vectors = embed_sentences(*model_and_tokenizer, TEXTS)
    torch.testing.assert_close(vectors.norm(dim=1), torch.ones(5))
    likeness = vectors @ vectors.T
    assert likeness[0, 1] > 0.6 > 0.3 > likeness[0, 2]


@needs_minilm
def test_order_and_company_do_not_matter(model_and_tokenizer):
    together = embed_sentences(*model_and_tokenizer, TEXTS)
    turned = embed_sentences(*model_and_tokenizer, TEXTS[::-1]).flip(0)
    torch.testing.assert_close(together, turned, atol=1e-4, rtol=0)
    alone = embed_sentences(*model_and_tokenizer, TEXTS[:1])
    torch.testing.assert_close(together[:1], alone, atol=1e-4, rtol=0)


@needs_minilm
def test_halves_find_each_other(model_and_tokenizer):
    firsts, seconds = paragraph_halves(16)
    vectors = embed_sentences(*model_and_tokenizer, firsts + seconds)
    assert top_one(vectors[:16] @ vectors[16:].T).value > 0.8  # 0.89 of 100; chance is 0.06


@needs_minilm
def test_it_is_the_whole_encoder_and_only_the_first_tokens_are_read(model_and_tokenizer):
    model, tokenizer = model_and_tokenizer
    assert count_parameters(model) == 22_565_376
    assert not any(parameter.requires_grad for parameter in model.parameters())
    assert len(tokenizer.encode(TEXTS[-1]).ids) == 64


@needs_minilm
def test_bad_input(model_and_tokenizer):
    with pytest.raises(TypeError, match="one string"):
        embed_sentences(*model_and_tokenizer, "a sentence")
    with pytest.raises(ValueError, match="none"):
        embed_sentences(*model_and_tokenizer, [])


def test_a_missing_package_is_named_with_its_remedy(monkeypatch):
    monkeypatch.setattr("course_lib.data.packages.find_spec", lambda name: None)
    assert not has_minilm()
    with pytest.raises(FileNotFoundError, match="course data"):
        minilm()
