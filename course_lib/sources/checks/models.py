"""Claims about language models: how many parameters, what attention sees, what n-grams miss."""

import itertools
import math
from collections import Counter, defaultdict
from fractions import Fraction

import torch
from torch import Tensor

from course_lib.sources.checks.registry import checks


@checks("C01")
def count_bert_and_gpt3() -> str:
    """Parameters of BERT-base and GPT-3, added up from their published widths."""
    width, hidden = 768, 3072
    embeddings = (30_522 + 512 + 2) * width + 2 * width
    attention = 4 * (width * width + width)
    mlp = width * hidden + hidden + hidden * width + width
    bert = embeddings + 12 * (attention + mlp + 4 * width) + width * width + width
    gpt3 = 12 * 96 * 12_288**2 + (50_257 + 2_048) * 12_288
    assert bert == 109_482_240 and 174e9 < gpt3 < 175e9
    return f"BERT-base has {bert:,} parameters, GPT-3 about {gpt3 / 1e9:.0f} billion"


@checks("C18")
def compare_sizes_with_a_trillion() -> str:
    """The published sizes of the three models that are named."""
    billions = {"GPT-3": 175, "Jurassic-1 Jumbo": 178, "Megatron-Turing NLG": 530}
    assert max(billions.values()) < 1000
    listed = ", ".join(f"{name} {size}" for name, size in billions.items())
    return f"{listed} billion: none reaches 1000"


@checks("C35")
def weigh_on_a_phone() -> str:
    """Bytes of two models at 16 and at 4 bits."""
    large_half, large, small = (n * bits / 8 for n, bits in ((175, 16), (175, 4), (7, 4)))
    assert large > 16 > small
    return (
        f"175 billion parameters take {large_half:.0f} GB at 16 bits and {large:.1f} GB at 4; "
        f"7 billion take {small:.1f} GB"
    )


@checks("C36")
def ask_n_grams_across_a_gap() -> str:
    """How sure a 3-gram and a 10-gram are of an ending that the first letter decides."""
    texts = ["a" + "x" * 5 + "A", "b" + "x" * 5 + "B"]
    sure = {}
    for n in (3, 10):
        after: dict[str, Counter] = defaultdict(Counter)
        for text in texts:
            for i, letter in enumerate(text):
                after[text[max(0, i - n + 1) : i]][letter] += 1
        endings = [after[text[max(0, 6 - n + 1) : 6]] for text in texts]
        sure[n] = endings[0]["A"] / sum(endings[0][letter] for letter in "AB")
    assert sure == {3: 0.5, 10: 1.0}
    return f"five letters after the cue a 3-gram is {sure[3]:.0%} sure, a 10-gram {sure[10]:.0%}"


def _attention(x: Tensor, causal: bool) -> tuple[Tensor, Tensor]:
    """Outputs and weights of one head whose queries, keys and values are x itself."""
    scores = x @ x.T / math.sqrt(x.shape[1])
    if causal:
        later = torch.ones(len(x), len(x)).triu(1).bool()
        scores = scores.masked_fill(later, -math.inf)
    weights = scores.softmax(dim=-1)
    return weights @ x, weights


def _tokens() -> Tensor:
    return torch.randn(6, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


@checks("C37")
def attend_at_once_and_step_by_step() -> str:
    """Six positions in one pass, and one after another."""
    x = _tokens()
    at_once = _attention(x, causal=True)[0]
    steps = torch.stack([_attention(x[: i + 1], causal=True)[0][-1] for i in range(6)])
    assert torch.allclose(at_once, steps)
    return "one pass over 6 known tokens equals 6 steps; a token that is not yet written must wait"


@checks("C39")
def look_ahead() -> str:
    """How much weight position 1 gives to later positions, with and without the causal mask."""
    x = _tokens()
    masked, free = (_attention(x, causal)[1][0, 1:].sum().item() for causal in (True, False))
    assert masked == 0 < free
    return (
        f"weight of position 1 on later ones: {free:.2f} in an encoder, {masked:.0f} in a decoder"
    )


@checks("C40")
def fit_every_labelling_with_one_parameter() -> str:
    """The sign of sin(πax) at x = 1/10, 1/100, …: one a for each labelling of six points."""
    points = [Fraction(1, 10**i) for i in range(1, 7)]
    fitted = 0
    for labels in itertools.product((0, 1), repeat=6):
        a = 1 + sum((1 - label) * 10**i for i, label in enumerate(labels, 1))
        positive = [0 < a * x % 2 < 1 for x in points]
        fitted += positive == [bool(label) for label in labels]
    assert fitted == 64
    return f"sign(sin(πax)), with its one parameter a, fits {fitted} of 64 labellings of 6 points"
