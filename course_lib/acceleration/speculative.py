"""Speculative decoding: a cheap draft guesses γ tokens, the model checks them all in one pass.

To read one token or five, a model moves its weights once. So checking costs little more than one
step, and each guess that holds is a step saved. Which guesses hold, `acceptance` decides, such that
the text is the one that the model alone would write. What the model read of guesses that did not
hold, its cache must forget.

Sources: Leviathan et al., 2023, "Fast Inference from Transformers via Speculative Decoding"; Chen
et al., 2023, "Accelerating Large Language Model Decoding with Speculative Sampling".

Axes: B texts (one), T tokens of a text, γ guesses of a round, V vocabulary, S tokens in the cache,
G key-value heads, E head width.
"""

from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from course_lib.acceleration.acceptance import (
    accept_or_resample,
    check_temperature,
    keep_matching,
    probabilities,
)
from course_lib.models.finite import check_finite
from course_lib.models.llama import Llama


@dataclass(frozen=True)
class Guess:
    """What a draft proposes; it may propose nothing."""

    tokens: Tensor  # (γ,) int64
    probabilities: Tensor | None = None  # q: (γ, V). None: 1 for each token itself


class Draft(Protocol):
    """Whatever can guess how a text goes on: a model (`drafts.ModelDraft`), a `drafts.LookUp`."""

    def propose(
        self, tokens: Tensor, gamma: int, temperature: float, generator: torch.Generator | None
    ) -> Guess:
        """At most γ tokens to follow tokens (1, T)."""


@dataclass(frozen=True)
class Speculated:
    """A text that was written by guessing and checking, and what that took."""

    tokens: Tensor  # (1, T + count)
    rounds: int  # passes through the model
    drafted: int  # guesses made
    accepted: int  # guesses that stayed
    rejected: int  # rounds that ended with a guess which did not stay

    @property
    def acceptance(self) -> float:
        """α: of the guesses that were tested, the share that stayed; 0 if none was."""
        return self.accepted / max(self.accepted + self.rejected, 1)

    @property
    def tokens_per_round(self) -> float:
        """Tokens written for each pass through the model; without guessing it is 1."""
        return (self.accepted + self.rounds) / max(self.rounds, 1)


def roll_back(cache: list[dict], keep: int) -> None:
    """Forget, in place, all but the first `keep` tokens of a cache from `Llama.empty_cache`.

    Keys and values are (B, G, S, E) in each layer: S becomes keep. An empty cache stays empty.

    >>> cache = [{"key": torch.zeros(1, 2, 9, 4), "value": torch.zeros(1, 2, 9, 4)}]
    >>> roll_back(cache, keep=6)
    >>> cache[0]["key"].shape
    torch.Size([1, 2, 6, 4])
    """
    seen = min((layer["key"].shape[2] for layer in cache if layer), default=keep)
    if not 0 <= keep <= seen:
        raise ValueError(f"keep must be from 0 to the {seen} tokens of the cache; got {keep}")
    for layer in cache:
        for name in list(layer):
            layer[name] = layer[name][:, :, :keep]


@torch.no_grad()
def speculative_generate(
    model: Llama,
    draft: Draft,
    tokens: Tensor,
    count: int,
    gamma: int,
    temperature: float = 0.0,
    generator: torch.Generator | None = None,
) -> Speculated:
    """Append `count` tokens to tokens (1, T), γ guesses of the draft checked in each pass.

    At temperature 0 they are those of `llama.generate`, token for token, as far as a pass over
    several tokens rounds like one over a single token: of two logits that almost tie it may choose
    the other one. Above 0 they are distributed as the model's own samples.

    Args:
        draft: guesses; it changes how long this takes and nothing else.
        count: at least 0.
        gamma: γ, at least 1.
        temperature: of the model and of the draft.
        generator: for draws above 0, on the model's device.

    Raises:
        ValueError: an argument is out of range; the draft guesses too many tokens; the text
            outgrows the context; a logit is not finite.

    >>> from course_lib.acceleration.drafts import LookUp
    >>> from course_lib.models.pretrained import tiny
    >>> found = speculative_generate(tiny()[0], LookUp(), torch.tensor([[5, 6, 5]]), 8, gamma=3)
    >>> found.tokens.shape, found.accepted + found.rounds
    (torch.Size([1, 11]), 8)
    """
    check_text(tokens, count, gamma)
    check_temperature(temperature)
    goal, cache = tokens.shape[1] + count, model.empty_cache()
    read = rounds = drafted = accepted = rejected = 0
    while tokens.shape[1] < goal:
        room = min(gamma, goal - tokens.shape[1] - 1)  # the model adds a token of its own
        guess = draft.propose(tokens, room, temperature, generator)
        if len(guess.tokens) > room:
            raise ValueError(f"draft must guess at most {room} tokens; got {len(guess.tokens)}")
        unread = torch.cat([tokens[:, read:], guess.tokens[None]], dim=1)
        logits = model(unread, cache)[0, -len(guess.tokens) - 1 :]  # (γ + 1, V)
        check_finite(logits, "the model's logits")
        new = _new_tokens(guess, logits, temperature, generator)
        tokens = torch.cat([tokens, new[None]], dim=1)
        read = tokens.shape[1] - 1  # the newest token is the model's, and it has not read it
        roll_back(cache, read)
        rounds += 1
        drafted += len(guess.tokens)
        accepted += len(new) - 1
        rejected += len(new) - 1 < len(guess.tokens)
    return Speculated(tokens, rounds, drafted, accepted, rejected)


def check_text(tokens: Tensor, count: int, gamma: int) -> None:
    """Raise unless this is one text, and there is something to do."""
    if tokens.dim() != 2 or len(tokens) != 1 or not tokens.numel():
        raise ValueError(f"tokens must be (1, T) with T ≥ 1; got {tuple(tokens.shape)}")
    if count < 0 or gamma < 1:
        raise ValueError(f"count must be at least 0 and gamma at least 1; got {count}, {gamma}")


def _new_tokens(
    guess: Guess, logits: Tensor, temperature: float, generator: torch.Generator | None
) -> Tensor:
    """What a round adds: `keep_matching`, or `accept_or_resample` with fresh uniforms."""
    if temperature == 0:
        return keep_matching(guess.tokens, logits.argmax(dim=-1))
    target, draft = probabilities(logits, temperature), guess.probabilities
    if draft is None:
        draft = F.one_hot(guess.tokens, target.shape[-1])  # (γ,) -> (γ, V)
    uniforms = torch.rand(
        len(target), generator=generator, dtype=target.dtype, device=target.device
    )
    return accept_or_resample(draft.to(target.dtype), target, guess.tokens, uniforms)
