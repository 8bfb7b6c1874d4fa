"""Texts by guess and check: greedy ones against `generate`, samples by chi-square, roll-back."""

import itertools
from collections import Counter

import pytest
import torch
from scipy.stats import chi2

from course_lib.acceleration.acceptance import probabilities
from course_lib.acceleration.drafts import LookUp, ModelDraft
from course_lib.acceleration.speculative import (
    Guess,
    Speculated,
    roll_back,
    speculative_generate,
)
from course_lib.models.layers import view_without_layers
from course_lib.models.llama import Llama, LlamaConfig, generate, initialize
from course_lib.models.pretrained import tiny
from course_lib.pruning.depth import layers_off

CONFIG = LlamaConfig(
    vocabulary=13, width=16, layers=3, heads=4, kv_heads=2, mlp_width=24, context=48
)


def small(seed=0, **changes) -> Llama:
    """In float64: a pass over five tokens and one over one agree to 1e-15, no logits tie."""
    torch.manual_seed(seed)
    model = Llama(LlamaConfig(**{**vars(CONFIG), **changes})).double().requires_grad_(False)
    initialize(model)
    model.embedding.weight.mul_(40)
    return model


class Wrong:
    """A draft that guesses at random, and not always the same number of tokens."""

    def propose(self, tokens, gamma, temperature, generator):
        made = int(torch.randint(gamma + 1, (), generator=generator))
        return Guess(torch.randint(13, (made,), generator=generator))


class TooMany:
    def propose(self, tokens, gamma, temperature, generator):
        return Guess(torch.ones(gamma + 1, dtype=torch.int64))


def drafts(model):
    torch.manual_seed(5)
    return {
        "itself": ModelDraft(model),
        "its first layer": ModelDraft(view_without_layers(model, layers_off([1, 2], 3))),
        "another": ModelDraft(small(7, layers=1)),
        "look-up": LookUp(),
        "wrong": Wrong(),
    }


@pytest.mark.parametrize("gamma", [1, 2, 5])
@pytest.mark.parametrize("name", ["itself", "its first layer", "another", "look-up", "wrong"])
def test_greedy_text_is_that_of_generate(name, gamma):
    model = small()
    for start in ([[3]], [[1, 2, 3, 1, 2]], [[0, 12, 7, 7, 7, 7]]):
        found = speculative_generate(model, drafts(model)[name], torch.tensor(start), 30, gamma)
        assert torch.equal(found.tokens, generate(model, torch.tensor(start), 30))
        assert found.accepted + found.rounds == 30
        assert found.accepted + found.rejected <= found.drafted <= gamma * found.rounds
        assert found.rejected <= found.rounds


def test_a_draft_that_is_the_model_is_never_wrong():
    model = small()
    found = speculative_generate(model, ModelDraft(model), torch.tensor([[3, 4]]), 30, gamma=4)
    assert (found.rounds, found.drafted, found.accepted, found.rejected) == (6, 24, 24, 0)
    assert found.acceptance == 1.0 and found.tokens_per_round == 5.0


def test_greedy_text_of_tinylm_by_its_first_two_layers():
    model, tokenizer = tiny()
    tokens = torch.tensor([tokenizer.encode("And it came to pass").ids])
    draft = ModelDraft(view_without_layers(model, layers_off([2, 3], 4)))
    for found in (
        speculative_generate(model, draft, tokens, 60, gamma=3),
        speculative_generate(model, LookUp(), tokens, 60, gamma=3),
    ):
        assert torch.equal(found.tokens, generate(model, tokens, 60))


def test_one_draft_may_write_several_texts():
    model = small()
    draft = ModelDraft(small(7, layers=1))
    for start in ([[3, 3, 3]], [[3, 3]], [[5, 1, 2, 3, 4, 5]], [[3, 3, 3]]):
        found = speculative_generate(model, draft, torch.tensor(start), 12, gamma=3)
        assert torch.equal(found.tokens, generate(model, torch.tensor(start), 12))


def test_the_context_is_used_to_its_end_and_not_beyond():
    model, tokens = small(), torch.tensor([[1, 2, 3, 1, 2]])
    full = CONFIG.context + 1 - tokens.shape[1]  # the last token need not be read
    found = speculative_generate(model, ModelDraft(model), tokens, full, gamma=7)
    assert torch.equal(found.tokens, generate(model, tokens, full))
    with pytest.raises(ValueError, match="the context holds 48 tokens; got 49"):
        speculative_generate(model, LookUp(), tokens, full + 1, gamma=7)


