"""Early exit: a token leaves as soon as the head is sure of what follows.

After a layer the last norm and the head, which were trained for the last layer alone, read x:

    p = softmax(head(norm(x)))       the token leaves if max p > threshold

and p is its answer. The rule knows nothing of later layers. To ask the head is not free: it is
V · D products, one layer of TinyLM and eight of SmolLM2. So a model asks after few layers, or its
head is small, or it is sure early: count before you claim.

Sources: Teerapittayanon et al., 2016, "BranchyNet: Fast Inference via Early Exiting from
Deep Neural Networks"; Schuster et al., 2022, "Confident Adaptive Language Modeling".

Axes: B windows, T tokens, D model width, V vocabulary, L layers, G key-value heads, E head width.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from course_lib.models.finite import check_floats
from course_lib.models.kv_cache import AnyCache, next_place, remember
from course_lib.models.llama import Attention, Llama, rotate
from course_lib.models.parts import embed, read_logits
from course_lib.pruning.by_token import ByToken, run_by_token, token_products


def top_probability(logits: Tensor) -> Tensor:
    """max softmax(logits), in float32 or wider: (…, V) -> (…).

    >>> top_probability(torch.tensor([[0.0, 0.0], [100.0, 0.0]])).tolist()
    [0.5, 1.0]
    """
    return logits.to(torch.promote_types(logits.dtype, torch.float32)).softmax(dim=-1).amax(dim=-1)


def exit_layers(confidence: Tensor, threshold: float) -> Tensor:
    """After how many layers each token leaves: the first whose confidence exceeds the threshold.

    Args:
        confidence: after each of L layers, (L, …). What stands behind the first one that is enough
            is not looked at, nor is the last: who gets there leaves.
        threshold: from 0 to 1.

    Returns:
        From 1 to L, (…), int64.

    Raises:
        ValueError: there is no layer, or the threshold is out of range.

    >>> exit_layers(torch.tensor([[0.9, 0.3, 0.5], [0.1, 0.6, 0.5], [0.0, 0.0, 0.0]]), 0.5)
    tensor([1, 2, 3])
    """
    check_floats(confidence, "confidence")
    _check_threshold(threshold)
    enough = confidence > threshold  # (L, …)
    enough[-1] = True
    return enough.int().argmax(dim=0) + 1  # of equal ones the first


@torch.no_grad()
def confidences(model: Llama, tokens: Tensor) -> Tensor:
    """The head's top probability after each layer, when no token leaves: (L, B, T).

    >>> from course_lib.models.pretrained import tiny
    >>> confidences(tiny()[0], torch.arange(9)[None]).shape
    torch.Size([4, 1, 9])
    """
    x, cos, sin = embed(model, tokens)
    found = []
    for block in model.blocks:
        x = block(x, cos, sin)
        found.append(top_probability(read_logits(model, x)))
    return torch.stack(found)


@dataclass(frozen=True)
class Exits(ByToken):
    """What a decoder gave whose tokens left early, and how often each asked the head."""

    heads: Tensor  # (B, T) int64

    def products(self, model: Llama) -> Tensor:
        """Products of two numbers for each token, the heads asked included: (B, T)."""
        return token_products(model, self.used, self.heads)


@torch.no_grad()
def early_exit(
    model: Llama, tokens: Tensor, threshold: float, asked: Collection[int] | None = None
) -> Exits:
    """The decoder's logits where each token leaves as soon as the head is sure.

    A token that has left gives the later layers keys and values of the x with which it left.

    Args:
        tokens: (B, T).
        threshold: from 0 to 1; at 1 no token leaves.
        asked: after how many layers the head is asked; by default 1, 2 … L − 1. After the last it
            is asked in any case, of the tokens that are still there.

    Raises:
        ValueError: the threshold is out of range; `asked` holds what is not from 1 to L − 1.

    >>> from course_lib.models.pretrained import tiny
    >>> exits = early_exit(tiny()[0], torch.arange(9)[None], threshold=0.0, asked=[3])
    >>> exits.layers.tolist(), exits.heads.tolist()
    ([[3, 3, 3, 3, 3, 3, 3, 3, 3]], [[1, 1, 1, 1, 1, 1, 1, 1, 1]])
    """
    asked = _check_asked(model, threshold, asked)
    inside = torch.ones_like(tokens, dtype=torch.bool)
    heads = torch.zeros_like(tokens)

    def rule(number: int, x: Tensor) -> Tensor:
        """Whoever is inside is asked, and goes in if the head is not sure."""
        nonlocal inside
        if number in asked:
            heads.add_(inside)
            sure = top_probability(read_logits(model, x[inside])) > threshold
            inside = inside.masked_scatter(inside, ~sure)
        return inside

    run = run_by_token(model, tokens, rule)
    return Exits(run.logits, run.used, heads + inside)


class EarlyExit(nn.Module):
    """A decoder whose tokens leave early, to be measured like any other: tokens to logits."""

    def __init__(self, model: Llama, threshold: float, asked: Collection[int] | None = None):
        super().__init__()
        self.model, self.config = model, model.config
        self.threshold, self.asked = threshold, asked

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, T) -> (B, T, V)."""
        return early_exit(self.model, tokens, self.threshold, self.asked).logits


