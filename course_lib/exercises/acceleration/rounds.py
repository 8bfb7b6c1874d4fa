"""Exercise of 10_acceleration: a round of speculation, after which the cache must be right.

Axes: T tokens of a pass, S tokens in the cache, G key-value heads, E head width, V vocabulary,
γ drafts, A of them accepted.
"""

import torch
from torch import Tensor

from course_lib.exercises.engine.seeded import Draw
from course_lib.exercises.engine.spec import Case, Exercise, Misconception, Property, labelled_cases
from course_lib.models.llama import Llama
from course_lib.models.llama_config import LlamaConfig


def verify_drafts(
    model: Llama, cache: list[dict], unread: Tensor, drafted: Tensor
) -> tuple[Tensor, list[dict]]:
    """A round of greedy speculation: (the tokens that are certain now, the cache after it).

    The model has read S tokens, and `cache` holds them: for each layer {"key", "value"}, each
    (1, G, S, E); an empty dictionary where S is 0. unread (1, 1) is the token after them, certain,
    not yet read. drafted (1, γ) are guesses of what follows it; γ may be 0. The model reads all of
    them in one call.

    Drafts are accepted up to the first that is not the model's most likely token there. Then comes
    the model's own: A accepted drafts and it are (1, A + 1). The new cache holds S + 1 + A tokens:
    those before, unread, the accepted drafts. `cache` itself stays as it is.
    """
    cache = [dict(layer) for layer in cache]
    logits = model(torch.cat([unread, drafted], dim=1), cache)  # (1, γ + 1, V)
    best = logits.argmax(dim=-1)  # (1, γ + 1)
    accepted = int((drafted == best[:, :-1]).cumprod(dim=1).sum())
    for layer in cache:
        keep = layer["key"].shape[2] - drafted.shape[1] + accepted
        layer["key"], layer["value"] = layer["key"][:, :, :keep], layer["value"][:, :, :keep]
    return best[:, : accepted + 1], cache


def _model(draw: Draw, layers=2, heads=4, kv_heads=2, vocabulary=23) -> Llama:
    """A small one; its own head, for a tied one would say each token again."""
    config = LlamaConfig(vocabulary, 16, layers, heads, kv_heads, 12, context=40, tied=False)
    return draw.module(lambda: Llama(config)).requires_grad_(False)


def _round(draw: Draw, model: Llama, read: int, pattern: str) -> tuple:
    """After `read` tokens: drafts of which each is the model's own choice (+) or another (-)."""
    vocabulary, cache = model.config.vocabulary, model.empty_cache()
    text = draw.integers(0, vocabulary, 1, read + 1)
    if read:
        model(text[:, :read], cache)
    unread, drafted = text[:, read:], text[:, :0]
    for mark in pattern:
        best = model(torch.cat([text, drafted], dim=1))[:, -1].argmax(-1, keepdim=True)  # (1, 1)
        other = (best + draw.number(1, vocabulary)) % vocabulary
        drafted = torch.cat([drafted, best if mark == "+" else other], dim=1)
    return model, cache, unread, drafted


def _rounds(seed: int) -> list[Case]:
    draw = Draw(seed)
    model, deep, narrow = _model(draw), _model(draw, 3, 2, 1), _model(draw, 1, 4, 4)
    wide, few = _model(draw, 2, 8, 4), _model(draw, vocabulary=3)
    labelled = {
        "all drafts accepted": _round(draw, model, 6, "+++"),
        "the first refused": _round(draw, model, 5, "---"),
        "one accepted": _round(draw, model, 7, "+--"),
        "refused, and then two as the model would go on": _round(draw, model, 6, "+-++"),
        "the first refused, the rest as it would go on": _round(draw, model, 4, "-+++"),
        "only the last refused": _round(draw, model, 8, "+++-"),
        "one draft, accepted": _round(draw, model, 5, "+"),
        "one draft, refused": _round(draw, model, 5, "-"),
        "no draft": _round(draw, model, 5, ""),
        "nothing read yet": _round(draw, wide, 0, "+-+"),
        "nothing read yet, all refused": _round(draw, wide, 0, "--"),
        "one token read": _round(draw, narrow, 1, "--+"),
        "three layers, one key-value head": _round(draw, deep, 9, "++-+"),
        "three tokens to choose from": _round(draw, few, 6, "+++++++++"),
        "many drafts, the context is full": _round(draw, deep, 20, "+++++-+++++++++++++"),
    }
    return labelled_cases(("model", "cache", "unread", "drafted"), labelled)