@pytest.mark.parametrize("gamma, draft", [(1, "look-up"), (2, "its first layer"), (3, "another")])
def test_samples_are_distributed_as_the_models_own(gamma, draft):
    """All 27 texts of three tokens: exact probabilities against 1,500 draws of one seed."""
    model = small(2, vocabulary=3, layers=1, context=8)
    other = {
        "look-up": LookUp(),
        "its first layer": ModelDraft(view_without_layers(model, layers_off([], 1))),
        "another": ModelDraft(small(9, vocabulary=3, layers=1, context=8)),
    }[draft]
    start, temperature, draws = torch.tensor([[0, 1, 0]]), 8.0, 1500
    generator = torch.Generator().manual_seed(gamma)
    seen = Counter(
        tuple(
            speculative_generate(model, other, start, 3, gamma, temperature, generator)
            .tokens[0, 3:]
            .tolist()
        )
        for _ in range(draws)
    )
    statistic = 0.0
    for text in itertools.product(range(3), repeat=3):
        whole = torch.cat([start, torch.tensor([text])], dim=1)
        p = probabilities(model(whole)[0, 2:5], temperature)[range(3), list(text)].prod().item()
        assert draws * p > 5
        statistic += (seen[text] - draws * p) ** 2 / (draws * p)
    assert chi2.sf(statistic, df=26) > 0.001


def test_alpha_is_estimated_over_the_guesses_that_were_tested():
    found = Speculated(torch.zeros(1, 9), rounds=4, drafted=12, accepted=5, rejected=3)
    assert found.acceptance == 5 / 8 and found.tokens_per_round == 9 / 4
    none = Speculated(torch.zeros(1, 1), rounds=0, drafted=0, accepted=0, rejected=0)
    assert none.acceptance == 0.0


def test_roll_back_gives_the_cache_of_the_shorter_text():
    model, tokens = small(), torch.tensor([[1, 2, 3, 4, 5, 6]])
    long, short = model.empty_cache(), model.empty_cache()
    model(tokens, long)
    model(tokens[:, :4], short)
    roll_back(long, 4)
    for mine, theirs in zip(long, short, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-12)
    torch.testing.assert_close(model(tokens[:, 4:], long), model(tokens)[:, 4:])
    roll_back(long, 0)
    torch.testing.assert_close(model(tokens, long), model(tokens))
    with pytest.raises(ValueError, match="from 0 to the 6 tokens of the cache; got 7"):
        roll_back(long, 7)
    empty = model.empty_cache()
    roll_back(empty, 0)
    assert empty == [{}, {}, {}]


@pytest.mark.parametrize(
    "change, message",
    [
        ({"tokens": torch.tensor([1, 2])}, r"tokens must be \(1, T\) with T ≥ 1; got \(2,\)"),
        ({"tokens": torch.ones(2, 3).long()}, r"got \(2, 3\)"),
        ({"tokens": torch.ones(1, 0).long()}, r"got \(1, 0\)"),
        ({"count": -1}, "count must be at least 0 and gamma at least 1; got -1, 2"),
        ({"gamma": 0}, "got 3, 0"),
        ({"temperature": -0.5}, "temperature must be finite and at least 0; got -0.5"),
        ({"temperature": float("nan")}, "got nan"),
    ],
)
def test_bad_input_is_refused(change, message):
    given = {"tokens": torch.tensor([[1, 2]]), "count": 3, "gamma": 2, **change}
    with pytest.raises(ValueError, match=message):
        speculative_generate(small(), LookUp(), **given)


def test_nothing_is_silent():
    model, tokens = small(), torch.tensor([[1, 2]])
    assert torch.equal(speculative_generate(model, LookUp(), tokens, 0, 2).tokens, tokens)
    model.norm.weight[0] = torch.nan
    with pytest.raises(ValueError, match="the model's logits must be finite"):
        speculative_generate(model, LookUp(), tokens, 3, 2)
    with pytest.raises(ValueError, match="draft must guess at most 2 tokens; got 3"):
        speculative_generate(small(), TooMany(), tokens, 3, 2)