@torch.no_grad()
def exit_step(
    model: Llama,
    token: Tensor,
    cache: Sequence[AnyCache],
    threshold: float,
    asked: Collection[int] | None = None,
) -> tuple[Tensor, int]:
    """One token, for real: what comes after it left is not computed. The cache grows in place.

    Token after token this gives what `early_exit` gives for all at once.

    Args:
        token: (1, 1), the one that follows those in the cache.
        cache: from `model.empty_cache`.
        threshold, asked, Raises: as for `early_exit`.

    Returns:
        Logits (1, 1, V), and how many layers it used.

    >>> from course_lib.models.pretrained import tiny
    >>> model, _ = tiny()
    >>> logits, layers = exit_step(model, torch.tensor([[5]]), model.empty_cache(), threshold=0.0)
    >>> logits.shape, layers
    (torch.Size([1, 1, 2048]), 1)
    """
    asked = _check_asked(model, threshold, asked)
    if token.shape != (1, 1):
        raise ValueError(f"token must have shape (1, 1): one leaves alone; got {token.shape}")
    x, cos, sin = embed(model, token, next_place(cache[0], count=1))
    for number, (block, layer_cache) in enumerate(zip(model.blocks, cache, strict=True)):
        if number in asked:
            logits = read_logits(model, x)
            if top_probability(logits).item() > threshold:
                break
        x = block(x, cos, sin, layer_cache)
    else:
        return read_logits(model, x), len(model.blocks)
    for block, layer_cache in zip(model.blocks[number:], cache[number:], strict=True):
        _remember(block.attention, block.attention_norm(x), cos, sin, layer_cache)
    return logits, number


@torch.no_grad()
def generate_early(
    model: Llama,
    tokens: Tensor,
    count: int,
    threshold: float,
    asked: Collection[int] | None = None,
) -> tuple[Tensor, list[int]]:
    """Append the `count` most likely next tokens to tokens (1, T), each after as few layers.

    Returns:
        The tokens, (1, T + count), and the layers used by all that were read, T + count − 1.

    >>> from course_lib.models.pretrained import tiny
    >>> tokens, layers = generate_early(tiny()[0], torch.tensor([[5, 6]]), 3, threshold=0.0)
    >>> tokens.shape, layers
    (torch.Size([1, 5]), [1, 1, 1, 1])
    """
    if tokens.dim() != 2 or len(tokens) != 1 or not tokens.numel() or count < 1:
        raise ValueError(
            "tokens must be (1, T) with T ≥ 1, and count at least 1; "
            f"got {tuple(tokens.shape)} and {count}"
        )
    cache, layers = model.empty_cache(), []
    for place in range(tokens.shape[1] + count - 1):
        logits, used = exit_step(model, tokens[:, place : place + 1], cache, threshold, asked)
        layers.append(used)
        if place + 1 == tokens.shape[1]:
            tokens = torch.cat([tokens, logits[:, -1].argmax(dim=-1, keepdim=True)], dim=1)
    return tokens, layers


def _remember(attention: Attention, x: Tensor, cos: Tensor, sin: Tensor, cache: AnyCache) -> None:
    """Key and value of a token that does not go in, added to the cache in place."""
    k = attention.key(x).unflatten(2, (attention.kv_heads, -1)).transpose(1, 2)  # -> (B, G, T, E)
    v = attention.value(x).unflatten(2, (attention.kv_heads, -1)).transpose(1, 2)
    remember(cache, rotate(k, cos, sin), v)


def _check_threshold(threshold: float) -> None:
    if not 0 <= threshold <= 1:
        raise ValueError(f"threshold must be from 0 to 1; got {threshold}")


def _check_asked(model: Llama, threshold: float, asked: Collection[int] | None) -> Collection[int]:
    _check_threshold(threshold)
    possible = range(1, len(model.blocks))
    asked = possible if asked is None else asked
    if not set(asked) <= set(possible):
        raise ValueError(f"asked must be from 1 to {len(possible)}; got {sorted(asked)}")
    return asked