def _read(inputs) -> int:
    return inputs["cache"][0]["key"].shape[2] if inputs["cache"][0] else 0


def _cache_holds(inputs, value) -> bool:
    tokens, cache = value
    wanted = _read(inputs) + tokens.shape[1]  # unread is in it, the last certain one is not
    return all(layer[part].shape[2] == wanted for layer in cache for part in ("key", "value"))


def _round_by(count, cut, tokens=lambda best, drafted, accepted: best[:, : accepted + 1]):
    """The exercise with another count of what is accepted, another cut, or other tokens."""

    def wrong(model, cache, unread, drafted):
        cache = [dict(layer) for layer in cache]
        best = model(torch.cat([unread, drafted], dim=1), cache).argmax(dim=-1)
        accepted = count(drafted == best[:, :-1])
        keep = cache[0]["key"].shape[2] - drafted.shape[1] + accepted
        cache = [{name: cut(part, keep) for name, part in layer.items()} for layer in cache]
        return tokens(best, drafted, accepted), cache

    return wrong


def _first_run(agree: Tensor) -> int:
    return int(agree.long().cumprod(dim=1).sum())


def _all_agreements(agree: Tensor) -> int:
    return int(agree.sum())


def _tokens_cut(part: Tensor, keep: int) -> Tensor:
    return part[:, :, :keep]


def _heads_cut(part: Tensor, keep: int) -> Tensor:
    return part[:, :keep]


VERIFY_DRAFTS = Exercise(
    reference=verify_drafts,
    cases=_rounds,
    relative_tolerance=1e-4,
    absolute_tolerance=1e-5,
    hints=(
        "There are two faults. Print, after a round with a refused draft, how many tokens are "
        "certain in all and how many the cache holds: the cache should lack just the last one.",
        'What are the axes of cache[0]["key"], and which of them does [:, :keep] cut? And if the '
        "drafts agree with the model in places 1, 3 and 4: how many are accepted?",
        "Tokens are axis 2: [:, :, :keep]. Of agreements only the first run counts: the cumulative "
        "product of (drafted == best[:, :-1]).long() is 1 up to the first 0.",
    ),
    properties=(
        Property("the cache holds all certain tokens but the last", _cache_holds),
        Property(
            "the tokens before the last are the first drafts",
            lambda inputs, value: value[0][:, :-1].equal(
                inputs["drafted"][:, : value[0].shape[1] - 1]
            ),
        ),
    ),
    misconceptions=(
        Misconception(
            "the colleague's version",
            _round_by(_all_agreements, _heads_cut),
            "that is the colleague's version still. It raises no error, but the cache is as long "
            "as before the cut, and drafts count that follow a refused one.",
        ),
        Misconception(
            "all agreements count",
            _round_by(_all_agreements, _tokens_cut),
            "the cut is right now. But a draft after a refused one was guessed, and judged, after "
            "a token that never comes: only the first run of agreements counts.",
        ),
        Misconception(
            "the heads cut",
            _round_by(_first_run, _heads_cut),
            "the count is right now. But [:, :keep] cuts the axis of heads, and where there are no "
            "more than `keep` of them it cuts nothing: the refused drafts are still in the cache.",
        ),
        Misconception(
            "one too few kept",
            _round_by(_first_run, lambda part, keep: part[:, :, : keep - 1]),
            "the last accepted draft is no longer in the cache, or `unread`, if none was accepted. "
            "The model has read it, and nobody will read it again.",
        ),
        Misconception(
            "one too many kept",
            _round_by(_first_run, lambda part, keep: part[:, :, : keep + 1]),
            "the cache holds the first refused draft as well. The model's own token stands in its "
            "place, and that one is not read yet.",
        ),
        Misconception(
            "the model's own token forgotten",
            _round_by(
                _first_run, _tokens_cut, lambda best, drafted, accepted: drafted[:, :accepted]
            ),
            "only the accepted drafts were returned. The model's own token after them is certain, "
            "too: without it a round that refuses all drafts gives nothing, for ever.",
        ),
    ),
)
