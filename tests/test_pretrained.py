import re

import pytest
import torch

from course_lib.data.text import bible_chapters, split, wikipedia_articles
from course_lib.measure.quality import quality
from course_lib.models import pretrained
from course_lib.models.llama import generate

# Measured when the course was made: 24.04 on the first 16,384 tokens of the Wikipedia text
# (context 512), and this on the first 2,048 of them, which takes an eighth of the time.
SMOLLM2_PERPLEXITY_2048 = 23.600


def wikipedia() -> str:
    return "\n\n".join(wikipedia_articles().values())


def test_tinylm_predicts_held_out_text_as_its_card_says(tiny):
    model, tokenizer = tiny
    _, held_out = split(bible_chapters("kjv"))
    card = (pretrained.CHECKPOINTS / "MODEL_CARD.md").read_text("utf-8")
    stated = float(re.search(r"(\d\.\d+) bits per byte", card).group(1))
    assert quality(model, tokenizer, held_out).bits_per_byte == pytest.approx(stated, abs=0.002)


def test_tinylm_is_small(tiny):
    files = [pretrained.CHECKPOINTS / name for name in ("tiny.safetensors", "tiny_tokenizer.json")]
    assert files[0].stat().st_size <= 4.2e6 and files[1].stat().st_size < 2e5


def test_tokenizers_give_every_text_back(tiny, smollm2):
    text = "Zoë paid 1,234 € — 语言模型\n\n\tthe end"
    for _, tokenizer in (tiny, smollm2):
        assert tokenizer.decode(tokenizer.encode(text).ids) == text


def test_smollm2_writes_english(smollm2):
    model, tokenizer = smollm2
    tokens = torch.tensor([tokenizer.encode("The capital of France is").ids])
    written = tokenizer.decode(generate(model, tokens, 12)[0].tolist())
    assert "Paris" in written


def first_wikipedia_tokens(tokenizer, count: int) -> str:
    text = wikipedia()[: 8 * count]
    return text[: tokenizer.encode(text).offsets[count][1]]


def test_smollm2_predicts_wikipedia(smollm2):
    model, tokenizer = smollm2
    text = first_wikipedia_tokens(tokenizer, 2048)
    found = quality(model, tokenizer, text, length=512).perplexity
    assert found == pytest.approx(SMOLLM2_PERPLEXITY_2048, rel=0.01)


def test_permuted_queries_and_keys_would_be_noticed(smollm2, monkeypatch):
    _, tokenizer = smollm2
    monkeypatch.setattr(pretrained, "unpermute", lambda weight, heads: weight)
    permuted, _ = pretrained.smollm2()
    text = first_wikipedia_tokens(tokenizer, 512)
    assert quality(permuted, tokenizer, text).perplexity > 3 * SMOLLM2_PERPLEXITY_2048


def test_a_missing_package_is_named_with_its_remedy(monkeypatch):
    monkeypatch.setattr("course_lib.data.packages.find_spec", lambda name: None)
    assert not pretrained.has_smollm2()
    with pytest.raises(FileNotFoundError, match="course data"):
        pretrained.smollm2()
